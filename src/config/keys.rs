//! Every key of a `[drive.NAME]` table, with its form, unit, default and meaning: the one list that reading, `config show`
//! and `doc/config.md` use.

use super::drive::Settings;
use super::units::{exact_bytes, plain_seconds};
use std::fmt;

/// The kinds of remotes that a config file may name. `BUILT` are in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteType {
    Folder,
    WebDav,
    S3,
    GDrive,
    OneDrive,
    Dropbox,
    Sftp,
    Opendal,
    Memory,
}

impl RemoteType {
    /// All, in the order of the documentation.
    pub const ALL: [RemoteType; 9] = [
        RemoteType::Folder,
        RemoteType::WebDav,
        RemoteType::S3,
        RemoteType::GDrive,
        RemoteType::OneDrive,
        RemoteType::Dropbox,
        RemoteType::Sftp,
        RemoteType::Opendal,
        RemoteType::Memory,
    ];
    /// Those that this version can mount.
    pub const BUILT: [RemoteType; 4] = [RemoteType::Folder, RemoteType::WebDav, RemoteType::S3, RemoteType::Memory];

    /// The value of `type`, and the prefix of a drive given in place.
    pub const fn word(self) -> &'static str {
        match self {
            RemoteType::Folder => "folder",
            RemoteType::WebDav => "webdav",
            RemoteType::S3 => "s3",
            RemoteType::GDrive => "gdrive",
            RemoteType::OneDrive => "onedrive",
            RemoteType::Dropbox => "dropbox",
            RemoteType::Sftp => "sftp",
            RemoteType::Opendal => "opendal",
            RemoteType::Memory => "memory",
        }
    }

    /// The type of that word.
    pub fn from_word(word: &str) -> Option<RemoteType> {
        RemoteType::ALL.into_iter().find(|known| known.word() == word)
    }

    /// Whether this version can mount it.
    pub fn is_built(self) -> bool {
        RemoteType::BUILT.contains(&self)
    }
}

impl fmt::Display for RemoteType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A string.
    Text,
    /// A string that no message shows.
    Secret,
    /// A path: absolute, `~/…`, or relative to the config file's directory.
    Path,
    /// Bytes: an integer, or a string with a unit.
    Bytes,
    /// Seconds: a number, fractions allowed.
    Seconds,
    /// A whole number within these bounds, both included.
    Count(u64, u64),
    /// true or false.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of strings.
    List,
}

impl Form {
    /// What the documentation calls it.
    pub fn describe(self) -> String {
        match self {
            Form::Text => "text".into(),
            Form::Secret => "secret text".into(),
            Form::Path => "path".into(),
            Form::Bytes => "bytes, such as 512MiB or 20GiB".into(),
            Form::Seconds => "seconds, fractions allowed".into(),
            Form::Count(low, high) => format!("number from {low} to {high}"),
            Form::Switch => "true or false".into(),
            Form::Word(words) => words.join(" or "),
            Form::List => "list of texts".into(),
        }
    }
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As written; a dot stands for a table.
    pub name: &'static str,
    pub form: Form,
    /// The types that have it; empty: all.
    pub types: &'static [RemoteType],
    /// What holds without it, as text; settings have theirs from [`Settings::default`].
    pub default: &'static str,
    pub doc: &'static str,
}

impl Key {
    /// Whether drives of this type have it.
    pub fn is_for(&self, remote: RemoteType) -> bool {
        self.types.is_empty() || self.types.contains(&remote)
    }

    /// What the documentation says of its values.
    pub fn describe(&self) -> String {
        match self.name {
            // The others are names of later versions, known so that a config file that has them is read.
            "type" => RemoteType::BUILT.map(RemoteType::word).join(", "),
            _ => self.form.describe(),
        }
    }

    /// The default as the documentation shows it.
    pub fn default_text(&self) -> String {
        let settings = Settings::default();
        match self.name {
            "cache.max_bytes" => exact_bytes(settings.cache_bytes_max),
            "cache.min_free_bytes" => exact_bytes(settings.cache_bytes_free_min),
            "write_back_s" => plain_seconds(settings.write_back),
            "poll_s" => plain_seconds(settings.poll),
            "refresh_s" => plain_seconds(settings.refresh),
            "uploads" => settings.uploads.to_string(),
            "read_only" => settings.read_only.to_string(),
            "deadline_s" => plain_seconds(settings.deadline),
            "read_deadline_s" => plain_seconds(settings.read_deadline),
            "local_only" => settings.local_only.iter().collect::<Vec<_>>().join(" "),
            "allow_other" => settings.allow_other.to_string(),
            _ => self.default.to_owned(),
        }
    }
}

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const WEBDAV: &[RemoteType] = &[RemoteType::WebDav];
const S3: &[RemoteType] = &[RemoteType::S3];
const HTTP: &[RemoteType] = &[RemoteType::WebDav, RemoteType::S3];
const FOLDER: &[RemoteType] = &[RemoteType::Folder];
const TYPES: &[&str] = &["folder", "webdav", "s3", "gdrive", "onedrive", "dropbox", "sftp", "opendal", "memory"];

const fn key(
    name: &'static str,
    form: Form,
    types: &'static [RemoteType],
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, form, types, default, doc }
}

/// All keys, in the order of the documentation.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("type", Form::Word(TYPES), &[], "required", "Where the files are."),
    key("path", Form::Path, FOLDER, "required", "The directory of this machine that holds the files."),
    key("url", Form::Text, WEBDAV, "required", "The address of the collection, http:// or https://; blanks and such percent-encoded."),
    key("user", Form::Text, WEBDAV, "none", "The account, for Basic or Digest sign-in. Needs password or password_command."),
    key("password", Form::Secret, WEBDAV, "none", "Its password."),
    key("password_command", Form::Text, WEBDAV, "none", "A shell command whose first line of output is the password; it is asked at each start and after a refused sign-in, and has 30 seconds."),
    key("bearer", Form::Secret, WEBDAV, "none", "A token for `Authorization: Bearer`, instead of user and password."),
    key("bucket", Form::Text, S3, "required", "The bucket."),
    key("prefix", Form::Text, S3, "the whole bucket", "The part of the bucket that is the drive's root, without a leading slash."),
    key("region", Form::Text, S3, "AWS_REGION, the profile's, else us-east-1", "The region that requests are signed for."),
    key("access_key_id", Form::Text, S3, "the environment, else the shared AWS files", "The key's id. Needs secret_access_key."),
    key("secret_access_key", Form::Secret, S3, "as access_key_id", "The key's secret. Needs access_key_id."),
    key("session_token", Form::Secret, S3, "none", "The token of temporary keys. Needs access_key_id."),
    key("profile", Form::Text, S3, "AWS_PROFILE, else default", "The profile of ~/.aws/config and ~/.aws/credentials, instead of access_key_id."),
    key("path_style", Form::Switch, S3, "true with endpoint, else false", "Whether the bucket stands in the path of requests (true) or in the host name (false)."),
    key("endpoint", Form::Text, HTTP, "the provider's own", "Scheme, host and port that replace those of all API addresses, such as http://127.0.0.1:9000; paths stay."),
    key("ca_file", Form::Path, HTTP, "none", "A file of PEM certificates that are trusted besides the system's."),
    key("state_dir", Form::Path, &[], "$XDG_STATE_HOME/fourwheel/NAME", "Where metadata, files that wait for upload, the log and the control socket live. Never delete it while something waits."),
    key("cache_dir", Form::Path, &[], "$XDG_CACHE_HOME/fourwheel/NAME", "Where clean blocks live. It may be deleted while the drive is not mounted."),
    key("cache.max_bytes", Form::Bytes, &[], "", "Disk space that cache, journal and database take together at most; at least 16MiB."),
    key("cache.min_free_bytes", Form::Bytes, &[], "", "Disk space that is left free on the cache's file system."),
    key("write_back_s", Form::Seconds, &[], "", "How long a file must be closed and quiet before it is uploaded; doubled while it keeps changing, at most 60."),
    key("poll_s", Form::Seconds, &[], "", "How often the remote's change feed is asked; at least 0.1."),
    key("refresh_s", Form::Seconds, &[], "", "How often directories in use are looked at again where the remote has no change feed; at least 0.1."),
    key("uploads", Form::Count(1, 64), &[], "", "Files that are uploaded at once."),
    key("read_only", Form::Switch, &[], "", "Whether the mount refuses every change."),
    key("deadline_s", Form::Seconds, &[], "", "How long a program waits for any answer at most; at least 0.1."),
    key("read_deadline_s", Form::Seconds, &[], "", "How long a read may go without a byte from the network before it fails; at least 0.1, at most deadline_s."),
    key("close", Form::Word(&["local", "remote"]), &[], "local", "What close waits for: the bytes are safe on this machine (local), or confirmed by the remote (remote)."),
    key("local_only", Form::List, &[], "", "Names that are never uploaded, as shell patterns (* ? [a-z]); a list given here replaces the default."),
    key("allow_other", Form::Switch, &[], "", "Whether other users of this machine may enter the mount (needs user_allow_other in /etc/fuse.conf unless root mounts)."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_stands_once_and_is_documented() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..i].iter().all(|other| other.name != key.name), "{} twice", key.name);
            assert!(key.doc.ends_with('.') && !key.default_text().is_empty(), "{}", key.name);
        }
        assert_eq!(TYPES, RemoteType::ALL.map(RemoteType::word));
    }
}
