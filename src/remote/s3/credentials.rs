//! Where the keys come from: the drive's own settings (keys, else a profile), then `AWS_*` of the environment, then the default
//! profile of `~/.aws/credentials` or `~/.aws/config`. The first that has a key id wins as a whole; sources are never mixed.
//!
//! SSO, web identity and instance metadata are left out: a helper of theirs can write a profile, which is read again when
//! the server says that a token has expired. Source: "Configuration and credential file settings" of the AWS CLI.

use super::S3Options;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A key pair, perhaps for a limited time.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    /// Writes no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, …)", self.access_key_id)
    }
}

/// What the machine says: the environment and the files that it names.
pub(super) struct Surroundings {
    environment: BTreeMap<String, String>,
    profile: BTreeMap<String, String>,
    profile_name: String,
}

impl Surroundings {
    /// Reads the environment and both files. A file that cannot be read is as good as absent.
    pub fn read(options: &S3Options) -> Surroundings {
        let environment: BTreeMap<String, String> =
            std::env::vars().filter(|(name, value)| is_ours(name) && !value.is_empty()).collect();
        Surroundings::from(environment, options.profile.as_deref(), &|path| read_file(path))
    }

    fn from(
        environment: BTreeMap<String, String>,
        profile: Option<&str>,
        file: &dyn Fn(&Path) -> Option<String>,
    ) -> Surroundings {
        let of = |name: &str| environment.get(name).cloned();
        let profile_name = profile.map(str::to_owned).or_else(|| of("AWS_PROFILE")).unwrap_or_else(|| "default".into());
        let home = PathBuf::from(of("HOME").unwrap_or_else(|| "/".into()));
        let at = |variable: &str, name: &str| of(variable).map_or_else(|| home.join(".aws").join(name), PathBuf::from);
        // In `config` a profile's heading has the word before it; in `credentials` it has not. The latter wins.
        let mut found = BTreeMap::new();
        if let Some(text) = file(&at("AWS_CONFIG_FILE", "config")) {
            let heading =
                if profile_name == "default" { "default".to_owned() } else { format!("profile {profile_name}") };
            found.extend(section(&text, &heading));
        }
        if let Some(text) = file(&at("AWS_SHARED_CREDENTIALS_FILE", "credentials")) {
            found.extend(section(&text, &profile_name));
        }
        Surroundings { environment, profile: found, profile_name }
    }

    /// The keys. `SignIn`: there are none, with where they were looked for.
    pub fn credentials(&self, options: &S3Options) -> Result<Credentials> {
        if let Some(id) = &options.access_key_id {
            let secret = options.secret_access_key.clone();
            return pair(id, secret, options.session_token.clone(), "the settings");
        }
        if options.profile.is_none()
            && let Some(id) = self.environment.get("AWS_ACCESS_KEY_ID")
        {
            let secret = self.environment.get("AWS_SECRET_ACCESS_KEY").cloned();
            return pair(id, secret, self.environment.get("AWS_SESSION_TOKEN").cloned(), "the environment");
        }
        if let Some(id) = self.profile.get("aws_access_key_id") {
            let secret = self.profile.get("aws_secret_access_key").cloned();
            let token = self.profile.get("aws_session_token").cloned();
            return pair(id, secret, token, &format!("profile \"{}\"", self.profile_name));
        }
        Err(Error::new(
            Kind::SignIn,
            format!(
                "there are no S3 keys: neither access_key_id and secret_access_key in the settings, nor AWS_ACCESS_KEY_ID \
                 and AWS_SECRET_ACCESS_KEY in the environment, nor profile \"{}\" in ~/.aws/credentials",
                self.profile_name
            ),
        ))
    }

    /// The region that the machine names, if any.
    pub fn region(&self) -> Option<String> {
        let of = |name: &str| self.environment.get(name).cloned();
        of("AWS_REGION").or_else(|| of("AWS_DEFAULT_REGION")).or_else(|| self.profile.get("region").cloned())
    }

    /// The endpoint that the machine names, if any.
    pub fn endpoint(&self) -> Option<String> {
        let of = |name: &str| self.environment.get(name).cloned();
        of("AWS_ENDPOINT_URL_S3")
            .or_else(|| of("AWS_ENDPOINT_URL"))
            .or_else(|| self.profile.get("endpoint_url").cloned())
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("AWS_") || name == "HOME"
}

#[allow(clippy::disallowed_methods, reason = "settings, read at start and when the server says that a token expired")]
fn read_file(path: &Path) -> Option<String> {
    std::fs::read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

fn pair(id: &str, secret: Option<String>, token: Option<String>, source: &str) -> Result<Credentials> {
    match secret {
        Some(secret) if !secret.is_empty() && !id.is_empty() => Ok(Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: secret,
            session_token: token.filter(|token| !token.is_empty()),
        }),
        _ => Err(Error::new(Kind::Config, format!("{source} has an S3 key id without its secret, or the reverse"))),
    }
}

/// The keys of one `[heading]` of an INI file. Comments start with `#` or `;`; indented lines (nested settings) are not ours.
fn section(text: &str, heading: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = name.split_whitespace().eq(heading.split_whitespace());
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found.retain(|_, value| !value.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = D\naws_secret_access_key=ds=\n\n[work]\r\naws_access_key_id=W\naws_secret_access_key=ws\naws_session_token = t\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile work]\nregion=us-west-2\ns3 =\n  addressing_style = path\nendpoint_url=http://e\n";

    fn files(path: &Path) -> Option<String> {
        match path.to_str()? {
            "/h/.aws/credentials" => Some(CREDENTIALS.into()),
            "/h/.aws/config" => Some(CONFIG.into()),
            _ => None,
        }
    }

    fn around(environment: &[(&str, &str)], profile: Option<&str>) -> Surroundings {
        let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Surroundings::from(environment, profile, &files)
    }

    #[test]
    fn profiles_are_found_in_both_files() {
        let default = around(&[("HOME", "/h")], None);
        let keys = default.credentials(&S3Options::default()).unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.as_str()), ("D", "ds="));
        assert_eq!(default.region().as_deref(), Some("eu-west-1"));
        let work = around(&[("HOME", "/h"), ("AWS_PROFILE", "work")], None);
        assert_eq!(work.credentials(&S3Options::default()).unwrap().session_token.as_deref(), Some("t"));
        assert_eq!((work.region().as_deref(), work.endpoint().as_deref()), (Some("us-west-2"), Some("http://e")));
    }

    #[test]
    fn settings_come_before_environment_before_profile_and_are_never_mixed() {
        let both = around(
            &[("HOME", "/h"), ("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "es"), ("AWS_REGION", "r")],
            Some("work"),
        );
        let keys = both.credentials(&S3Options::default()).unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.session_token), ("E", None));
        assert_eq!(both.region().as_deref(), Some("r"));
        let options =
            S3Options { access_key_id: Some("O".into()), secret_access_key: Some("os".into()), ..S3Options::default() };
        assert_eq!(both.credentials(&options).unwrap().access_key_id, "O");
        let half = S3Options { access_key_id: Some("O".into()), ..S3Options::default() };
        assert_eq!(both.credentials(&half).unwrap_err().kind, Kind::Config);
    }

    #[test]
    fn no_keys_is_a_matter_of_signing_in() {
        let none = around(&[("HOME", "/nowhere")], None);
        assert_eq!(none.credentials(&S3Options::default()).unwrap_err().kind, Kind::SignIn);
    }

    #[test]
    fn secrets_are_not_printed() {
        let keys = Credentials {
            access_key_id: "K".into(),
            secret_access_key: "hidden".into(),
            session_token: Some("hidden".into()),
        };
        assert!(!format!("{keys:?}").contains("hidden"));
    }
}
