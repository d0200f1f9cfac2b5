//! A text that must not be seen: not in a log, a panic, an error or a debug print.

use serde::{Deserialize, Deserializer};
use std::fmt;

/// A password, key or token. `Debug` and `Display` print `***`.
///
/// It does not implement `Serialize`, so that no status or report can carry it by mistake; the one place that must hand it
/// to another process names [`expose`] in the field's attribute.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The plain text, for the wire alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Serializes the plain text. Only for the hand-over to our own worker.
pub(super) fn expose<S: serde::Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&secret.0)
}

/// As [`expose`], for a field that may be absent.
pub(super) fn expose_option<S: serde::Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => to.serialize_some(&secret.0),
        None => to.serialize_none(),
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_print_shows_it() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
    }
}
