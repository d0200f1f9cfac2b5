//! netlab: a TCP proxy on loopback that behaves like a longer, thinner or broken line.
//!
//! ```text
//! netlab --listen 20001 --target 20000 --control 20002 [--rtt-ms 30] [--setup-rtts 1]
//!        [--conn-mbs 25] [--global-mbs 250] [--log FILE]
//! ```
//! Port 0 lets the kernel choose; the first line on stdout says `listen PORT control PORT`. It ends when stdin ends,
//! so that it never outlives the test that started it.
//!
//! Model, for each direction of each connection:
//! `source -> [connection pacer] -> [pacer shared by all connections] -> [delay line] -> sink`.
//! The pacers serialise bytes in real time (the proxy stops reading while the "link" is busy, so the sender feels back
//! pressure). The delay line is a queue of (deliver at, chunk): it adds rtt/2 and never caps throughput. A connection
//! is usable only `setup_rtts` round trips after the accept.
//!
//! Control port (plain HTTP GET; answers the statistics as JSON):
//! * `/stats`, `/reset` (counters to zero), `/kill` (resets all open connections);
//! * `/set?rtt_ms=30&conn_mbs=25&global_mbs=250&setup_rtts=1`;
//! * `/set?fault=none|refuse|stall|reset|truncate&share=0.1&after=65536&seed=7&side=down|up&method=PUT`:
//!   `share` of the requests (only those of `method`, where one is given) break after `after` bytes towards `side`
//!   (`down`: the client, `up`: the server);
//! * `/log?file=PATH`: one line a request; an empty path stops.
//!
//! It lives on the real clock and the real network on purpose: it is the outside world.
#![allow(clippy::disallowed_methods)]

mod control;
mod http;
mod link;
mod settings;

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use settings::{Fault, Settings, Shared};
use tokio::net::TcpListener;

/// What the command line asks for.
struct Arguments {
    listen: u16,
    target: u16,
    control: u16,
    log: Option<std::fs::File>,
    settings: Settings,
}

fn arguments() -> Result<Arguments, String> {
    let mut asked = Arguments { listen: 0, target: 0, control: 0, log: None, settings: Settings::default() };
    let words: Vec<String> = std::env::args().skip(1).collect();
    for pair in words.chunks(2) {
        let [key, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        let port = || value.parse::<u16>().map_err(|e| format!("{key} {value}: {e}"));
        match key.as_str() {
            "--listen" => asked.listen = port()?,
            "--target" => asked.target = port()?,
            "--control" => asked.control = port()?,
            "--log" => asked.log = Some(std::fs::File::create(value).map_err(|e| format!("{key} {value}: {e}"))?),
            _ => asked.settings.set(&key.trim_start_matches("--").replace('-', "_"), value)?,
        }
    }
    if asked.target == 0 {
        return Err("--target PORT is missing".into());
    }
    Ok(asked)
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    if let Err(reason) = run().await {
        eprintln!("netlab: {reason}");
        std::process::exit(2);
    }
}

async fn run() -> Result<(), String> {
    let asked = arguments()?;
    let bind = async |port: u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|e| format!("listen on port {port}: {e}"))
    };
    let line = bind(asked.listen).await?;
    let control = bind(asked.control).await?;
    let port = |l: &TcpListener| l.local_addr().map(|a| a.port()).map_err(|e| e.to_string());
    println!("listen {} control {}", port(&line)?, port(&control)?);
    std::io::stdout().flush().map_err(|e| e.to_string())?;
    end_with_stdin();

    let shared = Arc::new(Shared::new(asked.settings, asked.log));
    tokio::spawn(control::serve(shared.clone(), control));
    loop {
        let Ok((client, _)) = line.accept().await else { continue };
        if shared.settings.borrow().fault == Fault::Refuse {
            shared.counters.refused.fetch_add(1, Relaxed);
            link::reset_on_drop(&client);
            continue;
        }
        let (id, kill) = shared.opened();
        let shared = shared.clone();
        tokio::spawn(async move {
            link::carry(&shared, client, asked.target, &kill).await;
            shared.closed(id);
        });
    }
}

/// Ends the process when the one who started it has gone. A terminal or `/dev/null` at stdin is left alone.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let started = Instant::now();
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {}
        if started.elapsed().as_millis() > 100 {
            std::process::exit(0);
        }
    });
}
