//! Multi-status answers (RFC 4918, 13), read as they arrive: names by namespace URI, never by prefix.
//!
//! What comes from a server is hostile until shown otherwise: depth, text and the whole answer have limits, a document type
//! is refused, and an answer that ends early is an error, since absence in it would look like deletion.

use super::feed::Feed;
use super::props::Props;
use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use futures_util::Stream;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

/// The namespaces that are understood.
pub(super) mod namespace {
    pub const DAV: &str = "DAV:";
    /// ownCloud and Nextcloud.
    pub const OC: &str = "http://owncloud.org/ns";
    /// mod_dav_fs.
    pub const APACHE: &str = "http://apache.org/dav/props/";
    /// Our own dead properties.
    pub const OURS: &str = "urn:fourwheel:attributes";
}

/// Deepest nesting taken; servers need about 8.
const DEPTH_MAX: usize = 64;
/// Longest text of one property, bytes; xattrs of 64 KiB in base64 fit.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Longest href taken, bytes; a path of 4096 bytes escaped is 12 KiB.
const HREF_BYTES_MAX: usize = 32 << 10;

/// One `response` element.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Response {
    pub href: String,
    /// The status of the whole response, where it has one (RFC 4918, 14.24); else the propstats speak.
    pub status: Option<u16>,
    /// What the propstats of status 200 say.
    pub props: Props,
    /// Whether there was a propstat of status 200.
    pub found: bool,
    /// The worst status of another propstat than 404; what a PROPPATCH failed with.
    pub failed: Option<u16>,
}

/// What an open element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Multistatus,
    Response,
    Href,
    Status,
    Propstat,
    Prop,
    /// A property that is understood.
    Value(Known),
    Other,
}

/// The properties that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    ResourceType,
    /// Microsoft's `iscollection`.
    IsCollection,
    Length,
    Modified,
    ETag,
    QuotaAvailable,
    QuotaUsed,
    FileId,
    Checksums,
    Executable,
    Mtime,
    Mode,
    Xattrs,
}

/// Reads a multi-status body and gives each response to `each`.
///
/// [`Kind::Corrupt`]: not a multi-status, or beyond the limits. [`Kind::Unavailable`]: it ended early.
pub(super) async fn multistatus<S, E>(body: S, mut each: impl FnMut(Response)) -> Result<()>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    let mut reader = NsReader::from_reader(Feed::new(body));
    let config = reader.config_mut();
    config.expand_empty_elements = true;
    config.allow_dangling_amp = true;
    let (mut buffer, mut state) = (Vec::new(), State::default());
    loop {
        buffer.clear();
        reader.get_mut().event_begins();
        let event = match reader.read_resolved_event_into_async(&mut buffer).await {
            Ok((resolved, event)) => (uri(&resolved), event),
            Err(error) => return Err(unreadable(reader.get_mut().failure(), &error)),
        };
        match event {
            (space, Event::Start(start)) => state.open(space, &start)?,
            (_, Event::End(_)) => {
                if let Some(response) = state.close() {
                    each(response);
                }
            }
            (_, Event::Text(text)) => state.text(&text.xml10_content())?,
            (_, Event::CData(text)) => state.text(&text.xml10_content())?,
            (_, Event::GeneralRef(reference)) => {
                let c = match reference.resolve_char_ref() {
                    Ok(Some(c)) => Some(c),
                    Ok(None) => predefined(&reference),
                    Err(_) => None,
                };
                // An entity of its own would need a document type, which is refused.
                state.text(c.unwrap_or('\u{FFFD}').encode_utf8(&mut [0; 4]))?;
            }
            (_, Event::DocType(_)) => return Err(corrupt("a document type in a WebDAV answer")),
            (_, Event::Eof) => break,
            _ => {}
        }
    }
    if let Some(failure) = reader.get_mut().failure() {
        return Err(failure);
    }
    match (state.whole, state.stack.is_empty()) {
        (true, true) => Ok(()),
        (false, true) => Err(corrupt("the answer is not a WebDAV multi-status")),
        (_, false) => Err(Error::new(Kind::Unavailable, "the answer ended early")),
    }
}

fn corrupt(what: &str) -> Error {
    Error::new(Kind::Corrupt, what)
}

fn unreadable(failure: Option<Error>, error: &quick_xml::Error) -> Error {
    failure.unwrap_or_else(|| match error {
        quick_xml::Error::Syntax(_) => Error::new(Kind::Unavailable, format!("the answer ended early: {error}")),
        _ => corrupt(&format!("the answer is not XML: {error}")),
    })
}

/// The namespaces in use as their constants, so that nothing is borrowed from the reader.
fn uri(resolved: &ResolveResult<'_>) -> &'static str {
    let ResolveResult::Bound(Namespace(uri)) = resolved else { return "" };
    [namespace::DAV, namespace::OC, namespace::APACHE, namespace::OURS]
        .into_iter()
        .find(|known| *known == *uri)
        .unwrap_or("")
}

fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

/// Where the reader stands.
#[derive(Default)]
struct State {
    stack: Vec<Element>,
    response: Response,
    /// What the open propstat says, until its status is known (it comes last, RFC 4918, 14.22).
    props: Props,
    propstat: Option<u16>,
    text: String,
    /// Whether a root element `multistatus` was closed.
    whole: bool,
}

impl State {
    fn open(&mut self, space: &str, start: &BytesStart<'_>) -> Result<()> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(corrupt("a WebDAV answer of absurd depth"));
        }
        let (name, parent) = (start.local_name(), self.stack.last().copied());
        let name = name.as_ref();
        let element = match (parent, space, name) {
            (None, namespace::DAV, "multistatus") => Element::Multistatus,
            (None, ..) => return Err(corrupt("the answer is not a WebDAV multi-status")),
            (Some(Element::Multistatus), namespace::DAV, "response") => {
                self.response = Response::default();
                Element::Response
            }
            (Some(Element::Response), namespace::DAV, "href") => Element::Href,
            (Some(Element::Response | Element::Propstat), namespace::DAV, "status") => Element::Status,
            (Some(Element::Response), namespace::DAV, "propstat") => {
                (self.props, self.propstat) = (Props::default(), None);
                Element::Propstat
            }
            (Some(Element::Propstat), namespace::DAV, "prop") => Element::Prop,
            (Some(Element::Prop), ..) => known(space, name).map_or(Element::Other, Element::Value),
            (Some(Element::Value(Known::ResourceType)), namespace::DAV, "collection") => {
                self.props.collection = true;
                Element::Other
            }
            _ => Element::Other,
        };
        if matches!(element, Element::Href | Element::Status | Element::Value(_)) {
            self.text.clear();
        }
        self.stack.push(element);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<()> {
        let limit = match self.stack.iter().rev().find(|element| **element != Element::Other) {
            Some(Element::Href) => HREF_BYTES_MAX,
            Some(Element::Status | Element::Value(_)) => TEXT_BYTES_MAX,
            _ => return Ok(()),
        };
        if self.text.len() + text.len() > limit {
            return Err(corrupt("a property or address of absurd length in a WebDAV answer"));
        }
        self.text.push_str(text);
        Ok(())
    }

    /// Closes the innermost element (the reader has compared the names); gives a response that is complete.
    fn close(&mut self) -> Option<Response> {
        match self.stack.pop()? {
            Element::Multistatus => self.whole = true,
            Element::Response => return Some(std::mem::take(&mut self.response)),
            // A response may list several hrefs with one status; the first is the one with properties.
            Element::Href if self.response.href.is_empty() => self.text.trim().clone_into(&mut self.response.href),
            Element::Status => {
                let status = status(&self.text);
                if self.stack.last() == Some(&Element::Propstat) {
                    self.propstat = status;
                } else {
                    self.response.status = status;
                }
            }
            Element::Value(property) => self.props.set(property, self.text.trim()),
            Element::Propstat => self.close_propstat(),
            Element::Href | Element::Prop | Element::Other => {}
        }
        None
    }

    fn close_propstat(&mut self) {
        match self.propstat {
            // Without a status the properties are there; broken servers leave it out.
            None | Some(200..=299) => {
                self.response.found = true;
                self.response.props.merge(std::mem::take(&mut self.props));
            }
            Some(404) => {}
            Some(status) => self.response.failed = Some(self.response.failed.map_or(status, |worst| worst.max(status))),
        }
    }
}

/// The number of `HTTP/1.1 200 OK`.
fn status(line: &str) -> Option<u16> {
    line.split_whitespace().find_map(|word| word.parse().ok().filter(|status| (100..600).contains(status)))
}

fn known(space: &str, name: &str) -> Option<Known> {
    Some(match (space, name) {
        (namespace::DAV, "resourcetype") => Known::ResourceType,
        (namespace::DAV, "iscollection") => Known::IsCollection,
        (namespace::DAV, "getcontentlength") => Known::Length,
        (namespace::DAV, "getlastmodified") => Known::Modified,
        (namespace::DAV, "getetag") => Known::ETag,
        (namespace::DAV, "quota-available-bytes") => Known::QuotaAvailable,
        (namespace::DAV, "quota-used-bytes") => Known::QuotaUsed,
        (namespace::OC, "fileid") => Known::FileId,
        (namespace::OC, "checksums") => Known::Checksums,
        (namespace::APACHE, "executable") => Known::Executable,
        (namespace::OURS, "mtime") => Known::Mtime,
        (namespace::OURS, "mode") => Known::Mode,
        (namespace::OURS, "xattrs") => Known::Xattrs,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
