//! `unlink` and `rmdir`.

use super::{Answer, Caller, Drive, absent, living_directory, touch_directory};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino, Name};
use crate::store::Outcome;

impl Drive {
    /// Removes a name of something that is no directory. What is open stays readable and writable until it is closed.
    pub fn unlink(&self, caller: Caller, parent: Ino, name: &Name) -> Answer<()> {
        let name = name.clone();
        self.in_listed(parent, move |drive| drive.remove_name(caller, parent, &name, false))
    }

    /// Removes an empty directory. `NotEmpty`.
    pub fn rmdir(&self, caller: Caller, parent: Ino, name: &Name) -> Answer<()> {
        let child = match self.store().read(|rows| rows.lookup(parent, name)) {
            Ok(child) => child,
            Err(e) => return Answer::Now(Err(e)),
        };
        let name = name.clone();
        match child {
            Some(node) if node.kind == FileKind::Directory => {
                self.in_listed(node.ino, move |drive| drive.remove_name(caller, parent, &name, true))
            }
            _ => self.in_listed(parent, move |drive| drive.remove_name(caller, parent, &name, true)),
        }
    }

    fn remove_name(&self, caller: Caller, parent: Ino, name: &Name, directory: bool) -> Result<()> {
        let now = self.now_ns();
        let outcome = self.once(caller, |tx| {
            let holder = living_directory(tx, parent)?;
            let mut node = tx.lookup(parent, name)?.ok_or_else(|| absent(name))?;
            match (directory, node.kind == FileKind::Directory) {
                (true, false) => return Err(Error::new(Kind::NotDirectory, format!("\"{name}\" is no directory"))),
                (false, true) => return Err(Error::new(Kind::IsDirectory, format!("\"{name}\" is a directory"))),
                _ => {}
            }
            if directory && !tx.is_empty(node.ino)? {
                return Err(Error::new(Kind::NotEmpty, format!("\"{name}\" is not empty")));
            }
            node.times.ctime_ns = now;
            tx.set_node(&node)?;
            tx.remove_name(parent, name)?;
            touch_directory(tx, holder, now)?;
            self.store().opens().hold(node.ino);
            Ok(Outcome::Made(node.ino.get()))
        })?;
        debug_assert!(outcome.ino().is_some());
        Ok(())
    }
}
