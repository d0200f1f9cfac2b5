//! Starts one of the tests' servers for a script: `cargo run --example serve -- apache`.
//!
//! Says in one line of JSON where it is and what a config and another client must know, and runs until stdin ends.
#![allow(clippy::disallowed_methods, reason = "a test outside the crate")]

#[path = "garage.rs"]
mod garage;
#[path = "s3.rs"]
mod s3;
#[path = "mod.rs"]
mod servers;

use std::io::{Read, Write};

use serde_json::{Value, json};

const KINDS: &str = "apache, nginx, rclone, wsgidav, s3 (moto), s3s-fs, rclone-s3, garage";

fn main() {
    let kind = std::env::args().nth(1).unwrap_or_default();
    let (facts, _running): (Value, Box<dyn std::any::Any>) = match kind.as_str() {
        "apache" => dav(servers::apache::start(servers::apache::Login::Basic)),
        "nginx" => dav(servers::nginx::start()),
        "rclone" => dav(servers::rclone::start()),
        "wsgidav" => dav(servers::wsgidav::start()),
        "s3" => bucket(s3::Server::start(s3::Kind::Moto)),
        "s3s-fs" => bucket(s3::Server::start(s3::Kind::S3sFs)),
        "rclone-s3" => bucket(s3::Server::start(s3::Kind::Rclone)),
        "garage" => {
            let server = there(garage::Garage::start());
            (s3_facts(&server.endpoint, "garage", garage::BUCKET, &server.key_id, &server.secret), Box::new(server))
        }
        _ => {
            eprintln!("serve: no such server: {kind:?}; there are {KINDS}");
            std::process::exit(2);
        }
    };
    println!("{facts}");
    std::io::stdout().flush().expect("somebody listens");
    // The end of stdin is the end of whoever wanted the server.
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {}
}

/// The server, or exit code 75: its program is not installed, as was said.
fn there<T>(server: Option<T>) -> T {
    server.unwrap_or_else(|| std::process::exit(75))
}

fn dav(server: Option<servers::Server>) -> (Value, Box<dyn std::any::Any>) {
    let server = there(server);
    let (url, user, password) = (&server.url, servers::USER, servers::PASSWORD);
    let facts = json!({
        "port": server.port, "url": url, "folder": server.files, "user": user, "password": password, "bucket": "",
        "config": format!("type = \"webdav\"\nurl = \"{url}\"\nuser = \"{user}\"\npassword = \"{password}\"\n"),
    });
    (facts, Box::new(server))
}

fn bucket(server: Option<s3::Server>) -> (Value, Box<dyn std::any::Any>) {
    let server = there(server);
    let bucket = server.bucket();
    (s3_facts(&server.endpoint, "us-east-1", &bucket.bucket, s3::KEY_ID, s3::SECRET), Box::new(server))
}

fn s3_facts(endpoint: &str, region: &str, bucket: &str, key_id: &str, secret: &str) -> Value {
    let port: u16 = endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("http://HOST:PORT");
    json!({
        "port": port, "url": endpoint, "folder": null, "bucket": bucket, "region": region,
        "access_key_id": key_id, "secret_access_key": secret,
        "config": format!(
            "type = \"s3\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\nbucket = \"{bucket}\"\n\
             access_key_id = \"{key_id}\"\nsecret_access_key = \"{secret}\"\npath_style = true\n"
        ),
    })
}
