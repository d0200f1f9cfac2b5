//! The control protocol over a real socket, with a worker that is none, and with peers that mean no good.

use async_trait::async_trait;
use fourwheel::control::{
    CheckReport, Client, Conflict, Failed, LastError, Pinned, Record, Saved, Server, Service, Status, Time, Upload,
};
use fourwheel::error::{Error, Kind, Result};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Fake {
    /// How many `sync` calls are running.
    syncing: AtomicUsize,
}

/// Counts down when the call's future is dropped.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Service for Fake {
    async fn status(&self) -> Result<Status> {
        Ok(Status {
            drive: "work".into(),
            mountpoint: "/mnt".into(),
            failed: vec![Failed { path: "a\n\u{1b}".into(), reason: "no".into() }],
            uploading: vec![Upload { path: "b".into(), done: 1, size: 2 }],
            last_saved: Some(Time(1_795_560_896_000_000_000)),
            last_error: Some(LastError { when: Time(0), text: "x".into() }),
            ..Status::default()
        })
    }

    async fn saved(&self) -> Result<Saved> {
        Ok(Saved { pending_files: 3, ..Saved::default() })
    }

    async fn sync(&self, path: &Path) -> Result<()> {
        if path == Path::new("forever") {
            self.syncing.fetch_add(1, Ordering::SeqCst);
            let _running = Running(&self.syncing);
            std::future::pending::<()>().await;
        }
        Err(Error::new(Kind::NotFound, format!("sync {path:?}")))
    }

    async fn conflicts(&self) -> Result<Vec<Conflict>> {
        Ok(vec![])
    }

    async fn pin(&self, path: &Path) -> Result<Pinned> {
        Ok(Pinned { files: path.as_os_str().len() as u64, missing_bytes: 0 })
    }

    async fn unpin(&self, _: &Path) -> Result<Pinned> {
        Ok(Pinned::default())
    }

    async fn check(&self) -> Result<CheckReport> {
        Ok(CheckReport { problems: vec!["x".repeat(20 << 20)], ..CheckReport::default() })
    }

    async fn stop(&self) -> Result<()> {
        Ok(())
    }
}

struct World {
    path: PathBuf,
    fake: Arc<Fake>,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn world(socket: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(socket);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let fake = Arc::new(Fake::default());
    let server = {
        let _inside = runtime.enter();
        Server::bind(&path).unwrap()
    };
    runtime.spawn(server.serve(fake.clone()));
    World { path, fake, _dir: dir, _runtime: runtime }
}

/// Sends bytes as they are and returns the lines that come back until the server ends the connection or `lines` are there.
fn raw(world: &World, bytes: &[u8], lines: usize) -> Vec<String> {
    let mut stream = UnixStream::connect(&world.path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may refuse before all is sent.
    let _ = stream.write_all(bytes);
    BufReader::new(stream).lines().take(lines).map_while(|line| line.ok()).collect()
}

#[test]
fn calls_are_answered_in_order_on_one_connection() {
    let world = world("control");
    let mut client = Client::connect(&world.path).unwrap();
    let status = client.status().unwrap();
    assert_eq!((status.drive.as_str(), status.failed[0].path.as_str()), ("work", "a\n\u{1b}"));
    assert_eq!(status.last_saved.unwrap().to_string(), "2026-11-24T22:54:56Z");
    assert_eq!(client.saved().unwrap().pending_files, 3);
    let error = client.sync(Path::new("x/y")).unwrap_err();
    assert_eq!((error.kind, error.message()), (Kind::NotFound, "sync \"x/y\""));
    assert_eq!(client.pin(Path::new(OsStr::from_bytes(b"a\xff"))).unwrap().files, 2);
    client.stop().unwrap();
    let both = raw(&world, b"{\"v\":1,\"call\":\"saved\"}\n{\"v\":1,\"call\":\"conflicts\",\"new\":1}\n", 2);
    assert_eq!(both[1], r#"{"ok":[],"v":1}"#);
}

#[test]
fn the_status_has_the_fields_that_other_programs_read() {
    let world = world("control");
    let line = raw(&world, b"{\"v\":1,\"call\":\"status\"}\n", 1).remove(0);
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut fields: Vec<&str> = answer["ok"].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let mut wanted = vec![
        "drive",
        "mountpoint",
        "pid",
        "online",
        "pending_files",
        "pending_bytes",
        "failed",
        "conflicts",
        "cache_bytes",
        "last_saved",
        "uploading",
        "upload_bytes_per_s",
        "download_bytes_per_s",
        "last_error",
        "cache_bytes_max",
        "journal_bytes",
        "local_only_files",
        "safe_mode",
        "remote",
        "requests",
        "sweep",
        "version",
        "failed_files",
        "read_only",
    ];
    wanted.sort_unstable();
    assert_eq!(fields, wanted);
    assert_eq!(answer["ok"]["last_error"]["when"], "1970-01-01T00:00:00Z");
    assert_eq!(answer["ok"]["uploading"][0], serde_json::json!({"path": "b", "done": 1, "size": 2}));
}

#[test]
fn the_socket_is_for_its_user_alone_and_an_old_one_is_replaced() {
    let world = world("control");
    assert_eq!(std::fs::metadata(&world.path).unwrap().permissions().mode() & 0o777, 0o600);
    let _inside = world._runtime.enter();
    Server::bind(&world.path).unwrap();
}

#[test]
fn a_path_too_long_for_a_socket_works() {
    let long = format!("{}/{}/control", "d".repeat(120), "e".repeat(200));
    let world = world(&long);
    assert_eq!(Client::connect(&world.path).unwrap().saved().unwrap().pending_files, 3);
}

#[test]
fn hostile_lines_are_refused_and_the_next_caller_is_served() {
    let world = world("control");
    for (line, kind) in [
        (&b"\n"[..], "invalid"),
        (b"hello\n", "invalid"),
        (b"{}\n", "invalid"),
        (b"[1]\n", "invalid"),
        (b"{\"v\":99,\"call\":\"status\"}\n", "unsupported"),
        (b"{\"v\":1,\"call\":\"format_disk\"}\n", "invalid"),
        (b"{\"v\":1,\"call\":\"sync\"}\n", "invalid"),
        (b"{\"v\":1,\"call\":\"sync\",\"path\":\"../../etc\"}\n", "invalid"),
        (b"{\"v\":1,\"call\":\"sync\",\"path\":\"/etc\"}\n", "invalid"),
        (b"{\"v\":1,\"call\":\"pin\",\"path\":{\"base64\":\"AA==\"}}\n", "invalid"),
        (b"\xff\xfe\x00\n", "invalid"),
    ] {
        let answers = raw(&world, line, 1);
        let answer: serde_json::Value = serde_json::from_str(&answers[0]).unwrap();
        assert_eq!(answer["error"]["kind"], kind, "{answer}");
    }
    let deep = [vec![b'['; 60_000], b"\n".to_vec()].concat();
    assert!(raw(&world, &deep, 1)[0].contains("invalid"));
    let endless = raw(&world, &vec![b'x'; 1 << 20], 2);
    assert!(endless.len() <= 1 && endless.iter().all(|line| line.contains("too_large")), "{endless:?}");
    let mut half = UnixStream::connect(&world.path).unwrap();
    half.write_all(b"{\"v\":1,").unwrap();
    drop(half);
    assert_eq!(Client::connect(&world.path).unwrap().saved().unwrap().pending_files, 3);
}

#[test]
fn an_answer_too_long_is_an_error_not_a_flood() {
    let world = world("control");
    let mut client = Client::connect(&world.path).unwrap();
    assert_eq!(client.check().unwrap_err().kind, Kind::TooLarge);
    assert_eq!(client.saved().unwrap().pending_files, 3);
}

#[test]
fn a_call_ends_when_its_caller_goes_and_many_callers_do_not_block_each_other() {
    let world = world("control");
    let waiting: Vec<UnixStream> = (0..8)
        .map(|_| {
            let mut stream = UnixStream::connect(&world.path).unwrap();
            stream.write_all(b"{\"v\":1,\"call\":\"sync\",\"path\":\"forever\"}\n").unwrap();
            stream
        })
        .collect();
    until(|| world.fake.syncing.load(Ordering::SeqCst) == 8);
    assert_eq!(Client::connect(&world.path).unwrap().saved().unwrap().pending_files, 3);
    drop(waiting);
    until(|| world.fake.syncing.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_worker_that_is_gone_or_talks_nonsense_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    assert_eq!(Client::connect(&path).unwrap_err().kind, Kind::Offline);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        for answer in [&b""[..], b"{\"v\":1,\"ok\":", b"{\"v\":1,\"ok\":{\"drive\":7}}\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 100]);
            stream.write_all(answer).unwrap();
        }
    });
    for kind in [Kind::Offline, Kind::Invalid, Kind::Invalid] {
        assert_eq!(Client::connect(&path).unwrap().status().unwrap_err().kind, kind);
    }
    server.join().unwrap();
    // The socket's file is still there, its server is not.
    assert_eq!(Client::connect(&path).unwrap_err().kind, Kind::Offline);
}

#[test]
fn records_are_written_read_and_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join(".mounts");
    assert_eq!(Record::all(&records).unwrap(), []);
    let record = |at: &str, pid| Record::new("w", Path::new(at), Path::new("/s"), Path::new("/s/control"), pid, 1);
    record("/b", 1).publish(&records).unwrap();
    record("/a", 2).publish(&records).unwrap();
    record("/b", 3).publish(&records).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a fixture")]
    std::fs::write(records.join("broken.json"), "{").unwrap();
    assert_eq!(Record::all(&records).unwrap(), [record("/a", 2), record("/b", 3)]);
    record("/b", 9).withdraw(&records).unwrap();
    record("/b", 9).withdraw(&records).unwrap();
    assert_eq!(Record::all(&records).unwrap(), [record("/a", 2)]);
}

fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        #[allow(clippy::disallowed_methods, reason = "a test that polls for a fact")]
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within 20 seconds");
}
