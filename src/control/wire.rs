//! The protocol: one JSON object a line, UTF-8, `\n` at the end.
//!
//! * Request: `{"v":1,"call":"sync","path":"photos/a.jpg"}`. A path that is not UTF-8 is `{"base64":"…"}` instead.
//! * Answer: `{"v":1,"ok":VALUE}` or `{"v":1,"error":{"kind":"offline","message":"…"}}`.
//!
//! Requests of one connection are answered in order. A caller that closes its end, or its half of it, gives the running call up. A line that cannot be read is answered with an error, and the
//! connection ends where the next line's start is not known. `v` goes up when an old reader would misunderstand; new fields
//! alone do not raise it, so readers pass over fields that they do not know.

use crate::error::{Error, Kind, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The version that this program speaks.
pub const VERSION: u64 = 1;

/// The longest request, bytes with its line feed: a path of PATH_MAX (4096) in the longest JSON escape fits twice.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The longest answer, bytes with its line feed: the lists are bounded, so only a fault goes beyond.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Request {
    Status,
    Saved,
    Sync { path: WirePath },
    Conflicts,
    Pin { path: WirePath },
    Unpin { path: WirePath },
    Check,
    Stop,
}

/// A path in a request: text where it is UTF-8, base64 of the bytes where not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WirePath {
    Text(String),
    Bytes { base64: String },
}

impl WirePath {
    /// Wraps a path relative to the mount point.
    pub fn new(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => WirePath::Text(text.to_owned()),
            None => WirePath::Bytes { base64: STANDARD.encode(path.as_os_str().as_bytes()) },
        }
    }

    /// The path. `Invalid`: absolute, with `.` or `..` or NUL in it, or not base64.
    pub fn path(&self) -> Result<PathBuf> {
        let invalid = |why: &str| Error::new(Kind::Invalid, format!("the path in the request {why}"));
        let path = match self {
            WirePath::Text(text) => PathBuf::from(text),
            WirePath::Bytes { base64 } => {
                let bytes = STANDARD.decode(base64).map_err(|_| invalid("is not base64"))?;
                PathBuf::from(OsStr::from_bytes(&bytes))
            }
        };
        let bytes = path.as_os_str().as_bytes();
        if bytes.first() == Some(&b'/')
            || bytes.contains(&0)
            || bytes.split(|b| *b == b'/').any(|p| p == b"." || p == b"..")
        {
            return Err(invalid("does not lie below the mount point"));
        }
        Ok(path)
    }
}

/// Writes a request as a line.
pub fn encode_request(request: &Request) -> Result<Vec<u8>> {
    let mut value = serde_json::to_value(request).map_err(|e| unreadable("write the request", &e))?;
    value["v"] = json!(VERSION);
    line(&value)
}

/// Reads a request. `Unsupported`: another version. `Invalid`: anything else.
pub fn decode_request(line: &[u8]) -> Result<Request> {
    let value = versioned(line, "request")?;
    Request::deserialize(&value).map_err(|e| unreadable("request", &e))
}

/// Writes an answer as a line; one that is too long becomes an error.
pub fn encode_answer(answer: Result<Value>) -> Vec<u8> {
    let value = match answer {
        Ok(value) => json!({ "v": VERSION, "ok": value }),
        Err(error) => json!({ "v": VERSION, "error": { "kind": error.kind, "message": error.message() } }),
    };
    match line(&value) {
        Ok(bytes) if bytes.len() <= ANSWER_BYTES_MAX => bytes,
        _ => b"{\"v\":1,\"error\":{\"kind\":\"too_large\",\"message\":\"the answer is too long for one line\"}}\n"
            .to_vec(),
    }
}

/// Reads an answer. The error that the worker sent, or `Unsupported` or `Invalid` where it cannot be read.
pub fn decode_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    let mut value = versioned(line, "answer")?;
    if let Some(error) = value.get("error") {
        // A kind that a newer worker may have is one that we do not know how to act on.
        let kind = Kind::deserialize(&error["kind"]).unwrap_or(Kind::Unavailable);
        return Err(Error::new(kind, error["message"].as_str().unwrap_or("no reason given")));
    }
    serde_json::from_value(value["ok"].take()).map_err(|e| unreadable("answer", &e))
}

fn versioned(line: &[u8], what: &str) -> Result<Value> {
    let value: Value = serde_json::from_slice(line).map_err(|e| unreadable(what, &e))?;
    match value.get("v").and_then(Value::as_u64) {
        Some(VERSION) => Ok(value),
        Some(other) => Err(Error::new(
            Kind::Unsupported,
            format!(
                "the {what} is of protocol version {other}, this program speaks {VERSION}; use the same fourwheel for both"
            ),
        )),
        None => Err(Error::new(Kind::Invalid, format!("the {what} has no version"))),
    }
}

fn line(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(|e| unreadable("write the line", &e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn unreadable(what: &str, error: &serde_json::Error) -> Error {
    Error::new(Kind::Invalid, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_there_and_back() {
        let odd = Path::new(OsStr::from_bytes(b"a/\xff\n"));
        for request in [
            Request::Status,
            Request::Sync { path: WirePath::new(Path::new("a/b \u{1b}")) },
            Request::Pin { path: WirePath::new(odd) },
        ] {
            let line = encode_request(&request).unwrap();
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            assert_eq!(decode_request(&line).unwrap(), request);
        }
        assert_eq!(WirePath::new(odd).path().unwrap(), odd);
        assert_eq!(encode_request(&Request::Status).unwrap(), b"{\"call\":\"status\",\"v\":1}\n");
    }

    #[test]
    fn errors_keep_their_kind_and_unknown_kinds_are_no_panic() {
        let line = encode_answer(Err(Error::new(Kind::QuotaFull, "full")));
        let error = decode_answer::<()>(&line).unwrap_err();
        assert_eq!((error.kind, error.message()), (Kind::QuotaFull, "full"));
        let newer = br#"{"v":1,"error":{"kind":"moonlight","message":"x"}}"#;
        assert_eq!(decode_answer::<()>(newer).unwrap_err().kind, Kind::Unavailable);
        assert_eq!(decode_answer::<()>(br#"{"v":2,"ok":null}"#).unwrap_err().kind, Kind::Unsupported);
    }

    #[test]
    fn paths_that_leave_the_mount_are_refused() {
        for bad in ["/etc", "..", "a/../b", "./a", "a\0"] {
            assert_eq!(WirePath::Text(bad.into()).path().unwrap_err().kind, Kind::Invalid, "{bad}");
        }
        assert!(WirePath::Bytes { base64: "!".into() }.path().is_err());
        assert_eq!(WirePath::Text(String::new()).path().unwrap(), Path::new(""));
    }
}
