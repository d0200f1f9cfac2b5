//! The worker's end of the socket.

use super::service::Service;
use super::socket::Address;
use super::wire::{self, REQUEST_BYTES_MAX, Request};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::{Disk, RealDisk};
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may be silent between two requests, or stop reading an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait after accept(2) failed: out of descriptors, which others must give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A bound control socket.
pub struct Server {
    listener: UnixListener,
}

impl Server {
    /// Binds `path`, replacing what an earlier worker left there: the caller holds the state directory's lock.
    /// Needs a tokio runtime around it. The kinds of the local disk.
    pub fn bind(path: &Path) -> Result<Server> {
        let doing = || format!("open the control socket {}", path.display());
        match RealDisk.remove(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::disk(doing(), &e)),
            _ => {}
        }
        let address = Address::new(path).context(doing())?;
        let listener = UnixListener::bind(address.as_path()).context(doing())?;
        // Until here the directory's mode alone keeps others out.
        std::fs::set_permissions(address.as_path(), std::fs::Permissions::from_mode(0o600)).context(doing())?;
        Ok(Server { listener })
    }

    /// Answers until it is dropped; conversations that have begun go on until their callers leave or the runtime ends.
    pub async fn serve(self, service: Arc<dyn Service>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let service = service.clone();
                    tokio::spawn(async move {
                        converse(stream, service.as_ref()).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("control socket: accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether the peer may command us: the same user, or root (unix(7), SO_PEERCRED).
fn is_welcome(stream: &UnixStream) -> bool {
    // SAFETY: geteuid(2) always succeeds.
    let own = unsafe { libc::geteuid() };
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn converse(stream: UnixStream, service: &dyn Service) {
    let welcome = is_welcome(&stream);
    let (read, mut write) = stream.into_split();
    if !welcome {
        let refusal = Error::new(Kind::Denied, "this drive belongs to another user");
        send(&mut write, Err(refusal)).await;
        return;
    }
    let mut lines = Lines { read, buffer: Vec::new() };
    loop {
        let line = match tokio::time::timeout(IDLE_TIMEOUT, lines.next()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Err(error)) => {
                send(&mut write, Err(error)).await;
                return;
            }
            Ok(Ok(None)) | Err(_) => return,
        };
        let answer = match wire::decode_request(&line) {
            Ok(request) => tokio::select! {
                biased;
                answer = call(service, &request) => answer,
                () = lines.closed() => return,
            },
            Err(error) => Err(error),
        };
        if !send(&mut write, answer).await {
            return;
        }
    }
}

/// Sends one answer; false where nobody reads it.
async fn send(write: &mut OwnedWriteHalf, answer: Result<Value>) -> bool {
    let line = wire::encode_answer(answer);
    matches!(tokio::time::timeout(IDLE_TIMEOUT, write.write_all(&line)).await, Ok(Ok(())))
}

async fn call(service: &dyn Service, request: &Request) -> Result<Value> {
    match request {
        Request::Status => value(service.status().await?),
        Request::Saved => value(service.saved().await?),
        Request::Sync { path } => value(service.sync(&path.path()?).await?),
        Request::Conflicts => value(service.conflicts().await?),
        Request::Pin { path } => value(service.pin(&path.path()?).await?),
        Request::Unpin { path } => value(service.unpin(&path.path()?).await?),
        Request::Check => value(service.check().await?),
        Request::Stop => value(service.stop().await?),
    }
}

fn value(answer: impl Serialize) -> Result<Value> {
    serde_json::to_value(answer).map_err(|e| Error::new(Kind::Invalid, format!("write the answer: {e}")))
}

/// Reads bounded lines. All its futures may be dropped without losing bytes.
struct Lines {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line, without its line feed; `None` at the end. `TooLarge`: longer than a request may be.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() >= REQUEST_BYTES_MAX {
                return Err(Error::new(Kind::TooLarge, format!("a request of more than {REQUEST_BYTES_MAX} bytes")));
            }
            if !self.fill().await {
                return Ok(None);
            }
        }
    }

    /// Reads on; false at the end.
    async fn fill(&mut self) -> bool {
        let room = REQUEST_BYTES_MAX - self.buffer.len();
        let mut read = (&mut self.read).take(room as u64);
        matches!(read.read_buf(&mut self.buffer).await, Ok(1..))
    }

    /// Returns once the peer has gone; requests that come meanwhile are kept for later.
    async fn closed(&mut self) {
        while self.buffer.len() < REQUEST_BYTES_MAX {
            if !self.fill().await {
                return;
            }
        }
        // A full buffer: we cannot look further, so the call runs to its end.
        std::future::pending().await
    }
}
