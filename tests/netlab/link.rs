//! One connection: both directions through pacer and delay line, and how it breaks.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::http::Follower;
use crate::settings::{Fault, Settings, Shared, Side, book};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Bytes that may sit in one delay line: the "TCP window" of the simulated path.
const WINDOW: usize = 32 * 1024 * 1024;

enum Item {
    Data(Instant, Vec<u8>),
    Eof(Instant),
}

/// Bytes that still pass towards a side before this connection breaks; `u64::MAX`: it does not.
struct Doom {
    up: AtomicU64,
    down: AtomicU64,
}

impl Doom {
    fn towards(&self, side: Side) -> &AtomicU64 {
        if side == Side::Up { &self.up } else { &self.down }
    }
}

/// How a direction came to its end.
enum Ended {
    Clean,
    Broken,
}

/// What both ends of one direction hold.
#[derive(Clone)]
struct Direction {
    shared: Arc<Shared>,
    towards: Side,
    window: Arc<Semaphore>,
    doom: Arc<Doom>,
}

/// Makes the end of this socket a reset; a clean end is then sent by `shutdown` before the drop.
pub fn reset_on_drop(socket: &TcpStream) {
    // A socket that is already gone needs no reset.
    let _ = socket.set_zero_linger();
}

/// A write half whose drop does not send a clean end: only an explicit shutdown does.
struct Quiet(Option<OwnedWriteHalf>);

impl Quiet {
    fn half(&mut self) -> &mut OwnedWriteHalf {
        self.0.as_mut().expect("taken only by drop")
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

/// Carries one connection until either side ends it, or `kill` does.
pub async fn carry(shared: &Arc<Shared>, client: TcpStream, target: u16, kill: &Notify) {
    let usable_at = {
        let settings = shared.settings.borrow();
        Instant::now() + settings.rtt.mul_f64(settings.setup_rtts)
    };
    reset_on_drop(&client);
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    for socket in [&client, &server] {
        // Nagle's delay would be added to ours; without the option the figures are off, nothing breaks.
        let _ = socket.set_nodelay(true);
    }
    let doom = Arc::new(Doom { up: AtomicU64::new(u64::MAX), down: AtomicU64::new(u64::MAX) });
    let direction = |towards| Direction {
        shared: shared.clone(),
        towards,
        window: Arc::new(Semaphore::new(WINDOW)),
        doom: doom.clone(),
    };
    let (up, down) = (direction(Side::Up), direction(Side::Down));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (up_in, up_out) = mpsc::unbounded_channel();
    let (down_in, down_out) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(up.clone().take_in(client_read, up_in, usable_at));
    tasks.spawn(down.clone().take_in(server_read, down_in, usable_at));
    let mut up = tokio::spawn(up.give_out(server_write, up_out));
    let mut down = tokio::spawn(down.give_out(client_write, down_out));
    let mut up_done = false;
    let down_done = loop {
        tokio::select! {
            () = kill.notified() => break false,
            end = &mut up, if !up_done => {
                up_done = true;
                if !matches!(end, Ok(Ended::Clean)) { break false }
            }
            // The server has ended: nothing more can come back, so the client is given up too.
            _ = &mut down => break true,
        }
    };
    if down_done {
        // Lets the kernel send a clean end before the sockets drop with linger 0.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    up.abort();
    down.abort();
}

impl Direction {
    /// Reads one socket at the pace of the link and puts the bytes into the delay line.
    async fn take_in(self, mut source: OwnedReadHalf, line: mpsc::UnboundedSender<Item>, usable_at: Instant) {
        let mut settings = self.shared.settings.subscribe();
        let mut connection_free = Instant::now();
        // When this link became free again. Data that was already waiting then counts as sent from that moment on, so
        // that a timer which fires late does not eat bandwidth.
        let mut free_at = Instant::now();
        let mut requests = Follower::new();
        let mut buffer = vec![0u8; CHUNK];
        loop {
            let before = Instant::now();
            let len = match source.read(&mut buffer).await {
                Ok(0) | Err(_) => {
                    let half = settings.borrow().rtt / 2;
                    let _ = line.send(Item::Eof(Instant::now().max(usable_at) + half));
                    return;
                }
                Ok(len) => len,
            };
            if self.towards == Side::Up {
                requests.feed(&buffer[..len], |head, range| self.strike(self.shared.request(head, range)));
            }
            match self.window.acquire_many(len as u32).await {
                Ok(permits) => permits.forget(),
                Err(_) => return,
            }
            while_stalled(&mut settings).await;
            let now = Instant::now();
            let waited = now - before;
            let was_waiting = waited < Duration::from_micros(500) && now - free_at < Duration::from_millis(50);
            let now = if was_waiting { free_at } else { now }.max(usable_at);
            let (half, own, global) = {
                let now = settings.borrow();
                (now.rtt / 2, now.connection_rate, now.global_rate)
            };
            let own = book(&mut connection_free, now, len, own);
            let sent = self.shared.book(self.towards, now, len, global).max(own).max(now);
            if line.send(Item::Data(sent + half, buffer[..len].to_vec())).is_err() {
                return;
            }
            until(sent).await;
            free_at = sent.max(before);
        }
    }

    /// Dooms the connection where the fault in force struck a request.
    fn strike(&self, struck: bool) {
        if struck {
            let settings = self.shared.settings.borrow();
            self.doom.towards(settings.side).store(settings.after, Relaxed);
        }
    }

    /// Writes what has come through the delay line, as long as the connection is not doomed.
    async fn give_out(self, sink: OwnedWriteHalf, mut line: mpsc::UnboundedReceiver<Item>) -> Ended {
        let mut settings = self.shared.settings.subscribe();
        let mut sink = Quiet(Some(sink));
        let counters = &self.shared.counters;
        let carried = if self.towards == Side::Up { &counters.bytes_up } else { &counters.bytes_down };
        while let Some(item) = line.recv().await {
            let (Item::Data(at, _) | Item::Eof(at)) = &item;
            until(*at).await;
            while_stalled(&mut settings).await;
            let Item::Data(_, data) = item else {
                let _ = sink.half().shutdown().await;
                return Ended::Clean;
            };
            let left = self.doom.towards(self.towards).load(Relaxed);
            let passing = (data.len() as u64).min(left) as usize;
            if left != u64::MAX {
                self.doom.towards(self.towards).store(left - passing as u64, Relaxed);
            }
            if sink.half().write_all(&data[..passing]).await.is_err() {
                return Ended::Broken;
            }
            carried.fetch_add(passing as u64, Relaxed);
            self.window.add_permits(data.len());
            if left != u64::MAX && left == passing as u64 {
                counters.faults.fetch_add(1, Relaxed);
                return self.break_off(&mut sink).await;
            }
        }
        Ended::Clean
    }

    async fn break_off(&self, sink: &mut Quiet) -> Ended {
        if self.shared.settings.borrow().fault == Fault::Truncate {
            let _ = sink.half().shutdown().await;
            // Keeps the order: the reader sees an end of stream, then everything is dropped.
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else {
            // What was written should arrive before the reset does: the reader is then in the middle of a body.
            tokio::time::sleep(Duration::from_millis(20)).await;
            reset_on_drop(sink.half().as_ref());
        }
        Ended::Broken
    }
}

async fn until(at: Instant) {
    // The timer has millisecond steps; the pacers keep their own exact clock, so being early by less is harmless.
    if at > Instant::now() + Duration::from_micros(800) {
        tokio::time::sleep_until(at.into()).await;
    }
}

async fn while_stalled(settings: &mut watch::Receiver<Settings>) {
    while settings.borrow_and_update().fault == Fault::Stall {
        if settings.changed().await.is_err() {
            return;
        }
    }
}
