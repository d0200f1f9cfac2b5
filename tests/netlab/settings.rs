//! What the line is like now, and what it has carried.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// How the line is broken.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    None,
    /// New connections are reset, open ones too.
    Refuse,
    /// Nothing moves, connections stay open.
    Stall,
    /// A doomed connection ends with a reset.
    Reset,
    /// A doomed connection ends with a clean end of stream.
    Truncate,
}

/// The end that a direction leads to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Side {
    Down,
    Up,
}

/// The line's properties; changed while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub rtt: Duration,
    pub setup_rtts: f64,
    /// Bytes a second; zero is unlimited.
    pub connection_rate: f64,
    /// Bytes a second; zero is unlimited.
    pub global_rate: f64,
    pub fault: Fault,
    /// Share of the requests that a [`Fault::Reset`] or [`Fault::Truncate`] strikes, 0 to 1.
    pub share: f64,
    /// Bytes that still pass towards `side` once a request is struck.
    pub after: u64,
    pub side: Side,
    /// Strikes only requests of this method; empty is all.
    pub method: String,
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            rtt: Duration::ZERO,
            setup_rtts: 1.0,
            connection_rate: 0.0,
            global_rate: 0.0,
            fault: Fault::None,
            share: 0.0,
            after: 65536,
            side: Side::Down,
            method: String::new(),
            seed: 1,
        }
    }
}

impl Settings {
    /// Changes one property; the message names what was not understood.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<f64>().map_err(|e| format!("{key}={value}: {e}"));
        match key {
            "rtt_ms" => self.rtt = Duration::from_secs_f64(number()? / 1e3),
            "setup_rtts" => self.setup_rtts = number()?,
            "conn_mbs" => self.connection_rate = number()? * 1e6,
            "global_mbs" => self.global_rate = number()? * 1e6,
            "share" => self.share = number()?,
            "after" => self.after = number()? as u64,
            "seed" => self.seed = number()? as u64,
            "method" => self.method = value.to_string(),
            "side" => {
                self.side = match value {
                    "down" => Side::Down,
                    "up" => Side::Up,
                    _ => return Err(format!("no such side: {value}")),
                }
            }
            "fault" => {
                self.fault = match value {
                    "none" => Fault::None,
                    "refuse" => Fault::Refuse,
                    "stall" => Fault::Stall,
                    "reset" => Fault::Reset,
                    "truncate" => Fault::Truncate,
                    _ => return Err(format!("no such fault: {value}")),
                }
            }
            _ => return Err(format!("no such setting: {key}")),
        }
        Ok(())
    }
}

/// What went over the line since the last `/reset`.
#[derive(Default)]
pub struct Counters {
    pub connections: AtomicU64,
    pub open: AtomicU64,
    pub peak_open: AtomicU64,
    pub refused: AtomicU64,
    pub faults: AtomicU64,
    pub bytes_up: AtomicU64,
    pub bytes_down: AtomicU64,
    pub requests: AtomicU64,
}

/// Everything that connections and the control port have in common.
pub struct Shared {
    pub settings: watch::Sender<Settings>,
    pub counters: Counters,
    methods: Mutex<BTreeMap<String, u64>>,
    up_free: Mutex<Instant>,
    down_free: Mutex<Instant>,
    connections: Mutex<HashMap<u64, Arc<Notify>>>,
    next_connection: AtomicU64,
    random: AtomicU64,
    log: Mutex<Option<std::fs::File>>,
    started: Instant,
}

/// Locks; the data under our locks is whole at every instant, so that a holder's panic does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    pub fn new(settings: Settings, log: Option<std::fs::File>) -> Self {
        let now = Instant::now();
        let random = AtomicU64::new(spread(settings.seed));
        Shared {
            settings: watch::channel(settings).0,
            counters: Counters::default(),
            methods: Mutex::default(),
            up_free: Mutex::new(now),
            down_free: Mutex::new(now),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            random,
            log: Mutex::new(log),
            started: now,
        }
    }

    /// Books `len` bytes on the part of the line that all connections share; gives when the last byte has left.
    pub fn book(&self, towards: Side, now: Instant, len: usize, rate: f64) -> Instant {
        let free = if towards == Side::Up { &self.up_free } else { &self.down_free };
        book(&mut lock(free), now, len, rate)
    }

    pub fn opened(&self) -> (u64, Arc<Notify>) {
        let (id, kill) = (self.next_connection.fetch_add(1, Relaxed), Arc::new(Notify::new()));
        lock(&self.connections).insert(id, kill.clone());
        self.counters.connections.fetch_add(1, Relaxed);
        let open = self.counters.open.fetch_add(1, Relaxed) + 1;
        self.counters.peak_open.fetch_max(open, Relaxed);
        (id, kill)
    }

    pub fn closed(&self, id: u64) {
        lock(&self.connections).remove(&id);
        self.counters.open.fetch_sub(1, Relaxed);
    }

    pub fn kill_all(&self) {
        for kill in lock(&self.connections).values() {
            kill.notify_one();
        }
    }

    /// Notes one request; says whether the fault in force strikes it.
    pub fn request(&self, line: &str, range: Option<&str>) -> bool {
        self.counters.requests.fetch_add(1, Relaxed);
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or("?"), words.next().unwrap_or(""));
        let lists = ["list-type=", "delimiter=", "prefix="].iter().any(|mark| target.contains(mark));
        let key = if method == "GET" && lists { "LIST" } else { method };
        *lock(&self.methods).entry(key.to_string()).or_insert(0) += 1;
        if let Some(file) = lock(&self.log).as_mut() {
            // A full disk must not break the line; the reader of the log will miss the line and say so.
            let _ = writeln!(file, "{:.4} {line} {}", self.started.elapsed().as_secs_f64(), range.unwrap_or("-"));
        }
        let settings = self.settings.borrow();
        matches!(settings.fault, Fault::Reset | Fault::Truncate)
            && (settings.method.is_empty() || settings.method == method)
            && self.chance(settings.share)
    }

    fn chance(&self, share: f64) -> bool {
        let mut x = self.random.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Relaxed);
        ((x >> 11) as f64 / (1u64 << 53) as f64) < share
    }

    pub fn log_to(&self, file: Option<std::fs::File>) {
        *lock(&self.log) = file;
    }

    /// Puts changed settings in force.
    pub fn apply(&self, settings: Settings) {
        if settings.seed != self.settings.borrow().seed {
            self.random.store(spread(settings.seed), Relaxed);
        }
        let refuse = settings.fault == Fault::Refuse;
        self.settings.send_replace(settings);
        if refuse {
            self.kill_all();
        }
    }

    pub fn reset_counters(&self) {
        let c = &self.counters;
        for counter in [&c.connections, &c.refused, &c.faults, &c.bytes_up, &c.bytes_down, &c.requests] {
            counter.store(0, Relaxed);
        }
        c.peak_open.store(c.open.load(Relaxed), Relaxed);
        lock(&self.methods).clear();
    }

    /// Counters and settings as one JSON object on one line.
    pub fn json(&self) -> String {
        let (s, c) = (self.settings.borrow().clone(), &self.counters);
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let stats = serde_json::json!({
            "connections": of(&c.connections), "open": of(&c.open), "peak_open": of(&c.peak_open),
            "refused": of(&c.refused), "faults": of(&c.faults),
            "bytes_up": of(&c.bytes_up), "bytes_down": of(&c.bytes_down),
            "requests": of(&c.requests), "methods": *lock(&self.methods),
            "rtt_ms": s.rtt.as_secs_f64() * 1e3, "setup_rtts": s.setup_rtts,
            "conn_mbs": s.connection_rate / 1e6, "global_mbs": s.global_rate / 1e6,
            "fault": format!("{:?}", s.fault).to_lowercase(),
        });
        format!("{stats}\n")
    }
}

/// Books `len` bytes on a link that is busy until `free`; gives when the last byte has left.
pub fn book(free: &mut Instant, now: Instant, len: usize, rate: f64) -> Instant {
    if rate <= 0.0 {
        return now;
    }
    *free = (*free).max(now) + Duration::from_secs_f64(len as f64 / rate);
    *free
}

/// Makes a generator state out of a small seed; never zero, where xorshift would stand still.
fn spread(seed: u64) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}
