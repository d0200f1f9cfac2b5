//! Renaming a directory: every object below is copied, then every one is removed. Safe to break off and repeat anywhere.
//!
//! 1. The target's marker is written with a note that names the source (`x-amz-meta-fourwheel-rename`). It makes a repeated
//!    call tell its own half-done work from somebody else's directory.
//! 2. All below the source is copied. The source is whole until this is done.
//! 3. Page by page, what stands equal at the target is removed at the source; what came meanwhile is copied first.
//! 4. The source's marker goes, and the note at the target.
//!
//! While this runs both trees can be seen. What another client writes to the source between a page of step 3 and its
//! removal, milliseconds later, is lost unless the bucket keeps versions: S3's call for many removals takes no conditions.

use super::S3Remote;
use super::copy::{COPY_BYTES_MAX, Origin, Seen};
use super::digest::hex;
use super::keys::{Object, directory_entry};
use super::list::{Depth, From, PAGE};
use super::meta;
use super::object::{Head, is_md5, is_opaque, lost};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{Entry, FileKind, Meta, RemotePath, Version};
use crate::remote::Condition;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::header::HeaderMap;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// Copies at once.
const COPIES_AT_ONCE: usize = 16;

/// Rounds of removal, while another client keeps changing the source.
const ROUNDS_MAX: u32 = 4;

/// What a pass does with a page of the source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Copies into a target that held nothing.
    Copy,
    /// Copies what does not stand equal at the target.
    CopyMissing,
    /// The same, then removes the source's objects.
    Remove,
}

/// One rename under way; prefixes end in `/`.
struct Move<'a> {
    source: &'a str,
    target: &'a str,
}

impl S3Remote {
    /// Moves a directory to where nothing is.
    pub(super) async fn rename_directory(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        condition: &Condition,
    ) -> Result<Entry> {
        if to.is_within(from) {
            return Err(Error::new(Kind::Invalid, "a directory cannot move below itself"));
        }
        let (source, target) = (self.layout.directory(from), self.layout.directory(to));
        let note = hex(&Sha256::digest(source.as_bytes()));
        let marker = self.head(&target).await?;
        let ours =
            marker.as_ref().is_some_and(|head| head.headers.get(meta::RENAME).is_some_and(|value| *value == note));
        if !ours {
            // Whether the source is there comes first: a repeated call, with all done, says NotFound.
            if self.stat_directory(from).await?.is_none() {
                return Err(Error::new(Kind::NotFound, "no such file or directory"));
            }
            let taken =
                marker.is_some() || self.stat_directory(to).await?.is_some() || self.object(to).await?.is_some();
            if taken || matches!(condition, Condition::Is(_)) {
                return Err(lost());
            }
            self.write_note(&source, &target, &note).await?;
        }
        let work = Move { source: &source, target: &target };
        self.pass(&work, if ours { Pass::CopyMissing } else { Pass::Copy }).await?;
        let mut rounds = 0;
        while self.pass(&work, Pass::Remove).await? > 0 {
            rounds += 1;
            if rounds == ROUNDS_MAX {
                return Err(Error::new(Kind::Unavailable, "others keep writing to what is being renamed"));
            }
        }
        self.delete(&source).await.context("remove the marker of what was renamed")?;
        let hadoop = self.layout.hadoop(from);
        if self.saw_hadoop() && self.head(&hadoop).await?.is_some_and(|head| head.size == 0) {
            self.delete(&hadoop).await?;
        }
        self.remove_note(&target).await
    }

    /// Writes the target's marker, with the attributes (and the bytes, if any) of the source's.
    async fn write_note(&self, source: &str, target: &str, note: &str) -> Result<()> {
        let marker = self.head(source).await?;
        let mut headers = match &marker {
            Some(head) => meta::rewritten(&head.headers, &Meta::default(), FileKind::Directory)?,
            None => Vec::new(),
        };
        headers.push((meta::RENAME.to_owned(), note.to_owned()));
        match marker.filter(|head| head.size > 0) {
            Some(head) => {
                let origin = Origin { key: source, head: &head, seen: Seen::JustNow };
                self.copy_key(origin, target, Some(headers), &Condition::Absent).await.map(drop)
            }
            None => self.put_marker(target, headers, &Condition::Absent).await,
        }
    }

    async fn remove_note(&self, target: &str) -> Result<Entry> {
        let Some(head) = self.head(target).await? else { return Ok(directory_entry(None)) };
        let headers = meta::rewritten(&head.headers, &Meta::default(), FileKind::Directory)?;
        if head.size > 0 {
            self.copy_key(
                Origin { key: target, head: &head, seen: Seen::JustNow },
                target,
                Some(headers),
                &Condition::Any,
            )
            .await?;
        } else {
            self.put_marker(target, headers, &Condition::Any).await?;
        }
        let mut entry = directory_entry(None);
        entry.meta = Some(meta::read(&head.headers, FileKind::Directory));
        Ok(entry)
    }

    /// Goes over the source once. Returns how many objects could not be settled, since they changed under our hands.
    async fn pass(&self, work: &Move<'_>, pass: Pass) -> Result<usize> {
        let (mut from, mut left): (Option<From>, usize) = (None, 0);
        loop {
            let page = self.keys(work.source, Depth::All, PAGE, from.as_ref()).await?;
            let objects: Vec<Object> = page.objects.into_iter().filter(|object| object.key != work.source).collect();
            let there = if pass == Pass::Copy { HashMap::new() } else { self.standing(work, &objects).await? };
            let settled = objects.into_iter().map(|object| {
                let target = format!("{}{}", work.target, &object.key[work.source.len()..]);
                let stands = there.get(&target);
                async move { Ok::<_, Error>(self.settle(&object, &target, stands).await?.then_some(object.key)) }
            });
            let settled: Vec<_> = settled.collect();
            let settled: Vec<Option<String>> =
                futures_util::stream::iter(settled).buffer_unordered(COPIES_AT_ONCE).try_collect().await?;
            left += settled.iter().filter(|key| key.is_none()).count();
            let done: Vec<String> = settled.into_iter().flatten().collect();
            if pass == Pass::Remove && !done.is_empty() {
                self.delete_many(done).await?;
            }
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(left),
            }
        }
    }

    /// Sees to it that `object` stands at `target`; false where it changed meanwhile and must be looked at again.
    async fn settle(&self, object: &Object, target: &str, stands: Option<&Object>) -> Result<bool> {
        let condition = match stands {
            None if self.probe.copy_target => Condition::Absent,
            None => Condition::Any,
            Some(stands) if equal(object, stands, self.probe.etag_md5) => return Ok(true),
            // An older state of the source, copied by us before.
            Some(stands) if object.modified_ns > stands.modified_ns => {
                Condition::Is(Version::new(stands.etag.as_str()))
            }
            Some(stands) => {
                // One object may be encrypted by KMS where others are not; its etag says nothing then.
                let head = self.head(&object.key).await?;
                return match head {
                    Some(head) if is_opaque(&head.headers) && head.size == stands.size => Ok(true),
                    Some(_) => {
                        Err(lost().context(format!("\"{}\" and \"{target}\" differ", object.key).escape_debug()))
                    }
                    None => Ok(false),
                };
            }
        };
        let mut head = Head {
            size: object.size,
            etag: object.etag.clone(),
            modified_ns: object.modified_ns,
            headers: HeaderMap::new(),
        };
        if head.etag.is_empty() || head.size > COPY_BYTES_MAX {
            let Some(found) = self.head(&object.key).await? else { return Ok(false) };
            head = found;
        }
        match self
            .copy_key(Origin { key: &object.key, head: &head, seen: Seen::Earlier }, target, None, &condition)
            .await
        {
            // Removed or changed by another client since it was listed.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Changed) => Ok(false),
            done => done.map(|_| true).context(format!("copy \"{}\"", object.key.escape_debug())),
        }
    }

    /// What stands at the target for the span of keys of `objects`, which ascend.
    async fn standing(&self, work: &Move<'_>, objects: &[Object]) -> Result<HashMap<String, Object>> {
        let mut found = HashMap::new();
        let (Some(first), Some(last)) = (objects.first(), objects.last()) else { return Ok(found) };
        let at = |object: &Object| format!("{}{}", work.target, &object.key[work.source.len()..]);
        let (first, last) = (at(first), at(last));
        // Starting after a key that sorts just before the first: the same without its last character is close enough.
        let mut before = first.clone();
        before.pop();
        let mut from = Some(From::After(before));
        while let Some(start) = from {
            let page = self.keys(work.target, Depth::All, PAGE, Some(&start)).await?;
            let beyond = page.objects.last().is_some_and(|object| object.key > last);
            found.extend(page.objects.into_iter().map(|object| (object.key.clone(), object)));
            from = page.next.filter(|_| !beyond);
        }
        Ok(found)
    }
}

/// Whether `copy` is what a copy of `object` looks like. Where the etag is no MD5 of the content (parts, KMS), a copy has
/// another one; it is then told by its size, and by being no older.
fn equal(object: &Object, copy: &Object, etag_md5: bool) -> bool {
    let same = !object.etag.is_empty() && object.etag == copy.etag;
    let comparable = etag_md5 && is_md5(&object.etag) && is_md5(&copy.etag);
    object.size == copy.size && (same || (!comparable && copy.modified_ns >= object.modified_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(etag: &str, size: u64, modified_ns: i64) -> Object {
        Object { key: "k".into(), size, etag: etag.into(), modified_ns: Some(modified_ns) }
    }

    #[test]
    fn a_copy_is_recognised_also_when_its_etag_is_new() {
        let (a, b) = ("d41d8cd98f00b204e9800998ecf8427e", "59adb24ef3cdbe0297f05b395827453f");
        assert!(equal(&object(a, 1, 9), &object(a, 1, 1), true));
        assert!(!equal(&object(a, 1, 1), &object(b, 1, 9), true));
        assert!(equal(&object("x-3", 1, 1), &object(a, 1, 1), true));
        assert!(!equal(&object("x-3", 1, 2), &object(a, 1, 1), true));
        assert!(!equal(&object("x-3", 2, 1), &object(a, 1, 1), true));
    }
}
