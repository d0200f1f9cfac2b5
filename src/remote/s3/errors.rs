//! What an S3 server refuses, as kinds.
//!
//! Source: "Error responses" of the Amazon S3 API reference (`API/ErrorResponses.html`), where each code below is listed
//! with its status; codes of other stores are marked.

use super::wire::{self, Element};
use crate::error::{Error, Kind};
use std::time::Duration;

/// A refusal, with what callers branch on: the status and the server's own code.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// The HTTP status; 0 where no answer came.
    pub status: u16,
    /// The `Code` of the error document; empty where there was none (HEAD).
    pub code: String,
    /// The region that the server names, for a request signed for another.
    pub region: Option<String>,
    pub error: Error,
}

/// The answer of a call, or why there is none.
pub(super) type Answer<T> = std::result::Result<T, Refused>;

impl Refused {
    /// Reads an error document; `body` may be empty or anything else.
    pub fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Refused {
        let document = wire::parse(body).ok().filter(|root| root.name == "Error");
        let text = |name: &str| document.as_ref().and_then(|root| root.text_of(name)).unwrap_or("").to_owned();
        Refused::new(status, &text("Code"), &text("Message"), document.as_ref(), retry_after)
    }

    /// Reads an error document that came under status 200 (Complete and Copy do that).
    pub fn inside(root: &Element) -> Refused {
        let text = |name| root.text_of(name).unwrap_or("").to_owned();
        let code = text("Code");
        let status = if code == "PreconditionFailed" { 412 } else { 500 };
        Refused::new(status, &code, &text("Message"), Some(root), None)
    }

    fn new(status: u16, code: &str, message: &str, root: Option<&Element>, retry_after: Option<Duration>) -> Refused {
        let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        let said: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        let text = match (code.is_empty(), said.is_empty()) {
            (true, _) => format!("the server answered {status}"),
            (false, true) => format!("the server answered {status} {code}"),
            (false, false) => format!("the server answered {status} {code}: {said}"),
        };
        let mut error = Error::new(kind(status, &code), text);
        error.retry_after = retry_after;
        let region = root.and_then(|root| root.text_of("Region")).map(str::to_owned);
        Refused { status, code, region, error }
    }

    /// Whether a condition of the request did not hold. AWS says 404 for If-Match where no object is, others 412.
    pub fn is_precondition(&self) -> bool {
        self.status == 412 || self.code == "PreconditionFailed"
    }

    /// Whether the server does not know what was asked ("A header you provided implies functionality that is not implemented").
    pub fn is_not_implemented(&self) -> bool {
        self.status == 501 || self.code == "NotImplemented"
    }

    /// Whether nothing is there.
    pub fn is_absent(&self) -> bool {
        self.status == 404 && self.code != "NoSuchBucket"
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        refused.error
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused { status: 0, code: String::new(), region: None, error }
    }
}

fn kind(status: u16, code: &str) -> Kind {
    match code {
        "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload" => Kind::NotFound,
        // At connect this becomes `Config`; later the bucket of a mounted drive is gone, and may come back.
        "NoSuchBucket" => Kind::Unavailable,
        // Also the answer for a missing key to whoever may not list the bucket (GetObject, "Permissions").
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "InvalidObjectState" | "InvalidPayer" => Kind::Denied,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "AuthorizationHeaderMalformed"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "MissingSecurityHeader"
        | "UnauthorizedAccess" => Kind::SignIn,
        "SlowDown"
        | "ServiceUnavailable"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "BandwidthLimitExceeded" => Kind::Throttled,
        "PreconditionFailed" => Kind::Precondition,
        "EntityTooLarge" => Kind::TooLarge,
        "KeyTooLongError" => Kind::NameTooLong,
        // MinIO and Ceph refuse what their disk cannot hold.
        "InvalidURI" | "XMinioInvalidObjectName" | "InvalidObjectName" => Kind::NameRefused,
        // Sent bytes were hurt on the way, or the clock is off even after correction: sending again may help.
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody"
        | "RequestTimeout"
        | "RequestTimeTooSkewed"
        | "InternalError"
        | "OperationAborted"
        | "ConditionalRequestConflict" => Kind::Unavailable,
        "NotImplemented" | "MethodNotAllowed" => Kind::Unsupported,
        // Ceph, MinIO.
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" | "InsufficientCapacity" => Kind::QuotaFull,
        "InvalidBucketName" => Kind::Config,
        _ => by_status(status),
    }
}

fn by_status(status: u16) -> Kind {
    match status {
        401 => Kind::SignIn,
        403 => Kind::Denied,
        404 => Kind::NotFound,
        412 => Kind::Precondition,
        413 => Kind::TooLarge,
        414 => Kind::NameTooLong,
        429 | 503 => Kind::Throttled,
        501 | 405 => Kind::Unsupported,
        507 => Kind::QuotaFull,
        301 | 302 | 307 | 308 | 408 | 409 | 500..=599 => Kind::Unavailable,
        _ => Kind::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_kinds_and_garbage_falls_back_to_the_status() {
        let body = b"<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>old\x0a</Message></Error>";
        let refused = Refused::read(400, body, None);
        assert_eq!((refused.error.kind, refused.code.as_str()), (Kind::SignIn, "ExpiredToken"));
        assert_eq!(Refused::read(403, b"<html>no</html>", None).error.kind, Kind::Denied);
        assert_eq!(
            Refused::read(503, b"", Some(Duration::from_secs(2))).error.retry_after,
            Some(Duration::from_secs(2))
        );
        let moved = b"<Error><Code>PermanentRedirect</Code><Region>eu-west-1</Region></Error>";
        assert_eq!(Refused::read(301, moved, None).region.as_deref(), Some("eu-west-1"));
    }
}
