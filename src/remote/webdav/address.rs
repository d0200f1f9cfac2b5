//! Addresses: from a path on the drive to a URL, and from a server's href back to a path. Nothing here talks.

use super::probe::Destination;
use crate::error::{Error, Kind, Result};
use crate::model::RemotePath;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Url;

/// What is escaped in a path: all but the unreserved characters (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a drive is: the collection that is its root, and the host that requests go to.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Scheme, host and port as the server sees itself: `https://cloud.example`.
    own: String,
    /// Where requests go instead; the same unless an endpoint is set.
    target: String,
    /// The root's path, decoded.
    root: Vec<String>,
}

/// A href as a place: below the drive's root, or elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Href {
    Inside(RemotePath),
    /// Not below the root, or a name that no file can have; the reason.
    Refused(&'static str),
}

impl Address {
    /// Takes the root's URL; `endpoint` replaces scheme, host and port of every request.
    ///
    /// [`Kind::Config`]: not an http(s) URL, or one with a query, a fragment or credentials.
    pub(super) fn new(url: &str, endpoint: Option<&str>) -> Result<Address> {
        let own = web_url("url", url)?;
        if !own.username().is_empty() || own.password().is_some() {
            return Err(Error::new(Kind::Config, "url: write user and password as settings of their own"));
        }
        if own.query().is_some() || own.fragment().is_some() {
            return Err(Error::new(Kind::Config, "url: has a query or a fragment"));
        }
        let root = segments(own.path()).map_err(|why| Error::new(Kind::Config, format!("url: {why}")))?;
        let target = match endpoint {
            Some(endpoint) => origin(&web_url("endpoint", endpoint)?),
            None => origin(&own),
        };
        Ok(Address { own: origin(&own), target, root })
    }

    /// The root's decoded path.
    pub(super) fn root(&self) -> &[String] {
        &self.root
    }

    /// Scheme and host as the server sees itself, for messages.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// Whether passwords travel in the clear.
    pub(super) fn is_plain(&self) -> bool {
        self.target.starts_with("http://")
    }

    /// The absolute path of `path` on the server, escaped; with a slash at the end for a directory and for the root.
    pub(super) fn path(&self, path: &RemotePath, directory: bool) -> String {
        let slash = directory || path.is_root();
        join(self.root.iter().map(String::as_str).chain(path.parts()), slash)
    }

    /// The URL to send a request for the absolute, escaped `path` to.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.target)
    }

    /// The value of a Destination header for the absolute, escaped `path` (RFC 4918, 10.3).
    pub(super) fn destination(&self, path: &str, form: Destination) -> String {
        match form {
            Destination::Own => format!("{}{path}", self.own),
            Destination::OtherScheme => match self.own.strip_prefix("https://") {
                Some(host) => format!("http://{host}{path}"),
                None => format!("{}{path}", self.own.replacen("http://", "https://", 1)),
            },
            Destination::Target => self.url(path),
            Destination::Path => path.to_owned(),
        }
    }

    /// Where a redirect from `from` leads: the URL, and whether it is still our server. `None`: not a URL.
    pub(super) fn redirect(&self, from: &str, location: &str) -> Option<(String, bool)> {
        let to = Url::parse(&self.url(from)).ok()?.join(location).ok()?;
        if !matches!(to.scheme(), "http" | "https") {
            return None;
        }
        let origin = origin(&to);
        if origin == self.own || origin == self.target {
            let query = to.query().map(|query| format!("?{query}")).unwrap_or_default();
            return Some((format!("{}{query}", to.path()), true));
        }
        Some((to.to_string(), false))
    }

    /// The place that `href` names, where `root` is the root's path as the server writes it.
    pub(super) fn place(href: &str, root: &[String]) -> Href {
        let Ok(found) = href_segments(href) else { return Href::Refused("not a name that a file can have") };
        match found.strip_prefix(root) {
            Some(below) => Href::Inside(RemotePath::new(&below.join("/"))),
            None => Href::Refused("not below the address that was asked"),
        }
    }
}

/// Scheme, host and port.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn web_url(setting: &str, text: &str) -> Result<Url> {
    // The text is not quoted: it may hold a password.
    let url = Url::parse(text).map_err(|e| Error::new(Kind::Config, format!("{setting}: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Error::new(Kind::Config, format!("{setting}: neither http:// nor https://")));
    }
    Ok(url)
}

/// The decoded path of a href, which may be a path or a whole URL (RFC 4918, 8.3).
pub(super) fn href_segments(href: &str) -> std::result::Result<Vec<String>, &'static str> {
    let href = href.trim();
    let path = match href.split_once("://") {
        // Only before the first slash does `://` end a scheme; a name may hold it too.
        Some((scheme, rest)) if !scheme.contains('/') => rest.split_once('/').map_or("", |(_, path)| path),
        _ => href,
    };
    segments(path.split(['?', '#']).next().unwrap_or(""))
}

/// The decoded parts of an escaped path. What could lead elsewhere is an error, with the reason.
fn segments(path: &str) -> std::result::Result<Vec<String>, &'static str> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let name = percent_decode_str(part).decode_utf8().map_err(|_| "not UTF-8")?;
            match name.as_ref() {
                "" | "." | ".." => Err("a name that is empty, . or .."),
                name if name.contains(['/', '\0']) => Err("a name with / or NUL"),
                name => Ok(name.to_owned()),
            }
        })
        .collect()
}

/// Escapes and joins parts.
pub(super) fn join<'a>(parts: impl Iterator<Item = &'a str>, slash: bool) -> String {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        path.extend(utf8_percent_encode(part, ESCAPED));
    }
    if slash || path.is_empty() {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dav() -> Address {
        Address::new("https://cloud.example/remote.php/dav/files/a%20b/", None).unwrap()
    }

    #[test]
    fn paths_are_escaped_and_come_back() {
        let name = "ä %2F?#:&'+\u{1}~.txt";
        let path = RemotePath::root().join("dir").join(name);
        let text = dav().path(&path, false);
        assert!(text.starts_with("/remote.php/dav/files/a%20b/dir/%C3%A4%20%252F"), "{text}");
        for href in [text.clone(), format!("https://other:8443{text}"), format!("{text}/")] {
            assert_eq!(Address::place(&href, dav().root()), Href::Inside(path.clone()));
        }
        assert_eq!(dav().path(&RemotePath::root(), false), "/remote.php/dav/files/a%20b/");
    }

    #[test]
    fn hostile_hrefs_lead_nowhere() {
        let base = "/remote.php/dav/files/a%20b/";
        for bad in ["..", "%2e%2e", "x%2Fy", "a%00b", "%2E", "%ff", "../../../../etc/passwd"] {
            assert!(matches!(Address::place(&format!("{base}{bad}"), dav().root()), Href::Refused(_)), "{bad}");
        }
        assert!(matches!(Address::place("/remote.php/dav/files/other/x", dav().root()), Href::Refused(_)));
        assert!(matches!(Address::place("", dav().root()), Href::Refused(_)));
    }

    #[test]
    fn a_rewritten_root_is_understood() {
        let root = vec!["inner".to_owned()];
        assert_eq!(Address::place("http://backend:81/inner/x", &root), Href::Inside(RemotePath::new("x")));
    }

    #[test]
    fn an_endpoint_takes_requests_but_not_the_destination() {
        let dav = Address::new("https://cloud.example/dav", Some("http://127.0.0.1:81/ignored")).unwrap();
        let path = dav.path(&RemotePath::new("x"), false);
        assert_eq!(dav.url(&path), "http://127.0.0.1:81/dav/x");
        assert_eq!(dav.destination(&path, Destination::Own), "https://cloud.example/dav/x");
        assert_eq!(dav.destination(&path, Destination::OtherScheme), "http://cloud.example/dav/x");
        assert_eq!(dav.redirect(&path, "https://cloud.example/y?z"), Some(("/y?z".into(), true)));
        assert_eq!(dav.redirect(&path, "//cdn.example/y"), Some(("http://cdn.example/y".into(), false)));
        assert_eq!(dav.redirect(&path, "file:///etc/passwd"), None);
    }

    #[test]
    fn credentials_in_the_url_are_refused_and_not_repeated() {
        let error = Address::new("https://me:secret@cloud.example/", None).unwrap_err();
        assert!(error.kind == Kind::Config && !error.message().contains("secret"));
    }
}
