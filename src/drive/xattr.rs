//! Extended attributes: `user.*` as programs set them, and `user.fourwheel.*`, which tell the state of a file.

use super::{Answer, Drive};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino};
use crate::store::{Content, Rows, Which};

/// Names that the drive itself answers; nobody can set them.
const OWN: [&str; 4] =
    ["user.fourwheel.state", "user.fourwheel.remote_id", "user.fourwheel.etag", "user.fourwheel.cached"];

/// The longest name and value, bytes (XATTR_NAME_MAX, XATTR_SIZE_MAX of Linux).
const NAME_BYTES_MAX: usize = 255;
const VALUE_BYTES_MAX: usize = 65536;

/// When `setxattr` succeeds (setxattr(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    Either,
    Create,
    Replace,
}

impl Drive {
    /// The state in one word: saved, waiting, conflict, failed.
    fn state(rows: &Rows<'_>, ino: Ino) -> Result<&'static str> {
        Ok(if rows.failure(ino)?.is_some() {
            "failed"
        } else if rows.session(ino)?.is_some() {
            "uploading"
        } else if rows.is_pending(ino)? {
            "waiting"
        } else if rows.is_conflict(ino)? {
            "conflict"
        } else {
            "saved"
        })
    }

    fn own(&self, ino: Ino, name: &str) -> Result<Option<Vec<u8>>> {
        let (node, view, state) = self
            .store()
            .read(|rows| Ok((rows.node(ino)?, rows.view(ino, 0, Which::Remote)?, Self::state(rows, ino)?)))?;
        Ok(match name {
            "user.fourwheel.state" => Some(state.as_bytes().to_vec()),
            "user.fourwheel.remote_id" => match view.as_ref().and_then(|v| v.id.clone()) {
                Some(id) => Some(id.into_bytes()),
                None => self.store().read(|rows| rows.remote_path(0, ino))?.map(|p| p.as_str().as_bytes().to_vec()),
            },
            "user.fourwheel.etag" => view.and_then(|v| v.version).map(|v| v.0.into_bytes()),
            "user.fourwheel.cached" => match &node.content {
                Content::Version(version) if node.kind == FileKind::File => {
                    let bytes = self.parts().cache.lookup(ino, version).map_or(0, |file| file.present_bytes());
                    Some(bytes.to_string().into_bytes())
                }
                Content::Dirty => {
                    Some(self.parts().journal.get(ino).map_or(0, |s| s.size_and_mtime().0).to_string().into_bytes())
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// The value of one attribute. `NoAttribute`.
    pub fn getxattr(&self, ino: Ino, name: &str) -> Result<Vec<u8>> {
        let missing = || Error::new(Kind::NoAttribute, format!("no attribute {name}"));
        if OWN.contains(&name) {
            return self.own(ino, name)?.ok_or_else(missing);
        }
        if !name.starts_with("user.") {
            // Asked by the kernel before each write (security.capability); must not cost a look into the store.
            return Err(missing());
        }
        self.store().read(|rows| rows.node(ino))?.xattrs.remove(name).ok_or_else(missing)
    }

    /// The names of all attributes that programs set.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<String>> {
        Ok(self.store().read(|rows| rows.node(ino))?.xattrs.into_keys().collect())
    }

    /// Sets one attribute; names outside `user.` are `Unsupported`, more than the remote keeps with a file is `NoSpace`.
    pub fn setxattr(&self, ino: Ino, name: &str, value: &[u8], how: SetXattr) -> Answer<()> {
        let room = self.parts().settings.xattr_bytes_max;
        Answer::Now(self.change_xattrs(ino, name, |xattrs| {
            if value.len() > VALUE_BYTES_MAX {
                return Err(Error::new(Kind::TooLarge, "the attribute is too large"));
            }
            match (how, xattrs.contains_key(name)) {
                (SetXattr::Create, true) => return Err(Error::new(Kind::Exists, format!("attribute {name} exists"))),
                (SetXattr::Replace, false) => {
                    return Err(Error::new(Kind::NoAttribute, format!("no attribute {name}")));
                }
                _ => {}
            }
            xattrs.insert(name.to_owned(), value.to_vec());
            let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            match room {
                // Refused here, as a full inode of ext4 does: the upload would be refused with all its content.
                Some(max) if bytes > max => {
                    let why = format!("{bytes} bytes of extended attributes, this remote keeps {max} with a file");
                    Err(Error::new(Kind::NoSpace, why))
                }
                _ => Ok(()),
            }
        }))
    }

    /// Takes one attribute away. `NoAttribute`.
    pub fn removexattr(&self, ino: Ino, name: &str) -> Result<()> {
        self.change_xattrs(ino, name, |xattrs| {
            let gone = xattrs.remove(name);
            gone.map(drop).ok_or_else(|| Error::new(Kind::NoAttribute, format!("no attribute {name}")))
        })
    }

    fn change_xattrs(
        &self,
        ino: Ino,
        name: &str,
        change: impl FnOnce(&mut std::collections::BTreeMap<String, Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        self.writable()?;
        if !name.starts_with("user.") {
            return Err(Error::new(Kind::Unsupported, format!("attribute {name} cannot be kept on this drive")));
        }
        if name == "user." {
            return Err(Error::new(Kind::Invalid, "an attribute without a name"));
        }
        if name.starts_with("user.fourwheel.") || name.len() > NAME_BYTES_MAX {
            return Err(Error::new(Kind::Denied, format!("attribute {name} belongs to the drive")));
        }
        let now = self.now_ns();
        self.store().write(|tx| {
            let mut node = tx.node(ino)?;
            change(&mut node.xattrs)?;
            node.times.ctime_ns = now;
            tx.set_node(&node)
        })
    }
}
