//! Removing files, directories and, for the rename of directories, keys by the thousand.

use super::S3Remote;
use super::client::Call;
use super::digest::{Hashes, Payload, Want};
use super::errors::Refused;
use super::list::Depth;
use super::object::lost;
use super::probe::Markers;
use super::upload::RACES_MAX;
use super::wire;
use crate::error::{Error, Kind, Result};
use crate::model::{RemotePath, Version};
use crate::remote::Condition;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use std::sync::atomic::Ordering;

/// Single deletions at once, where the server has no call for many.
const AT_ONCE: usize = 16;

impl S3Remote {
    /// Removes a file. One request where the server obeys the condition, else a look before it.
    pub(super) async fn remove_file(&self, path: &RemotePath, condition: &Condition) -> Result<()> {
        let (key, head) = self.object_key(path).await?;
        let removed = match condition {
            Condition::Absent => return Err(Error::new(Kind::Invalid, "what must be absent cannot be removed")),
            Condition::Is(version) => self.remove_key(&key, version).await,
            // The answer to a DELETE does not tell whether something was there.
            Condition::Any => match (head.is_some() || self.head(&key).await?.is_some(), &key) {
                (true, key) => self.delete(key).await,
                (false, _) => Err(Error::new(Kind::NotFound, "no such file")),
            },
        };
        match removed {
            Err(error) if error.kind == Kind::NotFound => Err(self.no_object(path).await),
            done => done,
        }
    }

    /// Removes one version of a key. `NotFound`, `Precondition`.
    pub(super) async fn remove_key(&self, key: &str, version: &Version) -> Result<()> {
        if !self.probe.remove {
            return match self.head(key).await? {
                Some(head) if head.is(version) => self.delete(key).await,
                Some(_) => Err(lost()),
                None => Err(Error::new(Kind::NotFound, "no such file")),
            };
        }
        for race in 1.. {
            let call = Call::object(Method::DELETE, key).header("if-match", format!("\"{}\"", version.as_str()));
            match self.client.send(&call).await {
                Ok(reply) => return reply.drain().await,
                // A missing key is 404 at AWS and 412 elsewhere.
                Err(refused) if refused.is_precondition() || refused.is_absent() => {
                    let there = !refused.is_absent() && self.head(key).await?.is_some();
                    return Err(if there { lost() } else { Error::new(Kind::NotFound, "no such file") });
                }
                Err(refused) if refused.code == "ConditionalRequestConflict" && race < RACES_MAX => {}
                Err(refused) => return Err(refused.error),
            }
        }
        Err(Error::new(Kind::Unavailable, "others keep writing to it"))
    }

    /// Removes a key, whatever is there; that nothing was there is no error.
    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        match self.client.send(&Call::object(Method::DELETE, key)).await {
            Ok(reply) => reply.drain().await,
            Err(refused) if refused.is_absent() => Ok(()),
            Err(refused) => Err(refused.error),
        }
    }

    /// Removes an empty directory. What another client writes below it at the same moment stays: the directory is then implied.
    pub(super) async fn remove_directory(&self, path: &RemotePath) -> Result<()> {
        if path.is_root() {
            return Err(Error::new(Kind::Invalid, "the drive's root cannot be removed"));
        }
        let prefix = self.layout.directory(path);
        let keys = self.keys(&prefix, Depth::All, 2, None).await?;
        let marker = keys.objects.iter().find(|object| object.key == prefix && object.size == 0);
        if keys.next.is_some() || keys.objects.len() > usize::from(marker.is_some()) {
            return Err(Error::new(Kind::NotEmpty, "the directory is not empty"));
        }
        let mut found = marker.is_some();
        if !found
            && self.probe.markers == Markers::Unlisted
            && self.head(&prefix).await?.is_some_and(|head| head.size == 0)
        {
            found = true;
        }
        if found {
            self.delete(&prefix).await?;
        }
        let hadoop = self.layout.hadoop(path);
        if self.saw_hadoop() && self.head(&hadoop).await?.is_some_and(|head| head.size == 0) {
            self.delete(&hadoop).await?;
            found = true;
        }
        if found {
            return Ok(());
        }
        if self.probe.markers == Markers::Useless {
            // There may be one that cannot be seen.
            return self.delete(&prefix).await;
        }
        self.must_be_directory(path).await
    }

    /// Removes many keys (1,000 at most), by one request where the server can. Keys that are gone are no error.
    pub(super) async fn delete_many(&self, keys: Vec<String>) -> Result<()> {
        // XML 1.0 cannot name a key with control characters.
        let (odd, plain): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.chars().any(char::is_control));
        self.delete_singly(odd).await?;
        if plain.is_empty() {
            return Ok(());
        }
        if self.deletes_singly.load(Ordering::Relaxed) {
            return self.delete_singly(plain).await;
        }
        match self.delete_batch(&plain).await {
            Err(refused) if refused.is_not_implemented() || refused.status == 405 => {
                self.deletes_singly.store(true, Ordering::Relaxed);
                self.delete_singly(plain).await
            }
            done => Ok(done?),
        }
    }

    async fn delete_batch(&self, keys: &[String]) -> std::result::Result<(), Refused> {
        let body = wire::delete_body(keys);
        let hashes = Hashes::of(body.as_bytes(), Want::Md5AndSha256);
        let call = Call::bucket(Method::POST)
            .query("delete", "")
            .header("content-md5", BASE64.encode(hashes.md5))
            .header("content-type", "application/xml")
            .body(Payload::Bytes(body.into()), hashes.sha256);
        let root = self.client.send(&call).await?.document().await?;
        // Each key fails for itself, inside a success.
        match root.all("Error").find(|error| error.text_of("Code") != Some("NoSuchKey")) {
            Some(error) => Err(Refused::inside(error)),
            None => Ok(()),
        }
    }

    async fn delete_singly(&self, keys: Vec<String>) -> Result<()> {
        let calls = keys.into_iter().map(|key| async move { self.delete(&key).await });
        futures_util::stream::iter(calls).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }
}
