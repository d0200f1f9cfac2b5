//! Redirects: followed to the same server with credentials, to another without, and never for a write to another.

use crate::bench::*;
use crate::servers::{PASSWORD, USER};
use fourwheel::error::Kind;
use fourwheel::model::Version;
use fourwheel::remote::webdav::{WebDav, WebDavOptions};
use fourwheel::remote::{Condition, Remote};
use fourwheel::sys::{RealChance, RealClock};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};

/// A server that answers each request by what `answer` makes of its head; gives its port and the heads that it saw.
fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
            let length = head
                .to_ascii_lowercase()
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
            let _ = reader.read_exact(&mut vec![0; length.unwrap_or(0)]);
            let reply = answer(&head);
            seen.lock().unwrap().push(head);
            let _ = reader.into_inner().write_all(reply.as_bytes());
        }
    });
    (port, heads)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn dav(port: u16) -> Arc<WebDav> {
    let url = format!("http://127.0.0.1:{port}/dav/");
    let saved = format!(
        r#"{{"url":"{url}","user":"{USER}","root":["dav"],"flavor":"Apache","coarse_tags":false,"makes_parents":false}}"#
    );
    let options = WebDavOptions { url, user: USER.into(), password: PASSWORD.into(), ..WebDavOptions::default() };
    WebDav::from_saved(options, &saved, Arc::new(RealClock), Arc::new(RealChance::new())).unwrap()
}

#[tokio::test]
async fn another_host_gets_no_credentials() {
    let (other, at_other) =
        serve(|_| reply("206 Partial Content", "Content-Range: bytes 0-2/3\r\nETag: \"v\"\r\n", "abc"));
    let (port, at_own) = serve(move |head| match head {
        head if !head.contains("authorization: ") => {
            reply("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "")
        }
        head if head.starts_with("GET /dav/f ") => reply("302 Found", "Location: /dav/moved\r\n", ""),
        _ => reply("302 Found", &format!("Location: http://127.0.0.1:{other}/content?sig=1\r\n"), ""),
    });
    let dav = dav(port);
    let bytes = read(&dav, "f", &Version::new("v"), 0..3).await.unwrap();
    assert_eq!(bytes, b"abc");
    assert!(at_own.lock().unwrap().iter().skip(1).all(|head| head.contains("authorization: Basic")));
    let heads = at_other.lock().unwrap().clone();
    assert!(heads.len() == 1 && heads[0].starts_with("GET /content?sig=1 ") && heads[0].contains("range: bytes=0-2"));
    assert!(!heads[0].contains("authorization"), "{}", heads[0]);
    let error = put(&dav, "f", "secret content", Condition::Any).await.unwrap_err();
    assert_eq!(error.kind, Kind::Config, "{error}");
    assert_eq!(at_other.lock().unwrap().len(), 1, "no write goes elsewhere");
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let (port, _) = serve(|_| reply("302 Found", "Location: /dav/f\r\n", ""));
    assert_eq!(kind(dav(port).stat(&at("f")).await), Kind::Corrupt);
}

#[tokio::test]
async fn what_the_server_says_wrong_is_no_content() {
    let body = "0123456789";
    let cases = [
        (reply("206 Partial Content", "ETag: \"v\"\r\nContent-Range: bytes 5-7/10\r\n", "567"), Kind::Corrupt),
        (reply("206 Partial Content", "ETag: \"v\"\r\nContent-Range: bytes 0-1/10\r\n", "01"), Kind::Corrupt),
        (reply("206 Partial Content", "ETag: \"v\"\r\n", "012"), Kind::Corrupt),
        (reply("206 Partial Content", "ETag: \"w\"\r\nContent-Range: bytes 0-2/10\r\n", "012"), Kind::Changed),
        (reply("200 OK", "ETag: \"w\"\r\n", body), Kind::Changed),
        (reply("416 Range Not Satisfiable", "", ""), Kind::Changed),
        (reply("404 Not Found", "", ""), Kind::NotFound),
        (reply("503 Service Unavailable", "Retry-After: 7\r\n", ""), Kind::Throttled),
        (
            "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Range: bytes 0-2/10\r\nContent-Length: 3\r\n\r\n0"
                .into(),
            Kind::Unavailable,
        ),
    ];
    for (answer, expected) in cases {
        let (port, _) = serve({
            let answer = answer.clone();
            move |_| answer.clone()
        });
        let error = read(&dav(port), "f", &Version::new("v"), 0..3).await.unwrap_err();
        assert_eq!(error.kind, expected, "{answer}: {error}");
        assert_eq!(error.retry_after.map(|wait| wait.as_secs()), (expected == Kind::Throttled).then_some(7));
    }
    // A server without ranges gives everything; exactly what was asked for comes out.
    let (port, _) = serve(move |_| reply("200 OK", "ETag: \"v\"\r\n", body));
    assert_eq!(read(&dav(port), "f", &Version::new("v"), 3..6).await.unwrap(), b"345");
}
