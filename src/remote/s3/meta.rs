//! Attributes as user metadata: written so that rclone and s3fs read them, read as either of them writes.
//!
//! - `x-amz-meta-mtime`: seconds since 1970 with a fraction (rclone; s3fs writes whole seconds).
//! - `x-amz-meta-mode`: the whole `st_mode` in decimal (s3fs); `rclone -M` writes it in octal.
//! - `x-amz-meta-xattr`: JSON of name to base64, percent-encoded (s3fs).
//!
//! S3 takes 2 KB of user metadata in all, names and values counted ("Working with object metadata", user-defined).

use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Meta};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use reqwest::header::HeaderMap;
use std::collections::BTreeMap;

/// What all user metadata of one object may take, bytes of names (without `x-amz-meta-`) and values.
const USER_BYTES_MAX: usize = 2_048;
/// Bytes of xattr names and values that always fit: written, the worst case (many short ones) is three times as long.
pub(super) const XATTR_BYTES_MAX: usize = 640;
/// What a header's value does not keep as it is; JSON's quotes and base64's signs stay, s3fs decodes both forms.
const HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
const PREFIX: &str = "x-amz-meta-";
/// Headers of an object that a rewrite must carry over, besides user metadata.
const CARRIED: [&str; 6] =
    ["content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires"];

/// The headers that store `meta` with an object of `kind`. What is `None` is not stored.
pub(super) fn headers(meta: &Meta, kind: FileKind) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    if let Some(ns) = meta.mtime_ns {
        out.push((format!("{PREFIX}mtime"), seconds(ns)));
    }
    if let Some(mode) = meta.mode {
        out.push((format!("{PREFIX}mode"), (kind.mode_bits() | mode & 0o7777).to_string()));
    }
    if let Some(xattrs) = meta.xattrs.as_ref().filter(|xattrs| !xattrs.is_empty()) {
        out.push((format!("{PREFIX}xattr"), xattr_text(xattrs)));
    }
    check(&out)?;
    Ok(out)
}

fn check(headers: &[(String, String)]) -> Result<()> {
    let user =
        headers.iter().filter_map(|(name, value)| name.strip_prefix(PREFIX).map(|name| name.len() + value.len()));
    let bytes: usize = user.sum();
    if bytes > USER_BYTES_MAX {
        let why = format!("its attributes take {bytes} bytes, S3 keeps {USER_BYTES_MAX} with an object");
        return Err(Error::new(Kind::TooLarge, why));
    }
    Ok(())
}

/// The headers that rewrite an object with `meta` over what it has now: all else is carried over.
pub(super) fn rewritten(now: &HeaderMap, meta: &Meta, kind: FileKind) -> Result<Vec<(String, String)>> {
    let mut out = headers(meta, kind)?;
    let dropped = |name: &str| meta.xattrs.is_some() && name == "x-amz-meta-xattr";
    for (name, value) in now {
        let name = name.as_str();
        let kept = (name.starts_with(PREFIX) && !dropped(name)) || CARRIED.contains(&name);
        if kept
            && !out.iter().any(|(set, _)| set == name)
            && let Ok(value) = value.to_str()
        {
            out.push((name.to_owned(), value.to_owned()));
        }
    }
    check(&out)?;
    Ok(out)
}

/// What an object's headers say. Xattrs are always known: an object without the key has none.
pub(super) fn read(headers: &HeaderMap, kind: FileKind) -> Meta {
    let text = |name: &str| headers.get(format!("{PREFIX}{name}")).and_then(|value| value.to_str().ok());
    Meta {
        mtime_ns: text("mtime").and_then(nanoseconds),
        mode: text("mode").and_then(|text| mode(text, kind)),
        xattrs: Some(text("xattr").and_then(xattrs).unwrap_or_default()),
    }
}

/// `now` with what `change` sets.
pub(super) fn merged(now: Meta, change: &Meta) -> Meta {
    Meta {
        mtime_ns: change.mtime_ns.or(now.mtime_ns),
        mode: change.mode.or(now.mode),
        xattrs: change.xattrs.clone().or(now.xattrs),
    }
}

fn seconds(ns: i64) -> String {
    let (sign, ns) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
    let text = format!("{sign}{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn nanoseconds(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let ns = whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nine.parse().ok()?)?;
    Some(if negative { -ns } else { ns })
}

/// Decimal with the bits of the kind (s3fs), else octal (rclone -M): no number is both, since the kind's bits must fit.
fn mode(text: &str, kind: FileKind) -> Option<u32> {
    let text = text.trim();
    let whole = |mode: &u32| *mode <= 0o177_777 && FileKind::from_mode(*mode) == Some(kind);
    if let Some(mode) = text.parse::<u32>().ok().filter(whole) {
        return Some(mode & 0o7777);
    }
    let octal = u32::from_str_radix(text, 8).ok()?;
    (octal <= 0o7777 || whole(&octal)).then_some(octal & 0o7777)
}

fn xattr_text(xattrs: &BTreeMap<String, Vec<u8>>) -> String {
    let all: BTreeMap<&str, String> =
        xattrs.iter().map(|(name, value)| (name.as_str(), BASE64.encode(value))).collect();
    // A map of strings always becomes JSON.
    let json = serde_json::to_string(&all).unwrap_or_default();
    utf8_percent_encode(&json, HEADER).to_string()
}

fn xattrs(text: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let json = percent_decode_str(text).decode_utf8().ok()?;
    let all: BTreeMap<String, String> = serde_json::from_str(&json).ok()?;
    all.into_iter().map(|(name, value)| BASE64.decode(value.as_bytes()).ok().map(|value| (name, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    fn map(headers: &[(String, String)]) -> HeaderMap {
        headers
            .iter()
            .map(|(n, v)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    #[test]
    fn attributes_come_back_as_they_went() {
        let xattrs = BTreeMap::from([("user.é %".to_owned(), vec![0, 255, 251]), ("user.b".to_owned(), vec![])]);
        for mtime_ns in [0, 1, -1, 1_354_040_105_123_456_789, -1_500_000_000, i64::from(i32::MAX) * 1_000_000_000] {
            let meta = Meta { mtime_ns: Some(mtime_ns), mode: Some(0o4755), xattrs: Some(xattrs.clone()) };
            for kind in [FileKind::File, FileKind::Directory] {
                assert_eq!(read(&map(&headers(&meta, kind).unwrap()), kind), meta);
            }
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let of = |name: &str, value: &str| map(&[(format!("{PREFIX}{name}"), value.to_owned())]);
        let file = |name, value| read(&of(name, value), FileKind::File);
        assert_eq!(file("mtime", "1354040105.123456789").mtime_ns, Some(1_354_040_105_123_456_789));
        assert_eq!(file("mtime", "1354040105").mtime_ns, Some(1_354_040_105_000_000_000));
        assert_eq!(file("mode", "33188").mode, Some(0o644));
        assert_eq!(file("mode", "100600").mode, Some(0o600));
        assert_eq!(file("mode", "755").mode, Some(0o755));
        assert_eq!(read(&of("mode", "40755"), FileKind::Directory).mode, Some(0o755));
        assert_eq!(read(&of("mode", "16877"), FileKind::Directory).mode, Some(0o755));
        assert_eq!(file("xattr", "%7B%22user.a%22%3A%22YQ%3D%3D%22%7D").xattrs.unwrap()["user.a"], b"a");
        for (name, bad) in
            [("mtime", "x"), ("mtime", ""), ("mtime", "99999999999999999999"), ("mode", "rwx"), ("xattr", "{")]
        {
            assert_eq!(file(name, bad), Meta { xattrs: Some(BTreeMap::new()), ..Meta::default() });
        }
    }

    #[test]
    fn the_promised_bytes_of_xattrs_fit_in_the_worst_case() {
        let name = |n: usize| format!("user.{}", char::from_u32(0x100 + n as u32).unwrap());
        let many: BTreeMap<_, _> = (0..XATTR_BYTES_MAX / 8).map(|n| (name(n), vec![n as u8])).collect();
        let long = BTreeMap::from([("é".repeat(XATTR_BYTES_MAX / 2), vec![])]);
        for xattrs in [many, long] {
            let meta = Meta { mtime_ns: Some(i64::MIN + 1), mode: Some(0o7777), xattrs: Some(xattrs) };
            headers(&meta, FileKind::File).unwrap();
        }
        let much = Meta { xattrs: Some(BTreeMap::from([("user.a".to_owned(), vec![0; 2_000])])), ..Meta::default() };
        assert_eq!(headers(&much, FileKind::File).unwrap_err().kind, Kind::TooLarge);
    }

    #[test]
    fn a_rewrite_keeps_what_it_does_not_name() {
        let now = map(&[
            ("content-type".into(), "text/plain".into()),
            ("etag".into(), "x".into()),
            ("x-amz-meta-mtime".into(), "1".into()),
            ("x-amz-meta-mode".into(), "33188".into()),
            ("x-amz-meta-foreign".into(), "y".into()),
        ]);
        let change = Meta { mtime_ns: Some(2_000_000_000), ..Meta::default() };
        let mut found = rewritten(&now, &change, FileKind::File).unwrap();
        found.sort();
        let names: Vec<_> = found.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            names,
            ["content-type=text/plain", "x-amz-meta-foreign=y", "x-amz-meta-mode=33188", "x-amz-meta-mtime=2"]
        );
    }
}
