//! The keeper's life: start a worker, wait, replace it, stop it. One thread; allocates nothing but in the child that unmounts.

use super::decide::{Ended, Facts, History, Next, Policy};
use super::exit;
use super::mount::{self, Mounted};
use super::mountinfo;
use super::say::{Line, say};
use super::shared::{Death, Shared};
use super::signals::{self, Event, Signals};
use super::spawn::Prepared;
use crate::sys::{Clock, RealClock};
use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// How long the unmount may take before the worker is told to stop all the same. It waits for pages written through mmap(2).
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a killed worker may take to vanish (it may sit in a system call).
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a fork that failed for want of memory or processes.
const FORK_PAUSE: Duration = Duration::from_millis(200);

/// What the watch needs.
pub struct Watch {
    pub mounted: Mounted,
    pub shared: Shared,
    pub worker: Prepared,
    pub signals: Signals,
    pub policy: Policy,
    /// From SIGTERM to SIGKILL.
    pub stop_patience: Duration,
}

/// A running worker.
struct Worker {
    pid: libc::pid_t,
    started: Duration,
}

impl Watch {
    /// Runs until the drive ends; returns the keeper's exit code. The mount is gone then.
    pub fn run(self) -> i32 {
        let mut history = History::new();
        let Some(mut worker) = self.start() else { return self.end(exit::CLEAN) };
        loop {
            match self.signals.wait(None) {
                Event::Timeout => continue,
                Event::Stop => return self.stop(worker),
                Event::Child => {}
            }
            // Signals of the same kind merge: one wake may stand for several ends.
            let Some(ended) = self.reaped(worker.pid) else { continue };
            match self.after(&mut history, &worker, ended) {
                Next::Finish(code) => return self.end(code),
                Next::Start(pause) => {
                    if self.stopped_within(pause) {
                        return self.end(exit::KILLED);
                    }
                    match self.start() {
                        Some(next) => worker = next,
                        None => return self.end(exit::KILLED),
                    }
                }
            }
        }
    }

    /// Starts a worker; `None` when asked to stop while no process could be had.
    fn start(&self) -> Option<Worker> {
        self.shared.message.set(b"");
        self.shared.generation.fetch_add(1, SeqCst);
        loop {
            match self.worker.start(&self.shared) {
                Ok(pid) => return Some(Worker { pid, started: RealClock.monotonic() }),
                Err(error) => say(format_args!("cannot start a worker, trying again: {error}")),
            }
            if self.stopped_within(FORK_PAUSE) {
                return None;
            }
        }
    }

    /// Waits for `pause`; true when asked to stop meanwhile.
    fn stopped_within(&self, pause: Duration) -> bool {
        let until = RealClock.monotonic() + pause;
        loop {
            let left = until.saturating_sub(RealClock.monotonic());
            if left.is_zero() {
                return false;
            }
            if self.signals.wait(Some(left)) == Event::Stop {
                return true;
            }
        }
    }

    /// Reaps everything; how `pid` ended, if it did.
    fn reaped(&self, pid: libc::pid_t) -> Option<Ended> {
        let mut found = None;
        while let Some((who, ended)) = signals::reap() {
            if who == pid {
                found = Some(ended);
            }
        }
        found
    }

    /// Notes the end of a worker and decides.
    fn after(&self, history: &mut History, worker: &Worker, ended: Ended) -> Next {
        let now = RealClock.monotonic();
        let ready = self.shared.ready_generation.load(SeqCst);
        let facts = Facts {
            ended,
            now,
            lived: now.saturating_sub(worker.started),
            was_ready: ready == self.shared.generation.load(SeqCst),
            ever_ready: ready != 0,
        };
        let safe_before = history.safe();
        let next = history.next(&self.policy, &facts);
        match next {
            Next::Finish(exit::CLEAN) => return next,
            Next::Finish(code) if exit::CANNOT_START.contains(&code) => {
                self.say_message();
                return next;
            }
            Next::Start(_) if !history.safe() && ended == Ended::Code(exit::REPLACE_ME) && facts.was_ready => {
                say(format_args!("the worker asked for a successor"));
            }
            Next::Start(_) | Next::Finish(_) => {
                self.shared.record(Death { wall_ns: RealClock.wall_ns(), ended });
                self.say_death(ended, next);
            }
        }
        if history.safe() && !safe_before {
            self.enter_safe_mode(ended);
        }
        if !history.safe() {
            self.shared.safe_mode.store(0, SeqCst);
        }
        next
    }

    fn say_message(&self) {
        let mut buffer = [0; 508];
        let message = self.shared.message.copy(&mut buffer);
        if !message.is_empty() {
            say(format_args!("{}", Printable(message)));
        }
    }

    fn say_death(&self, ended: Ended, next: Next) {
        let mut buffer = [0; 508];
        let message = Printable(self.shared.message.copy(&mut buffer));
        match next {
            Next::Finish(_) => say(format_args!("the worker {ended}; it died too often: the mount ends. {message}")),
            Next::Start(pause) => say(format_args!("the worker {ended}; next in {} ms. {message}", pause.as_millis())),
        }
    }

    fn enter_safe_mode(&self, ended: Ended) {
        let mut line = Line::new();
        let (deaths, seconds) = (self.policy.deaths, self.policy.window.as_secs());
        let _ = write!(line, "the worker ended {deaths} times within {seconds} s; the last one {ended}");
        let mut buffer = [0; 508];
        let message = self.shared.message.copy(&mut buffer);
        if !message.is_empty() {
            line.push(b": ");
            line.push(message);
        }
        self.shared.reason.set(line.as_bytes());
        self.shared.safe_mode.store(1, SeqCst);
        say(format_args!("safe mode: {}", Printable(line.as_bytes())));
    }

    /// Ends the drive: out of the tree first, so that nothing new begins and pages written through mmap(2) still find a worker;
    /// then SIGTERM, and SIGKILL when the time is over or a second request comes.
    fn stop(self, worker: Worker) -> i32 {
        let unmounting = self.start_unmount();
        let mut ended = None;
        let mut hard = false;
        let until = RealClock.monotonic() + UNMOUNT_PATIENCE;
        let mut unmounted = unmounting.is_none();
        while !unmounted && ended.is_none() && !hard {
            match self.signals.wait(Some(until.saturating_sub(RealClock.monotonic()))) {
                Event::Stop => hard = true,
                Event::Child => {
                    while let Some((who, how)) = signals::reap() {
                        unmounted |= Some(who) == unmounting;
                        if who == worker.pid {
                            ended = Some(how);
                        }
                    }
                }
                Event::Timeout => unmounted = RealClock.monotonic() >= until,
            }
        }
        if !hard && ended.is_none() {
            signals::send(worker.pid, libc::SIGTERM);
            (ended, hard) = self.wait_for(worker.pid, self.stop_patience);
        }
        if ended.is_none() {
            say(format_args!("the worker does not end; killed"));
            signals::send(worker.pid, libc::SIGKILL);
            ended = self.wait_for(worker.pid, KILL_PATIENCE).0;
        }
        let was_ready = self.shared.ready_generation.load(SeqCst) == self.shared.generation.load(SeqCst);
        let code = match ended {
            Some(Ended::Code(exit::CLEAN)) if !hard => exit::CLEAN,
            // It had not begun to work, nor to handle signals.
            Some(Ended::Signal(libc::SIGTERM)) if !was_ready => exit::CLEAN,
            Some(Ended::Code(exit::CLEAN)) => exit::CLEAN,
            _ => exit::KILLED,
        };
        self.end(code)
    }

    /// Waits for the end of `pid`: how it ended, and whether another request to stop came first.
    fn wait_for(&self, pid: libc::pid_t, patience: Duration) -> (Option<Ended>, bool) {
        let until = RealClock.monotonic() + patience;
        loop {
            if let Some(ended) = self.reaped(pid) {
                return (Some(ended), false);
            }
            let left = until.saturating_sub(RealClock.monotonic());
            if left.is_zero() {
                return (None, false);
            }
            if self.signals.wait(Some(left)) == Event::Stop {
                return (None, true);
            }
        }
    }

    /// Writes out and unmounts in a child, since it may wait for the worker; `None` when there is no child to be had.
    fn start_unmount(&self) -> Option<libc::pid_t> {
        // SAFETY: the keeper has one thread, so the child may allocate, and it ends in _exit(2).
        match unsafe { libc::fork() } {
            -1 => None,
            0 => {
                self.signals.restore();
                // Were this copy open while the child waits for a worker that is gone, the keeper's end would not end the
                // connection, and the child would wait for ever.
                // SAFETY: this process uses the descriptor no more, and leaves by _exit(2), which runs no destructor.
                unsafe { libc::close(self.mounted.device.as_raw_fd()) };
                let path = &self.mounted.mount_point;
                let ours = mountinfo::at(path).ok().flatten().is_some_and(|at| at.device == (0, self.mounted.minor));
                if ours && let Err(error) = mount::write_out(path) {
                    say(format_args!("{error}"));
                }
                let done = mount::unmount_lazy(path, Some(self.mounted.minor));
                if let Err(error) = &done {
                    say(format_args!("{error}"));
                }
                // SAFETY: no destructor of the parent's may run here.
                unsafe { libc::_exit(i32::from(done.is_err())) }
            }
            pid => Some(pid),
        }
    }

    /// The last step, without a worker: lets go of the device, which frees every waiting program, and of the tree.
    fn end(self, code: i32) -> i32 {
        let Watch { mounted: Mounted { device, mount_point, minor }, signals, .. } = self;
        drop::<OwnedFd>(device);
        if let Err(error) = mount::unmount_lazy(&mount_point, Some(minor)) {
            say(format_args!("{error}"));
        }
        signals.restore();
        code
    }
}

/// Shows bytes of a text that may have been cut inside a character.
struct Printable<'a>(&'a [u8]);

impl std::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| f.write_str(chunk.valid()))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Code(code) => write!(f, "ended with code {code}"),
            Ended::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}
