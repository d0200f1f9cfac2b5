//! The two processes under test.

use crate::filesystem::{Control, Loopback};
use fourwheel::error::{Error, Kind};
use fourwheel::fs::session::{self, Start};
use fourwheel::keeper::mount_point::Contents;
use fourwheel::keeper::{self, Inherited, KeeperOptions, Place};
use fuser::INodeNo;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// `role-keeper MOUNTPOINT DIR OPTION...`
pub fn keeper(words: &[String]) -> ExitCode {
    let [mount_point, dir, flags @ ..] = words else { panic!("too few words: {words:?}") };
    let own = std::env::current_exe().unwrap();
    let worker = vec![own.into(), "role-worker".into(), dir.into()];
    let mut options = KeeperOptions::new(mount_point, "test,suid drive", worker);
    for flag in flags {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let millis = || Duration::from_millis(value.parse().unwrap());
        match name {
            "daemon" => options.place = Place::Daemon { stderr: None, patience: millis() },
            "window" => options.policy.window = millis(),
            "stop" => options.stop_patience = millis(),
            "nonempty" => options.contents = Contents::MayBeHidden,
            "private" => options.settings.allow_other = false,
            "readonly" => options.settings.read_only = true,
            _ => panic!("unknown option {flag}"),
        }
    }
    match keeper::run(options) {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => {
            eprintln!("{:?}: {error}", error.kind);
            ExitCode::from(if error.kind == Kind::Exists { 17 } else { 2 })
        }
    }
}

/// `role-worker DIR`: serves DIR/tree. The files in DIR/control say how it misbehaves.
pub fn worker(words: &[String]) -> ExitCode {
    let control = Control::new(Path::new(&words[0]).join("control"));
    let inherited = match Inherited::from_env() {
        Ok(Some(inherited)) => Arc::new(inherited),
        other => panic!("no keeper: {other:?}"),
    };
    block_signals();
    control.write("safe_mode", &format!("{:?}", inherited.safe_mode()));
    control.write("keeper", &inherited.keeper_pid().to_string());
    control.write("deaths", &inherited.deaths().0.to_string());
    if let Some(code) = control.read("refuse") {
        inherited.failed(&Error::new(Kind::Config, "the password is wrong"));
        return ExitCode::from(code.parse::<u8>().unwrap());
    }
    if control.read("crash").is_some() {
        std::process::abort();
    }
    if control.read("crash_unless_safe").is_some() && inherited.safe_mode().is_none() {
        std::process::abort();
    }
    let filesystem = Loopback::new(Path::new(&words[0]), inherited.clone());
    let session = session::serve(filesystem, &inherited, 3).unwrap();
    if inherited.generation() > 1 && control.read("allow_first").is_none() {
        assert_eq!(session.start, Start::Takeover);
    }
    control.write("flags", &format!("{:?}", fuser::InitFlags::from_bits_retain(session.flags)));
    if control.read("never_ready").is_none() {
        inherited.ready();
    }
    control.write("worker", &format!("{} {}", inherited.generation(), std::process::id()));
    loop {
        match next_signal(Duration::from_millis(50)) {
            Some(libc::SIGTERM) if control.read("deaf").is_some() => {}
            Some(libc::SIGTERM) => {
                control.write("stopped", &format!("orphaned={}", inherited.orphaned()));
                return ExitCode::SUCCESS;
            }
            Some(libc::SIGUSR1) => {
                let ino: u64 = control.read("inval").unwrap().parse().unwrap();
                let result = session.notifier.inval_inode(INodeNo(ino), 0, 0);
                control.write("inval_result", &format!("{result:?}"));
            }
            Some(libc::SIGHUP) => {
                for backing in inherited.backings().all() {
                    inherited.backings().forget(backing.id);
                    inherited.close_backing(backing.id).unwrap();
                }
                control.write("closed", "");
            }
            Some(libc::SIGUSR2) => return ExitCode::from(keeper::exit::REPLACE_ME as u8),
            _ => {}
        }
        if let Some(ended) = session.wait(Duration::ZERO) {
            control.write("ended", &format!("{ended:?}"));
            return ExitCode::SUCCESS;
        }
    }
}

const SIGNALS: [i32; 4] = [libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

fn set() -> libc::sigset_t {
    // SAFETY: sigemptyset(3) initialises the set.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn block_signals() {
    // SAFETY: the set is initialised.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut()) };
}

fn next_signal(patience: Duration) -> Option<i32> {
    let limit = libc::timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
    // SAFETY: set and limit are initialised.
    let signal = unsafe { libc::sigtimedwait(&set(), std::ptr::null_mut(), &raw const limit) };
    (signal > 0).then_some(signal)
}
