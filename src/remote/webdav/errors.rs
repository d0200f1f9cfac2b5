//! Statuses and error pages into kinds. Which status means what: `providers/webdav.md`, section 11; RFC 4918, 11; RFC 9110, 15.

use crate::error::{Error, Kind};
use crate::sys::Clock;
use reqwest::Response;
use reqwest::header::RETRY_AFTER;
use std::time::Duration;

/// How much of an error page is read, bytes; more says nothing more.
const PAGE_BYTES_MAX: usize = 16 << 10;
/// How much of its text goes into a message, characters.
const QUOTE_CHARS_MAX: usize = 200;
/// Longest wait that is taken from a server, seconds: an hour.
const RETRY_AFTER_MAX_S: u64 = 3600;

/// The kind that `status` means for a request of `method`; `page` is the answer's text.
pub(super) fn kind(method: &str, status: u16, page: &str) -> Kind {
    let says = |word: &str| page.to_ascii_lowercase().contains(word);
    match status {
        // Nextcloud: "Expected filesize of … bytes but read …": the body came short, which a repeat mends.
        400 if says("expected filesize") => Kind::Unavailable,
        400 => Kind::Invalid,
        401 => Kind::SignIn,
        403 if says("quota") => Kind::QuotaFull,
        // Sabre: `OCA\DAV\Connector\Sabre\Exception\InvalidPath`.
        403 if says("invalidpath") => Kind::NameRefused,
        403 => Kind::Denied,
        404 | 410 => Kind::NotFound,
        405 if method == "MKCOL" => Kind::Exists,
        405 | 501 => Kind::Unsupported,
        // The parent is missing (RFC 4918, 9.3.1 and 9.7.1); callers look first where it could be another thing.
        409 => Kind::NotFound,
        412 => Kind::Precondition,
        413 => Kind::TooLarge,
        414 => Kind::NameTooLong,
        416 => Kind::Changed,
        507 => Kind::QuotaFull,
        429 | 509 => Kind::Throttled,
        // Locks (423, 424, 425) and failures of the server pass.
        408 | 423 | 424 | 425 | 500..=599 => Kind::Unavailable,
        _ => Kind::Corrupt,
    }
}

/// The error that an answer stands for, its page quoted. `doing` is the task in the user's nouns.
pub(super) async fn refused(method: &str, doing: &str, response: Response, clock: &dyn Clock) -> Error {
    let status = response.status();
    let wait = retry_after(&response, clock);
    let page = page(response).await;
    let mut kind = kind(method, status.as_u16(), &page);
    if status.as_u16() == 503 && wait.is_some() {
        kind = Kind::Throttled;
    }
    let quote = Some(quote(&page)).filter(|quote| *quote != status.to_string()).unwrap_or_default();
    let error = Error::new(kind, format!("{doing}: {status}{}{quote}", if quote.is_empty() { "" } else { ": " }));
    match wait {
        Some(wait) => error.after(wait),
        None => error,
    }
}

/// What `Retry-After` asks for, as seconds or as a date (RFC 9110, 10.2.3); at most an hour.
fn retry_after(response: &Response, clock: &dyn Clock) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let until = super::dates::parse(text)?;
            u64::try_from(until.saturating_sub(clock.wall_ns()) / 1_000_000_000).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S)))
}

/// The beginning of an answer's body as text; empty where it cannot be read.
pub(super) async fn page(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < PAGE_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(PAGE_BYTES_MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What an error page says: Sabre's `s:message`, else an HTML title, else the text without tags; one short line.
fn quote(page: &str) -> String {
    let text = between(page, "message").or_else(|| between(page, "title")).unwrap_or(page);
    let mut plain = String::new();
    let mut in_tag = false;
    for c in text.chars() {
        match c {
            '<' => in_tag = true,
            '>' => in_tag = false,
            _ if in_tag => {}
            c if c.is_whitespace() || c.is_control() => {
                if !plain.is_empty() && !plain.ends_with(' ') {
                    plain.push(' ');
                }
            }
            c => plain.push(c),
        }
    }
    let plain = plain.trim();
    match plain.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain.to_owned(),
    }
}

/// The content of the first element with this local name and any prefix; not a parser, only for messages.
fn between<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = page;
    loop {
        let tag = &rest[rest.find('<')? + 1..];
        let end = tag.find('>')?;
        let found = tag[..end].split([' ', '\n', '\t']).next().unwrap_or("");
        if found.rsplit(':').next() == Some(name) && !found.starts_with('/') {
            let body = &tag[end + 1..];
            return Some(&body[..body.find("</").unwrap_or(body.len())]);
        }
        rest = &tag[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_kind() {
        let table = [
            ("PUT", 401, Kind::SignIn),
            ("PUT", 403, Kind::Denied),
            ("GET", 404, Kind::NotFound),
            ("MKCOL", 405, Kind::Exists),
            ("PROPPATCH", 405, Kind::Unsupported),
            ("PUT", 409, Kind::NotFound),
            ("PUT", 412, Kind::Precondition),
            ("PUT", 413, Kind::TooLarge),
            ("PUT", 423, Kind::Unavailable),
            ("PUT", 429, Kind::Throttled),
            ("PUT", 500, Kind::Unavailable),
            ("PUT", 501, Kind::Unsupported),
            ("PUT", 507, Kind::QuotaFull),
            ("PUT", 302, Kind::Corrupt),
        ];
        for (method, status, expected) in table {
            assert_eq!(kind(method, status, ""), expected, "{method} {status}");
        }
        assert_eq!(kind("PUT", 403, "over Quota"), Kind::QuotaFull);
    }

    #[test]
    fn pages_are_quoted_in_one_line_without_markup() {
        let sabre = "<?xml version=\"1.0\"?>\n<d:error xmlns:d=\"DAV:\" xmlns:s=\"http://sabredav.org/ns\">\
            <s:exception>Locked</s:exception><s:message>File is\nlocked</s:message></d:error>";
        assert_eq!(quote(sabre), "File is locked");
        assert_eq!(quote("<html><head><title>413 Too Large</title></head><body>x"), "413 Too Large");
        assert_eq!(quote("plain \u{1b}[31m words"), "plain [31m words");
        assert_eq!(quote(&"x".repeat(999)).chars().count(), QUOTE_CHARS_MAX + 1);
        assert_eq!(quote("<unfinished"), "");
    }
}
