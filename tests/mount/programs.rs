//! git, SQLite, rsync, tar, cp, fio on a mount, and what another machine then finds.

use std::fs;
use std::path::Path;

use crate::support::program::shell;
use crate::support::run;
use crate::{Cloud, on_a_mount};

/// A small project with links, tools and folders, made without a network.
fn make_tree(at: &Path) {
    let script = r#"
        mkdir -p src/deep/er bin empty
        i=0; while [ $i -lt 120 ]; do seq $i $((i * 37)) >"src/deep/f$i.txt"; i=$((i + 1)); done
        head -c 3000000 /dev/urandom >src/blob
        printf '#!/bin/sh\necho hello\n' >bin/tool; chmod 755 bin/tool
        ln -s ../src/blob bin/link; ln -s nowhere bin/dangling
        touch -d 2001-02-03T04:05:06.123456789Z src/deep/f7.txt
        : >src/deep/er/nothing; chmod 600 src/deep/er/nothing
        # rsync takes times of one second for equal.
        touch -d 2002-03-04T05:06:07.5Z bin empty src/deep/er src/deep src .
    "#;
    fs::create_dir_all(at).unwrap();
    shell::<&str>(at, script, &[]);
}

#[test]
fn git_works_and_the_repository_is_whole_on_another_machine() {
    let (cloud, local) = (Cloud::new(), Cloud::new());
    make_tree(&local.at("origin"));
    let script = "git init -q -b main . && git add -A && git commit -qm first";
    shell::<&str>(&local.at("origin"), script, &[]);
    let drive = cloud.drive();
    let mount = drive.mount();
    run(&mount.path(), "git", &["clone", "-q", &local.at("origin").to_string_lossy(), "work"]);
    let script = r#"
        git checkout -qb topic
        for n in 1 2 3 4 5; do echo $n >>src/deep/f1.txt; git commit -qam "change $n"; done
        git checkout -q main; echo main >note; git add note; git commit -qm note
        git merge -q -m merge topic; git gc -q --prune=now; git fsck --full --strict; git stash list
        test -z "$(git status --porcelain)"; test ! -e .git/index.lock
        git rev-parse HEAD
    "#;
    let head = shell::<&str>(&mount.at("work"), script, &[]);
    mount.wait_saved();
    mount.unmount();
    let other = cloud.drive();
    let mount = other.mount();
    let found = shell::<&str>(
        &mount.at("work"),
        "git fsck --full --strict >&2; git status --porcelain; git rev-parse HEAD",
        &[],
    );
    assert_eq!(found.trim(), head.trim());
}

#[test]
fn sqlite_works_in_both_journal_modes() {
    let cloud = Cloud::new();
    let drive = cloud.drive();
    let mount = drive.mount();
    for mode in ["delete", "wal"] {
        let name = format!("{mode}.db");
        run(&mount.path(), "sqlite3", &[&name, &format!("pragma journal_mode={mode}; create table t(a, b)")]);
        let insert = "begin; insert into t select value, hex(randomblob(200)) from generate_series(1, 200); commit;";
        let writer = "i=0; while [ $i -lt 20 ]; do sqlite3 -cmd '.timeout 60000' \"$1\" \"$2\"; i=$((i + 1)); done";
        let both = format!("({writer}) & first=$!; ({writer}) & second=$!; wait $first; wait $second");
        shell(&mount.path(), &both, &[name.as_str(), insert]);
        let check = "pragma integrity_check; select count(*) from t; pragma wal_checkpoint(truncate);";
        let found = run(&mount.path(), "sqlite3", &[name.as_str(), check]);
        assert!(found.starts_with("ok\n8000\n"), "{mode}: {found}");
    }
    mount.wait_saved();
    mount.unmount();
    let other = cloud.drive();
    let mount = other.mount();
    for name in ["delete.db", "wal.db"] {
        let found = run(&mount.path(), "sqlite3", &[name, "pragma integrity_check; select count(*) from t;"]);
        assert_eq!(found, "ok\n8000\n", "{name}");
    }
}

#[test]
fn a_second_rsync_finds_nothing_to_do() {
    let (cloud, local) = (Cloud::new(), Cloud::new());
    make_tree(&local.at("tree"));
    let from = format!("{}/", local.at("tree").display());
    let drive = cloud.drive();
    let mount = drive.mount();
    run(&mount.path(), "rsync", &["-a", &from, "copy/"]);
    let second = run(&mount.path(), "rsync", &["-a", "--itemize-changes", &from, "copy/"]);
    assert_eq!(second, "");
    mount.wait_saved();
    assert_eq!(run(&mount.path(), "rsync", &["-ac", "--itemize-changes", &from, "copy/"]), "");
    mount.unmount();
    let other = cloud.drive();
    let mount = other.mount();
    assert_eq!(run(&mount.path(), "rsync", &["-acn", "--itemize-changes", &from, "copy/"]), "");
    run(&mount.path(), "diff", &["-r", "--no-dereference", &from, "copy/"]);
}

#[test]
fn cp_and_tar_carry_a_tree_in_and_out() {
    let (cloud, local) = (Cloud::new(), Cloud::new());
    make_tree(&local.at("tree"));
    let drive = cloud.drive();
    let mount = drive.mount();
    let from = local.at("tree");
    run(&mount.path(), "cp", &["-a", &from.to_string_lossy(), "copied"]);
    shell(&mount.path(), r#"tar -C "$1" -cf all.tar . && mkdir unpacked && tar -C unpacked -xf all.tar"#, &[&from]);
    for copy in ["copied", "unpacked"] {
        let found = run(&mount.path(), "rsync", &["-acn", "--itemize-changes", &format!("{}/", from.display()), copy]);
        assert_eq!(found, "", "{copy}");
    }
    shell(&mount.path(), "test $(find . -type f | wc -l) = $(($(find \"$1\" -type f | wc -l) * 2 + 1))", &[&from]);
    mount.wait_saved();
    run(&mount.path(), "cmp", &["copied/src/blob", &cloud.at("unpacked/src/blob").to_string_lossy()]);
    fs::remove_dir_all(mount.at("copied")).unwrap();
    mount.wait_saved();
    assert!(!cloud.at("copied").exists());
}

#[test]
fn fio_verifies_what_it_wrote_at_random_places() {
    on_a_mount(|mount, _| {
        // fio maps whole pages only.
        for (engine, sizes) in [("psync", "--bsrange=512-64k"), ("mmap", "--bsrange=4k-64k")] {
            let name = format!("--name={engine}");
            let engine = format!("--ioengine={engine}");
            let words = [
                name.as_str(),
                engine.as_str(),
                "--rw=randrw",
                sizes,
                "--size=16m",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--randrepeat=1",
                "--fsync=64",
            ];
            run(&mount.path(), "fio", &words);
        }
        mount.wait_saved();
    });
}

#[test]
fn dd_with_fsync_and_sync_end_well() {
    on_a_mount(|mount, cloud| {
        let script =
            "dd if=/dev/zero of=z bs=64k count=100 conv=fsync status=none; sync z; truncate -s 1G sparse; rm sparse";
        shell::<&str>(&mount.path(), script, &[]);
        mount.wait_saved();
        assert_eq!(cloud.names(), ["z"]);
    });
}
