//! Content in memory as something to send, and a stream as content in memory.

use super::{Body, ByteStream, Source};
use crate::error::{Error, Kind, Result};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::Arc;

struct InMemory(Bytes);

impl Source for InMemory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.size() {
            return Err(Error::new(Kind::Invalid, format!("bytes {range:?} of {}", self.size())));
        }
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

/// A body of these bytes.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    Arc::new(InMemory(bytes.into()))
}

/// Collects a stream. For content that is known to be small.
pub async fn collect(mut stream: ByteStream) -> Result<Bytes> {
    let mut all = BytesMut::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.freeze())
}
