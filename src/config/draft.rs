//! Puts the values of one drive together, refuses what contradicts, and gives it its directories.

use super::drive::{
    Close, Drive, FolderSpec, HttpSpec, RemoteSpec, S3Credentials, S3Spec, Settings, SignIn, WebDavSpec,
};
use super::keys::RemoteType;
use super::password::Password;
use super::patterns::Patterns;
use super::places::Places;
use super::secret::Secret;
use super::values::{Given, Origin, Value, Values};
use super::{units, words};
use crate::error::{Error, Kind, Result};
use reqwest::Url;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A drive before its values are put together.
pub struct Draft {
    /// What messages call it.
    pub name: String,
    pub directory: Directory,
    pub remote: RemoteType,
    pub values: Values,
    /// Where the drive as a whole was named, for what is missing.
    pub origin: Origin,
    /// The part of the remote that becomes the root; `/` between the parts, empty for all of it.
    pub below: String,
}

/// What names a drive's directories, where `state_dir` and `cache_dir` do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// Its own name, as checked by [`super::file::check_name`], `@rclone-` before it where it is rclone's.
    Named(String),
    /// Derived from the remote, without secrets: the same remote finds its state again.
    Derived,
}

/// Keys that exclude each other.
const EITHER: [(&str, &str); 6] = [
    ("password", "password_command"),
    ("bearer", "user"),
    ("bearer", "password"),
    ("bearer", "password_command"),
    ("profile", "access_key_id"),
    ("profile", "secret_access_key"),
];

/// Keys that mean nothing without one of the others.
const NEEDS: [(&str, &[&str]); 6] = [
    ("user", &["password", "password_command"]),
    ("password", &["user"]),
    ("password_command", &["user"]),
    ("access_key_id", &["secret_access_key"]),
    ("secret_access_key", &["access_key_id"]),
    ("session_token", &["access_key_id"]),
];

/// The smallest bound on the cache that leaves room for a block of each upload and the database, bytes.
const CACHE_BYTES_MAX_MIN: u64 = 16 << 20;

/// The shortest interval and deadline: below it a drive only asks and never works.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

impl Draft {
    /// Makes the drive. `Config`: something is missing or contradicts; both names are in the message.
    pub fn build(self, places: &Places) -> Result<Drive> {
        self.refuse_contradictions()?;
        let remote = match self.remote {
            RemoteType::Folder => RemoteSpec::Folder(self.folder(places)?),
            RemoteType::WebDav => RemoteSpec::WebDav(self.webdav(places)?),
            RemoteType::S3 => RemoteSpec::S3(self.s3(places)?),
            RemoteType::Memory if self.below.is_empty() => RemoteSpec::Memory,
            RemoteType::Memory => return Err(self.origin.refuse("a memory drive has no folders to begin with")),
            other => return Err(self.origin.refuse(format!("type \"{other}\" is not in this version of fourwheel"))),
        };
        let (state_dir, cache_dir) = self.directories(&remote, places)?;
        Ok(Drive { settings: self.settings()?, name: self.name, remote, state_dir, cache_dir })
    }

    fn refuse_contradictions(&self) -> Result<()> {
        for (one, other) in EITHER {
            if let (Some(_), Some(second)) = (self.values.get(one), self.values.get(other)) {
                return Err(second.origin.refuse(format!("\"{one}\" and \"{other}\" exclude each other; keep one")));
            }
        }
        for (key, needs) in NEEDS {
            if let Some(given) = self.values.get(key)
                && !needs.iter().any(|need| self.values.get(need).is_some())
            {
                let needs = needs.join("\" or \"");
                return Err(given.origin.refuse(format!("\"{key}\" needs \"{needs}\" beside it")));
            }
        }
        Ok(())
    }

    fn need(&self, key: &str) -> Result<(&str, &Origin)> {
        match (self.values.text(key), self.values.get(key)) {
            (Some(text), Some(given)) => Ok((text, &given.origin)),
            _ => Err(self.origin.refuse(format!("the key \"{key}\" is missing; {} drives need it", self.remote))),
        }
    }

    fn path(&self, key: &str, places: &Places) -> Option<PathBuf> {
        let Given { value: Value::Text(text), origin } = self.values.get(key)? else { return None };
        let base = match origin {
            Origin::Line(file, _) => {
                file.parent().map_or_else(|| places.working.clone(), |dir| places.working.join(dir))
            }
            Origin::Option(_) => places.working.clone(),
        };
        Some(places.absolute(text, &base))
    }

    fn folder(&self, places: &Places) -> Result<FolderSpec> {
        let (_, origin) = self.need("path")?;
        let path = self.path("path", places).ok_or_else(|| origin.refuse("\"path\" is not a path"))?;
        Ok(FolderSpec { path: below_parts(&self.below, &self.origin)?.fold(path, |path, part| path.join(part)) })
    }

    fn http(&self, places: &Places) -> Result<HttpSpec> {
        let endpoint = match self.values.get("endpoint") {
            Some(Given { value: Value::Text(text), origin }) => Some(parse_endpoint(text, origin)?),
            _ => None,
        };
        Ok(HttpSpec { endpoint, ca_file: self.path("ca_file", places) })
    }

    fn webdav(&self, places: &Places) -> Result<WebDavSpec> {
        let http = self.http(places)?;
        let (text, origin) = self.need("url")?;
        let mut url = parse_url("url", text, origin)?;
        if let Some(endpoint) = &http.endpoint {
            let full = format!("{endpoint}{}", url.path());
            url = Url::parse(&full).map_err(|e| origin.refuse(format!("url with endpoint: {e}")))?;
        }
        let parts = below_parts(&self.below, &self.origin)?;
        url.path_segments_mut().map_err(|()| origin.refuse("url has no path"))?.pop_if_empty().extend(parts).push("");
        let sign_in = if let Some(token) = self.values.text("bearer") {
            SignIn::Bearer(Secret::new(token))
        } else if let Some(user) = self.values.text("user") {
            let password = match self.values.text("password_command") {
                Some(command) => Password::Command(command.to_owned()),
                None => Password::Given(Secret::new(self.values.text("password").unwrap_or_default())),
            };
            SignIn::User { user: user.to_owned(), password }
        } else {
            SignIn::Nobody
        };
        Ok(WebDavSpec { url: url.to_string(), sign_in, http })
    }

    fn s3(&self, places: &Places) -> Result<S3Spec> {
        let http = self.http(places)?;
        let (bucket, origin) = self.need("bucket")?;
        if bucket.contains('/') {
            return Err(
                origin.refuse(format!("\"{}\" is not a bucket; what follows it is \"prefix\"", words::escape(bucket)))
            );
        }
        let mut prefix = String::new();
        let given = self.values.text("prefix").unwrap_or_default();
        for part in given.split('/').filter(|part| !part.is_empty()).chain(below_parts(&self.below, &self.origin)?) {
            prefix.push_str(part);
            prefix.push('/');
        }
        let owned = |key| self.values.text(key).map(str::to_owned);
        let credentials = match (owned("access_key_id"), owned("secret_access_key"), owned("profile")) {
            (Some(access_key_id), Some(secret), _) => S3Credentials::Keys {
                access_key_id,
                secret_access_key: Secret::new(secret),
                session_token: owned("session_token").map(Secret::new),
            },
            (_, _, Some(profile)) => S3Credentials::Profile(profile),
            _ => S3Credentials::Environment,
        };
        Ok(S3Spec {
            endpoint: http.endpoint.clone(),
            region: owned("region"),
            bucket: bucket.to_owned(),
            prefix,
            credentials,
            path_style: self.switch("path_style"),
            http,
        })
    }

    fn directories(&self, remote: &RemoteSpec, places: &Places) -> Result<(PathBuf, PathBuf)> {
        let part = part_name(&self.below);
        let name = match &self.directory {
            Directory::Named(name) => format!("{name}{part}"),
            Directory::Derived => derived_name(remote),
        };
        let chosen = |key: &str, base: &Path| match self.path(key, places) {
            Some(dir) if part.is_empty() || self.directory == Directory::Derived => dir,
            Some(dir) => dir.join(&part),
            None => base.join(&name),
        };
        let (state, cache) = (chosen("state_dir", &places.state), chosen("cache_dir", &places.cache));
        let origin = |key| self.values.get(key).map_or(&self.origin, |given| &given.origin);
        if state.starts_with(&cache) {
            return Err(origin("cache_dir").refuse(format!(
                "\"state_dir\" ({}) lies in \"cache_dir\" ({}), and a cache may be deleted; choose another",
                words::path(&state),
                words::path(&cache)
            )));
        }
        if let RemoteSpec::Folder(folder) = remote {
            for (key, dir) in [("state_dir", &state), ("cache_dir", &cache)] {
                if dir.starts_with(&folder.path) {
                    return Err(origin(key).refuse(format!(
                        "\"{key}\" ({}) lies in \"path\" ({}), which would then hold itself; choose another {key}",
                        words::path(dir),
                        words::path(&folder.path)
                    )));
                }
            }
        }
        Ok((state, cache))
    }

    fn settings(&self) -> Result<Settings> {
        let default = Settings::default();
        let settings = Settings {
            cache_bytes_max: self.bytes("cache.max_bytes").unwrap_or(default.cache_bytes_max),
            cache_bytes_free_min: self.bytes("cache.min_free_bytes").unwrap_or(default.cache_bytes_free_min),
            write_back: self.time("write_back_s", Duration::ZERO)?.unwrap_or(default.write_back),
            poll: self.time("poll_s", INTERVAL_MIN)?.unwrap_or(default.poll),
            refresh: self.time("refresh_s", INTERVAL_MIN)?.unwrap_or(default.refresh),
            uploads: self.count("uploads").unwrap_or(default.uploads),
            read_only: self.switch("read_only").unwrap_or(default.read_only),
            deadline: self.time("deadline_s", INTERVAL_MIN)?.unwrap_or(default.deadline),
            read_deadline: self.read_deadline(&default)?,
            close: if self.values.text("close") == Some("remote") { Close::Remote } else { Close::Local },
            local_only: self.patterns("local_only")?.unwrap_or(default.local_only),
            allow_other: self.switch("allow_other").unwrap_or(default.allow_other),
        };
        if settings.cache_bytes_max < CACHE_BYTES_MAX_MIN {
            let least = units::exact_bytes(CACHE_BYTES_MAX_MIN);
            return Err(self.at("cache.max_bytes").refuse(format!("\"cache.max_bytes\" is less than {least}")));
        }
        Ok(settings)
    }

    /// A short `deadline_s` alone shortens the default of reads with it; both given must agree.
    fn read_deadline(&self, default: &Settings) -> Result<Duration> {
        let deadline = self.time("deadline_s", INTERVAL_MIN)?.unwrap_or(default.deadline);
        match self.time("read_deadline_s", INTERVAL_MIN)? {
            Some(read) if read > deadline => Err(self.at("read_deadline_s").refuse(format!(
                "\"read_deadline_s\" ({}) is longer than \"deadline_s\" ({}), which would end a read before it",
                units::plain_seconds(read),
                units::plain_seconds(deadline)
            ))),
            Some(read) => Ok(read),
            None => Ok(default.read_deadline.min(deadline)),
        }
    }

    fn at(&self, key: &str) -> &Origin {
        self.values.get(key).map_or(&self.origin, |given| &given.origin)
    }

    fn bytes(&self, key: &str) -> Option<u64> {
        if let Value::Bytes(bytes) = self.values.get(key)?.value { Some(bytes) } else { None }
    }

    fn count(&self, key: &str) -> Option<usize> {
        if let Value::Count(count) = self.values.get(key)?.value { usize::try_from(count).ok() } else { None }
    }

    fn switch(&self, key: &str) -> Option<bool> {
        if let Value::Switch(on) = self.values.get(key)?.value { Some(on) } else { None }
    }

    fn time(&self, key: &str, least: Duration) -> Result<Option<Duration>> {
        match self.values.get(key) {
            Some(Given { value: Value::Time(time), origin }) if *time < least => {
                Err(origin.refuse(format!("\"{key}\" is less than {} seconds", units::plain_seconds(least))))
            }
            Some(Given { value: Value::Time(time), .. }) => Ok(Some(*time)),
            _ => Ok(None),
        }
    }

    fn patterns(&self, key: &str) -> Result<Option<Patterns>> {
        match self.values.get(key) {
            Some(Given { value: Value::List(list), origin }) => {
                Patterns::new(list.clone()).map(Some).map_err(|why| origin.refuse(format!("{key}: {why}")))
            }
            _ => Ok(None),
        }
    }
}

/// The parts of a path below a remote's root. `..` is refused: it would leave what was asked for.
fn below_parts<'a>(below: &'a str, origin: &Origin) -> Result<impl Iterator<Item = &'a str>> {
    let parts = || below.split('/').filter(|part| !part.is_empty());
    if parts().any(|part| part == "." || part == ".." || part.contains('\0')) {
        return Err(origin.refuse(format!("\"{}\" is not a path below the drive's root", words::escape(below))));
    }
    Ok(parts())
}

/// An address of a collection: http or https, a host, nothing behind the path.
fn parse_url(key: &str, text: &str, origin: &Origin) -> Result<Url> {
    // The text may hold a password; no message shows it.
    let url = Url::parse(text).map_err(|e| {
        origin.refuse(format!("{key} is not an address ({e}); write http://HOST/PATH/ or https://HOST/PATH/"))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(origin.refuse(format!("{key} begins with \"{}:\"; write http:// or https://", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(origin.refuse(format!("{key} has a user in it; use the keys \"user\" and \"password\"")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(origin.refuse(format!("{key} has a \"?\" or \"#\" in it; write them as %3F and %23")));
    }
    Ok(url)
}

fn parse_endpoint(text: &str, origin: &Origin) -> Result<String> {
    let url = parse_url("endpoint", text, origin)?;
    if url.path() != "/" {
        return Err(origin.refuse("endpoint has a path in it; it is scheme, host and port alone"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The directory name of a drive given in place: `@webdav-host-dav-` and a hash of the whole, user included.
fn derived_name(remote: &RemoteSpec) -> String {
    let identity = identity(remote);
    format!("@{}-{:016x}", slug(&identity), fnv1a(identity.as_bytes()))
}

/// What makes a remote the same one tomorrow. Never change what it gives: the state of people's drives would not be found.
fn identity(remote: &RemoteSpec) -> String {
    match remote {
        RemoteSpec::Memory => "memory".into(),
        RemoteSpec::Folder(folder) => format!("folder {}", folder.path.display()),
        RemoteSpec::WebDav(WebDavSpec { url, sign_in: SignIn::User { user, .. }, .. }) => {
            format!("webdav {url} {user}")
        }
        RemoteSpec::WebDav(WebDavSpec { url, .. }) => format!("webdav {url}"),
        RemoteSpec::S3(S3Spec { endpoint, bucket, prefix, .. }) => {
            format!("s3 {bucket}/{prefix} {}", endpoint.as_deref().unwrap_or_default())
        }
    }
}

/// What a part of a drive adds to the name of its directory: its own state, since its root is another.
fn part_name(below: &str) -> String {
    let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return String::new();
    }
    let whole = parts.join("/");
    format!("@{}-{:016x}", slug(&whole), fnv1a(whole.as_bytes()))
}

/// The text as a short file name, for people; not unique.
fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(char::is_ascii) {
        if c.is_ascii_alphanumeric() || c == '.' {
            out.push(c.to_ascii_lowercase());
        } else if !out.ends_with('-') {
            out.push('-');
        }
    }
    out.truncate(40);
    out.trim_matches('-').to_owned()
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the name of a directory must never change with a library.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Drive {
    /// The drive as one line for our own worker, secrets in plain text: for an environment variable, never for an argument.
    /// `Config`: a path is not UTF-8.
    pub fn hand_over(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::new(Kind::Config, format!("hand the drive over: {e}")))
    }

    /// Takes what [`Drive::hand_over`] wrote. `Config`: it is something else.
    pub fn take_over(text: &str) -> Result<Drive> {
        // The message of serde_json may quote a value, which may be a secret: only its place is shown.
        serde_json::from_str(text).map_err(|e| {
            Error::new(
                Kind::Config,
                format!("the drive handed over is not one of this version (column {})", e.column()),
            )
        })
    }
}
