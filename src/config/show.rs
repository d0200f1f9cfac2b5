//! The settings as text: every key with its default, and a drive as it was understood.

use super::drive::{Close, Drive, RemoteSpec, S3Credentials, SignIn};
use super::keys::{Form, KEYS, Key, RemoteType};
use super::password::Password;
use super::units::{exact_bytes, plain_seconds};
use super::words::escape;
use std::fmt::Write;

/// Every key with its form, default and meaning, for `config show --defaults`.
pub fn defaults() -> String {
    let mut out = String::from("[drive.NAME]\n");
    for key in KEYS {
        let types = types(key).map_or(String::new(), |types| format!(" (type {types})"));
        // Writing to a String cannot fail.
        let _ = write!(out, "\n# {}{types}\n# {}; default: {}\n", key.doc, key.describe(), key.default_text());
        let _ = writeln!(out, "# {} = …", key.name);
    }
    out
}

/// The same as the table of `doc/config.md`.
pub fn reference() -> String {
    let mut out = String::from("| key | for | value | default | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let default = match key.form {
            Form::List => key.default_text().split(' ').map(|p| format!("`{p}`")).collect::<Vec<_>>().join(" "),
            _ => key.default_text(),
        };
        let types = types(key).unwrap_or_else(|| "all".into());
        let _ = writeln!(out, "| `{}` | {types} | {} | {default} | {} |", key.name, key.describe(), key.doc);
    }
    out
}

fn types(key: &Key) -> Option<String> {
    let words: Vec<&str> = key.types.iter().copied().map(RemoteType::word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The drive with all its settings, defaults filled in, as TOML; secrets are `***`.
pub fn settings_of(drive: &Drive) -> String {
    let mut lines = Lines(format!("[drive.{}]\n", quoted_if_needed(&drive.name)));
    remote(&drive.remote, &mut lines);
    lines.text("state_dir", &drive.state_dir.to_string_lossy());
    lines.text("cache_dir", &drive.cache_dir.to_string_lossy());
    let settings = &drive.settings;
    lines.text("cache.max_bytes", &exact_bytes(settings.cache_bytes_max));
    lines.text("cache.min_free_bytes", &exact_bytes(settings.cache_bytes_free_min));
    lines.plain("write_back_s", plain_seconds(settings.write_back));
    lines.plain("poll_s", plain_seconds(settings.poll));
    lines.plain("refresh_s", plain_seconds(settings.refresh));
    lines.plain("uploads", settings.uploads);
    lines.plain("read_only", settings.read_only);
    lines.plain("deadline_s", plain_seconds(settings.deadline));
    lines.plain("read_deadline_s", plain_seconds(settings.read_deadline));
    lines.text("close", if settings.close == Close::Remote { "remote" } else { "local" });
    let patterns: Vec<String> = settings.local_only.iter().map(quoted).collect();
    lines.plain("local_only", format!("[{}]", patterns.join(", ")));
    lines.plain("allow_other", settings.allow_other);
    lines.0
}

fn remote(remote: &RemoteSpec, lines: &mut Lines) {
    match remote {
        RemoteSpec::Memory => lines.text("type", "memory"),
        RemoteSpec::Folder(folder) => {
            lines.text("type", "folder");
            lines.text("path", &folder.path.to_string_lossy());
        }
        RemoteSpec::WebDav(dav) => {
            lines.text("type", "webdav");
            lines.text("url", &dav.url);
            match &dav.sign_in {
                SignIn::Nobody => {}
                SignIn::User { user, password } => {
                    lines.text("user", user);
                    match password {
                        Password::Given(secret) => lines.text("password", &secret.to_string()),
                        Password::Command(command) => lines.text("password_command", command),
                    }
                }
                SignIn::Bearer(secret) => lines.text("bearer", &secret.to_string()),
            }
            lines.option("endpoint", dav.http.endpoint.as_deref());
            lines.option("ca_file", dav.http.ca_file.as_deref().map(|path| path.to_string_lossy()).as_deref());
        }
        RemoteSpec::S3(s3) => {
            lines.text("type", "s3");
            lines.option("endpoint", s3.endpoint.as_deref());
            lines.option("region", s3.region.as_deref());
            lines.text("bucket", &s3.bucket);
            lines.text("prefix", &s3.prefix);
            match &s3.credentials {
                S3Credentials::Keys { access_key_id, secret_access_key, session_token } => {
                    lines.text("access_key_id", access_key_id);
                    lines.text("secret_access_key", &secret_access_key.to_string());
                    lines.option("session_token", session_token.as_ref().map(ToString::to_string).as_deref());
                }
                S3Credentials::Profile(profile) => lines.text("profile", profile),
                S3Credentials::Environment => lines.0.push_str("# keys: the environment, else the shared AWS files\n"),
            }
            if let Some(style) = s3.path_style {
                lines.plain("path_style", style);
            }
            lines.option("ca_file", s3.http.ca_file.as_deref().map(|path| path.to_string_lossy()).as_deref());
        }
    }
}

struct Lines(String);

impl Lines {
    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.plain(key, quoted(value));
    }

    fn option(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }
}

/// A TOML basic string (TOML 1.0, "String"), safe for a terminal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if escape(c.encode_utf8(&mut [0; 4])).chars().count() == 1 => out.push(c),
            c => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

fn quoted_if_needed(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) { name.into() } else { quoted(name) }
}
