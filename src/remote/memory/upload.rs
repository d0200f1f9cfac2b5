//! Upload sessions: what was sent of contents that are not there yet.

use crate::error::{Error, Kind, Result};
use crate::remote::{Part, Place, Session, UploadSessions};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// Sessions that are open.
#[derive(Default)]
pub(super) struct Uploads {
    open: BTreeMap<String, Upload>,
    next: u64,
}

struct Upload {
    place: Place,
    size: u64,
    parts: BTreeMap<u32, Bytes>,
}

impl Uploads {
    /// Opens a session.
    pub fn begin(&mut self, place: &Place, size: u64) -> Session {
        self.next += 1;
        let name = format!("s{}", self.next);
        self.open.insert(name.clone(), Upload { place: place.clone(), size, parts: BTreeMap::new() });
        Session(name)
    }

    /// Keeps a part; one of the same number is replaced.
    pub fn part(&mut self, session: &Session, number: u32, bytes: Bytes, rules: &UploadSessions) -> Result<Part> {
        let upload = self.open.get_mut(&session.0).ok_or_else(gone)?;
        let size = bytes.len() as u64;
        if number == 0 || number > rules.parts_max || size > rules.part_bytes_max {
            return Err(invalid(format!("part {number} of {size} bytes")));
        }
        if !rules.parallel && upload.parts.keys().next_back().map_or(0, |last| *last) + 1 < number {
            return Err(invalid(format!("part {number} before the one before it")));
        }
        let part = part(number, &bytes);
        upload.parts.insert(number, bytes);
        Ok(part)
    }

    /// The parts held, in order.
    pub fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        let upload = self.open.get(&session.0).ok_or_else(gone)?;
        Ok(upload.parts.iter().map(|(number, bytes)| part(*number, bytes)).collect())
    }

    /// Where the content goes, and the content that `parts` make. The session stays open.
    pub fn content(&self, session: &Session, parts: &[Part], rules: &UploadSessions) -> Result<(Place, Bytes)> {
        let upload = self.open.get(&session.0).ok_or_else(gone)?;
        let mut content = BytesMut::new();
        for (at, given) in parts.iter().enumerate() {
            let bytes = upload.parts.get(&given.number).ok_or_else(|| invalid(format!("no part {}", given.number)))?;
            if given.number as usize != at + 1 || *given != part(given.number, bytes) {
                return Err(invalid(format!("part {} is not the one held", given.number)));
            }
            if at + 1 < parts.len() && (bytes.len() as u64) < rules.part_bytes_min {
                return Err(invalid(format!("part {} of {} bytes is too small", given.number, bytes.len())));
            }
            content.extend_from_slice(bytes);
        }
        if content.len() as u64 != upload.size {
            return Err(invalid(format!("{} bytes of {}", content.len(), upload.size)));
        }
        Ok((upload.place.clone(), content.freeze()))
    }

    /// Drops a session.
    pub fn close(&mut self, session: &Session) {
        self.open.remove(&session.0);
    }

    /// Drops every session.
    pub fn expire(&mut self) {
        self.open.clear();
    }
}

fn part(number: u32, bytes: &Bytes) -> Part {
    Part { number, size: bytes.len() as u64, tag: format!("{:08x}", crc32c::crc32c(bytes)) }
}

fn gone() -> Error {
    Error::new(Kind::NotFound, "the upload session is gone")
}

fn invalid(why: String) -> Error {
    Error::new(Kind::Invalid, why)
}
