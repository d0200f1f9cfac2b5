//! Renaming a file: a copy, then the removal of the source. Not atomic: between the two both are there.

use super::S3Remote;
use super::copy::{Origin, Seen};
use super::meta;
use super::object::lost;
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, RemotePath, Version};
use crate::remote::Condition;

impl S3Remote {
    /// Moves a file or a directory. Three requests for a file: HEAD, copy, conditional DELETE; a look for a directory at the target runs beside the first.
    pub(super) async fn rename_path(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        source: Option<&Version>,
        condition: &Condition,
    ) -> Result<Entry> {
        if from.is_root() || to.is_root() {
            return Err(Error::new(Kind::Invalid, "the drive's root cannot be renamed"));
        }
        if self.is_clash(from) && self.stat_directory(from).await?.is_some() {
            return self.rename_directory(from, to, condition).await;
        }
        // A version at the target is no directory's; else one is looked for meanwhile.
        let over = async {
            match condition {
                Condition::Is(_) => Ok(false),
                Condition::Absent | Condition::Any => self.is_directory(to).await,
            }
        };
        let (found, over) = tokio::join!(self.object(from), over);
        let Some((key, head)) = found? else {
            return self.rename_directory(from, to, condition).await;
        };
        if over? {
            return Err(Error::new(Kind::IsDirectory, "a directory has that name"));
        }
        if source.is_some_and(|source| !head.is(source)) {
            return Err(lost());
        }
        let meta = meta::read(&head.headers, FileKind::File);
        let (target, _) = self.object_key(to).await?;
        if key == target {
            return Ok(self.file_entry(&head));
        }
        let stored =
            match self.copy_key(Origin { key: &key, head: &head, seen: Seen::JustNow }, &target, None, condition).await
            {
                Err(error) if error.kind == Kind::Changed => return Err(lost()),
                done => done?,
            };
        match self.remove_key(&key, &Version::new(head.etag.as_str())).await {
            Ok(()) => {}
            // Somebody wrote to the source after the copy: both stay, and the next listing shows the newcomer.
            Err(error) if matches!(error.kind, Kind::Precondition | Kind::NotFound) => {}
            Err(error) => return Err(error.context("remove what was renamed")),
        }
        Ok(self.written(head.size, stored, &meta))
    }
}
