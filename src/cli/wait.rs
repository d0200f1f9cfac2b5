//! wait --saved: "may I switch off?"

use super::exit::Exit;
use super::pause;
use super::say::{Progress, talk};
use super::target::{Mounts, connect, left_behind};
use crate::config::Places;
use crate::config::units::human_bytes;
use crate::config::words;
use crate::control::{Client, Left, Mount, Saved};
use crate::error::Result;
use crate::sys::{Clock, RealClock};
use std::path::Path;
use std::time::Duration;

/// How often the workers are asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How often a line of progress is written where it does not replace the last.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// How long a worker may be away: the keeper replaces one that died within seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// `fourwheel wait --saved`: 0 when nothing waits, 3 when something cannot be saved (an unmounted drive's files neither), 4 on
/// timeout.
pub fn wait(target: Option<&Path>, timeout: Option<Duration>, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let chosen = mounts.chosen(target)?;
    // A command without a target is about the whole machine.
    let left = if target.is_none() { mounts.left()? } else { Vec::new() };
    if chosen.is_empty() && left.is_empty() {
        talk("nothing is mounted, and nothing waits");
        return Ok(Exit::Done);
    }
    let mut watched: Vec<Watched> = chosen.into_iter().map(Watched::new).collect();
    let begin = RealClock.monotonic();
    let mut progress = Progress::on_stderr();
    let mut told: Option<Duration> = None;
    loop {
        let mut total = Saved { online: true, ..Saved::default() };
        for watched in &mut watched {
            let patience = timeout
                .map_or(PATIENCE, |timeout| (begin + timeout).saturating_sub(RealClock.monotonic()).min(PATIENCE));
            add(&mut total, &watched.ask(patience)?);
        }
        if total.pending_files == 0 {
            drop(progress);
            return Ok(verdict(&watched, &left));
        }
        let now = RealClock.monotonic();
        if timeout.is_some_and(|timeout| now - begin >= timeout) {
            drop(progress);
            talk(format_args!("not saved in time: {}", remaining(&total)));
            tell_failed(&watched);
            return Ok(Exit::Timeout);
        }
        if progress.is_live() || told.is_none_or(|told| now - told >= TELL_EVERY) {
            progress.show(&remaining(&total));
            told = Some(now);
        }
        let until = timeout.map_or(ASK_EVERY, |timeout| (begin + timeout).saturating_sub(now).min(ASK_EVERY));
        pause(until);
    }
}

/// A mount that is asked again and again.
struct Watched<'a> {
    mount: &'a Mount,
    client: Option<Client>,
    last: Saved,
}

impl<'a> Watched<'a> {
    fn new(mount: &'a Mount) -> Self {
        Watched { mount, client: None, last: Saved::default() }
    }

    /// Asks; a worker that is away is waited for as long as `patience`.
    fn ask(&mut self, patience: Duration) -> Result<Saved> {
        let begin = RealClock.monotonic();
        loop {
            match self.try_ask() {
                Ok(saved) => {
                    self.last = saved.clone();
                    return Ok(saved);
                }
                Err(error) => {
                    self.client = None;
                    let known = self.mount.presence == crate::control::Presence::Mounted && self.mount.record.is_some();
                    if !known || RealClock.monotonic() - begin >= patience {
                        return Err(error);
                    }
                    pause(ASK_EVERY);
                }
            }
        }
    }

    fn try_ask(&mut self) -> Result<Saved> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(connect(self.mount)?),
        };
        client.saved()
    }
}

fn add(total: &mut Saved, one: &Saved) {
    total.pending_files += one.pending_files;
    total.pending_bytes += one.pending_bytes;
    total.failed_files += one.failed_files;
    total.upload_bytes_per_s += one.upload_bytes_per_s;
    total.online &= one.online;
}

fn remaining(total: &Saved) -> String {
    let (bytes, rate) = (human_bytes(total.pending_bytes), human_bytes(total.upload_bytes_per_s));
    let files = words::count(total.pending_files, "file");
    let offline = if total.online { "" } else { ", the remote cannot be reached" };
    format!("{files} left, {bytes}, {rate}/s{offline}")
}

fn verdict(watched: &[Watched], left: &[Left]) -> Exit {
    if left.is_empty() && watched.iter().all(|watched| watched.last.failed_files == 0) {
        return Exit::Done;
    }
    tell_failed(watched);
    for left in left {
        talk(format_args!("not saved: {}", left_behind(left)));
    }
    Exit::NotSaved
}

fn tell_failed(watched: &[Watched]) {
    for watched in watched {
        for failed in &watched.last.failed {
            let path = watched.mount.mountpoint.join(&failed.path);
            talk(format_args!("not saved: {}: {}", words::path(&path), words::escape(&failed.reason)));
        }
        let more = watched.last.failed_files.saturating_sub(watched.last.failed.len() as u64);
        if more > 0 {
            talk(format_args!("not saved: {more} more on {}", words::path(&watched.mount.mountpoint)));
        }
    }
}
