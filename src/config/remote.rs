//! What stands after `mount`: `NAME[:PATH]` of the config file, `rclone:NAME[:PATH]`, or a drive given in place.

use super::draft::{Directory, Draft};
use super::drive::Drive;
use super::file::{ConfigFile, built_type, check_name};
use super::keys::{Form, RemoteType};
use super::places::{Environment, Places};
use super::rclone;
use super::values::{Origin, Values, from_text, known_key};
use super::words;
use crate::error::{Error, Kind, Result};
use percent_encoding::percent_decode_str;
use std::path::{Path, PathBuf};

/// What a person asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// `NAME[:PATH]`, `rclone:NAME[:PATH]`, `folder:…`, `webdav:…`, `s3:…` or `memory:`.
    pub remote: &'a str,
    /// The file of `--config`; `None`: the default one, which may be absent.
    pub config: Option<&'a Path>,
    /// `KEY=VALUE`, `ro`, `rw` or the bare name of a switch; several in one text are separated by commas.
    pub options: &'a [String],
}

/// Finds the drive and checks all that belongs to it. Reads files, asks no network.
/// `Config`: with the place, the key and what is allowed.
pub fn resolve(wanted: &Wanted, places: &Places, environment: Environment) -> Result<Drive> {
    let mut draft = draft(wanted, places, environment)?;
    draft.values.overlay(&options(wanted.options, draft.remote)?);
    draft.build(places)
}

/// The drive `name` of `file` as it is, without options.
pub fn configured(file: &ConfigFile, name: &str, places: &Places) -> Result<Drive> {
    from_file(file, name, "")?.build(places)
}

fn draft(wanted: &Wanted, places: &Places, environment: Environment) -> Result<Draft> {
    let (word, rest) = match wanted.remote.split_once(':') {
        Some((word, rest)) => (word, Some(rest)),
        None => (wanted.remote, None),
    };
    match (word, rest) {
        ("rclone", Some(rest)) => {
            let (name, below) = rest.split_once(':').unwrap_or((rest, ""));
            rclone::draft(name, below, places, environment)
        }
        (word, Some(rest)) if RemoteType::from_word(word).is_some() => in_place(word, rest, environment),
        (_, Some(rest)) if rest.starts_with("//") => {
            let why = format!("\"{}\" is no drive{}", words::escape(word), in_place_hint(wanted.remote));
            Err(Error::new(Kind::Config, why))
        }
        (name, below) => named(name, below.unwrap_or_default(), wanted, places),
    }
}

fn named(name: &str, below: &str, wanted: &Wanted, places: &Places) -> Result<Draft> {
    if let Err(why) = check_name(name) {
        return Err(Error::new(Kind::Config, format!("{why}{}", in_place_hint(wanted.remote))));
    }
    let path = wanted.config.map_or_else(|| places.config_file.clone(), |path| places.working.join(path));
    let file = match ConfigFile::read(&path) {
        Ok(file) => file,
        Err(_) if wanted.config.is_none() && is_absent(&path) => {
            return Err(Error::new(
                Kind::Config,
                format!(
                    "no drive \"{name}\": there is no config file {}; write one (\"fourwheel config show --defaults\" \
                     lists the keys) or give a drive in place{}",
                    words::path(&path),
                    misspelt_type(name, wanted.remote).unwrap_or_else(|| in_place_hint(wanted.remote))
                ),
            ));
        }
        Err(error) => return Err(error),
    };
    from_file(&file, name, below)
}

fn from_file(file: &ConfigFile, name: &str, below: &str) -> Result<Draft> {
    let Some(read) = file.values(name) else {
        let mut known: Vec<&str> = file.names().collect();
        if !below.is_empty() {
            // Perhaps the type of a drive in place, misspelt.
            known.extend(RemoteType::BUILT.map(RemoteType::word));
        }
        let known = if known.is_empty() { "; it names none".into() } else { words::hint(name, &known) };
        let file = words::path(file.path());
        return Err(Error::new(Kind::Config, format!("no drive \"{}\" in {file}{known}", words::escape(name))));
    };
    let (values, origin) = read?;
    let remote = built_type(values.text("type").unwrap_or_default()).map_err(|why| origin.refuse(why))?;
    let below = below.trim_matches('/');
    let shown = if below.is_empty() { name.to_owned() } else { format!("{name}:{below}") };
    let directory = Directory::Named(name.to_owned());
    Ok(Draft { name: shown, directory, remote, values, origin, below: below.to_owned() })
}

/// The type of a drive in place that is meant, where there is one near what was typed before the colon.
fn misspelt_type(name: &str, remote: &str) -> Option<String> {
    let guess = words::hint(name, &RemoteType::BUILT.map(RemoteType::word));
    (remote.contains(':') && guess.contains("did you mean")).then_some(guess)
}

/// What to write instead, where `remote` looks like a path or an address.
fn in_place_hint(remote: &str) -> String {
    if remote.starts_with("http://") || remote.starts_with("https://") {
        "; for a WebDAV server write webdav: before the address".into()
    } else if remote.starts_with(['/', '.', '~']) {
        format!("; for a directory write folder:{}", words::escape(remote))
    } else {
        ", such as folder:/path, webdav:https://USER:PASSWORD@HOST/PATH/ or s3:BUCKET/PREFIX".into()
    }
}

fn in_place(word: &str, rest: &str, environment: Environment) -> Result<Draft> {
    let origin = Origin::Option("REMOTE");
    let remote = built_type(word).map_err(|why| origin.refuse(why))?;
    let mut values = Values::default();
    let name = match remote {
        RemoteType::Folder => folder(rest, &mut values, &origin)?,
        RemoteType::WebDav => webdav(rest, &mut values, &origin)?,
        RemoteType::S3 => s3(rest, &mut values, &origin, environment)?,
        _ if rest.is_empty() => "memory:".to_owned(),
        _ => return Err(origin.refuse("nothing can follow \"memory:\"")),
    };
    Ok(Draft { name, directory: Directory::Derived, remote, values, origin, below: String::new() })
}

fn folder(rest: &str, values: &mut Values, origin: &Origin) -> Result<String> {
    if rest.is_empty() {
        return Err(origin.refuse("folder: needs a directory behind it, such as folder:/srv/files"));
    }
    values.set_text("path", rest, origin);
    Ok(format!("folder:{}", words::escape(rest)))
}

/// Takes `http://user:pass@host/dav/` apart. User and password are percent-encoded (RFC 3986, 3.2.1).
fn webdav(rest: &str, values: &mut Values, origin: &Origin) -> Result<String> {
    let Some((scheme, after)) = rest.split_once("://") else {
        let after = if rest.is_empty() { "HOST/dav/" } else { rest };
        let after = words::escape(after.trim_start_matches('/'));
        let why = format!("a WebDAV drive needs the whole address, such as webdav:https://{after}");
        return Err(origin.refuse(why));
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (authority, path) = after.split_at(end);
    let (user_info, host) = match authority.rsplit_once('@') {
        Some((user_info, host)) => (Some(user_info), host),
        None => (None, authority),
    };
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(|text| text.into_owned()).map_err(|_| origin.refuse("user or password is not UTF-8 once decoded"))
    };
    let url = format!("{scheme}://{host}{path}");
    let mut name = format!("webdav:{url}");
    if let Some((user, password)) = user_info.map(|info| info.split_once(':').unwrap_or((info, ""))) {
        values.set_text("user", decode(user)?, origin);
        values.set_text("password", decode(password)?, origin);
        name = format!("webdav:{scheme}://{user}@{host}{path}");
    }
    values.set_text("url", url, origin);
    Ok(words::escape(&name))
}

fn s3(rest: &str, values: &mut Values, origin: &Origin, environment: Environment) -> Result<String> {
    let rest = rest.trim_start_matches('/');
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(origin.refuse("s3: needs a bucket behind it, such as s3:BUCKET/PREFIX"));
    }
    values.set_text("bucket", bucket, origin);
    values.set_text("prefix", prefix, origin);
    // AWS SDKs and Tools Reference Guide, "Service-specific endpoints": the service's own comes first.
    for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        if let Some(endpoint) = environment(name).and_then(|value| value.into_string().ok()) {
            values.set_text("endpoint", endpoint, &Origin::Option(name));
            break;
        }
    }
    Ok(format!("s3:{}", words::escape(rest)))
}

/// Reads the options of `-o`.
fn options(texts: &[String], remote: RemoteType) -> Result<Values> {
    let origin = Origin::Option("-o");
    let mut values = Values::default();
    for option in texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|option| !option.is_empty()) {
        match option {
            "ro" => values.set_switch("read_only", true, &origin),
            "rw" => values.set_switch("read_only", false, &origin),
            _ => {
                let (name, text) = option.split_once('=').map_or((option, None), |(name, text)| (name, Some(text)));
                let key = known_key(name, Some(remote), &origin)?;
                match (key.form, text) {
                    _ if key.name == "type" => return Err(origin.refuse("\"type\" is given by the remote")),
                    (Form::Secret, _) => {
                        let why = "other users can see the command line; write it into the config file";
                        return Err(origin.refuse(format!("\"{name}\" is a secret: {why}")));
                    }
                    (Form::Switch, None) => values.set_switch(key.name, true, &origin),
                    (_, None) => return Err(origin.refuse(format!("\"{name}\" needs a value: {name}=VALUE"))),
                    (_, Some(text)) => values.set(key, from_text(key, text, &origin)?, origin.clone()),
                }
            }
        }
    }
    Ok(values)
}

#[allow(clippy::disallowed_methods, reason = "settings, looked at once at start")]
fn is_absent(path: &PathBuf) -> bool {
    matches!(std::fs::metadata(path), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}
