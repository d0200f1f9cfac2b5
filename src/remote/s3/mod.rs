//! A bucket of S3, or of a store that speaks its language, or a prefix of one.
//!
//! S3 has keys, not files: no directories (markers stand for them, see `keys`), no rename (`rename`, `rename_dir` copy and
//! remove), no ids, no feed of changes. What servers differ in is tried at the first connect (`probe`). A read of a file is one
//! request, so is storing a small one where the server obeys conditions; `S3Remote::requests` counts.
//!
//! Not kept here: symbolic links as such (a listing could not tell them from files; a link that s3fs made shows as a file
//! that holds its target), parents (a file may be stored where no directory is: the directory is then implied, and ends with
//! its last file).

mod address;
mod client;
mod copy;
mod credentials;
mod digest;
mod errors;
mod keys;
mod list;
mod meta;
mod multipart;
mod object;
mod probe;
mod remove;
mod rename;
mod rename_dir;
mod sign;
mod upload;
mod wire;

use crate::error::{Context, Error, Kind, Result};
use crate::model::{Entry, Meta, Quota, RemotePath, Version};
use crate::remote::{
    Body, ByteStream, Capabilities, ChangeFeed, Changes, Condition, Listing, MetaSupport, NameRules, Part, Place,
    PutRequest, Remote, RenameDir, Session, UploadSessions,
};
use crate::sys::{Chance, Clock};
use async_trait::async_trait;
use client::Client;
use digest::Want;
use keys::Layout;
use list::Encoding;
use probe::{Markers, Probe};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Names that are both an object's and a directory's, remembered; past this, `stat` may show the object for the directory.
const CLASHES_MAX: usize = 10_000;
/// Files of this size and more go in parts, bytes: below, what a broken connection costs is less than three more requests.
const SESSION_FROM_BYTES: u64 = 32 << 20;
/// Longest key, bytes of UTF-8 ("Object key naming guidelines").
const KEY_BYTES_MAX: usize = 1_024;

/// Where a bucket is and with which keys; what is `None` is looked for (see `credentials`) or has the default named here.
#[derive(Clone, Default)]
pub struct S3Options {
    /// `https://host[:port][/path]`; without it `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the profile's, else AWS.
    pub endpoint: Option<String>,
    /// Without it the endpoint's, `AWS_REGION`, the profile's, else `us-east-1`; the server's word corrects it.
    pub region: Option<String>,
    pub bucket: String,
    /// The part of the bucket that is the drive, with or without slashes around it; empty for all of it.
    pub prefix: String,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
    /// The profile in `~/.aws`; `AWS_PROFILE`, else `default`. Named here, it comes before keys in the environment.
    pub profile: Option<String>,
    /// `host/bucket/key` instead of `bucket.host/key`. By itself: for every endpoint but AWS.
    pub path_style: Option<bool>,
    /// A file of PEM certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Nothing is written, not even to find out what the server can do.
    pub read_only: bool,
}

impl fmt::Debug for S3Options {
    /// Writes no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("access_key_id", &self.access_key_id)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// A bucket as a remote.
pub struct S3Remote {
    client: Client,
    options: S3Options,
    layout: Layout,
    probe: Probe,
    capabilities: Capabilities,
    description: String,
    chance: Arc<dyn Chance>,
    skipped: AtomicU64,
    hadoop: AtomicBool,
    deletes_singly: AtomicBool,
    clashes: Mutex<BTreeSet<RemotePath>>,
}

/// Connects, and finds out what the server can do (about twenty small requests below the prefix, all cleaned up).
///
/// Uploads below the prefix that were begun more than a week ago and never ended are dropped, unless `read_only`.
/// `Config`: no such bucket, unusable settings. `SignIn`: no keys, or keys that are refused. `Denied`: they may not list.
pub async fn connect(options: S3Options, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Result<Arc<S3Remote>> {
    let mut remote = S3Remote::new(options, clock, chance, None)?;
    let doing = format!("connect to {}", remote.description);
    remote.greet().await.context(&doing)?;
    if !remote.options.read_only {
        remote.try_all().await.context(&doing)?;
        match remote.sweep_abandoned().await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!("{}: dropped {dropped} uploads that never ended", remote.description),
            // Not every store lists uploads, and not all keys may.
            Err(error) => tracing::info!("{}: abandoned uploads were not looked for: {error}", remote.description),
        }
    }
    remote.capabilities = remote.abilities();
    Ok(Arc::new(remote))
}

/// Starts without a single request, by what an earlier [`connect`] found out ([`S3Remote::probe_text`]).
///
/// `Config`: the text is of another bucket or version, or of keys that could not write then: `connect` instead.
pub fn from_saved(
    options: S3Options,
    saved: &str,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
) -> Result<Arc<S3Remote>> {
    S3Remote::new(options, clock, chance, Some(saved)).map(Arc::new)
}

impl S3Remote {
    fn new(
        options: S3Options,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        saved: Option<&str>,
    ) -> Result<S3Remote> {
        let client = Client::new(options.clone(), clock)?;
        let layout = Layout::new(&options.prefix);
        let description = format!("s3 {}/{} at {}", options.bucket, layout.prefix(), client.address.host());
        let probe = match saved {
            Some(text) => Probe::read(text, &description)?,
            None => Probe::unknown(description.clone(), client.region()),
        };
        if saved.is_some() {
            if !probe.writable && !options.read_only {
                return Err(Error::new(Kind::Config, "the keys could not write when last seen; connect anew"));
            }
            client.set_region(&probe.region);
        }
        let mut remote = S3Remote {
            client,
            options,
            layout,
            probe,
            capabilities: unknown_capabilities(),
            description,
            chance,
            skipped: AtomicU64::new(0),
            hadoop: AtomicBool::new(false),
            deletes_singly: AtomicBool::new(false),
            clashes: Mutex::new(BTreeSet::new()),
        };
        remote.capabilities = remote.abilities();
        Ok(remote)
    }

    /// What was found out about the server, for [`from_saved`]. Holds no secret.
    pub fn probe_text(&self) -> String {
        self.probe.text()
    }

    /// Requests sent so far.
    pub fn requests(&self) -> u64 {
        self.client.requests()
    }

    /// Keys that listings left out so far, since no file can be so named.
    pub fn keys_skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    fn abilities(&self) -> Capabilities {
        let probe = &self.probe;
        // A marker's key has a slash more than a file's.
        let path_bytes_max = KEY_BYTES_MAX.saturating_sub(self.layout.prefix().len() + 1);
        Capabilities {
            names: NameRules {
                // Without encoding, XML 1.0 cannot name control characters in listings.
                no_control: probe.encoding == Encoding::Plain,
                path_bytes_max,
                ..unknown_capabilities().names
            },
            conditional_create: probe.create && probe.finish_create,
            conditional_replace: probe.replace && probe.finish_replace,
            conditional_remove: probe.remove,
            sessions: Some(UploadSessions {
                part_bytes_min: multipart::PART_BYTES_MIN,
                part_bytes_max: multipart::PART_BYTES_MAX,
                // Scaleway takes 1,000 parts (rclone, backend/s3/provider/Scaleway.yaml).
                parts_max: if self.client.address.host().ends_with(".scw.cloud") {
                    1_000
                } else {
                    multipart::PARTS_MAX
                },
                parallel: true,
                part_copy: probe.part_copy,
            }),
            meta: MetaSupport { directories: probe.markers != Markers::Useless, ..unknown_capabilities().meta },
            directories: probe.markers == Markers::Listed,
            ..unknown_capabilities()
        }
    }

    /// Which hashes a body needs: SHA-256 only where no TLS protects it.
    fn want(&self) -> Want {
        if self.client.address.is_https() { Want::Md5 } else { Want::Md5AndSha256 }
    }

    fn encoding(&self) -> Encoding {
        self.probe.encoding
    }

    fn saw_hadoop(&self) -> bool {
        self.hadoop.load(Ordering::Relaxed)
    }

    fn is_clash(&self, path: &RemotePath) -> bool {
        self.clashes.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    fn note_seen(&self, clashes: &[RemotePath], hadoop: bool) {
        if hadoop {
            self.hadoop.store(true, Ordering::Relaxed);
        }
        let mut known = self.clashes.lock().unwrap_or_else(PoisonError::into_inner);
        for path in clashes {
            if known.len() < CLASHES_MAX {
                known.insert(path.clone());
            }
        }
    }

    fn writing(&self) -> Result<()> {
        if self.options.read_only { Err(Error::new(Kind::ReadOnly, "the drive is read-only")) } else { Ok(()) }
    }
}

/// What every bucket can do, and nothing that must be found out.
fn unknown_capabilities() -> Capabilities {
    Capabilities {
        stable_ids: false,
        case_sensitive: true,
        names: NameRules {
            forbidden: "",
            no_control: false,
            no_leading_dot: false,
            no_trailing_dot_space: false,
            name_bytes_max: 255,
            path_bytes_max: KEY_BYTES_MAX - 1,
            any_bytes: false,
        },
        whole_tree: true,
        list_parallel: 16,
        changes: ChangeFeed::None,
        read_pinned: true,
        conditional_create: false,
        conditional_replace: false,
        conditional_remove: false,
        put_bytes_max: upload::PUT_BYTES_MAX,
        session_from_bytes: SESSION_FROM_BYTES,
        sessions: None,
        rename_dir: RenameDir::PerObject,
        rename_replaces: true,
        copy: true,
        symlinks: false,
        meta: MetaSupport {
            with_upload: true,
            alone: true,
            directories: true,
            mtime_step_ns: 1,
            mode: true,
            xattr_bytes_max: meta::XATTR_BYTES_MAX,
            in_listing: false,
        },
        quota: false,
        directories: true,
        flat_keys: true,
    }
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::new(Kind::Unsupported, format!("S3 has no {what}")))
}

#[async_trait]
impl Remote for S3Remote {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        self.sweep_page(page).await.context("list all")
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        self.list_page(&directory.path, page).await.context(format_args!("list \"{}\"", directory.path))
    }

    async fn changes(&self, _cursor: Option<String>, _wait_ms: u64) -> Result<Changes> {
        unsupported("feed of changes")
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        self.stat_path(&place.path).await.context(format_args!("look at \"{}\"", place.path))
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let doing = format!("read {} to {} of \"{}\"", range.start, range.end, place.path);
        self.read_object(&place.path, version, range).await.context(doing)
    }

    async fn read_link(&self, _place: &Place) -> Result<Vec<u8>> {
        unsupported("symbolic links")
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        self.writing()?;
        self.put_file(&place.path, request).await.context(format_args!("store \"{}\"", place.path))
    }

    async fn put_link(&self, _place: &Place, _target: &[u8], _meta: Meta) -> Result<Entry> {
        unsupported("symbolic links")
    }

    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
        self.writing()?;
        let doing = format!("begin to upload \"{}\"", place.path);
        // Better to know before gigabytes are sent; `finish` decides.
        if *condition != Condition::Any {
            let (key, _) = self.object_key(&place.path).await.context(&doing)?;
            self.look(&key, condition).await.context(&doing)?;
        }
        self.begin_upload(&place.path, size, meta).await.context(doing)
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        self.upload_part(session, number, body, range).await.context(format_args!("upload part {number}"))
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        if !self.probe.part_copy {
            return unsupported("copies of parts here");
        }
        let doing = format!("copy part {number} of \"{}\"", from.path);
        self.copy_session_part(session, number, &from.path, version, range).await.context(doing)
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        self.list_parts(session).await.context("look at an upload")
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        self.writing()?;
        self.finish_upload(session, parts, meta, condition).await.context("finish an upload")
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        self.abort_session(session).await.context("drop an upload")
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        self.writing()?;
        self.make_directory(&place.path, meta).await.context(format_args!("make directory \"{}\"", place.path))
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        self.writing()?;
        let doing = format!("rename \"{}\" to \"{}\"", from.path, to.path);
        self.rename_path(&from.path, &to.path, source, condition).await.context(doing)
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        self.writing()?;
        let removed = match directory {
            true => self.remove_directory(&place.path).await,
            false => self.remove_file(&place.path, condition).await,
        };
        removed.context(format_args!("remove \"{}\"", place.path))
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        self.writing()?;
        let doing = format!("copy \"{}\" to \"{}\"", from.path, to.path);
        self.copy_file(&from.path, version, &to.path, condition).await.context(doing)
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        self.writing()?;
        let set = match directory {
            true => self.set_directory_meta(&place.path, meta).await,
            false => self.set_file_meta(&place.path, version, meta).await,
        };
        set.context(format_args!("set attributes of \"{}\"", place.path))
    }

    async fn quota(&self) -> Result<Quota> {
        Ok(Quota::default())
    }
}
