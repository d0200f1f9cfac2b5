//! Listings: pages of keys from the server, and the pages of `list` and `sweep` woven of them.
//!
//! ListObjectsV2, 1,000 keys a page, keys percent-encoded where the probe found that the server does it right. A server that
//! knows only the first version of the call (old Ceph, SeaweedFS) answers without a token; the next page then asks by `marker`.

use super::S3Remote;
use super::client::Call;
use super::errors::Answer;
use super::keys::{Object, Thread, Weaver};
use super::wire;
use crate::error::{Error, Kind, Result};
use crate::model::RemotePath;
use crate::remote::Listing;
use futures_util::{StreamExt as _, TryStreamExt as _};
use percent_encoding::percent_decode_str;
use reqwest::Method;
use serde::{Deserialize, Serialize};

/// Keys a page, the most that S3 gives (`API/API_ListObjectsV2.html`, max-keys).
pub(super) const PAGE: u32 = 1_000;
/// How many skipped keys are named in the log; more are only counted.
const SKIPPED_NAMED_MAX: u64 = 100;

/// Etags asked for at once, where listings leave them out.
const ASKED_AT_ONCE: usize = 16;

/// How keys come in listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Encoding {
    /// `encoding-type=url`, blanks as `+` (AWS, MinIO).
    Form,
    /// `encoding-type=url`, a `+` stands for itself.
    Percent,
    /// `encoding-type` makes no difference or harms; keys come as they are.
    Plain,
}

impl Encoding {
    /// The key that `text` stands for; `None` where it is not UTF-8.
    pub fn decode(self, text: &str) -> Option<String> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|key| key.into_owned());
        match self {
            Encoding::Form => decoded(&text.replace('+', " ")),
            Encoding::Percent => decoded(text),
            Encoding::Plain => Some(text.to_owned()),
        }
    }
}

/// Whether keys below a further slash come one by one or as their common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    One,
    All,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum From {
    /// The server's token.
    Token(String),
    /// After this key (list version 1).
    Marker(String),
    /// After this key, as we choose it.
    After(String),
}

/// One page of keys.
pub(super) struct Keys {
    /// Whole keys, ascending where the server sorts.
    pub objects: Vec<Object>,
    /// Common prefixes, whole, each ends in `/`.
    pub prefixes: Vec<String>,
    pub next: Option<From>,
}

/// What a page's text holds: where the server is, and where the weaver is.
#[derive(Serialize, Deserialize)]
struct PageText {
    from: From,
    thread: Thread,
}

impl S3Remote {
    /// One page of the keys that begin with `prefix`.
    pub(super) async fn keys(&self, prefix: &str, depth: Depth, keys_max: u32, from: Option<&From>) -> Answer<Keys> {
        self.keys_as(self.encoding(), prefix, depth, keys_max, from).await
    }

    /// The same, with a certain decoding; the probe finds the right one so.
    pub(super) async fn keys_as(
        &self,
        encoding: Encoding,
        prefix: &str,
        depth: Depth,
        keys_max: u32,
        from: Option<&From>,
    ) -> Answer<Keys> {
        let mut call = Call::bucket(Method::GET)
            .query("list-type", "2")
            .query("prefix", prefix)
            .query("max-keys", keys_max.to_string());
        if depth == Depth::One {
            call = call.query("delimiter", "/");
        }
        if encoding != Encoding::Plain {
            call = call.query("encoding-type", "url");
        }
        call = match from {
            None => call,
            Some(From::Token(token)) => call.query("continuation-token", token.as_str()),
            Some(From::Marker(key)) => call.query("marker", key.as_str()),
            Some(From::After(key)) => call.query("start-after", key.as_str()),
        };
        let root = self.client.send(&call).await?.document().await?;
        // A server that does not echo the encoding did not apply it.
        let encoding = if root.text_of("EncodingType") == Some("url") { encoding } else { Encoding::Plain };
        let mut found = Keys { objects: Vec::new(), prefixes: Vec::new(), next: None };
        let mut last = None;
        for object in root.all("Contents") {
            let text = object.must("Key")?;
            last = last.max(Some(text));
            match encoding.decode(text).filter(|key| key.starts_with(prefix)) {
                Some(key) => found.objects.push(Object {
                    key,
                    size: object.number("Size")?,
                    etag: object.text_of("ETag").map(wire::etag).unwrap_or_default(),
                    modified_ns: object.text_of("LastModified").and_then(wire::time_ns),
                }),
                None => self.note_skipped(text),
            }
        }
        for common in root.all("CommonPrefixes") {
            let text = common.must("Prefix")?;
            last = last.max(Some(text));
            match encoding.decode(text).filter(|key| key.starts_with(prefix)) {
                Some(key) => found.prefixes.push(key),
                None => self.note_skipped(text),
            }
        }
        if root.flag("IsTruncated") {
            found.next = Some(match (root.text_of("NextContinuationToken"), root.text_of("NextMarker").or(last)) {
                (Some(token), _) => From::Token(token.to_owned()),
                (None, Some(key)) => From::Marker(encoding.decode(key).unwrap_or_else(|| key.to_owned())),
                (None, None) => {
                    return Err(Error::new(Kind::Corrupt, "a page without keys that is not the last").into());
                }
            });
            if found.next.as_ref() == from {
                return Err(Error::new(Kind::Corrupt, "the server's listing goes round in circles").into());
            }
        }
        Ok(found)
    }

    /// One page of the whole tree.
    pub(super) async fn sweep_page(&self, page: Option<String>) -> Result<Listing> {
        let (from, thread) = resume(page, || Thread::below(""))?;
        let keys = self.keys(self.layout.prefix(), Depth::All, PAGE, from.as_ref()).await?;
        self.woven(keys, thread).await
    }

    /// One page of one directory. A first page without anything, not even a marker, is `NotFound` or `NotDirectory`.
    pub(super) async fn list_page(&self, directory: &RemotePath, page: Option<String>) -> Result<Listing> {
        let first = page.is_none();
        let prefix = self.layout.directory(directory);
        let (from, thread) = resume(page, || Thread::below(&prefix[self.layout.prefix().len()..]))?;
        let keys = self.keys(&prefix, Depth::One, PAGE, from.as_ref()).await?;
        if first && keys.objects.is_empty() && keys.prefixes.is_empty() && !directory.is_root() {
            self.must_be_directory(directory).await?;
        }
        self.woven(keys, thread).await
    }

    async fn woven(&self, mut keys: Keys, thread: Thread) -> Result<Listing> {
        self.ask_etags(&mut keys.objects).await?;
        let mut weaver = Weaver::new(thread);
        let cut = self.layout.prefix().len();
        let mut prefixes = keys.prefixes.into_iter().peekable();
        for mut object in keys.objects {
            while let Some(prefix) = prefixes.next_if(|prefix| *prefix < object.key) {
                weaver.prefix(&prefix[cut..]);
            }
            object.key.drain(..cut);
            weaver.object(object);
        }
        prefixes.for_each(|prefix| weaver.prefix(&prefix[cut..]));
        if keys.next.is_none() {
            weaver.finish();
        }
        weaver.skipped.iter().for_each(|key| self.note_skipped(key));
        self.note_seen(&weaver.clashes, weaver.hadoop);
        let next = match keys.next {
            Some(from) => Some(page_text(&PageText { from, thread: weaver.thread })?),
            None => None,
        };
        Ok(Listing { entries: weaver.entries, next, directory: None })
    }

    /// Asks for the etags that a server's listing leaves out (s3s-fs), one request each: a file without a version is of no use.
    async fn ask_etags(&self, objects: &mut [Object]) -> Result<()> {
        let bare = objects.iter_mut().filter(|object| object.etag.is_empty() && !object.key.ends_with('/'));
        let asked = bare.map(|object| async move {
            // An object that went meanwhile is listed without a version.
            object.etag = self.head(&object.key).await?.map(|head| head.etag).unwrap_or_default();
            Ok::<(), Error>(())
        });
        let asked: Vec<_> = asked.collect();
        futures_util::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// Counts a key that cannot be shown, and names it in the log while there are few.
    pub(super) fn note_skipped(&self, key: &str) {
        let before = self.skipped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if before < SKIPPED_NAMED_MAX {
            tracing::warn!("{}: no file can be named \"{}\"; left out", self.description, key.escape_debug());
        }
    }
}

fn page_text(page: &PageText) -> Result<String> {
    serde_json::to_string(page).map_err(|e| Error::new(Kind::Invalid, format!("note where the listing stands: {e}")))
}

fn resume(page: Option<String>, start: impl FnOnce() -> Thread) -> Result<(Option<From>, Thread)> {
    let Some(text) = page else { return Ok((None, start())) };
    let page: PageText =
        serde_json::from_str(&text).map_err(|e| Error::new(Kind::Invalid, format!("page of a listing: {e}")))?;
    Ok((Some(page.from), page.thread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_as_the_server_encodes() {
        assert_eq!(Encoding::Form.decode("a+b%2Bc%2541").as_deref(), Some("a b+c%41"));
        assert_eq!(Encoding::Percent.decode("a+b%20c").as_deref(), Some("a+b c"));
        assert_eq!(Encoding::Plain.decode("a+b%20c").as_deref(), Some("a+b%20c"));
        assert_eq!(Encoding::Form.decode("%ff"), None);
    }

    #[test]
    fn a_page_that_is_not_ours_is_refused() {
        assert!(resume(Some("x".into()), Thread::default).is_err());
        let text = page_text(&PageText { from: From::Token("t".into()), thread: Thread::below("a/") }).unwrap();
        assert_eq!(resume(Some(text), Thread::default).unwrap(), (Some(From::Token("t".into())), Thread::below("a/")));
    }
}
