//! How programs save a document: the remote keeps one file under its name and never sees what was temporary.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::on_a_mount;
use crate::support::program::shell;
use crate::support::run;

/// Saves `text` by write to a temporary file, fsync, rename over.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
    fs::rename(&temporary, path).unwrap();
    fs::File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
}

#[test]
fn saves_by_temporary_file_leave_one_file() {
    on_a_mount(|mount, cloud| {
        for round in 0..20 {
            replace(&mount.at("doc.txt"), &format!("round {round}"));
        }
        mount.wait_saved();
        assert_eq!(cloud.names(), ["doc.txt"]);
        assert_eq!(fs::read(cloud.at("doc.txt")).unwrap(), b"round 19");
        replace(&mount.at("doc.txt"), "after the upload");
        mount.wait_saved();
        assert_eq!(cloud.names(), ["doc.txt"]);
        assert_eq!(fs::read(cloud.at("doc.txt")).unwrap(), b"after the upload");
    });
}

#[test]
fn a_save_through_a_backup_name_leaves_the_new_text() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("doc"), "first").unwrap();
        mount.wait_saved();
        fs::rename(mount.at("doc"), mount.at("doc~")).unwrap();
        fs::write(mount.at("doc"), "second").unwrap();
        fs::remove_file(mount.at("doc~")).unwrap();
        mount.wait_saved();
        assert_eq!((cloud.names(), fs::read(cloud.at("doc")).unwrap()), (vec!["doc".to_string()], b"second".to_vec()));
    });
}

#[test]
fn vim_saves() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("doc.txt"), "one\n").unwrap();
        mount.wait_saved();
        for (round, settings) in ["", "set backup", "set backupcopy=yes", "set nowritebackup"].iter().enumerate() {
            let commands = format!("{settings}|normal Goround {round}");
            let words = ["-u", "NONE", "-es", "-c", &commands, "-c", "wq", "doc.txt"];
            run(&mount.path(), "vim", &words);
        }
        mount.wait_saved();
        let text = fs::read_to_string(cloud.at("doc.txt")).unwrap();
        assert_eq!(text, "one\nround 0\nround 1\nround 2\nround 3\n");
        let left: Vec<String> =
            cloud.names().into_iter().filter(|name| name.ends_with(".swp") || name == "4913").collect();
        assert!(left.is_empty(), "left on the remote: {left:?}");
    });
}

#[test]
fn an_office_program_saves_with_its_lock_file_beside() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("doc.odt"), "v0").unwrap();
        mount.wait_saved();
        let lock = mount.at(".~lock.doc.odt#");
        fs::write(&lock, ",me,host,24.11.2026 12:00,file:///home;").unwrap();
        for round in 1..=5 {
            // As LibreOffice does: a new file under a name of its own, then over the document.
            let temporary = mount.at(format!("lu{round}abc.tmp"));
            fs::write(&temporary, format!("v{round}")).unwrap();
            fs::File::open(&temporary).unwrap().sync_all().unwrap();
            let before = fs::metadata(&temporary).unwrap().modified().unwrap();
            fs::rename(&temporary, mount.at("doc.odt")).unwrap();
            mount.wait_saved();
            assert_eq!(fs::metadata(mount.at("doc.odt")).unwrap().modified().unwrap(), before, "the time jumped");
            assert!(lock.exists());
        }
        if !crate::support::drive::fake() {
            assert_eq!(cloud.names(), ["doc.odt"], "the lock file went to the remote");
        }
        fs::remove_file(&lock).unwrap();
        assert_eq!(fs::read(cloud.at("doc.odt")).unwrap(), b"v5");
    });
}

#[test]
fn sed_in_place_and_shell_redirections_save() {
    on_a_mount(|mount, cloud| {
        let script =
            "echo one >f; echo two >>f; sed -i s/one/1/ f; cp f g; mv g h; sort -o h h; tee -a h <f >/dev/null";
        shell::<&str>(&mount.path(), script, &[]);
        mount.wait_saved();
        assert_eq!(cloud.names(), ["f", "h"]);
        assert_eq!(fs::read(cloud.at("h")).unwrap(), b"1\ntwo\n1\ntwo\n");
    });
}
