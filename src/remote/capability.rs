//! What a provider can do. A missing ability is a flag here, never an `if` on a provider's name elsewhere.

/// What one remote can do, as documented or as probed at mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether ids survive a rename ([`crate::model::Entry::id`] is always given then).
    pub stable_ids: bool,
    pub case_sensitive: bool,
    pub names: NameRules,
    /// Whether `sweep` returns the whole tree in a few calls; if not, `sweep` is refused and `list` is used.
    pub whole_tree: bool,
    /// How many `list` calls at once do the provider no harm; 1 or more.
    pub list_parallel: usize,
    pub changes: ChangeFeed,
    /// Whether a read can be bound to a version, so that blocks of two versions never mix.
    pub read_pinned: bool,
    /// Whether the server itself refuses to create over an existing file.
    pub conditional_create: bool,
    /// Whether the server itself refuses to replace another version than the one named.
    pub conditional_replace: bool,
    /// Whether the server itself refuses to remove another version than the one named.
    pub conditional_remove: bool,
    /// The largest file for `put`, bytes; larger ones need a session.
    pub put_bytes_max: u64,
    /// Files of this size and more go through a session where there are sessions, bytes.
    pub session_from_bytes: u64,
    pub sessions: Option<UploadSessions>,
    pub rename_dir: RenameDir,
    /// Whether `rename` of a file over a file replaces it in one step, conditions included.
    pub rename_replaces: bool,
    /// Whether `copy` works on the server's side.
    pub copy: bool,
    /// Whether symbolic links are kept as such; if not, they are `.rclonelink` files.
    pub symlinks: bool,
    pub meta: MetaSupport,
    pub quota: bool,
    /// Whether empty directories exist by themselves.
    pub directories: bool,
    /// Whether paths are keys of a flat store: a write needs no directory to be there (those above spring into being, and end
    /// with what is in them unless they were made) and does not see that a directory has its name.
    pub flat_keys: bool,
}

/// Which names a provider takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// Characters refused anywhere in a name, besides `/` and NUL.
    pub forbidden: &'static str,
    /// Whether control characters (below 0x20 and 0x7F) are refused.
    pub no_control: bool,
    /// Whether names may not end in a full stop or a blank.
    pub no_trailing_dot_space: bool,
    /// Whether names may not begin with a full stop (nginx's WebDAV lists none that do).
    pub no_leading_dot: bool,
    /// Longest name in bytes of UTF-8.
    pub name_bytes_max: usize,
    /// Longest whole path in bytes of UTF-8, counted from the drive's root.
    pub path_bytes_max: usize,
    /// Whether names that are not UTF-8 are kept as they are (only true of a folder).
    pub any_bytes: bool,
}

/// How remote changes become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeFeed {
    /// Only by listing again.
    None,
    /// A directory's version changes when anything below it changes: list only where it differs (Nextcloud).
    EtagTree,
    /// A cursor, see [`super::Remote::changes`].
    Cursor,
}

/// What a directory rename costs, and whether it can be seen half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameDir {
    /// One call on the server.
    Server,
    /// `rename` copies and deletes each object below; safe to repeat after a crash.
    PerObject,
}

/// What upload sessions look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadSessions {
    /// Smallest part but the last, bytes.
    pub part_bytes_min: u64,
    /// Largest part, bytes.
    pub part_bytes_max: u64,
    pub parts_max: u32,
    /// Whether parts may be sent at once and in any order.
    pub parallel: bool,
    /// Whether a part can be copied on the server from the version being replaced.
    pub part_copy: bool,
}

/// Which attributes a remote keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaSupport {
    /// Whether `put` and `finish` store mtime and the rest given to them; if not, `set_meta` follows.
    pub with_upload: bool,
    /// Whether `set_meta` works on a file without sending its content again.
    pub alone: bool,
    /// Whether `set_meta` and `mkdir` keep attributes of directories.
    pub directories: bool,
    /// Steps of the mtime kept, nanoseconds; 0: no mtime is kept.
    pub mtime_step_ns: i64,
    pub mode: bool,
    /// Bytes of names and values of xattrs that can be kept with one file; 0: none.
    pub xattr_bytes_max: usize,
    /// Whether listings carry attributes; if not, `stat` does.
    pub in_listing: bool,
}
