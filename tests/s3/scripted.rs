//! What no server here does by itself: a server that answers by script.

use crate::helpers::{at, put, read};
use fourwheel::error::Kind as ErrorKind;
use fourwheel::model::{Meta, Version};
use fourwheel::remote::s3::{S3Options, S3Remote, connect, from_saved};
use fourwheel::remote::{Condition, Remote, body};
use fourwheel::sys::{Clock, RealChance, RealClock};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as the server saw it.
#[derive(Clone, Debug, Default)]
struct Asked {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Status, headers, body.
type Reply = (u16, Vec<(&'static str, String)>, String);
type Script = Box<dyn FnMut(&Asked) -> Reply + Send>;

struct Scripted {
    endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// A server that lives as long as this process; its threads wait for connections.
    fn start(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen) = (script.clone(), seen.clone());
                std::thread::spawn(move || serve(stream, &script, &seen));
            }
        });
        Scripted { endpoint, asked }
    }

    fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint.clone()),
            region: Some("us-east-1".into()),
            bucket: "bucket".into(),
            access_key_id: Some("id".into()),
            secret_access_key: Some("secret".into()),
            ..S3Options::default()
        }
    }

    /// A remote that believes the server obeys everything.
    fn remote(&self) -> Arc<S3Remote> {
        self.remote_by(Arc::new(RealClock))
    }

    fn remote_by(&self, clock: Arc<dyn Clock>) -> Arc<S3Remote> {
        let place = format!("s3 bucket/ at {}", self.endpoint);
        let saved = format!(
            "{{\"form\":1,\"place\":\"{place}\",\"region\":\"us-east-1\",\"writable\":true,\"create\":true,\
             \"replace\":true,\"remove\":true,\"copy_source\":true,\"copy_target\":true,\"finish_create\":true,\
             \"finish_replace\":true,\"part_copy\":true,\"part_source\":true,\"etag_md5\":true,\"markers\":\"Listed\",\
             \"encoding\":\"Form\"}}"
        );
        from_saved(self.options(), &saved, clock, Arc::new(RealChance::new())).unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, script: &Mutex<Script>, seen: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut sent = vec![0; length];
        reader.read_exact(&mut sent).unwrap();
        let asked = Asked { method, target, headers };
        let (status, headers, body) = script.lock().unwrap()(&asked);
        let head = asked.method == "HEAD";
        seen.lock().unwrap().push(asked);
        let mut text = format!("HTTP/1.1 {status} Answer\r\n");
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        if !head {
            text.push_str(&body);
        }
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn error(status: u16, code: &str) -> Reply {
    (status, vec![], format!("<Error><Code>{code}</Code><Message>scripted</Message></Error>"))
}

fn ok(etag: &str) -> Reply {
    (200, vec![("ETag", format!("\"{etag}\""))], String::new())
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// The MD5 of `x`.
const X: &str = "9dd4e461268c8034f5c8564e155c67a6";

#[test]
fn an_error_inside_a_success_is_an_error() {
    run(async {
        let server = Scripted::start(|asked| match asked.method.as_str() {
            "POST" if asked.target.contains("uploads") => (
                200,
                vec![],
                "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>".into(),
            ),
            "POST" => (200, vec![], "  \n <?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>".into()),
            _ => ok(X),
        });
        let remote = server.remote();
        let session = remote.begin(&at("f"), 1, &Meta::default(), &Condition::Any).await.unwrap();
        let part = remote.part(&session, 1, body(b"x".to_vec()), 0..1).await.unwrap();
        let error = remote.finish(&session, &[part], &Meta::default(), &Condition::Any).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("InternalError"), "{error}");
    });
}

#[test]
fn a_race_is_tried_again_and_a_lost_one_is_said() {
    run(async {
        let mut puts = 0;
        let server = Scripted::start(move |asked| match asked.method.as_str() {
            "PUT" => {
                puts += 1;
                if puts == 1 { error(409, "ConditionalRequestConflict") } else { ok(X) }
            }
            _ => (404, vec![], String::new()),
        });
        put(&*server.remote(), "f", b"x", Condition::Absent).await.unwrap();
        let methods: Vec<_> = server.asked().into_iter().map(|asked| asked.method).collect();
        assert_eq!(methods, ["PUT", "HEAD", "PUT"], "tried again after a look");

        let server = Scripted::start(|asked| match asked.method.as_str() {
            "PUT" => error(409, "ConditionalRequestConflict"),
            _ => (200, vec![("ETag", "\"other\"".into()), ("Content-Length", "5".into())], String::new()),
        });
        let lost = put(&*server.remote(), "f", b"x", Condition::Absent).await.unwrap_err();
        assert_eq!(lost.kind, ErrorKind::Precondition);
        // If-Match where no object is: 404 at AWS.
        let server = Scripted::start(|_| error(404, "NoSuchKey"));
        let lost = put(&*server.remote(), "f", b"x", Condition::Is(Version::new("v"))).await.unwrap_err();
        assert_eq!(lost.kind, ErrorKind::Precondition);
    });
}

#[test]
fn a_condition_that_is_not_implemented_becomes_a_look() {
    run(async {
        let server = Scripted::start(|asked| match asked.method.as_str() {
            "PUT" if !asked.header("if-none-match").is_empty() => error(501, "NotImplemented"),
            "PUT" => ok(X),
            _ => (404, vec![], String::new()),
        });
        put(&*server.remote(), "f", b"x", Condition::Absent).await.unwrap();
        let methods: Vec<_> = server.asked().into_iter().map(|asked| asked.method).collect();
        assert_eq!(methods, ["PUT", "HEAD", "PUT"]);
    });
}

#[test]
fn a_store_that_keeps_other_bytes_is_not_believed() {
    run(async {
        let server = Scripted::start(|_| ok("00000000000000000000000000000000"));
        let stored = put(&*server.remote(), "f", b"x", Condition::Any).await;
        assert_eq!(stored.unwrap_err().kind, ErrorKind::Corrupt);
        // Encrypted by KMS, an etag is no MD5; then the size must do.
        let server = Scripted::start(|asked| {
            let size = if asked.method == "HEAD" { "1" } else { "0" };
            let kms = ("x-amz-server-side-encryption", "aws:kms".into());
            (
                200,
                vec![("ETag", "\"00000000000000000000000000000000\"".into()), kms, ("Content-Length", size.into())],
                "".into(),
            )
        });
        let entry = put(&*server.remote(), "f", b"x", Condition::Any).await.unwrap();
        assert_eq!((entry.hash, server.asked().len()), (None, 2));
        let longer = put(&*server.remote(), "f", b"xy", Condition::Any).await;
        assert_eq!(longer.unwrap_err().kind, ErrorKind::Corrupt);
    });
}

#[test]
fn the_region_is_learnt_from_the_server() {
    run(async {
        let server = Scripted::start(|asked| {
            if asked.header("authorization").contains("/eu-west-3/s3/") {
                return ok(X);
            }
            (400, vec![], "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>".into())
        });
        let remote = server.remote();
        put(&*remote, "f", b"x", Condition::Any).await.unwrap();
        put(&*remote, "g", b"x", Condition::Any).await.unwrap();
        assert_eq!(server.asked().len(), 3, "learnt once");
        // What is no region is not followed.
        let server = Scripted::start(|_| {
            (
                301,
                vec![("x-amz-bucket-region", "evil.example/".into())],
                "<Error><Code>PermanentRedirect</Code></Error>".into(),
            )
        });
        assert!(put(&*server.remote(), "f", b"x", Condition::Any).await.is_err());
        assert_eq!(server.asked().len(), 1);
    });
}

/// A clock that stands at 2 January 2020.
struct Behind;

impl Clock for Behind {
    fn wall_ns(&self) -> i64 {
        1_577_923_200 * 1_000_000_000
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn a_wrong_clock_follows_the_servers() {
    run(async {
        let server = Scripted::start(|asked| {
            let date = ("Date", "Wed, 25 Nov 2026 10:00:00 GMT".into());
            let right = asked.header("x-amz-date").starts_with("20261125T1000");
            match (right, asked.method.as_str()) {
                (true, "HEAD") => (404, vec![date], String::new()),
                (true, _) => (200, vec![date, ("ETag", format!("\"{X}\""))], String::new()),
                // A HEAD has no body that could say why.
                (false, "HEAD") => (403, vec![date], String::new()),
                (false, _) => {
                    let mut reply = error(403, "RequestTimeTooSkewed");
                    reply.1.push(date);
                    reply
                }
            }
        });
        let remote = server.remote_by(Arc::new(Behind));
        put(&*remote, "f", b"x", Condition::Any).await.unwrap();
        put(&*remote, "f", b"x", Condition::Any).await.unwrap();
        assert_eq!(server.asked().len(), 3, "corrected once");
    });
}

#[test]
fn throttling_carries_the_servers_wish() {
    run(async {
        let server = Scripted::start(|_| {
            let mut reply = error(503, "SlowDown");
            reply.1.push(("Retry-After", "7".into()));
            reply
        });
        let error = put(&*server.remote(), "f", b"x", Condition::Any).await.unwrap_err();
        assert_eq!((error.kind, error.retry_after), (ErrorKind::Throttled, Some(Duration::from_secs(7))));
        assert_eq!(server.asked().len(), 1, "repeating is the retry layer's");
    });
}

#[test]
fn what_is_read_is_the_version_and_the_length() {
    run(async {
        let reply = |status, etag: &str, range: &str, body: &str| -> Reply {
            (status, vec![("ETag", format!("\"{etag}\"")), ("Content-Range", range.to_owned())], body.to_owned())
        };
        let cases: Vec<(Reply, Result<&[u8], ErrorKind>)> = vec![
            (reply(206, "v", "bytes 2-4/9", "abc"), Ok(b"abc")),
            (reply(206, "w", "bytes 2-4/9", "abc"), Err(ErrorKind::Changed)),
            (error(412, "PreconditionFailed"), Err(ErrorKind::Changed)),
            (error(416, "InvalidRange"), Err(ErrorKind::Changed)),
            (reply(206, "v", "bytes 3-5/9", "abc"), Err(ErrorKind::Corrupt)),
            (reply(206, "v", "bytes 2-3/9", "ab"), Err(ErrorKind::Corrupt)),
            (reply(200, "v", "", "123456789"), Err(ErrorKind::Corrupt)),
            (error(403, "ExpiredToken"), Err(ErrorKind::SignIn)),
            (error(403, "AccessDenied"), Err(ErrorKind::Denied)),
            (error(403, "InvalidObjectState"), Err(ErrorKind::Denied)),
            (error(500, "InternalError"), Err(ErrorKind::Unavailable)),
        ];
        for (answer, expected) in cases {
            let shown = format!("{answer:?}");
            let server = Scripted::start(move |_| answer.clone());
            let found = read(&*server.remote(), "f", &Version::new("v"), 2..5).await;
            assert_eq!(found.as_deref().map_err(|e| e.kind), expected, "{shown}");
            let asked = &server.asked()[0];
            assert_eq!((asked.header("range"), asked.header("if-match")), ("bytes=2-4", "\"v\""));
            assert_eq!(asked.header("accept-encoding"), "identity");
            assert!(!asked.header("authorization").contains("accept-encoding"), "it is not signed");
        }
    });
}

#[test]
fn a_missing_bucket_is_never_an_absent_file() {
    run(async {
        let server = Scripted::start(|asked| match asked.method.as_str() {
            "HEAD" => (404, vec![], String::new()),
            _ => error(404, "NoSuchBucket"),
        });
        let remote = server.remote();
        assert_eq!(remote.stat(&at("f")).await.unwrap_err().kind, ErrorKind::Unavailable);
        let removed = remote.remove(&at("f"), false, &Condition::Any).await;
        assert_eq!(removed.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(remote.sweep(None).await.unwrap_err().kind, ErrorKind::Unavailable);
        let read = read(&*remote, "f", &Version::new("v"), 0..1).await;
        assert_eq!(read.unwrap_err().kind, ErrorKind::Unavailable);
    });
}

#[test]
fn a_list_without_tokens_goes_on_by_marker_and_a_circle_ends() {
    run(async {
        let contents = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size><ETag>\"e\"</ETag></Contents>");
        let server = Scripted::start(move |asked| {
            let (key, more) = if asked.target.contains("marker=a%2Fb") { ("c%2Bd", false) } else { ("a/b", true) };
            (
                200,
                vec![],
                format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{}</ListBucketResult>", contents(key)),
            )
        });
        let all = crate::helpers::sweep(&*server.remote()).await;
        // Nothing says that the keys are encoded, so they are not.
        assert_eq!(crate::helpers::names(&all), ["a/", "a/b", "c%2Bd"]);

        let server = Scripted::start(move |_| {
            let text = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
            (200, vec![], text.into())
        });
        let remote = server.remote();
        let page = remote.sweep(None).await.unwrap().next;
        assert_eq!(remote.sweep(page).await.unwrap_err().kind, ErrorKind::Corrupt);
        let server = Scripted::start(|_| (200, vec![], "<ListBucketResult><Contents>".into()));
        assert_eq!(server.remote().sweep(None).await.unwrap_err().kind, ErrorKind::Corrupt);
    });
}

#[test]
fn old_uploads_below_the_prefix_are_dropped_and_no_others() {
    run(async {
        let server = Scripted::start(|asked| {
            let upload = |key: &str, id: &str, at: &str| {
                format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{at}</Initiated></Upload>")
            };
            if asked.target.contains("uploads=&prefix") {
                let list = [
                    upload("mine/old", "1", "2019-12-20T00:00:00.000Z"),
                    upload("mine/young", "2", "2019-12-30T00:00:00.000Z"),
                    upload("other/old", "3", "2019-12-20T00:00:00.000Z"),
                    upload("mine/odd", "4", "yesterday"),
                ];
                return (
                    200,
                    vec![],
                    format!("<ListMultipartUploadsResult>{}</ListMultipartUploadsResult>", list.concat()),
                );
            }
            match asked.method.as_str() {
                "DELETE" => (204, vec![], String::new()),
                "GET" if asked.target.contains("fourwheel-probe") && asked.target.contains("max-keys=100") => {
                    (200, vec![], "<ListBucketResult/>".into())
                }
                _ => error(403, "AccessDenied"),
            }
        });
        let options = S3Options { prefix: "mine".into(), ..server.options() };
        connect(options, Arc::new(Behind), Arc::new(RealChance::new())).await.unwrap();
        let dropped: Vec<_> = server.asked().into_iter().filter(|asked| asked.method == "DELETE").collect();
        assert_eq!(
            dropped.iter().map(|asked| asked.target.as_str()).collect::<Vec<_>>(),
            ["/bucket/mine/old?uploadId=1"]
        );
    });
}
