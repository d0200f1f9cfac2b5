//! A TCP proxy that cuts a connection after so many bytes from the client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

/// The proxy; its threads end with the test's process.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    /// Bytes that a client may still send in all; negative numbers mean any.
    left: AtomicI64,
    cuts: AtomicU64,
}

impl Proxy {
    /// Stands before `port`.
    pub fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let state = Arc::new(State { left: AtomicI64::new(-1), cuts: AtomicU64::new(0) });
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let state = shared.clone();
                let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { continue };
                thread::spawn(move || forward(client, server, &state));
                thread::spawn(move || back(server2, client2));
            }
        });
        Proxy { port: own, state }
    }

    /// The address to use as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Cuts after so many more bytes from clients, once.
    pub fn cut_after(&self, bytes: i64) {
        self.state.left.store(bytes, Ordering::SeqCst);
    }

    /// How often it has cut.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

fn forward(mut client: TcpStream, mut server: TcpStream, state: &State) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let left = state.left.load(Ordering::SeqCst);
        if left >= 0 && left < read as i64 {
            let _ = server.write_all(&buffer[..left as usize]);
            state.left.store(-1, Ordering::SeqCst);
            state.cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if left >= 0 {
            state.left.fetch_sub(read as i64, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

fn back(mut server: TcpStream, mut client: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        if client.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Write);
}
