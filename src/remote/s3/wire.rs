//! S3's XML: a small tree from untrusted bytes, the fields that we read of it, and the two bodies that we write.
//!
//! Entities other than XML's own five and character references are refused, so is a DTD; depth and the number of
//! elements are bounded. A document that ends early is an error: S3 may send broken XML under status 200.

use crate::error::{Error, Kind, Result};
use quick_xml::Reader;
use quick_xml::events::Event;

/// Deepest nesting taken; S3's own answers have 4 levels.
const DEPTH_MAX: usize = 16;
/// Most elements taken; a full page of 1,000 keys with owners and checksums has about 12,000.
const ELEMENTS_MAX: usize = 100_000;

/// One element: its name without a namespace prefix, its text, its children in order. Attributes are dropped.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of that name; `None` where it is absent or empty.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str()).filter(|text| !text.is_empty())
    }

    /// The text of a child that must be there.
    pub fn must(&self, name: &str) -> Result<&str> {
        self.text_of(name).ok_or_else(|| bad(format!("<{}> has no <{name}>", self.name)))
    }

    /// The number in a child that must be there.
    pub fn number(&self, name: &str) -> Result<u64> {
        let text = self.must(name)?;
        text.trim().parse().map_err(|_| bad(format!("<{name}> is not a number")))
    }

    /// Whether a child says `true`.
    pub fn flag(&self, name: &str) -> bool {
        self.text_of(name).is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
    }
}

fn bad(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("the server's XML cannot be used: {why}"))
}

/// Parses a whole document. `Corrupt`: not XML, cut short, or beyond the bounds above.
pub(super) fn parse(bytes: &[u8]) -> Result<Element> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}').trim_start());
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        match reader.read_event().map_err(bad)? {
            Event::Start(tag) => {
                elements += 1;
                if open.len() >= DEPTH_MAX || elements > ELEMENTS_MAX {
                    return Err(bad("too deep or too long"));
                }
                open.push(named(tag.local_name().as_ref()));
            }
            Event::Empty(tag) => close(named(tag.local_name().as_ref()), &mut open, &mut root)?,
            Event::End(_) => {
                let done = open.pop().ok_or_else(|| bad("an end without a start"))?;
                close(done, &mut open, &mut root)?;
            }
            Event::Text(text) => add(&mut open, &text.xml10_content()),
            Event::CData(text) => add(&mut open, &text.xml10_content()),
            Event::GeneralRef(name) => {
                let c = match name.resolve_char_ref().map_err(bad)? {
                    Some(c) => c,
                    None => entity(&name.xml10_content()).ok_or_else(|| bad("an entity of its own"))?,
                };
                add(&mut open, c.encode_utf8(&mut [0; 4]));
            }
            Event::DocType(_) => return Err(bad("a document type")),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => break,
        }
    }
    if !open.is_empty() {
        return Err(bad("it ends early"));
    }
    root.ok_or_else(|| bad("it is empty"))
}

fn named(name: &str) -> Element {
    Element { name: name.to_owned(), ..Element::default() }
}

fn close(done: Element, open: &mut [Element], root: &mut Option<Element>) -> Result<()> {
    match open.last_mut() {
        Some(parent) => parent.children.push(done),
        None if root.is_none() => *root = Some(done),
        None => return Err(bad("two roots")),
    }
    Ok(())
}

fn add(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

/// `text` with what XML would misread escaped; control characters as references (some parsers take them so).
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push_str(&format!("&#x{:X};", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// The body of CompleteMultipartUpload: (number, etag without quotes), in order.
pub(super) fn complete_body<'a>(parts: impl Iterator<Item = (u32, &'a str)>) -> String {
    let mut out = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (number, etag) in parts {
        out.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{}&quot;</ETag></Part>",
            escape(etag)
        ));
    }
    out.push_str("</CompleteMultipartUpload>");
    out
}

/// The body of DeleteObjects; the answer then names failures only.
pub(super) fn delete_body(keys: &[String]) -> String {
    let mut out = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for key in keys {
        out.push_str(&format!("<Object><Key>{}</Key></Object>", escape(key)));
    }
    out.push_str("</Delete>");
    out
}

/// The etag without its quotes, and without a mark of weakness.
pub(super) fn etag(text: &str) -> String {
    text.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// Nanoseconds since 1970 of `2009-10-12T17:50:30.000Z`; `None` for anything else. Source: S3's `LastModified`, ISO 8601 in UTC.
pub(super) fn time_ns(text: &str) -> Option<i64> {
    let (date, time) = text.trim().strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let sane = (1..=12).contains(&month) && (1..=31).contains(&day) && (1970..=2200).contains(&year);
    if !sane || !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..61).contains(&second) {
        return None;
    }
    // Days from the civil date, counted from 1 March so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i64 = digits.parse().ok()?;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_entities_and_nesting() {
        let root = parse(
            "\u{feff} <?xml version=\"1.0\"?>\n<a:R xmlns:a=\"x\"><K>x&amp;y&#xe9;<![CDATA[<]]></K><E/><N>5</N></a:R>"
                .as_bytes(),
        );
        let root = root.unwrap();
        assert_eq!((root.name.as_str(), root.text_of("K"), root.text_of("E")), ("R", Some("x&yé<"), None));
        assert_eq!(root.number("N").unwrap(), 5);
    }

    #[test]
    fn hostile_and_broken_documents_are_refused() {
        let deep = "<a>".repeat(1000) + &"</a>".repeat(1000);
        let wide = format!("<r>{}</r>", "<a></a>".repeat(ELEMENTS_MAX + 1));
        for text in [
            "",
            "no xml",
            "<a><b></a>",
            "<a><b>",
            "<a/><b/>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a>&b;</a>",
            &deep,
            &wide,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{}", &text[..text.len().min(60)]);
        }
        assert!(parse(b"<a>\xff</a>").is_err());
    }

    #[test]
    fn bodies_survive_our_own_parser() {
        let keys = ["a&b<c>\"'\u{1}é".to_owned()];
        let root = parse(delete_body(&keys).as_bytes()).unwrap();
        assert_eq!(root.child("Object").unwrap().text_of("Key"), Some(keys[0].as_str()));
        let root = parse(complete_body([(1, "abc")].into_iter()).as_bytes()).unwrap();
        assert_eq!(root.child("Part").unwrap().text_of("ETag"), Some("\"abc\""));
    }

    #[test]
    fn times_are_read_to_the_nanosecond() {
        assert_eq!(time_ns("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(time_ns("2009-10-12T17:50:30.5Z"), Some(1_255_369_830_500_000_000));
        assert_eq!(time_ns("2024-02-29T00:00:00Z"), Some(1_709_164_800_000_000_000));
        for bad in ["", "x", "2009-10-12", "2009-13-12T00:00:00Z", "2009-10-12T25:00:00Z"] {
            assert_eq!(time_ns(bad), None);
        }
    }
}
