//! The task that decides: which inode is looked at, what may run now, and what waits for what.

use super::circle;
use super::names::Names;
use super::plan::{Facts, Step, plan};
use super::queue::{Mark, Queue};
use super::{Shared, SyncParts};
use crate::error::{Kind, Result, Retry};
use crate::events::Want;
use crate::model::{FileKind, Ino, Name};
use crate::store::{Content, Event, Rows, View, Which};
use crate::sys::locked;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// Longest quiet time that is asked of a file that keeps changing.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// Quiet time of a file that a program still has open for writing.
const QUIET_OPEN: Duration = Duration::from_secs(15);
/// How long an entry whose place is busy is left alone.
const BUSY: Duration = Duration::from_millis(50);
/// How often a file is looked at that the remote changed while a program has it open for writing.
const HELD: Duration = Duration::from_secs(1);
/// How long an entry that waits for another is left alone at most.
const RECHECK: Duration = Duration::from_secs(5);
/// How long what the provider refuses is left alone.
const REFUSED: Duration = Duration::from_secs(300);
/// Files above this size leave half of the workers to smaller ones, bytes.
pub(super) const LARGE: u64 = 64 << 20;
/// Events that may wait. When full, the whole list of pending work is read again.
const EVENTS_MAX: usize = 65536;

/// The settings of a drive's synchronisation.
#[derive(Clone, Debug)]
pub struct SyncSettings {
    /// How long a file must be closed and quiet before it is sent.
    pub write_back: Duration,
    /// How often the change feed is asked.
    pub poll: Duration,
    /// How often directories in use are listed again where there is no feed.
    pub refresh: Duration,
    /// Uploads at once.
    pub uploads: usize,
    pub read_only: bool,
    /// Patterns (`*` and `?`) of names that stay on this machine.
    pub local_only: Vec<String>,
    /// For the names of conflict copies.
    pub host: String,
    /// Nothing is sent and nothing fetched by itself: the worker died too often.
    pub safe_mode: bool,
}

/// The running synchronisation of one drive. Cheap to clone.
#[derive(Clone)]
pub struct Sync {
    pub(super) shared: Arc<Shared>,
    overflow: Arc<Notify>,
    stop: watch::Sender<bool>,
}

/// What a worker came back with.
enum Done {
    /// Look again at once.
    Again,
    /// Nothing more for now.
    Rest,
    /// Something must happen to this inode first.
    Wait(Ino),
    /// Another call runs where this one must.
    Later,
}

/// Whether an inode may be worked on now.
enum Ready {
    Go(Step),
    Wait(Ino),
    NotBefore(Duration),
    Nothing,
}

/// Tells the planner which inodes changed in the store. Holds nothing of the drive: the store holds it.
pub struct Touched {
    events: mpsc::Sender<Ino>,
    overflow: Arc<Notify>,
}

impl crate::store::Listener for Touched {
    fn notice(&self, events: &[Event]) {
        for event in events {
            if let Event::Touched(ino) = event
                && self.events.try_send(*ino).is_err()
            {
                self.overflow.notify_one();
            }
        }
    }
}

impl Sync {
    /// Starts the tasks on the current runtime. `listen` gives who is told of changes in the store, and tells what it is given too.
    pub fn start(
        parts: SyncParts,
        settings: SyncSettings,
        wants: mpsc::Receiver<Want>,
        listen: impl FnOnce(Touched) -> Arc<dyn crate::store::Listener>,
    ) -> Sync {
        let names = Names::new(parts.remote.capabilities(), &settings.host);
        let shared = Arc::new(Shared {
            parts,
            settings,
            names,
            guard: Default::default(),
            sweeping: Default::default(),
            hurry: Notify::new(),
            awaited: Default::default(),
            moving: Default::default(),
            rates: Default::default(),
        });
        if let Err(error) = shared.take_up_moves() {
            // A listing may then be believed too early: a file is shown under the name of another for a moment.
            tracing::error!("read the moves that nothing was heard of: {error}");
        }
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let sync = Sync { shared, overflow: Arc::new(Notify::new()), stop: watch::Sender::new(false) };
        sync.shared.parts.store.listen(listen(Touched { events, overflow: sync.overflow.clone() }));
        tokio::spawn(super::wants::serve(sync.shared.clone(), wants));
        if !sync.shared.settings.safe_mode {
            tokio::spawn(super::feed::watch(sync.shared.clone(), sync.stop.subscribe()));
            if !sync.shared.settings.read_only {
                // All of it is tried again at once; until then it waits, and is no failure.
                if let Err(error) = sync.shared.store().write(|tx| tx.clear_failures()) {
                    tracing::error!("forget the failures of an earlier worker: {error}");
                }
                tokio::spawn(sync.clone().run(inbox));
            }
        }
        sync
    }

    /// Sends what waits without waiting for the quiet time.
    pub fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// Ends the tasks; what runs is dropped, and seen again by the next worker.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    async fn run(self, mut inbox: mpsc::Receiver<Ino>) {
        let mut queue = Queue::default();
        let mut running: JoinSet<(Ino, Result<Done>)> = JoinSet::new();
        let mut busy: HashSet<Ino> = HashSet::new();
        let mut again: HashSet<Ino> = HashSet::new();
        let mut stop = self.stop.subscribe();
        let mut hurried = false;
        let mut not_before = Duration::ZERO;
        let large = Arc::new(Semaphore::new((self.shared.settings.uploads / 2).max(1)));
        self.load(&mut queue, Duration::ZERO);
        loop {
            let now = self.shared.parts.clock.monotonic();
            let mut pause = None;
            while running.len() < self.shared.settings.uploads.max(1) && now >= not_before {
                let ino = match queue.next(now) {
                    Ok(ino) => ino,
                    Err(wait) => {
                        pause = wait;
                        break;
                    }
                };
                if busy.contains(&ino) {
                    again.insert(ino);
                    continue;
                }
                match self.ready(ino, hurried, &mut queue) {
                    Ok(Ready::Go(step)) => {
                        busy.insert(ino);
                        let (shared, large) = (self.shared.clone(), large.clone());
                        running.spawn(async move { (ino, act(&shared, ino, step, &large).await) });
                    }
                    Ok(Ready::Wait(on)) => {
                        queue.wait_for(ino, on);
                        queue.put(ino, now + RECHECK);
                    }
                    Ok(Ready::NotBefore(at)) => queue.put(ino, at),
                    Ok(Ready::Nothing) => queue.succeeded(ino),
                    Err(e) => {
                        tracing::warn!("plan inode {ino}: {e}");
                        queue.put(ino, now + RECHECK);
                    }
                }
            }
            if now < not_before {
                pause = Some(not_before - now);
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                Some(ended) = running.join_next() => {
                    let now = self.shared.parts.clock.monotonic();
                    match ended {
                        Ok((ino, outcome)) => {
                            busy.remove(&ino);
                            self.ended(&mut queue, ino, outcome, now, &mut not_before);
                            if again.remove(&ino) {
                                queue.put(ino, now);
                            }
                        }
                        Err(e) => {
                            tracing::error!("a worker of the synchronisation failed: {e}");
                            busy.clear();
                            self.load(&mut queue, now + RECHECK);
                        }
                    }
                }
                Some(ino) = inbox.recv() => {
                    hurried = false;
                    let now = self.shared.parts.clock.monotonic();
                    queue.put(ino, now);
                    while let Ok(ino) = inbox.try_recv() {
                        queue.put(ino, now);
                    }
                }
                () = self.shared.hurry.notified() => {
                    hurried = true;
                    not_before = Duration::ZERO;
                    queue.hurry(self.shared.parts.clock.monotonic());
                }
                () = self.overflow.notified() => self.load(&mut queue, Duration::ZERO),
                () = sleep(pause) => {}
            }
        }
    }

    fn load(&self, queue: &mut Queue, at: Duration) {
        let mut after = 0;
        loop {
            match self.shared.store().read(|rows| rows.pending(after, 10_000)) {
                Ok(found) if found.is_empty() => return,
                Ok(found) => {
                    after = found.last().map_or(u64::MAX, |ino| ino.get());
                    found.into_iter().for_each(|ino| queue.put(ino, at));
                }
                Err(e) => {
                    tracing::error!("read the pending work: {e}");
                    return;
                }
            }
        }
    }

    fn ended(&self, queue: &mut Queue, ino: Ino, outcome: Result<Done>, now: Duration, not_before: &mut Duration) {
        match outcome {
            Ok(done) => {
                queue.succeeded(ino);
                self.shared.parts.wants.set_online(true);
                queue.wake(ino, now);
                match done {
                    Done::Again => queue.put(ino, now),
                    Done::Wait(on) => {
                        queue.wait_for(ino, on);
                        queue.put(ino, now + RECHECK);
                    }
                    Done::Later => queue.put(ino, now + BUSY),
                    Done::Rest => {}
                }
            }
            Err(e) => {
                let tries = queue.failed(ino);
                let backoff = Duration::from_millis(500 << tries.min(7)).min(Duration::from_secs(60));
                let wait = match (e.kind, e.kind.retry()) {
                    (Kind::Offline | Kind::TimedOut, _) => {
                        self.shared.parts.wants.set_online(false);
                        *not_before = now + Duration::from_secs(1);
                        backoff.min(Duration::from_secs(5))
                    }
                    // Written during its upload, or somebody else was first, or it is elsewhere by now: look again after the quiet time.
                    (Kind::Changed | Kind::Precondition | Kind::Stale | Kind::NotFound | Kind::NotEmpty, _) => {
                        self.shared.settings.write_back.max(backoff / 4)
                    }
                    (_, Retry::Later) => e.retry_after.unwrap_or(backoff),
                    (Kind::SignIn | Kind::QuotaFull | Kind::Denied, _) => backoff,
                    _ => REFUSED,
                };
                let reason = e.to_string();
                tracing::warn!("inode {ino}: {reason}");
                // A file that went or was written meanwhile is no error that anybody need know of.
                if !matches!(e.kind, Kind::Stale | Kind::Changed) {
                    self.shared.rates.set_error(&reason, self.shared.parts.clock.wall_ns());
                }
                let lasting = e.kind.retry() == Retry::Never
                    && !matches!(
                        e.kind,
                        Kind::Changed | Kind::Precondition | Kind::Stale | Kind::NotFound | Kind::NotEmpty
                    );
                if lasting {
                    let at = self.shared.parts.clock.wall_ns();
                    if let Err(e) = self.shared.store().write(|tx| tx.set_failure(ino, Some(&reason), at)) {
                        tracing::error!("note the failure of inode {ino}: {e}");
                    }
                }
                if matches!(e.kind, Kind::Changed | Kind::Precondition | Kind::Stale | Kind::NotFound | Kind::NotEmpty)
                {
                    // What the failing call saw there is news: the plan is another one perhaps.
                    queue.put(ino, now + wait);
                    return;
                }
                // Unreadable rows change nothing here: the next look at the inode fails with the same error.
                let mark = self.shared.store().read(|rows| mark(rows, ino)).unwrap_or_default();
                queue.hold(ino, now + wait, mark);
            }
        }
    }

    /// What may be done for an inode now.
    fn ready(&self, ino: Ino, hurried: bool, queue: &mut Queue) -> Result<Ready> {
        let settings = &self.shared.settings;
        self.shared.store().read(|rows| {
            if let Some(until) = queue.held(ino, self.shared.parts.clock.monotonic(), &mark(rows, ino)?) {
                return Ok(Ready::NotBefore(until));
            }
            let Some(node) = rows.find_node(ino)? else { return Ok(Ready::Nothing) };
            let place = rows.place(ino)?;
            let local_only =
                place.as_ref().is_some_and(|(_, name)| is_local_only(&settings.local_only, name.as_bytes()));
            let (base, remote) = (rows.view(ino, 0, Which::Base)?, rows.view(ino, 0, Which::Remote)?);
            let facts = Facts {
                node: &node,
                place: place.as_ref().map(|(parent, name)| (*parent, name)),
                base: base.as_ref(),
                remote: remote.as_ref(),
                attempted: rows.attempt(ino)?.is_some(),
                moving: rows.moving(ino)?.is_some(),
                local_only,
            };
            let step = plan(&facts);
            match step {
                Step::Nothing => return Ok(Ready::Nothing),
                Step::Locate => return Ok(Ready::Go(step)),
                _ => {}
            }
            // What the remote did to a file waits until whoever may write to it has closed it: then both sides are known.
            let held = step == Step::Take || (step == Step::Make && matches!(node.content, Content::Version(_)));
            if held && self.shared.store().opens().get(ino).writers > 0 {
                return Ok(Ready::NotBefore(self.shared.parts.clock.monotonic() + HELD));
            }
            // A directory's time is set last: each upload into it moves it.
            if step == Step::SetMeta && node.kind == FileKind::Directory && rows.has_pending_children(ino)? {
                return Ok(Ready::NotBefore(self.shared.parts.clock.monotonic() + HELD / 2));
            }
            if let Some(on) = rows.on_its_way(ino)? {
                return Ok(Ready::Wait(on));
            }
            if matches!(step, Step::Make | Step::Move | Step::Send | Step::SetMeta | Step::Remove)
                && let Some(on) = circle::blocking_ancestor(rows, place.as_ref().map(|(parent, _)| *parent))?
                && !(step == Step::Move && circle::is_in_the_way_of_its_directory(rows, ino)?)
            {
                return Ok(Ready::Wait(on));
            }
            if step == Step::Remove
                && let Some(heir) = heir(rows, remote.as_ref())?
                && !is_local_only(&settings.local_only, heir.1.as_bytes())
            {
                return Ok(Ready::Wait(heir.0));
            }
            if node.kind == FileKind::File || matches!(step, Step::Remove | Step::Move) {
                let quiet_until = self.quiet_until(ino, node.times.ctime_ns, hurried);
                if let Some(at) = quiet_until {
                    return Ok(Ready::NotBefore(at));
                }
            }
            Ok(Ready::Go(step))
        })
    }

    /// Until when an inode must be left alone; `None`: it is quiet.
    fn quiet_until(&self, ino: Ino, ctime_ns: i64, hurried: bool) -> Option<Duration> {
        let now = self.shared.parts.clock.monotonic();
        let opens = self.shared.store().opens().get(ino);
        let pressed = self.shared.parts.journal.is_pressed();
        let awaited = locked(&self.shared.awaited).contains(&ino);
        if awaited || (hurried || pressed) && opens.writers == 0 {
            return None;
        }
        let changed_ago = Duration::from_nanos((self.shared.parts.clock.wall_ns() - ctime_ns).max(0) as u64);
        let mut last = now.saturating_sub(changed_ago);
        if let Some(staged) = self.shared.parts.journal.get(ino) {
            last = last.max(staged.last_write()).min(now);
        }
        // A writer that waits for room waits for this very upload, perhaps.
        let quiet = if opens.writers > 0 && !pressed {
            QUIET_OPEN.max(self.shared.settings.write_back)
        } else {
            self.shared.settings.write_back
        };
        let at = last + quiet.min(QUIET_MAX);
        (at > now).then_some(at)
    }
}

fn mark(rows: &Rows<'_>, ino: Ino) -> Result<Mark> {
    let Some(node) = rows.find_node(ino)? else { return Ok(None) };
    Ok(Some((rows.place(ino)?, node.times.ctime_ns)))
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause.max(Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}

/// The new file that took the name of a deleted one: it becomes the next version of the same remote file, which therefore
/// must not be deleted before.
fn heir(rows: &Rows<'_>, deleted: Option<&View>) -> Result<Option<(Ino, Name)>> {
    let Some(view) = deleted.filter(|view| view.kind == FileKind::File) else { return Ok(None) };
    let Some(there) = rows.lookup(view.parent, &view.shown)? else { return Ok(None) };
    let is_new = rows.view(there.ino, 0, Which::Remote)?.is_none() && rows.view(there.ino, 0, Which::Base)?.is_none();
    Ok((there.kind == FileKind::File && is_new).then(|| (there.ino, view.shown.clone())))
}

/// Whether a name matches one of the patterns.
pub(super) fn is_local_only(patterns: &[String], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_bytes(), name))
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => matches(&pattern[1..], name) || (!name.is_empty() && matches(pattern, &name[1..])),
        (Some(b'?'), Some(_)) => matches(&pattern[1..], &name[1..]),
        (Some(p), Some(n)) if p == n => matches(&pattern[1..], &name[1..]),
        _ => false,
    }
}

async fn act(shared: &Arc<Shared>, ino: Ino, step: Step, large: &Arc<Semaphore>) -> Result<Done> {
    use super::operate::Progress;
    tracing::debug!("inode {ino}: {step:?}");
    let progress = match step {
        Step::Nothing => return Ok(Done::Rest),
        Step::Forget => shared.forget(ino)?,
        Step::Remove => shared.remove(ino).await?,
        Step::Inquire => shared.inquire(ino).await?,
        Step::Locate => shared.locate(ino).await?,
        Step::Restore => shared.restore(ino)?,
        Step::Make => shared.make(ino, large).await?,
        Step::Move => shared.relocate(ino).await?,
        Step::Send => shared.send(ino, large).await?,
        Step::SetMeta => shared.set_meta(ino).await?,
        Step::Take => shared.take(ino)?,
        Step::Agree => shared.own_up(ino)?,
        Step::KeepBoth => shared.keep_both(ino).await?,
    };
    Ok(match progress {
        Progress::Went => Done::Again,
        Progress::Ended => Done::Rest,
        Progress::Waits(on) => {
            tracing::debug!("inode {ino}: waits for inode {on}");
            Done::Wait(on)
        }
        Progress::Busy => {
            tracing::debug!("inode {ino}: its place is busy");
            Done::Later
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_local_names() {
        let p = |s: &str| vec![s.to_owned()];
        assert!(is_local_only(&p(".~lock.*#"), b".~lock.a.odt#"));
        assert!(is_local_only(&p("*.part"), b"x.part") && !is_local_only(&p("*.part"), b"x.parts"));
        assert!(!is_local_only(&p(".nfs*"), b"a.nfs"));
    }
}
