//! The keeper's few words to stderr, put together on the stack.

use std::fmt::{self, Write};

/// A line of at most 600 bytes; what is longer is cut.
pub struct Line {
    bytes: [u8; 600],
    len: usize,
}

impl Line {
    pub fn new() -> Self {
        Line { bytes: [0; 600], len: 0 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Adds bytes as they are, control characters replaced: a worker's words may hold names from a remote.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().take(self.bytes.len() - self.len) {
            self.bytes[self.len] = if byte < b' ' || byte == 0x7f { b'?' } else { byte };
            self.len += 1;
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Writes one line to stderr; errors are nobody's business.
pub fn say(words: fmt::Arguments<'_>) {
    let mut line = Line::new();
    let _ = line.write_str("fourwheel: ");
    let _ = line.write_fmt(words);
    line.len = line.len.min(line.bytes.len() - 1);
    line.bytes[line.len] = b'\n';
    // SAFETY: the buffer is as long as it says.
    unsafe { libc::write(2, line.bytes.as_ptr().cast(), line.len + 1) };
}
