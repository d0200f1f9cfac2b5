//! Remotes of an existing `rclone.conf`: webdav, s3, local and alias become drives of ours.
//!
//! Source: rclone's documentation, "Configuration file" and the pages of the four types (v1.70). Options that would change
//! what is read or sent and that we do not have are refused by name; those that only tune rclone are passed over.

use super::draft::{Directory, Draft};
use super::file::read_text;
use super::keys::RemoteType;
use super::obscure;
use super::places::{Environment, Places};
use super::values::{Origin, Values};
use super::words;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How many aliases may point at each other.
const ALIASES_MAX: usize = 10;

/// The options of one remote, and where each stands.
type Section = BTreeMap<String, (String, Origin)>;

/// An `rclone.conf`, by section.
struct RcloneFile {
    path: Arc<PathBuf>,
    sections: BTreeMap<String, (Section, Origin)>,
}

/// The drive of the remote `name`; `below` is the path behind its second colon. `Config`: with file, line and option.
pub fn draft(name: &str, below: &str, places: &Places, environment: Environment) -> Result<Draft> {
    let file = RcloneFile::read(path_of(places, environment))?;
    let below = below.trim_end_matches('/');
    let shown = if below.is_empty() { format!("rclone:{name}") } else { format!("rclone:{name}:{below}") };
    let (mut target, mut path) = (name.to_owned(), below.to_owned());
    for _ in 0..ALIASES_MAX {
        let (section, origin) = file.section(&target)?;
        let kind = section.get("type").map_or("", |(kind, _)| kind.as_str());
        if kind == "alias" {
            let (aim, at) = need(section, "remote", origin)?;
            let (next, inside) = aim_of(aim);
            target = next.to_owned();
            path = join(inside, &path);
            if target.is_empty() {
                return local(shown, name, &path, at.clone());
            }
            continue;
        }
        return match kind {
            "local" => local(shown, name, &path, origin.clone()),
            "webdav" => {
                webdav(section, origin).map(|values| remote(shown, name, RemoteType::WebDav, values, origin, path))
            }
            "s3" => {
                let (bucket, inside) =
                    path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
                let values = s3(section, origin, bucket, &target)?;
                Ok(remote(shown, name, RemoteType::S3, values, origin, inside.to_owned()))
            }
            "" => Err(origin.refuse(format!("the remote \"{}\" has no type", words::escape(&target)))),
            other => Err(origin.refuse(format!(
                "the remote \"{}\" is of rclone's type \"{}\", which this version of fourwheel cannot mount; it can \
                 mount webdav, s3, local and alias",
                words::escape(&target),
                words::escape(other)
            ))),
        };
    }
    Err(Error::new(Kind::Config, format!("{}: aliases point at each other", words::escape(&shown))))
}

/// RCLONE_CONFIG, else `rclone/rclone.conf` in the configuration directory.
fn path_of(places: &Places, environment: Environment) -> PathBuf {
    if let Some(path) = environment("RCLONE_CONFIG") {
        return places.working.join(path);
    }
    let base = environment("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    base.unwrap_or_else(|| places.home.join(".config")).join("rclone/rclone.conf")
}

/// Takes the target of an alias apart: `NAME:PATH`, or a path of this machine (no name then).
fn aim_of(aim: &str) -> (&str, &str) {
    match aim.split_once(':') {
        Some((name, path)) if !name.contains('/') => (name, path),
        _ => ("", aim),
    }
}

fn join(above: &str, below: &str) -> String {
    match (above.trim_end_matches('/'), below.trim_start_matches('/')) {
        (above, "") if !above.is_empty() => above.to_owned(),
        ("", _) if above.is_empty() => below.to_owned(),
        (above, below) => format!("{above}/{below}"),
    }
}

fn remote(shown: String, name: &str, remote: RemoteType, values: Values, origin: &Origin, below: String) -> Draft {
    let below = below.trim_matches('/').to_owned();
    Draft { name: shown, directory: directory(name), remote, values, origin: origin.clone(), below }
}

fn directory(name: &str) -> Directory {
    // rclone allows blanks, `@` and `+` in names: kept apart by a hash where they had to go.
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
    if plain == name {
        Directory::Named(format!("@rclone-{name}"))
    } else {
        Directory::Named(format!("@rclone-{plain}-{:016x}", super::fnv1a(name.as_bytes())))
    }
}

fn local(shown: String, name: &str, path: &str, origin: Origin) -> Result<Draft> {
    if path.is_empty() {
        let name = words::escape(name);
        return Err(origin.refuse(format!("a local remote needs a path: rclone:{name}:/PATH")));
    }
    let mut values = Values::default();
    // Relative to the working directory, as rclone has it: not to the file.
    values.set_text("path", path, &Origin::Option("REMOTE"));
    // The path is the root itself, and what tells one such drive from another.
    let directory = Directory::Derived;
    Ok(Draft { name: shown, directory, remote: RemoteType::Folder, values, origin, below: String::new() })
}

fn webdav(section: &Section, origin: &Origin) -> Result<Values> {
    refuse_options(section, &["bearer_token_command", "headers", "unix_socket", "auth_redirect"])?;
    let mut values = Values::default();
    let (url, at) = need(section, "url", origin)?;
    values.set_text("url", url, at);
    if let Some((token, at)) = given(section, "bearer_token") {
        values.set_text("bearer", token, at);
    }
    if let Some((user, at)) = given(section, "user") {
        values.set_text("user", user, at);
        values.set_text("password", "", at);
    }
    if let Some((obscured, at)) = given(section, "pass") {
        let password = obscure::reveal(obscured).map_err(|why| at.refuse(format!("the value of \"pass\" {why}")))?;
        values.set_text("password", password.expose(), at);
    }
    Ok(values)
}

fn s3(section: &Section, origin: &Origin, bucket: &str, name: &str) -> Result<Values> {
    refuse_options(section, &["sse_customer_key", "sse_customer_key_base64", "role_arn", "shared_credentials_file"])?;
    if bucket.is_empty() {
        let name = words::escape(name);
        return Err(origin.refuse(format!("an s3 remote needs a bucket: rclone:{name}:BUCKET/PREFIX")));
    }
    let mut values = Values::default();
    values.set_text("bucket", bucket, origin);
    for (theirs, ours) in [
        ("region", "region"),
        ("access_key_id", "access_key_id"),
        ("secret_access_key", "secret_access_key"),
        ("session_token", "session_token"),
        ("profile", "profile"),
    ] {
        if let Some((text, at)) = given(section, theirs) {
            values.set_text(ours, text, at);
        }
    }
    if let Some((endpoint, at)) = given(section, "endpoint") {
        let scheme = if endpoint.contains("://") { "" } else { "https://" };
        values.set_text("endpoint", format!("{scheme}{endpoint}"), at);
    }
    if let Some((style, at)) = given(section, "force_path_style") {
        values.set_switch("path_style", style != "false", at);
    }
    let has_keys = values.get("access_key_id").is_some() || values.get("profile").is_some();
    if !has_keys && given(section, "env_auth").is_none_or(|(on, _)| on != "true") {
        return Err(
            origin.refuse("neither access_key_id nor env_auth = true: buckets without sign-in are not supported")
        );
    }
    Ok(values)
}

fn given<'a>(section: &'a Section, key: &str) -> Option<(&'a str, &'a Origin)> {
    section.get(key).filter(|(text, _)| !text.is_empty()).map(|(text, at)| (text.as_str(), at))
}

fn need<'a>(section: &'a Section, key: &str, origin: &Origin) -> Result<(&'a str, &'a Origin)> {
    given(section, key).ok_or_else(|| origin.refuse(format!("the option \"{key}\" is missing")))
}

fn refuse_options(section: &Section, names: &[&str]) -> Result<()> {
    for name in names {
        if let Some((_, at)) = given(section, name) {
            return Err(at.refuse(format!("rclone's option \"{name}\" is not supported by fourwheel")));
        }
    }
    Ok(())
}

impl RcloneFile {
    fn read(path: PathBuf) -> Result<RcloneFile> {
        let text = read_text(&path).map_err(|e| e.context("read rclone's remotes"))?;
        RcloneFile::parse(path, &text)
    }

    /// INI as rclone writes it: `[section]`, `key = value`, comments after `#` or `;` at the start of a line.
    fn parse(path: PathBuf, text: &str) -> Result<RcloneFile> {
        let path = Arc::new(path);
        let mut sections: BTreeMap<String, (Section, Origin)> = BTreeMap::new();
        let mut current: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let origin = Origin::Line(path.clone(), number + 1);
            let line = line.trim();
            if line.starts_with("RCLONE_ENCRYPT_V") {
                return Err(origin.refuse(
                    "the file is encrypted, and fourwheel cannot ask for its password; \
                     copy the remote into fourwheel's config file (\"rclone config show NAME\" prints it)",
                ));
            }
            if line.is_empty() || line.starts_with(['#', ';']) {
            } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                sections.entry(name.to_owned()).or_insert_with(|| (Section::new(), origin));
                current = Some(name.to_owned());
            } else if let Some((key, value)) = line.split_once('=') {
                let section = current.as_ref().and_then(|name| sections.get_mut(name));
                let Some((section, _)) = section else {
                    return Err(origin.refuse("an option before the first [NAME]"));
                };
                section.insert(key.trim().to_owned(), (value.trim().to_owned(), origin));
            } else {
                return Err(origin.refuse("neither [NAME] nor OPTION = VALUE"));
            }
        }
        Ok(RcloneFile { path, sections })
    }

    fn section(&self, name: &str) -> Result<&(Section, Origin)> {
        self.sections.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.sections.keys().map(String::as_str).collect();
            let (name, hint, file) = (words::escape(name), words::hint(name, &known), words::path(&self.path));
            Error::new(Kind::Config, format!("no remote \"{name}\" in {file}{hint}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Drive, Password, RemoteSpec, S3Credentials, Secret, SignIn};

    const CONF: &str = "# comment\n[dav]\ntype = webdav\nurl = http://h:81/dav\nvendor = nextcloud\nuser = u\n\
        pass = YWFhYWFhYWFhYWFhYWFhYXMaGgIlEQ\n\n[b]\ntype = s3\nprovider = Minio\naccess_key_id = AK\n\
        secret_access_key = SK=\nendpoint = 127.0.0.1:9000\nforce_path_style = true\n[anon]\ntype = s3\n[disk]\ntype = local\n\
        [docs]\ntype = alias\nremote = dav:docs\n[here]\ntype = alias\nremote = /srv/x\n[loop]\ntype = alias\nremote = loop:a\n\
        [g]\ntype = drive\n[bad]\ntype = webdav\nurl = http://h/\nuser = u\npass = plain\n[my box]\ntype = webdav\nurl = https://h/\n";

    fn drive(name: &str, below: &str) -> Result<Drive> {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("rclone.conf");
        #[allow(clippy::disallowed_methods, reason = "a fixture")]
        std::fs::write(&conf, CONF).unwrap();
        let places = Places::new(&|name| (name == "HOME").then(|| "/home/u".into()), "/w".into()).unwrap();
        let environment = move |name: &str| (name == "RCLONE_CONFIG").then(|| conf.clone().into());
        draft(name, below, &places, &environment)?.build(&places)
    }

    #[test]
    fn webdav_s3_local_and_alias_become_drives() {
        let RemoteSpec::WebDav(dav) = drive("dav", "a b/c").unwrap().remote else { panic!() };
        assert_eq!(dav.url, "http://h:81/dav/a%20b/c/");
        let password = Password::Given(Secret::new("potato"));
        assert_eq!(dav.sign_in, SignIn::User { user: "u".into(), password });

        let RemoteSpec::S3(s3) = drive("b", "bucket/p/q").unwrap().remote else { panic!() };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str(), s3.path_style), ("bucket", "p/q/", Some(true)));
        assert_eq!(s3.endpoint.as_deref(), Some("https://127.0.0.1:9000"));
        assert!(
            matches!(s3.credentials, S3Credentials::Keys { secret_access_key, .. } if secret_access_key.expose() == "SK=")
        );

        let RemoteSpec::WebDav(dav) = drive("docs", "x").unwrap().remote else { panic!() };
        assert_eq!(dav.url, "http://h:81/dav/docs/x/");
        for (name, below, path) in [("disk", "/data", "/data"), ("disk", "rel", "/w/rel"), ("here", "y", "/srv/x/y")] {
            let RemoteSpec::Folder(folder) = drive(name, below).unwrap().remote else { panic!() };
            assert_eq!(folder.path, PathBuf::from(path));
        }
        assert!(drive("my box", "").unwrap().state_dir.to_str().unwrap().contains("@rclone-mybox-"));
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        for (name, below, why) in [
            ("g", "", "type \"drive\""),
            ("loop", "", "point at each other"),
            ("bad", "", "\"pass\" is not obscured"),
            ("b", "", "needs a bucket"),
            ("anon", "bucket", "without sign-in"),
            ("disk", "", "needs a path"),
            ("davv", "", "did you mean \"dav\"?"),
        ] {
            let error = drive(name, below).unwrap_err();
            assert!(error.kind == Kind::Config && error.message().contains(why), "{name}: {error}");
        }
        let encrypted =
            RcloneFile::parse("/r".into(), "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nxx").err();
        assert!(encrypted.unwrap().message().starts_with("/r:3: the file is encrypted"));
    }
}
