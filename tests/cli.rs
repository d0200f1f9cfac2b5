//! Snapshots of the real binary: what it prints, where, and with which code it ends.
#![allow(clippy::disallowed_methods, reason = "fixtures on the real disk")]

use async_trait::async_trait;
use fourwheel::control::{
    CheckReport, Conflict, Failed, Left, Pinned, Record, Saved, Server, Service, Status, Time, records_dir,
};
use fourwheel::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// One user's home.
struct Home {
    dir: tempfile::TempDir,
}

/// What a command printed and its code; the home's path is shown as `HOME`.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new(config: &str) -> Home {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".config/fourwheel/config.toml");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !config.is_empty() {
            std::fs::write(path, config).unwrap();
        }
        Home { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fourwheel"));
        command.env_clear().env("HOME", self.path()).current_dir(self.path());
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        self.said(self.command().args(args).output().unwrap())
    }

    fn said(&self, output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(self.path().to_str().unwrap(), "HOME");
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn refused(config: &str, args: &[&str]) -> (i32, String) {
    let said = Home::new(config).run(args);
    assert_eq!(said.out, "", "{args:?}");
    (said.code, said.err)
}

#[test]
fn bad_settings_give_one_line_and_code_5() {
    let conf = "HOME/.config/fourwheel/config.toml";
    for (config, args, line) in [
        ("[drive.w\n", &["mount", "w", "d"][..], format!("{conf}:1: not TOML: unclosed table, expected `]`")),
        (
            "[drive.w]\ntype = \"memory\"\nuplaods = 3\n",
            &["mount", "w", "d"],
            format!("{conf}:3: drive \"w\": unknown key \"uplaods\"; did you mean \"uploads\"?"),
        ),
        (
            "[drive.w]\ntype = \"memory\"\ncache.max_bytes = \"lots\"\n",
            &["mount", "w", "d"],
            format!(
                "{conf}:3: drive \"w\": cache.max_bytes = \"lots\" is not a size; write a number and a unit, such as 512MiB or 20GiB"
            ),
        ),
        ("[drive.w]\ntype = \"memory\"\n", &["mount", "v", "d"], format!("no drive \"v\" in {conf}; did you mean \"w\"?")),
        (
            "[drive.w]\ntype = \"onedrive\"\n",
            &["mount", "w", "d"],
            format!(
                "{conf}:1: drive \"w\": type \"onedrive\" is not in this version of fourwheel; it has folder, webdav, s3, memory"
            ),
        ),
        (
            "",
            &["mount", "w", "d"],
            format!(
                "no drive \"w\": there is no config file {conf}; write one (\"fourwheel config show --defaults\" lists the keys) \
                 or give a drive in place, such as folder:/path, webdav:https://USER:PASSWORD@HOST/PATH/ or s3:BUCKET/PREFIX"
            ),
        ),
        (
            "",
            &["mount", "w", "d", "--config", "x.toml"],
            "HOME/x.toml: cannot be opened: No such file or directory (os error 2)".into(),
        ),
        (
            "",
            &["mount", "rclone:x", "d"],
            "read rclone's remotes: HOME/.config/rclone/rclone.conf: cannot be opened: No such file or directory (os error 2)"
                .into(),
        ),
        ("", &["mount", "memory:", "d", "-o", "uploads=0"], "-o: uploads = \"0\" is not a number from 1 to 64".into()),
        ("", &["worker", "d"], "this command is started by \"fourwheel mount\"; use that".into()),
    ] {
        assert_eq!(refused(config, args), (5, format!("fourwheel: {line}\n")), "{args:?}");
    }
}

#[test]
fn wrong_usage_gives_code_2() {
    for (args, start) in [
        (&["mount"][..], "error: the following required arguments were not provided:\n  <REMOTE[:PATH]>\n  <DIR>\n"),
        (&["muont"], "error: unrecognized subcommand 'muont'\n\n  tip: some similar subcommands exist: "),
        (&["wait"], "error: the following required arguments were not provided:\n  --saved\n"),
        (
            &["wait", "--saved", "--timeout", "soon"],
            "error: invalid value 'soon' for '--timeout <SECONDS>': is not a number of seconds",
        ),
        (&["status", "--jason"], "error: unexpected argument '--jason' found"),
        (&["config", "show", "--defaults", "work"], "error: the argument '--defaults' cannot be used with '[DRIVE]'"),
    ] {
        let (code, err) = refused("", args);
        assert!(code == 2 && err.starts_with(start), "{args:?}\n{code} {err}");
    }
    let said = Home::new("").run(&["--help"]);
    assert!(said.code == 0 && said.out.contains("   4  the time given by --timeout passed"), "{}", said.out);
    let hidden = ["keep", "worker"].iter().any(|word| said.out.contains(&format!("\n  {word} ")));
    assert!(!hidden);
}

#[test]
fn where_nothing_is_mounted_each_command_says_so() {
    let home = Home::new("[drive.w]\ntype = \"memory\"\n");
    let none = "no drive is mounted at HOME/x; \"fourwheel status\" lists the mounts";
    let path = home.path().join("x");
    let path = path.to_str().unwrap();
    for args in [&["sync", path][..], &["pin", path], &["status", path], &["wait", "--saved", path], &["unmount", path]]
    {
        let said = home.run(args);
        assert_eq!((said.code, said.err), (6, format!("fourwheel: {none}\n")), "{args:?}");
    }
    assert_eq!(home.run(&["status"]).out, "nothing is mounted\n");
    assert_eq!(
        home.run(&["status", "--json"]).out,
        "{\n  \"mounts\": [],\n  \"problems\": [],\n  \"unmounted\": []\n}\n"
    );
    assert_eq!(home.run(&["wait", "--saved"]).code, 0);
    assert_eq!(home.run(&["conflicts"]).out, "no conflicts\n");
    let said = home.run(&["log", "w"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, "fourwheel: there is no log in HOME/.local/state/fourwheel/w yet\n")
    );
    assert_eq!(home.run(&["log"]).code, 6);
    assert_eq!(home.run(&["log", "v"]).code, 5);
}

#[test]
fn an_unmounted_drive_that_keeps_files_is_not_said_to_be_saved() {
    let home = Home::new("");
    let (state, records) = (home.path().join("kept"), records_dir(&home.path().join(".local/state/fourwheel")));
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("format"), "").unwrap();
    let mut left = Left { drive: "work".into(), state_dir: state.clone(), files: 3, bytes: 22 };
    left.publish(&records).unwrap();
    let line = "the drive work is not mounted and keeps 3 files, 22 B, that the remote does not have; mount it again to have \
                them sent (they are safe in HOME/kept)";
    let said = home.run(&["wait", "--saved"]);
    assert_eq!((said.code, said.err), (3, format!("fourwheel: not saved: {line}\n")));
    let said = home.run(&["status"]);
    assert_eq!((said.code, said.out.as_str(), said.err), (0, "nothing is mounted\n", format!("fourwheel: {line}\n")));
    let json: serde_json::Value = serde_json::from_str(&home.run(&["status", "--json"]).out).unwrap();
    assert_eq!(json["unmounted"][0]["pending_files"], 3);

    left.files = 0;
    left.publish(&records).unwrap();
    assert_eq!(home.run(&["wait", "--saved"]).code, 0, "it was mounted again, and all was sent");
    left.files = 1;
    left.publish(&records).unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    assert_eq!(home.run(&["wait", "--saved"]).code, 0, "its state is gone, and with it what was kept");
}

#[test]
fn a_drive_on_top_of_itself_is_refused() {
    let home = Home::new("");
    std::fs::create_dir_all(home.path().join("files/in")).unwrap();
    for (remote, dir) in [("folder:files", "files/in"), ("folder:files/in", "files"), ("folder:files", "files")] {
        let said = home.run(&["mount", remote, dir]);
        assert!(said.code == 6 && said.err.contains("lie in each other; choose another directory"), "{}", said.err);
    }
    let said = home.run(&["mount", "memory:", "."]);
    assert!(
        said.code == 6 && said.err.contains("state directory HOME/.local/state/fourwheel/@memory-"),
        "{}",
        said.err
    );
}

#[test]
fn config_show_prints_what_was_understood_and_what_was_not() {
    let home = Home::new(
        "[drive.a]\ntype = \"webdav\"\nurl = \"http://h/\"\nuser = \"u\"\npassword = \"hunter2\"\nwrite_back_s = 0.2\n\
         [drive.b]\ntype = \"memory\"\nnonsense = 1\n[drive.c]\ntype = \"memory\"\nstate_dir = \"/s\"\n[drive.d]\ntype = \"memory\"\nstate_dir = \"/s\"\n",
    );
    let said = home.run(&["config", "show"]);
    assert_eq!(said.code, 5);
    assert!(said.err.contains("config.toml:9: drive \"b\": unknown key \"nonsense\""), "{}", said.err);
    assert!(said.err.contains("the drives \"c\" and \"d\" have one state_dir"), "{}", said.err);
    assert!(!said.out.contains("hunter2") && !said.err.contains("hunter2"));
    let said = home.run(&["config", "show", "a"]);
    assert_eq!(
        said.out,
        "[drive.a]\ntype = \"webdav\"\nurl = \"http://h/\"\nuser = \"u\"\npassword = \"***\"\n\
         state_dir = \"HOME/.local/state/fourwheel/a\"\ncache_dir = \"HOME/.cache/fourwheel/a\"\n\
         cache.max_bytes = \"20GiB\"\ncache.min_free_bytes = \"1GiB\"\nwrite_back_s = 0.2\npoll_s = 10\nrefresh_s = 10\n\
         uploads = 8\nread_only = false\ndeadline_s = 30\nread_deadline_s = 10\nclose = \"local\"\nlocal_only = [\".~lock.*#\", \
         \"~$*\", \".nfs*\", \".fuse_hidden*\", \".goutputstream-*\", \"*.part\", \"*.crdownload\", \".*.sw[a-p]\", \".*.swx\", \
         \".#*\", \"*.kate-swp\"]\nallow_other = false\n"
    );
    let said = home.run(&["config", "show", "--defaults"]);
    assert!(said.out.contains("# seconds, fractions allowed; default: 2\n# write_back_s = …\n"), "{}", said.out);
    let empty = Home::new("").run(&["config", "show"]);
    assert!(empty.code == 5 && empty.err.contains("\"fourwheel config show --defaults\" lists what can stand in it"));
}

#[test]
fn no_message_of_mount_shows_the_password() {
    let home = Home::new("");
    std::fs::create_dir(home.path().join("d")).unwrap();
    let said = home.run(&["mount", "webdav:http://u:hunter2@127.0.0.1:9/", "d", "--config", "absent"]);
    assert!(said.code != 0 && !said.err.contains("hunter2") && !said.out.contains("hunter2"), "{}", said.err);
}

/// A worker that answers what the test wants.
struct Fake {
    saved: Mutex<Vec<Saved>>,
    status: Status,
}

#[async_trait]
impl Service for Fake {
    async fn status(&self) -> Result<Status> {
        Ok(self.status.clone())
    }

    async fn saved(&self) -> Result<Saved> {
        let mut answers = self.saved.lock().unwrap();
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }

    async fn sync(&self, path: &Path) -> Result<()> {
        match path.to_str() {
            Some("a/b") => Ok(()),
            _ => Err(Error::new(Kind::QuotaFull, "the account is full; free space there")),
        }
    }

    async fn conflicts(&self) -> Result<Vec<Conflict>> {
        Ok(vec![Conflict { path: "a.txt".into(), copy: "a (conflict h d)\u{7}.txt".into(), when: Time(0) }])
    }

    async fn pin(&self, _: &Path) -> Result<Pinned> {
        Ok(Pinned { files: 3, missing_bytes: 5 << 20 })
    }

    async fn unpin(&self, _: &Path) -> Result<Pinned> {
        Ok(Pinned { files: 3, missing_bytes: 0 })
    }

    async fn check(&self) -> Result<CheckReport> {
        Ok(CheckReport { checked: [("nodes".to_owned(), 7)].into(), problems: vec!["node 3 has no name".into()] })
    }

    async fn stop(&self) -> Result<()> {
        Ok(())
    }
}

/// A home with a fake worker, and the mount point that its record names (no kernel mount is there).
fn served(saved: Vec<Saved>) -> (Home, String, tokio::runtime::Runtime) {
    let home = Home::new("");
    let mountpoint = home.path().join("Drive");
    let state = home.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("log"), "one\ntwo\u{1b}[2J\nthree\n").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let status = Status {
        drive: "work".into(),
        mountpoint: mountpoint.to_str().unwrap().into(),
        online: true,
        failed: vec![Failed { path: "x:y".into(), reason: "refused".into() }],
        failed_files: 1,
        ..Status::default()
    };
    let socket = state.join("control");
    let server = {
        let _inside = runtime.enter();
        Server::bind(&socket).unwrap()
    };
    runtime.spawn(server.serve(Arc::new(Fake { saved: Mutex::new(saved), status })));
    let record = Record::new("work", &mountpoint, &state, &socket, 1, 1);
    record.publish(&records_dir(&home.path().join(".local/state/fourwheel"))).unwrap();
    (home, mountpoint.to_str().unwrap().to_owned(), runtime)
}

fn pending(files: u64) -> Saved {
    Saved {
        pending_files: files,
        pending_bytes: files << 20,
        upload_bytes_per_s: 1 << 19,
        online: true,
        ..Saved::default()
    }
}

#[test]
fn wait_ends_with_0_when_all_is_saved() {
    let (home, dir, _runtime) = served(vec![pending(2), pending(1), pending(0)]);
    let said = home.run(&["wait", "--saved", &dir]);
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    assert_eq!(said.err, "fourwheel: 2 files left, 2.00 MiB, 512 KiB/s\n");
}

#[test]
fn wait_ends_with_3_and_the_names_when_something_cannot_be_saved() {
    let failed = vec![Failed { path: "a\u{1b}b".into(), reason: "name refused".into() }];
    let last = Saved { failed, failed_files: 2, ..pending(0) };
    let (home, _, _runtime) = served(vec![pending(1), last]);
    let said = home.run(&["wait", "--saved"]);
    assert_eq!(said.code, 3);
    let lines: Vec<&str> = said.err.lines().skip(1).collect();
    assert_eq!(
        lines,
        ["fourwheel: not saved: HOME/Drive/a\\u{1b}b: name refused", "fourwheel: not saved: 1 more on HOME/Drive"]
    );
}

#[test]
fn wait_ends_with_4_on_timeout() {
    let (home, _, _runtime) = served(vec![Saved { online: false, ..pending(1) }]);
    let said = home.run(&["wait", "--saved", "--timeout", "0.3"]);
    assert_eq!(said.code, 4);
    assert!(said.err.ends_with("not saved in time: 1 file left, 1.00 MiB, 512 KiB/s, the remote cannot be reached\n"));
    assert_eq!(home.run(&["wait", "--saved", "--timeout", "0"]).code, 4);
}

#[test]
fn a_worker_answers_through_the_command_line() {
    let (home, dir, _runtime) = served(vec![pending(0)]);
    let said = home.run(&["status", "--json", "work"]);
    let status: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &status["mounts"][0]["drive"]), (0, &"work".into()));
    assert_eq!(status["mounts"][0]["failed"], serde_json::json!([{"path": "x:y", "reason": "refused"}]));
    assert!(
        home.run(&["status"]).out.starts_with("work at HOME/Drive: online\n  1 file cannot be saved; all others are\n")
    );

    assert_eq!(home.run(&["sync", &format!("{dir}/a/./b/")]).code, 0);
    let said = home.run(&["sync", "Drive/c"]);
    let line = "fourwheel: sync Drive/c: the account is full; free space there\n";
    assert_eq!((said.code, said.err.as_str()), (1, line));

    assert_eq!(home.run(&["pin", &dir]).err, "fourwheel: pinned HOME/Drive, 3 files; 5.00 MiB are being fetched\n");
    assert_eq!(home.run(&["unpin", &dir]).err, "fourwheel: unpinned HOME/Drive, 3 files\n");
    let conflicts = home.run(&["conflicts"]).out;
    assert_eq!(
        conflicts,
        "1970-01-01T00:00:00Z  HOME/Drive/a.txt\n  written here: HOME/Drive/a (conflict h d)\\u{7}.txt\n"
    );
    let json: serde_json::Value = serde_json::from_str(&home.run(&["conflicts", "--json"]).out).unwrap();
    assert_eq!(json["conflicts"][0]["copy"], "a (conflict h d)\u{7}.txt");
    let said = home.run(&["check"]);
    assert_eq!((said.code, said.out.as_str()), (10, "HOME/Drive: problems found (7 nodes)\n  node 3 has no name\n"));
    assert_eq!(home.run(&["log", "-n", "2"]).out, "two\\u{1b}[2J\nthree\n");
}

#[test]
fn a_mount_whose_processes_died_is_told_and_can_be_forgotten() {
    let (home, dir, runtime) = served(vec![pending(0)]);
    drop(runtime);
    for args in [&["status"][..], &["wait", "--saved"], &["sync", &dir]] {
        let said = home.run(args);
        assert_eq!(said.code, 1, "{args:?}");
        assert!(said.err.contains("the drive work at HOME/Drive is no longer mounted"), "{}", said.err);
    }
    let json: serde_json::Value = serde_json::from_str(&home.run(&["status", "--json"]).out).unwrap();
    assert_eq!((&json["mounts"], &json["problems"][0]["drive"]), (&serde_json::json!([]), &"work".into()));
    assert_eq!(home.run(&["log"]).code, 0);
    let said = home.run(&["unmount", &dir]);
    assert_eq!((said.code, said.err.as_str()), (0, "fourwheel: HOME/Drive was not mounted any more\n"));
    assert_eq!(home.run(&["status"]).out, "nothing is mounted\n");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::new("");
    let script = format!("{} config show --defaults | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_fourwheel"));
    let output = Command::new("bash").args(["-c", &script]).env("HOME", home.path()).output().unwrap();
    let said = home.said(output);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn the_documents_list_what_the_program_has() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doc");
    for (name, wanted) in [("cli.md", fourwheel::cli::reference()), ("config.md", fourwheel::config::reference())] {
        let path = docs.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once("cargo test --test cli -->\n").unwrap();
        let (found, after) = rest.split_once("<!-- end -->").unwrap();
        if found.trim() == wanted.trim() {
            continue;
        }
        assert!(
            std::env::var_os("FOURWHEEL_BLESS").is_some(),
            "{name} drifted: FOURWHEEL_BLESS=1 cargo test --test cli"
        );
        let text = format!("{before}cargo test --test cli -->\n\n{}\n\n<!-- end -->{after}", wanted.trim());
        std::fs::write(&path, text).unwrap();
    }
}

#[test]
fn each_claim_of_the_semantics_names_its_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = String::new();
    let mut next = vec![top.join("tests")];
    while let Some(dir) = next.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension() {
                None if entry.is_dir() => next.push(entry),
                Some(extension) if extension == "rs" => known.push_str(&std::fs::read_to_string(entry).unwrap()),
                _ => {}
            }
        }
    }
    let text = std::fs::read_to_string(top.join("src/doc/semantics.md")).unwrap();
    let named =
        |word: &str| known.contains(&format!("\nfn {word}(")) || top.join("scripts/trials").join(word).is_file();
    let mut claims = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() >= 4).filter(|line| {
        !["call", "a program saves by", "here", "what happens"]
            .iter()
            .any(|head| line.starts_with(&format!("| {head} |")))
    }) {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let words: Vec<&str> = last.split('`').skip(1).step_by(2).filter(|word| !word.contains(' ')).collect();
        assert!(last.contains("the same") || words.iter().any(|word| named(word)), "no test is named: {row}");
        claims += 1;
    }
    assert!(claims > 30, "{claims}");
}
