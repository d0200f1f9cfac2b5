//! Addresses: which host, bucket and key a request goes to.
//!
//! AWS is reached by virtual host (`bucket.s3.region.amazonaws.com`), everything else by path (`host/bucket/key`) unless the
//! settings say so. A bucket name with dots goes by path over https, since no certificate covers it.

use crate::error::{Error, Kind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What S3 leaves alone in paths and queries: RFC 3986's unreserved characters (`API/sig-v4-header-based-auth.html`, UriEncode).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a key, whose slashes stay.
const ENCODED_PATH: &AsciiSet = &ENCODED.remove(b'/');

/// Where a bucket lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Scheme, host and port without a slash at the end; `None` is AWS itself, in whatever region.
    endpoint: Option<String>,
    bucket: String,
    path_style: bool,
}

impl Address {
    /// Makes an address. Returns it with the region that the endpoint's host names, if any. `Config`: not a usable endpoint or bucket.
    pub fn new(endpoint: Option<&str>, bucket: &str, path_style: Option<bool>) -> Result<(Address, Option<String>)> {
        let refuse = |why: &str| Err(Error::new(Kind::Config, why.to_owned()));
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if bucket.is_empty() || bucket.len() > 255 || !bucket.chars().all(fits) || bucket.starts_with('.') {
            return refuse(&format!("\"{}\" is not the name of a bucket", bucket.escape_debug()));
        }
        let Some(given) = endpoint else {
            let path_style = path_style.unwrap_or(bucket.contains('.'));
            return Ok((Address { endpoint: None, bucket: bucket.to_owned(), path_style }, None));
        };
        let full = if given.contains("://") { given.to_owned() } else { format!("https://{given}") };
        let Ok(url) = reqwest::Url::parse(&full) else { return refuse(&format!("endpoint \"{given}\" is not a URL")) };
        let Some(host) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else {
            return refuse(&format!("endpoint \"{given}\" is not an http or https URL"));
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return refuse("the endpoint may hold neither a user nor a query");
        }
        if let Some(region) = aws_region(host) {
            let path_style = path_style.unwrap_or(bucket.contains('.'));
            return Ok((Address { endpoint: None, bucket: bucket.to_owned(), path_style }, region));
        }
        let region = host.ends_with(".r2.cloudflarestorage.com").then(|| "auto".to_owned());
        let endpoint = url.as_str().trim_end_matches('/').to_owned();
        let path_style = path_style.unwrap_or(true);
        Ok((Address { endpoint: Some(endpoint), bucket: bucket.to_owned(), path_style }, region))
    }

    /// Whether the way there is encrypted.
    pub fn is_https(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https:"))
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The host for messages.
    pub fn host(&self) -> &str {
        self.endpoint.as_deref().unwrap_or("https://s3.amazonaws.com")
    }

    /// The address of a key (`None`: of the bucket), with the query encoded as the signature wants it.
    pub fn url(&self, region: &str, key: Option<&str>, query: &[(&str, String)]) -> Result<reqwest::Url> {
        let base = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                let tail = if region.starts_with("cn-") { ".cn" } else { "" };
                format!("https://s3.{region}.amazonaws.com{tail}")
            }
        };
        let base = if self.path_style {
            format!("{base}/{}", self.bucket)
        } else {
            let (scheme, rest) = base.split_once("://").unwrap_or(("https", &base));
            format!("{scheme}://{}.{rest}", self.bucket)
        };
        // Some servers take `/bucket` and `/bucket/` for different things; a bucket by virtual host is always `/`.
        let mut text = if key.is_some() || !self.path_style { format!("{base}/") } else { base };
        text.extend(utf8_percent_encode(key.unwrap_or(""), ENCODED_PATH));
        for (number, (name, value)) in query.iter().enumerate() {
            text.push(if number == 0 { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, ENCODED));
        }
        reqwest::Url::parse(&text).map_err(|e| Error::new(Kind::Invalid, format!("make an address: {e}")))
    }

    /// `x-amz-copy-source` of a key, which must be percent-encoded.
    pub fn copy_source(&self, key: &str) -> String {
        format!("/{}/{}", self.bucket, utf8_percent_encode(key, ENCODED_PATH))
    }
}

/// For a host of AWS, the region that it names (`None` in the global one); for another host nothing.
fn aws_region(host: &str) -> Option<Option<String>> {
    let rest = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
    match rest.strip_prefix("s3")? {
        "" => Some(None),
        region => {
            let region = region.strip_prefix(['.', '-'])?;
            is_region(region).then(|| Some(region.to_owned()))
        }
    }
}

/// Whether a server's word may be used as a region: it becomes part of a host name and of the signature.
pub(super) fn is_region(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.len() <= 32 && text.bytes().all(fits) && !text.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(endpoint: Option<&str>, bucket: &str, key: Option<&str>) -> String {
        let (address, region) = Address::new(endpoint, bucket, None).unwrap();
        address.url(region.as_deref().unwrap_or("us-east-1"), key, &[]).unwrap().to_string()
    }

    #[test]
    fn aws_goes_by_host_and_others_by_path() {
        assert_eq!(url(None, "b", Some("k")), "https://b.s3.us-east-1.amazonaws.com/k");
        assert_eq!(url(None, "b.c", Some("k")), "https://s3.us-east-1.amazonaws.com/b.c/k");
        assert_eq!(
            url(Some("https://s3.eu-west-1.amazonaws.com/"), "b", None),
            "https://b.s3.eu-west-1.amazonaws.com/"
        );
        assert_eq!(url(Some("http://127.0.0.1:9000"), "b", Some("k")), "http://127.0.0.1:9000/b/k");
        assert_eq!(url(Some("minio.example/s3/"), "b", None), "https://minio.example/s3/b");
    }

    #[test]
    fn keys_and_queries_are_encoded_once() {
        let (address, _) = Address::new(Some("http://h"), "b", None).unwrap();
        let key = "a b/+%41?#&'\"é~*(1)";
        let url = address.url("us-east-1", Some(key), &[("prefix", "a+ b/".into())]).unwrap();
        assert_eq!(url.path(), "/b/a%20b/%2B%2541%3F%23%26%27%22%C3%A9~%2A%281%29");
        assert_eq!(url.query(), Some("prefix=a%2B%20b%2F"));
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        for (endpoint, bucket) in [
            (Some("ftp://h"), "b"),
            (Some("http://u:p@h"), "b"),
            (Some("http://h?x"), "b"),
            (Some("http://"), "b"),
            (None, ""),
            (None, "a/b"),
            (None, "b?"),
            (None, ".."),
        ] {
            assert_eq!(Address::new(endpoint, bucket, None).unwrap_err().kind, Kind::Config, "{endpoint:?} {bucket}");
        }
        assert!(!is_region("evil.example/") && !is_region("") && is_region("eu-west-1"));
    }
}
