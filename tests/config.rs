//! What the config file, the command line's remotes and their options become, and how a slip is told.
#![allow(clippy::disallowed_methods, reason = "fixtures on the real disk")]

use fourwheel::config::{
    Close, Drive, Password, Places, RemoteSpec, S3Credentials, Secret, Settings, SignIn, Wanted, resolve, settings_of,
};
use fourwheel::error::{Kind, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Resolves `remote` with `config` as the content of /HOME/.config/fourwheel/config.toml.
fn drive(config: &str, remote: &str, options: &[&str]) -> Result<Drive> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".config/fourwheel/config.toml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, config).unwrap();
    let home_path = home.path().to_owned();
    let environment = move |name: &str| -> Option<OsString> {
        match name {
            "HOME" => Some(home_path.clone().into()),
            "XDG_STATE_HOME" => Some("/state".into()),
            "XDG_CACHE_HOME" => Some("/cache".into()),
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:9000/".into()),
            _ => None,
        }
    };
    let places = Places::new(&environment, "/work".into()).unwrap();
    let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
    resolve(&Wanted { remote, config: None, options: &options }, &places, &environment)
}

fn refused(config: &str, remote: &str, options: &[&str]) -> String {
    let error = drive(config, remote, options).unwrap_err();
    assert_eq!(error.kind, Kind::Config);
    // The home is another in each run.
    match error.message().find("config.toml") {
        Some(at) => error.message()[at..].to_owned(),
        None => error.message().to_owned(),
    }
}

#[test]
fn the_keys_of_the_contract_are_read() {
    let config = r#"
        [drive.work]
        type = "webdav"
        url = "https://host/dav"
        user = "u"
        password_command = "pass show dav"
        endpoint = "http://127.0.0.1:8080"
        ca_file = "ca.pem"
        state_dir = "/s"
        cache_dir = "~/c"
        cache.max_bytes = "256MiB"
        cache.min_free_bytes = 1000
        write_back_s = 0.2
        poll_s = 5
        refresh_s = 1.5
        uploads = 4
        read_only = true
        deadline_s = 20
        read_deadline_s = 5
        close = "remote"
        local_only = ["*.tmp"]
        allow_other = true

        [drive.bucket]
        type = "s3"
        endpoint = "https://s3.example:444/"
        region = "garage"
        bucket = "b"
        prefix = "/a//b/"
        access_key_id = "AK"
        secret_access_key = "SK"
        path_style = true
        [drive.bucket.cache]
        max_bytes = "1GiB"

        [drive.disk]
        type = "folder"
        path = "~/files"
    "#;
    let work = drive(config, "work", &[]).unwrap();
    let RemoteSpec::WebDav(dav) = &work.remote else { panic!() };
    assert_eq!(dav.url, "http://127.0.0.1:8080/dav/");
    let password = Password::Command("pass show dav".into());
    assert_eq!(dav.sign_in, SignIn::User { user: "u".into(), password });
    assert!(dav.http.ca_file.as_ref().unwrap().ends_with(".config/fourwheel/ca.pem"));
    assert!(work.state_dir == Path::new("/s") && work.cache_dir.ends_with("c") && work.cache_dir.is_absolute());
    let settings = &work.settings;
    assert_eq!((settings.cache_bytes_max, settings.cache_bytes_free_min), (256 << 20, 1000));
    assert_eq!((settings.write_back, settings.refresh), (Duration::from_millis(200), Duration::from_millis(1500)));
    assert_eq!((settings.uploads, settings.read_only, settings.close), (4, true, Close::Remote));
    assert_eq!(settings.local_only.iter().collect::<Vec<_>>(), ["*.tmp"]);

    let bucket = drive(config, "bucket", &[]).unwrap();
    let RemoteSpec::S3(s3) = &bucket.remote else { panic!() };
    assert_eq!((s3.endpoint.as_deref(), s3.prefix.as_str()), (Some("https://s3.example:444"), "a/b/"));
    assert!(matches!(&s3.credentials, S3Credentials::Keys { session_token: None, .. }));
    assert_eq!(bucket.settings.cache_bytes_max, 1 << 30);
    assert_eq!(bucket.state_dir, Path::new("/state/fourwheel/bucket"));

    let disk = drive(config, "disk", &[]).unwrap();
    assert_eq!(disk.settings, Settings::default());
    assert_eq!(disk.settings.write_back, Duration::from_secs(2));
}

#[test]
fn a_part_of_a_drive_is_a_drive_with_a_state_of_its_own() {
    let config = "[drive.w]\ntype = \"webdav\"\nurl = \"http://h/dav/\"\n[drive.s]\ntype = \"s3\"\nbucket = \"b\"\nstate_dir = \"/x\"\n";
    let part = drive(config, "w:/My Photos/2024/", &[]).unwrap();
    let RemoteSpec::WebDav(dav) = &part.remote else { panic!() };
    assert_eq!((dav.url.as_str(), part.name.as_str()), ("http://h/dav/My%20Photos/2024/", "w:My Photos/2024"));
    let name = part.state_dir.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("w@my-photos-2024-"), "{name}");
    assert_eq!(drive(config, "w:My Photos//2024", &[]).unwrap().state_dir, part.state_dir);
    assert_ne!(drive(config, "w:my photos/2024", &[]).unwrap().state_dir, part.state_dir);
    let part = drive(config, "s:p", &[]).unwrap();
    assert_eq!(part.state_dir.parent(), Some(Path::new("/x")));
    assert!(refused(config, "w:a/../..", &[]).contains("not a path below"));
}

#[test]
fn drives_given_in_place() {
    let dav = drive("", "webdav:http://us%40er:p%3A@h:81/dav", &[]).unwrap();
    let RemoteSpec::WebDav(spec) = &dav.remote else { panic!() };
    assert_eq!(spec.url, "http://h:81/dav/");
    let password = Password::Given(Secret::new("p:"));
    assert_eq!(spec.sign_in, SignIn::User { user: "us@er".into(), password });
    assert_eq!(dav.name, "webdav:http://us%40er@h:81/dav");
    // Another password is the same drive; another user sees another tree.
    assert_eq!(drive("", "webdav:http://us%40er:new@h:81/dav/", &[]).unwrap().state_dir, dav.state_dir);
    assert_ne!(drive("", "webdav:http://other:p@h:81/dav", &[]).unwrap().state_dir, dav.state_dir);

    let folder = drive("", "folder:a/./b", &[]).unwrap();
    assert!(matches!(&folder.remote, RemoteSpec::Folder(f) if f.path == Path::new("/work/a/b")));
    // These names are on people's disks: they must never change.
    assert_eq!(folder.state_dir, PathBuf::from("/state/fourwheel/@folder-work-a-b-936793e5160a49ac"));

    let s3 = drive("", "s3:bucket/a/b", &["region=r,ro"]).unwrap();
    assert_eq!(
        (dav.state_dir.to_str(), s3.state_dir.to_str()),
        (
            Some("/state/fourwheel/@webdav-http-h-81-dav-us-er-2df934f40a275051"),
            Some("/state/fourwheel/@s3-bucket-a-b-http-127.0.0.1-9000-02bdc08f09751b8f"),
        )
    );
    let RemoteSpec::S3(spec) = &s3.remote else { panic!() };
    assert_eq!((spec.bucket.as_str(), spec.prefix.as_str()), ("bucket", "a/b/"));
    assert_eq!((spec.endpoint.as_deref(), spec.region.as_deref()), (Some("http://127.0.0.1:9000"), Some("r")));
    assert!(spec.credentials == S3Credentials::Environment && s3.settings.read_only);

    assert_eq!(drive("", "memory:", &[]).unwrap().remote, RemoteSpec::Memory);
}

#[test]
fn options_win_over_the_file() {
    let config = "[drive.m]\ntype = \"memory\"\nuploads = 2\nread_only = true\n";
    let options =
        ["rw,uploads=3", "write_back_s=0.5", "cache.max_bytes=1GiB,local_only=a*;b*,allow_other", "state_dir=x"];
    let drive = drive(config, "m", &options).unwrap();
    assert_eq!(drive.state_dir, Path::new("/work/x"));
    let settings = drive.settings;
    assert_eq!((settings.read_only, settings.uploads, settings.allow_other), (false, 3, true));
    assert_eq!((settings.write_back, settings.cache_bytes_max), (Duration::from_millis(500), 1 << 30));
    assert_eq!(settings.local_only.iter().collect::<Vec<_>>(), ["a*", "b*"]);
}

#[test]
fn a_slip_is_told_with_its_line_and_what_to_write() {
    let dav = "[drive.x]\ntype = \"webdav\"\nurl = \"http://h/\"\n";
    for (config, told) in [
        ("[drive.x\n", "config.toml:1: not TOML: "),
        ("\n\n[drive.x]\ntype = \"memory\"\ntype = \"s3\"\n", "config.toml:5: not TOML: duplicate key"),
        ("[drives.x]\n", "config.toml:1: unknown table or key \"drives\"; drives are [drive.NAME]"),
        ("drive = 1\n", "config.toml:1: \"drive\" is not a table; drives are [drive.NAME]"),
        ("[drive]\nx = 1\n", "config.toml:2: \"drive.x\" is not a table; drives are [drive.NAME]"),
        ("[drive.\"../x\"]\n", "config.toml:1: \"../x\" cannot name a drive; "),
        ("[drive.x]\nurl = \"\"\n", "config.toml:1: drive \"x\": the key \"type\" is missing; one of folder, webdav"),
        (
            "[drive.x]\ntype = \"wedbav\"\n",
            "config.toml:2: drive \"x\": type = \"wedbav\" is not known; did you mean \"webdav\"?",
        ),
        (
            "[drive.x]\ntype = \"gdrive\"\n",
            "config.toml:1: drive \"x\": type \"gdrive\" is not in this version of fourwheel; it has folder, webdav, s3, memory",
        ),
        ("[drive.x]\ntype = \"folder\"\n", "config.toml:1: the key \"path\" is missing; folder drives need it"),
        (
            &format!("{dav}cahce.max_bytes = 1\n"),
            "config.toml:4: drive \"x\": unknown key \"cahce.max_bytes\"; did you mean \"cache.max_bytes\"?",
        ),
        (&format!("{dav}quux = 1\n"), "config.toml:4: drive \"x\": unknown key \"quux\"; allowed: type, url, user, "),
        (
            &format!("{dav}bucket = \"b\"\n"),
            "config.toml:4: drive \"x\": the key \"bucket\" is for type s3, not for webdav",
        ),
        (&format!("{dav}cache = 1\n"), "config.toml:4: drive \"x\": unknown key \"cache\""),
        (
            &format!("{dav}cache.max_bytes = \"20 gigs\"\n"),
            "config.toml:4: drive \"x\": cache.max_bytes = \"20 gigs\" has the unit \"gigs\"",
        ),
        (&format!("{dav}cache.max_bytes = -5\n"), "config.toml:4: drive \"x\": cache.max_bytes = \"-5\" is not a size"),
        (&format!("{dav}cache.max_bytes = \"1MiB\"\n"), "config.toml:4: \"cache.max_bytes\" is less than 16MiB"),
        (&format!("{dav}uploads = 0\n"), "config.toml:4: drive \"x\": uploads = \"0\" is not a number from 1 to 64"),
        (
            &format!("{dav}uploads = \"8\"\n"),
            "config.toml:4: drive \"x\": the value of \"uploads\" is text; wanted: number from 1 to 64",
        ),
        (&format!("{dav}poll_s = nan\n"), "config.toml:4: drive \"x\": poll_s = \"nan\" is not a number of seconds"),
        (&format!("{dav}poll_s = 0\n"), "config.toml:4: \"poll_s\" is less than 0.1 seconds"),
        (
            &format!("{dav}close = \"now\"\n"),
            "config.toml:4: drive \"x\": close = \"now\" is not known; allowed: local, remote",
        ),
        (&format!("{dav}local_only = [1]\n"), "config.toml:4: drive \"x\": \"local_only\" is a list of texts"),
        (
            &format!("{dav}local_only = [\"*\"]\n"),
            "config.toml:4: local_only: \"*\" would keep every file from the remote",
        ),
        (
            &format!("{dav}user = \"u\"\n"),
            "config.toml:4: \"user\" needs \"password\" or \"password_command\" beside it",
        ),
        (
            &format!("{dav}user = \"u\"\npassword = \"p\"\nbearer = \"t\"\n"),
            "config.toml:4: \"bearer\" and \"user\" exclude each other",
        ),
        (
            &format!("{dav}password = 5\n"),
            "config.toml:4: drive \"x\": the value of \"password\" is a whole number; wanted: secret text",
        ),
        (&format!("{dav}endpoint = \"http://h/x\"\n"), "config.toml:4: endpoint has a path in it"),
        (
            &format!("{dav}deadline_s = 5\nread_deadline_s = 6\n"),
            "config.toml:5: \"read_deadline_s\" (6) is longer than \"deadline_s\" (5)",
        ),
        (
            &format!("{dav}state_dir = \"/a/b\"\ncache_dir = \"/a\"\n"),
            "config.toml:5: \"state_dir\" (/a/b) lies in \"cache_dir\" (/a)",
        ),
        (
            "[drive.x]\ntype = \"folder\"\npath = \"/\"\n",
            "config.toml:1: \"state_dir\" (/state/fourwheel/x) lies in \"path\" (/)",
        ),
        ("[drive.x]\ntype = \"webdav\"\nurl = \"ftp://h/\"\n", "config.toml:3: url begins with \"ftp:\""),
        ("[drive.x]\ntype = \"webdav\"\nurl = \"http://u:hunter2@h/\"\n", "config.toml:3: url has a user in it"),
        ("[drive.x]\ntype = \"s3\"\nbucket = \"a/b\"\n", "config.toml:3: \"a/b\" is not a bucket"),
        (
            "[drive.x]\ntype = \"s3\"\nbucket = \"b\"\naccess_key_id = \"k\"\n",
            "config.toml:4: \"access_key_id\" needs \"secret_access_key\"",
        ),
    ] {
        let message = refused(config, "x", &[]);
        assert!(message.starts_with(told), "\n{config}\ntold:   {message}\nwanted: {told}");
        assert!(!message.contains("hunter2"));
    }
}

#[test]
fn a_slip_on_the_command_line_is_told() {
    for (remote, options, told) in [
        ("wrok", &[][..], "config.toml; did you mean \"work\"?"),
        (
            "/srv",
            &[],
            "\"/srv\" cannot name a drive; use letters, digits, \"-\", \"_\" and \".\", a letter or digit first; for a directory write folder:/srv",
        ),
        ("https://h/dav", &[], "\"https\" is no drive; for a WebDAV server write webdav: before the address"),
        ("wedbav:h/x", &[], "config.toml; did you mean \"webdav\"?"),
        ("dropbox:", &[], "REMOTE: type \"dropbox\" is not in this version"),
        ("webdav:h/dav", &[], "REMOTE: a WebDAV drive needs the whole address, such as webdav:https://h/dav"),
        ("webdav:ftp://h/", &[], "REMOTE: url begins with \"ftp:\""),
        ("s3:", &[], "REMOTE: s3: needs a bucket"),
        ("folder:", &[], "REMOTE: folder: needs a directory"),
        ("memory:x", &[], "REMOTE: nothing can follow"),
        ("work", &["raed_only"], "-o: unknown key \"raed_only\"; did you mean \"read_only\"?"),
        ("work", &["uploads"], "-o: \"uploads\" needs a value: uploads=VALUE"),
        ("work", &["uploads=many"], "-o: uploads = \"many\" is not a number from 1 to 64"),
        ("work", &["url=http://h/"], "-o: the key \"url\" is for type webdav, not for memory"),
        ("work", &["type=s3"], "-o: \"type\" is given by the remote"),
        ("webdav:http://h/", &["password=x"], "-o: \"password\" is a secret"),
    ] {
        let message = refused("[drive.work]\ntype = \"memory\"\n", remote, options);
        assert!(message.starts_with(told), "{remote} {options:?}\ntold:   {message}\nwanted: {told}");
    }
}

#[test]
fn a_slip_in_one_drive_keeps_no_other_from_being_mounted() {
    let config = "[drive.a]\ntype = \"memory\"\nnonsense = 1\n[drive.b]\ntype = \"memory\"\n";
    assert!(drive(config, "b", &[]).is_ok() && drive(config, "a", &[]).is_err());
}

#[test]
fn no_secret_is_printed_and_all_of_it_reaches_the_worker() {
    let drive = drive("", "webdav:http://u:hunter2@h/", &[]).unwrap();
    assert!(!format!("{drive:?}{}{}", drive.name, settings_of(&drive)).contains("hunter2"));
    let line = drive.hand_over().unwrap();
    assert!(line.contains("hunter2") && !line.contains('\n'));
    assert_eq!(Drive::take_over(&line).unwrap(), drive);
    let error = Drive::take_over(&line.replace("\"Given\"", "\"Gone\"")).unwrap_err();
    assert!(error.kind == Kind::Config && !error.message().contains("hunter2"), "{error}");
}

#[test]
fn what_config_show_prints_is_a_config_file() {
    let config =
        "[drive.s]\ntype = \"s3\"\nbucket = \"b\"\nprofile = \"p\"\nstate_dir = \"/with \\\"quotes\\\"\\u001b\"\n";
    let before = drive(config, "s", &[]).unwrap();
    let shown = settings_of(&before);
    assert!(!shown.contains('\u{1b}'));
    assert_eq!(drive(&shown, "s", &[]).unwrap(), before);
}
