//! The proxy of `tests/netlab`, between a drive and its server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// A running proxy; ends when dropped.
pub struct Netlab {
    child: Child,
    /// Its end tells the proxy to go, also when this process is killed.
    stdin: Option<ChildStdin>,
    /// The port that stands for the server's.
    pub port: u16,
    control: u16,
}

impl Netlab {
    /// Starts a proxy before `target`, a port on loopback. `settings` are pairs such as `("rtt_ms", "50")`.
    pub fn start(target: u16, settings: &[(&str, &str)]) -> Netlab {
        let mut command = Command::new(binary());
        command.args(["--target", &target.to_string()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("netlab is built with the tests (cargo build --example netlab)");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("netlab says its ports");
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["listen", port, "control", control] = words[..] else { panic!("netlab said {line:?}") };
        let (port, control) = (port.parse().expect("a port"), control.parse().expect("a port"));
        let netlab = Netlab { stdin: child.stdin.take(), child, port, control };
        netlab.set(settings);
        netlab
    }

    /// Changes the line: see `tests/netlab/netlab.rs`.
    pub fn set(&self, settings: &[(&str, &str)]) {
        let query: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.ask(&format!("/set?{}", query.join("&")));
    }

    /// Resets every open connection.
    pub fn kill(&self) {
        self.ask("/kill");
    }

    /// Puts the counters back to zero.
    pub fn reset(&self) {
        self.ask("/reset");
    }

    /// The counters.
    pub fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.ask("/stats")).expect("netlab answers JSON")
    }

    /// Requests of one method since the last reset; `LIST` are the listings of S3.
    pub fn requests(&self, method: &str) -> u64 {
        self.stats()["methods"][method].as_u64().unwrap_or(0)
    }

    fn ask(&self, target: &str) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.control)).expect("netlab runs");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout above zero");
        socket.write_all(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()).expect("netlab listens");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("netlab answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{target}: {body}");
        body.to_string()
    }
}

impl Drop for Netlab {
    fn drop(&mut self) {
        self.stdin = None;
        // The end of stdin is enough; this is for a proxy that hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Examples are built beside the test binaries: `target/PROFILE/examples/`.
fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("a test binary");
    me.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("examples/netlab")
}
