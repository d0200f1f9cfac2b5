//! What this server really does. Some stores refuse a condition they do not know (501), some ignore it and overwrite without a
//! word, so each is tried on objects of our own, named `.fourwheel-probe-…`, and what was stored is looked at.
//!
//! The findings are kept as text by the application, so that a later mount neither repeats this nor needs the server.

use super::S3Remote;
use super::client::Call;
use super::digest::{Hashes, Payload};
use super::errors::Refused;
use super::keys::PROBE_PREFIX;
use super::list::{Depth, Encoding};
use super::multipart::Target;
use super::object::is_opaque;
use super::upload::Stored;
use crate::error::{Error, Kind, Result};
use crate::model::Version;
use crate::remote::{Condition, Part};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde::{Deserialize, Serialize};

/// The form of the saved text; another one is probed again.
const FORM: u32 = 1;
/// A tag that no object has.
const WRONG: &str = "00000000000000000000000000000000";
/// What servers have trouble with, in one name: a blank, a plus, an encoded letter, a letter that is not ASCII.
const ODD: &str = " a+b%41é";
/// Objects of a probe that broke off are removed when older than this.
const LEFTOVER_NS: i64 = 86_400 * 1_000_000_000;

/// What becomes of the empty objects that stand for directories (`dir/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Markers {
    /// They are listed and can be looked at, as any object.
    Listed,
    /// They can be looked at, and are left out of listings.
    Unlisted,
    /// They cannot be looked at: directories are implied by what is in them, and keep no attributes.
    Useless,
}

/// What was found out about one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probe {
    form: u32,
    /// Endpoint, bucket and prefix that this is true of.
    place: String,
    pub region: String,
    /// Whether the keys may write at all; without, nothing below was tried.
    pub writable: bool,
    /// PutObject obeys If-None-Match: *.
    pub create: bool,
    /// PutObject obeys If-Match.
    pub replace: bool,
    /// DeleteObject obeys If-Match, also where no object is.
    pub remove: bool,
    /// CopyObject obeys x-amz-copy-source-if-match.
    pub copy_source: bool,
    /// CopyObject obeys If-Match and If-None-Match at its target.
    pub copy_target: bool,
    /// CompleteMultipartUpload obeys If-None-Match: *.
    pub finish_create: bool,
    /// CompleteMultipartUpload obeys If-Match.
    pub finish_replace: bool,
    /// UploadPartCopy works.
    pub part_copy: bool,
    /// UploadPartCopy obeys x-amz-copy-source-if-match.
    pub part_source: bool,
    /// The etag of a plain object is the MD5 of its content.
    pub etag_md5: bool,
    pub markers: Markers,
    pub encoding: Encoding,
}

impl Probe {
    /// What is taken for true before anything was tried.
    pub fn unknown(place: String, region: String) -> Probe {
        Probe {
            form: FORM,
            place,
            region,
            writable: false,
            create: false,
            replace: false,
            remove: false,
            copy_source: false,
            copy_target: false,
            finish_create: false,
            finish_replace: false,
            part_copy: false,
            part_source: false,
            etag_md5: false,
            markers: Markers::Listed,
            encoding: Encoding::Form,
        }
    }

    /// The findings as text.
    pub fn text(&self) -> String {
        // A struct of flags and strings always becomes JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Probe::text`] wrote. `Config`: it is of another form or another place, and must be probed anew.
    pub fn read(text: &str, place: &str) -> Result<Probe> {
        let again = |why: &str| Error::new(Kind::Config, format!("what is known of the S3 server {why}; connect anew"));
        let probe: Probe = serde_json::from_str(text).map_err(|_| again("cannot be read"))?;
        match (probe.form == FORM, probe.place == place) {
            (false, _) => Err(again("is of another version")),
            (_, false) => Err(again("is of another bucket")),
            _ => Ok(probe),
        }
    }
}

/// What a conditional request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    /// Neither: the server does not know this call or header.
    Unknown,
}

fn outcome<T>(answer: std::result::Result<T, Refused>) -> Result<Outcome> {
    match answer {
        Ok(_) => Ok(Outcome::Done),
        Err(refused) if refused.is_precondition() => Ok(Outcome::Refused),
        Err(refused) if refused.status == 0 || refused.error.kind == Kind::Throttled => Err(refused.error),
        Err(_) => Ok(Outcome::Unknown),
    }
}

impl S3Remote {
    /// Asks for the bucket at all, which settles region and keys, and removes what an earlier probe left behind.
    pub(super) async fn greet(&mut self) -> Result<()> {
        let prefix = format!("{}{PROBE_PREFIX}", self.layout.prefix());
        let keys = match self.keys(&prefix, Depth::All, 100, None).await {
            Err(refused) if refused.code == "NoSuchBucket" || (refused.status == 404 && refused.code.is_empty()) => {
                let why = format!(
                    "there is no bucket \"{}\" at {}",
                    self.client.address.bucket(),
                    self.client.address.host()
                );
                return Err(Error::new(Kind::Config, why));
            }
            answer => answer?,
        };
        if !self.options.read_only {
            let now = self.client.wall_ns();
            for old in
                keys.objects.iter().filter(|o| o.modified_ns.is_some_and(|at| now.saturating_sub(at) > LEFTOVER_NS))
            {
                self.delete(&old.key).await?;
            }
        }
        self.probe.region = self.client.region();
        Ok(())
    }

    /// Tries everything. About fifteen small requests, once in the life of a mount.
    pub(super) async fn try_all(&mut self) -> Result<()> {
        let stem = format!("{}{PROBE_PREFIX}{:016x}", self.layout.prefix(), self.chance.next());
        let marker = format!("{stem}/");
        let mut key = format!("{stem}{ODD}");
        let first = match self.probe_put(&key, b"first", None).await {
            Ok(etag) => etag,
            Err(refused) if refused.error.kind == Kind::Denied => {
                tracing::warn!("{}: these keys may not write here: {}", self.description, refused.error);
                return Ok(());
            }
            // Stores over a plain file system refuse some names.
            Err(refused) if refused.status == 400 => {
                key = stem.clone();
                self.probe_put(&key, b"first", None).await?
            }
            Err(refused) => return Err(refused.error),
        };
        self.probe.writable = true;
        let found = self.try_object(&key, &marker, &first.0, first.1).await;
        // Whatever came out, nothing of ours stays; what does is removed by a later connect.
        let swept = [self.delete(&key).await, self.delete(&marker).await];
        found?;
        swept.into_iter().collect()
    }

    async fn try_object(&mut self, key: &str, marker: &str, etag: &str, opaque: bool) -> Result<()> {
        self.probe.etag_md5 = !opaque && etag == Hashes::of(b"first", self.want()).etag();
        let create = outcome(self.probe_put(key, b"second", Some(("if-none-match", "*"))).await)?;
        let replace = outcome(self.probe_put(key, b"second", Some(("if-match", WRONG))).await)?;
        let with_marker = self.probe_put(marker, b"", None).await.is_ok();
        self.list_probe(key, marker).await?;
        let unharmed = self.head(key).await?.is_some_and(|head| head.etag == etag);
        self.probe.create = create == Outcome::Refused && unharmed;
        let readable = with_marker && matches!(self.head(marker).await, Ok(Some(head)) if head.size == 0);
        if !readable {
            self.probe.markers = Markers::Useless;
        }
        // What was refused must be refused for the wrong tag only.
        let right = outcome(self.probe_put(key, b"first", Some(("if-match", etag))).await)?;
        self.probe.replace = replace == Outcome::Refused && right == Outcome::Done && unharmed;
        let now = self.head(key).await?.map(|head| head.etag).unwrap_or_default();
        self.try_copies(key, &now).await?;
        self.try_parts(key, &now).await?;
        self.try_removal(key).await
    }

    /// Finds out how keys and markers are listed.
    async fn list_probe(&mut self, key: &str, marker: &str) -> Result<()> {
        let stem = marker.trim_end_matches('/');
        for encoding in [Encoding::Form, Encoding::Percent, Encoding::Plain] {
            let Ok(keys) = self.keys_as(encoding, stem, Depth::All, 10, None).await else { continue };
            let listed = |key: &str| keys.objects.iter().any(|object| object.key == key);
            if listed(key) {
                self.probe.encoding = encoding;
                self.probe.markers = if listed(marker) { Markers::Listed } else { Markers::Unlisted };
                return Ok(());
            }
        }
        Err(Error::new(Kind::Corrupt, format!("the server does not list \"{}\", which it stored", key.escape_debug())))
    }

    async fn try_copies(&mut self, key: &str, etag: &str) -> Result<()> {
        let copy = |source: &str, header: (&'static str, &str)| {
            Call::object(Method::PUT, key)
                .header("x-amz-copy-source", self.client.address.copy_source(key))
                .header("x-amz-copy-source-if-match", format!("\"{source}\""))
                .header("x-amz-metadata-directive", "REPLACE")
                .header(header.0, header.1)
        };
        let harmless = ("x-amz-meta-mtime", "1");
        let wrong_source = outcome(self.client.send(&copy(WRONG, harmless)).await)?;
        let right_source = self.answer(&copy(etag, harmless)).await?;
        self.probe.copy_source = wrong_source == Outcome::Refused && right_source == Outcome::Done;
        let taken = self.answer(&copy(etag, ("if-none-match", "*"))).await?;
        let wrong_target = self.answer(&copy(etag, ("if-match", "\"00000000000000000000000000000000\""))).await?;
        self.probe.copy_target = taken == Outcome::Refused && wrong_target == Outcome::Refused;
        Ok(())
    }

    /// The outcome of a call that may fail under status 200.
    async fn answer(&self, call: &Call) -> Result<Outcome> {
        match self.client.send(call).await {
            Ok(reply) => outcome(reply.document().await),
            Err(refused) => outcome::<()>(Err(refused)),
        }
    }

    async fn try_parts(&mut self, key: &str, etag: &str) -> Result<()> {
        let Ok(upload_id) = self.create_upload(key, Vec::new()).await else { return Ok(()) };
        let target = Target { key: key.to_owned(), upload_id };
        let found = self.try_upload(&target, etag).await;
        self.abort_upload(&target).await?;
        found
    }

    async fn try_upload(&mut self, target: &Target, etag: &str) -> Result<()> {
        // Without a range: AWS copies ranges only of objects above 5 MiB.
        let (wrong, right) = (Version::new(WRONG), Version::new(etag));
        self.probe.part_source = true;
        let refused = self.copy_part(target, 1, &target.key, &wrong, None).await.err().map(|error| error.kind);
        let copied = self.copy_part(target, 1, &target.key, &right, None).await;
        self.probe.part_copy = copied.is_ok();
        self.probe.part_source = refused == Some(Kind::Changed);
        let (hashes, payload) = (Hashes::of(b"first", self.want()), Payload::Bytes("first".into()));
        let tag = match copied {
            Ok(tag) => tag,
            // A store that streams parts on (rclone's) may have taken the copy for a part without bytes.
            Err(_) => match self.send_part(target, 1, payload, &hashes).await {
                Ok(tag) => tag,
                Err(_) => return Ok(()),
            },
        };
        let part = Part { number: 1, size: 5, tag };
        let parts = std::slice::from_ref(&part);
        (self.probe.finish_create, self.probe.finish_replace) = (true, true);
        let taken = self.complete_upload(target, parts, &Condition::Absent).await;
        let other = self.complete_upload(target, parts, &Condition::Is(wrong)).await;
        let refused = |result: Result<Stored>| matches!(result, Err(error) if error.kind == Kind::Precondition);
        // An upload that the first call completed says nothing about the second.
        self.probe.finish_create = refused(taken);
        self.probe.finish_replace = self.probe.finish_create && refused(other);
        Ok(())
    }

    /// Removes the probe's object, by way of trying conditions.
    async fn try_removal(&mut self, key: &str) -> Result<()> {
        let Some(head) = self.head(key).await? else { return Ok(()) };
        let remove = |tag: &str| Call::object(Method::DELETE, key).header("if-match", format!("\"{tag}\""));
        let wrong = outcome(self.client.send(&remove(WRONG)).await)?;
        let still = self.head(key).await?.is_some();
        let right = outcome(self.client.send(&remove(&head.etag)).await)?;
        let absent = self.client.send(&remove(&head.etag)).await;
        let told = matches!(absent, Err(refused) if refused.is_absent() || refused.is_precondition());
        self.probe.remove = wrong == Outcome::Refused && still && right == Outcome::Done && told;
        Ok(())
    }

    /// Stores a few bytes; returns the etag, and whether it says nothing of the content.
    async fn probe_put(
        &self,
        key: &str,
        bytes: &'static [u8],
        condition: Option<(&'static str, &str)>,
    ) -> std::result::Result<(String, bool), Refused> {
        let hashes = Hashes::of(bytes, self.want());
        let mut call = Call::object(Method::PUT, key)
            .header("content-md5", BASE64.encode(hashes.md5))
            .body(Payload::Bytes(bytes::Bytes::from_static(bytes)), hashes.sha256);
        if let Some((name, tag)) = condition {
            call = call.header(name, if tag == "*" { tag.to_owned() } else { format!("\"{tag}\"") });
        }
        let reply = self.client.send(&call).await?;
        let found = (reply.etag(), is_opaque(&reply.headers));
        reply.drain().await?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_kept_for_their_place_only() {
        let probe = Probe { create: true, ..Probe::unknown("here".into(), "us-east-1".into()) };
        assert_eq!(Probe::read(&probe.text(), "here").unwrap(), probe);
        assert_eq!(Probe::read(&probe.text(), "there").unwrap_err().kind, Kind::Config);
        assert_eq!(Probe::read("{}", "here").unwrap_err().kind, Kind::Config);
    }
}
