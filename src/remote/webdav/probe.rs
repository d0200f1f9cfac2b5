//! What a server can do: the facts, how they are kept as text, and what follows from them. `probing` finds them out.

use super::Flavor;
use crate::error::{Error, Kind, Result};
use crate::remote::{Capabilities, ChangeFeed, MetaSupport, NameRules, RenameDir, UploadSessions};
use serde::{Deserialize, Serialize};

/// The version of the text form; a text of another version is not understood, and the server is probed again.
const FORMAT: u32 = 1;

/// How the server wants a Destination header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Destination {
    /// With the configured scheme and host.
    #[default]
    Own,
    /// With the other of http and https: a TLS proxy stands before it.
    OtherScheme,
    /// With the scheme and host that requests go to.
    Target,
    /// As a path alone.
    Path,
}

/// What was found out about one server. The default is the worst case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Probed {
    pub format: u32,
    /// The account this was found out with.
    pub url: String,
    pub user: String,
    /// What the server says it is; when that changes, it is probed again.
    pub server: String,
    pub flavor: Flavor,
    /// The root's path as the server writes it, decoded.
    pub root: Vec<String>,
    /// If-None-Match: * keeps what is there.
    pub conditional_create: bool,
    /// If-Match keeps another version, and lets the right one be replaced.
    pub conditional_replace: bool,
    /// The same for DELETE.
    pub conditional_remove: bool,
    /// Overwrite: F keeps what is at a MOVE's target.
    pub keeps_target: bool,
    /// A tagged If header binds the target of a MOVE to a version.
    pub tagged_conditions: bool,
    pub destination: Destination,
    /// X-OC-Mtime is obeyed.
    pub mtime_with_upload: bool,
    /// PROPPATCH of `DAV:lastmodified` is obeyed.
    pub mtime_alone: bool,
    /// The longest dead property that came back, bytes; 0: none does.
    pub property_bytes: usize,
    pub directory_properties: bool,
    /// Apache's `executable`.
    pub executable: bool,
    /// Depth: infinity works.
    pub deep: bool,
    /// A directory's etag changes with everything below it.
    pub tree_tags: bool,
    /// Two contents of one size, written within a second, have the same etag, or none.
    pub coarse_tags: bool,
    /// A write makes missing parents, rather than being refused.
    pub makes_parents: bool,
    /// Which of [`RISKY`] do not survive a Destination header, one bit each (WsgiDAV cuts it at a decoded `?`).
    pub loses: u8,
    /// Names that begin with a full stop are not listed (nginx), so none may be made: absence would look like deletion.
    pub hides_dots: bool,
    /// Control characters do not survive a Destination header (WsgiDAV drops tabs and line ends).
    pub loses_control: bool,
    /// MKCOL refuses to make what is there.
    pub conditional_mkdir: bool,
    pub copy: bool,
    pub quota: bool,
    pub case_sensitive: bool,
    /// `oc:fileid` is there.
    pub ids: bool,
    /// The collection for chunked uploads, an absolute escaped path ending in a slash.
    pub uploads: Option<String>,
}

impl Default for Probed {
    fn default() -> Self {
        Probed {
            format: FORMAT,
            url: String::new(),
            user: String::new(),
            server: String::new(),
            flavor: Flavor::Other,
            root: Vec::new(),
            conditional_create: false,
            conditional_replace: false,
            conditional_remove: false,
            keeps_target: false,
            tagged_conditions: false,
            destination: Destination::Own,
            mtime_with_upload: false,
            mtime_alone: false,
            property_bytes: 0,
            directory_properties: false,
            executable: false,
            deep: false,
            tree_tags: false,
            coarse_tags: true,
            makes_parents: true,
            loses: 0,
            hides_dots: false,
            loses_control: false,
            conditional_mkdir: false,
            copy: false,
            quota: false,
            case_sensitive: true,
            ids: false,
            uploads: None,
        }
    }
}

impl Probed {
    /// The text to keep.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings, numbers and flags is always JSON")
    }

    /// Reads a kept text; [`Kind::Config`] where it is of another account, another version of this program, or damaged.
    pub(super) fn from_text(text: &str, url: &str, user: &str) -> Result<Probed> {
        let refuse = |why: &str| Error::new(Kind::Config, format!("what is known of the WebDAV server: {why}"));
        let probed: Probed = serde_json::from_str(text).map_err(|e| refuse(&e.to_string()))?;
        if probed.format != FORMAT {
            return Err(refuse("written by another version"));
        }
        if probed.url != url || probed.user != user {
            return Err(refuse("found out with another account"));
        }
        Ok(probed)
    }

    pub(super) fn has_properties(&self) -> bool {
        self.property_bytes > 0
    }

    /// Whether it is Nextcloud or ownCloud.
    pub(super) fn is_cloud(&self) -> bool {
        matches!(self.flavor, Flavor::Nextcloud | Flavor::OwnCloud)
    }

    /// Whether the server's own times are those that were set.
    pub(super) fn keeps_mtime(&self) -> bool {
        self.mtime_with_upload || self.mtime_alone
    }

    /// Whether `oc:checksums` was computed by the server; Nextcloud repeats what some client declared.
    pub(super) fn hashes_verified(&self) -> bool {
        self.flavor == Flavor::OwnCloud
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        let cloud = self.is_cloud();
        let (sessions, session_from_bytes) = match self.uploads {
            Some(_) => (Some(SESSIONS), SESSION_FROM_BYTES),
            None => (None, u64::MAX),
        };
        Capabilities {
            stable_ids: self.ids,
            case_sensitive: self.case_sensitive,
            names: self.names(),
            whole_tree: self.deep,
            // PHP hosts bear 4 to 6; the rest 4 to 8.
            list_parallel: if cloud { 5 } else { 6 },
            changes: if self.tree_tags { ChangeFeed::EtagTree } else { ChangeFeed::None },
            read_pinned: true,
            conditional_create: self.conditional_create && self.flavor.is_atomic(),
            conditional_replace: self.conditional_replace && self.flavor.is_atomic(),
            conditional_remove: self.conditional_remove,
            put_bytes_max: u64::MAX,
            session_from_bytes,
            sessions,
            rename_dir: RenameDir::Server,
            rename_replaces: true,
            copy: self.copy,
            symlinks: false,
            meta: self.meta(),
            quota: self.quota,
            directories: true,
            flat_keys: false,
        }
    }

    fn names(&self) -> NameRules {
        let cloud = self.is_cloud();
        NameRules {
            // `\` is refused by both (lib/private/Files/Filesystem.php), and low control characters by Nextcloud.
            forbidden: if cloud { "\\" } else { LOST[usize::from(self.loses & 15)] },
            no_control: cloud || self.loses_control,
            no_trailing_dot_space: false,
            no_leading_dot: self.hides_dots,
            name_bytes_max: 255,
            // A request line is 8190 bytes at most on Apache (LimitRequestLine), and escaping may triple a name.
            path_bytes_max: 2600,
            any_bytes: false,
        }
    }

    fn meta(&self) -> MetaSupport {
        let properties = self.has_properties();
        MetaSupport {
            with_upload: properties || self.keeps_mtime(),
            alone: properties || self.mtime_alone,
            directories: properties && self.directory_properties,
            mtime_step_ns: match (properties, self.keeps_mtime()) {
                (true, _) => 1,
                (false, true) => 1_000_000_000,
                (false, false) => 0,
            },
            mode: properties,
            // Base64, quotes and names take the rest.
            xattr_bytes_max: self.property_bytes / 2,
            in_listing: true,
        }
    }
}

/// Nextcloud's chunked upload v2: 5 MiB to 5 GiB a part, 10,000 parts, any order (nextcloud/documentation, chunking.rst).
const SESSIONS: UploadSessions = UploadSessions {
    part_bytes_min: 5 << 20,
    part_bytes_max: 5 << 30,
    parts_max: 10_000,
    parallel: true,
    part_copy: false,
};
/// PHP proxies often stop bodies at 512 MiB, some at far less; ten parts of 10 MiB cost little more than one PUT.
const SESSION_FROM_BYTES: u64 = 100 << 20;

/// Characters that servers take apart a Destination with, though they are escaped.
pub(super) const RISKY: [char; 4] = ['%', '?', '#', ';'];
/// The subsets of [`RISKY`], as bits tell.
const LOST: [&str; 16] =
    ["", "%", "?", "%?", "#", "%#", "?#", "%?#", ";", "%;", "?;", "%?;", "#;", "%#;", "?#;", "%?#;"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_comes_back_only_for_its_account() {
        let probed = Probed { url: "http://h/".into(), user: "me".into(), copy: true, ..Probed::default() };
        let text = probed.to_text();
        assert_eq!(Probed::from_text(&text, "http://h/", "me").unwrap(), probed);
        assert_eq!(Probed::from_text(&text, "http://h/", "you").unwrap_err().kind, Kind::Config);
        assert_eq!(Probed::from_text(&text, "http://i/", "me").unwrap_err().kind, Kind::Config);
        assert_eq!(Probed::from_text("{", "http://h/", "me").unwrap_err().kind, Kind::Config);
    }

    #[test]
    fn nothing_is_claimed_of_a_server_that_was_not_probed() {
        let able = Probed::default().capabilities();
        assert!(!able.conditional_create && !able.conditional_replace && !able.conditional_remove && !able.whole_tree);
        assert_eq!(able.meta, MetaSupport { in_listing: true, ..MetaSupport::default() });
    }
}
