//! Mount points, options, and mounting as an ordinary user.

use crate::Case;
use crate::rig::{Drive, Rig, kill, wait_until};
use fourwheel::keeper::mount_point::{self, MountPoint};
use fourwheel::keeper::{mount, mountinfo};
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub const CASES: &[Case] = &[
    ("bad_mount_points_are_refused_with_advice", bad_mount_points_are_refused_with_advice),
    ("the_mount_has_the_options_it_should", the_mount_has_the_options_it_should),
    ("other_users_are_let_in_only_when_told", other_users_are_let_in_only_when_told),
    ("an_abort_frees_whoever_waits", an_abort_frees_whoever_waits),
    ("a_user_mounts_through_fusermount3", a_user_mounts_through_fusermount3),
];

/// Some user without rights.
const NOBODY: u32 = 65534;

fn refused(rig: &Rig, code: i32, words: &str) {
    let output = rig.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(words), "{said:?} does not hold {words:?}");
    assert_eq!(output.status.code(), Some(code));
    println!("  {}", said.trim());
}

fn bad_mount_points_are_refused_with_advice() {
    let mut rig = Rig::new();
    let good = rig.mount_point.clone();
    rig.mount_point = good.join("missing");
    refused(&rig, 2, "mkdir -p");
    rig.mount_point = rig.tree("file");
    File::create(&rig.mount_point).unwrap();
    refused(&rig, 2, "is not a directory");
    rig.mount_point = rig.dir.path().join("full");
    DirBuilder::new().recursive(true).create(rig.mount_point.join("x")).unwrap();
    refused(&rig, 2, "is not empty");
    rig.mount_point = rig.mount_point.canonicalize().unwrap();
    let over = rig.start(&["nonempty"]);
    assert!(!rig.mounted("x").exists());
    over.stop();
    assert!(rig.mounted("x").exists());
    rig.mount_point = good;
    let drive = rig.start(&[]);
    refused(&rig, 2, "mounted at");
    drive.stop();
}

fn the_mount_has_the_options_it_should() {
    let rig = Rig::new();
    let drive = rig.start(&["readonly"]);
    let entry = mountinfo::at(&rig.mount_point).unwrap().unwrap();
    assert_eq!((entry.fs_type.as_str(), entry.source.as_str()), ("fuse.fourwheel", "test_suid_drive"));
    assert!(entry.read_only);
    let mounts = std::io::read_to_string(File::open("/proc/self/mounts").unwrap()).unwrap();
    let line = mounts.lines().find(|line| line.starts_with("test_suid_drive ")).unwrap();
    for option in ["nosuid", "nodev", "default_permissions", "allow_other", "ro"] {
        assert!(line.contains(option), "{line}");
    }
    println!("  {line}");
    let bdi = format!("/sys/class/bdi/0:{}/read_ahead_kb", entry.device.1);
    assert_eq!(std::io::read_to_string(File::open(bdi).unwrap()).unwrap().trim(), "1024");
    println!("  negotiated {}", rig.control.read("flags").unwrap());
    drive.stop();
}

fn listed_by_nobody(path: &Path) -> bool {
    Command::new("ls").arg(path).uid(NOBODY).gid(NOBODY).output().unwrap().status.success()
}

fn other_users_are_let_in_only_when_told() {
    let rig = Rig::new();
    let drive = rig.start(&[]);
    assert!(listed_by_nobody(&rig.mount_point));
    drive.stop();
    rig.control.remove("worker");
    let drive = rig.start(&["private"]);
    assert!(!listed_by_nobody(&rig.mount_point));
    drive.stop();
}

fn an_abort_frees_whoever_waits() {
    let connections = Path::new("/sys/fs/fuse/connections");
    let there = connections.read_dir().is_ok_and(|entries| entries.count() > 0);
    if !there {
        abort_frees_whoever_waits("by a forced unmount");
        let mounted = Command::new("mount").args(["-t", "fusectl", "fusectl"]).arg(connections).status().unwrap();
        assert!(mounted.success());
    }
    abort_frees_whoever_waits("through /sys/fs/fuse/connections");
    if !there {
        assert!(Command::new("umount").arg(connections).status().unwrap().success());
    }
}

fn abort_frees_whoever_waits(how: &str) {
    let rig = Rig::new();
    let drive = rig.start(&[]);
    let worker = rig.worker().unwrap().1;
    kill(worker, libc::SIGSTOP);
    let minor = mountinfo::at(&rig.mount_point).unwrap().unwrap().device.1;
    assert_eq!(mount_point::look(&rig.mount_point).unwrap(), MountPoint::Hung);
    let waiting = std::thread::spawn({
        let path = rig.mounted("f");
        move || path.symlink_metadata().unwrap_err().raw_os_error()
    });
    wait_until("the call waits in the kernel", in_fuse);
    mount::abort(&rig.mount_point, minor).unwrap();
    assert_eq!(waiting.join().unwrap(), Some(libc::ECONNABORTED));
    kill(worker, libc::SIGCONT);
    // The worker sees its connection end, as after an unmount.
    assert_eq!(drive.end().code(), Some(0));
    assert!(!rig.is_mounted());
    println!("  aborted {how}");
}

/// Whether a thread of this process waits for an answer from a FUSE file system.
fn in_fuse() -> bool {
    Path::new("/proc/self/task").read_dir().unwrap().flatten().any(|task| {
        let waits = File::open(task.path().join("wchan")).and_then(std::io::read_to_string);
        waits.is_ok_and(|function| function.contains("request_wait_answer"))
    })
}

/// Makes /dev/fuse usable for all, as distributions do, and puts it back.
struct OpenDevice(Permissions);

impl OpenDevice {
    fn new() -> Self {
        let before = Path::new("/dev/fuse").metadata().unwrap().permissions();
        std::fs::set_permissions("/dev/fuse", Permissions::from_mode(0o666)).unwrap();
        OpenDevice(before)
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        let _ = std::fs::set_permissions("/dev/fuse", self.0.clone());
    }
}

fn a_user_mounts_through_fusermount3() {
    let _device = OpenDevice::new();
    let rig = Rig::new();
    std::fs::write(rig.tree("f"), b"hello").unwrap();
    for path in [
        rig.mount_point.clone(),
        rig.tree(""),
        rig.tree("f"),
        rig.dir.path().join("control"),
        rig.dir.path().join("trash"),
    ] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // Where everybody can reach it: a checkout may lie in a home that is closed to others.
    let program = rig.dir.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let child = rig.command_of(&program, &["window=0"]).uid(NOBODY).gid(NOBODY).spawn().unwrap();
    let drive = Drive { rig: &rig, child };
    drive.worker_after(0);
    let user = |command: &str| {
        let output =
            Command::new("sh").args(["-c", command]).current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = rig.mounted("f").display().to_string();
    assert_eq!(user(&format!("cat '{shown}'")), "hello");
    drive.replace_worker();
    assert_eq!(user(&format!("echo more >> '{shown}'; cat '{shown}'")), "hellomore\n");
    let mounts = std::io::read_to_string(File::open("/proc/self/mounts").unwrap()).unwrap();
    println!("  {}", mounts.lines().find(|line| line.starts_with("test_suid_drive ")).unwrap());
    // Root is another user here.
    assert_eq!(rig.mount_point.read_dir().unwrap_err().raw_os_error(), Some(libc::EACCES));
    drive.stop();
    // A dead keeper's mount is cleaned by the user's next one.
    rig.control.remove("worker");
    let start = || Drive { rig: &rig, child: rig.command_of(&program, &[]).uid(NOBODY).gid(NOBODY).spawn().unwrap() };
    let drive = start();
    drive.worker_after(0);
    let worker = rig.worker().unwrap().1;
    kill(drive.keeper(), libc::SIGKILL);
    drive.end();
    wait_until("the worker is gone", || !crate::rig::alive(worker));
    rig.control.remove("worker");
    let drive = start();
    drive.worker_after(0);
    assert_eq!(user(&format!("cat '{shown}'")), "hellomore\n");
    drive.stop();
}
