//! One worker: takes the session over, runs the drive, ends in order.

use super::parts::Running;
use crate::error::{Error, Kind, Result};
use crate::fs::{Both, Deadlines, DriveFs, Notices, session};
use crate::keeper::Inherited;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Whether the kernel holds nothing of an earlier worker.
pub fn is_first(inherited: &Inherited) -> bool {
    inherited.init_answer().is_empty()
}

/// How often sizes and times of files that are being written are brought to their rows.
const SETTLE_EVERY: Duration = Duration::from_secs(2);

/// How long a stopping worker goes on sending what waits. What is left stays in the journal.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);

/// Threads that read the kernel's requests.
const SESSION_THREADS: usize = 3;

/// How long the wait for the session's end blocks a thread at once.
const WAIT_AT_ONCE: Duration = Duration::from_secs(3600);

/// Threads of the runtime.
const RUNTIME_THREADS: usize = 4;

/// The runtime of a worker.
pub fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Disk, format!("start the runtime: {e}")))
}

/// Serves a drive until it is unmounted or asked to stop.
///
/// `start` makes the running drive; it is given what the store must be told of changes through. `serve_more` starts what else
/// a drive has (the control socket) once the mount answers.
pub fn serve(
    inherited: &Inherited,
    runtime: &Runtime,
    deadlines: Deadlines,
    start: impl FnOnce(Arc<Notices>) -> Result<Running>,
    serve_more: impl FnOnce(&Arc<Running>) -> Result<()>,
) -> Result<()> {
    let _context = runtime.enter();
    let (notices, woken) = Notices::channel();
    let notices = Arc::new(notices);
    let running = Arc::new(start(notices.clone())?);
    let filesystem = DriveFs::new(running.drive.clone(), runtime.handle().clone(), deadlines);
    let session = session::serve(filesystem, inherited, SESSION_THREADS)?;
    let (store, notifier) = (running.store.clone(), session.notifier.clone());
    std::thread::spawn(move || Notices::serve(&store, &notifier, &woken));
    // What an earlier worker did not get to tell.
    notices.wake();
    let cache = running.cache.clone();
    std::thread::spawn(move || cache.scan());
    serve_more(&running)?;
    inherited.ready();
    if running.recovered != Default::default() {
        tracing::info!("recovered: {:?}", running.recovered);
    }
    let ended = runtime.block_on(until_end(&running, session, inherited));
    running.drive.settle_rows();
    running.sync.stop();
    running.store.sync()?;
    ended
}

async fn until_end(running: &Arc<Running>, session: session::Session, inherited: &Inherited) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|e| Error::new(Kind::Disk, format!("listen for signals: {e}")));
    let (mut term, mut int, mut hang_up) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    let mut unmounted = tokio::task::spawn_blocking(move || while session.wait(WAIT_AT_ONCE).is_none() {});
    let mut tick = tokio::time::interval(SETTLE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hang_up.recv() => break,
            _ = &mut unmounted => break,
            _ = tick.tick() => {
                let drive = running.drive.clone();
                let settled = tokio::task::spawn_blocking(move || drive.settle_rows()).await;
                if let Err(e) = settled {
                    tracing::error!("bring rows up to date: {e}");
                }
            }
        }
    }
    if !inherited.orphaned() {
        flush(running).await;
    }
    Ok(())
}

/// Sends what waits, for a short while. Nothing is lost without it: the next mount goes on.
async fn flush(running: &Arc<Running>) {
    running.drive.settle_rows();
    running.sync.hurry();
    let sent = async {
        loop {
            match running.sync.report() {
                Ok(report) if report.pending_files == 0 => return,
                _ if !running.wants.is_online() => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    if tokio::time::timeout(FLUSH_WITHIN, sent).await.is_err() {
        tracing::warn!("stopping; what was not sent yet waits in the journal for the next mount");
    }
}

/// The store's listeners: the kernel's notices, and the planner.
pub fn listeners(notices: Arc<Notices>, touched: crate::sync::Touched) -> Arc<dyn crate::store::Listener> {
    Arc::new(Both(notices, Arc::new(touched)))
}
