//! The command line's end of the socket: blocking, one call at a time.

use super::socket::Address;
use super::status::{CheckReport, Conflict, Pinned, Saved, Status};
use super::wire::{self, ANSWER_BYTES_MAX, Request, WirePath};
use crate::error::{Context, Error, Kind, Result};
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a call that answers from memory may take; a worker under full load answers well within.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to one worker.
///
/// Errors of every call: `Offline` where no worker answers there, `TimedOut`, and what the worker said.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`. `Offline`: nobody serves it. `Denied`: it is another user's.
    pub fn connect(path: &Path) -> Result<Client> {
        let doing = || format!("ask the worker at {}", path.display());
        let connected = Address::new(path).and_then(|address| UnixStream::connect(address.as_path()));
        let stream = connected.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::new(Kind::Offline, format!("{}: it does not run", doing()))
            }
            _ => Error::disk(doing(), &e),
        })?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).context(doing())?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// See [`super::Service::status`].
    pub fn status(&mut self) -> Result<Status> {
        self.call(&Request::Status, Some(ANSWER_TIMEOUT))
    }

    /// See [`super::Service::saved`].
    pub fn saved(&mut self) -> Result<Saved> {
        self.call(&Request::Saved, Some(ANSWER_TIMEOUT))
    }

    /// See [`super::Service::sync`]. Waits as long as it takes.
    pub fn sync(&mut self, path: &Path) -> Result<()> {
        self.call(&Request::Sync { path: WirePath::new(path) }, None)
    }

    /// See [`super::Service::conflicts`].
    pub fn conflicts(&mut self) -> Result<Vec<Conflict>> {
        self.call(&Request::Conflicts, Some(ANSWER_TIMEOUT))
    }

    /// See [`super::Service::pin`]. Waits as long as it takes: the folder may have to be listed.
    pub fn pin(&mut self, path: &Path) -> Result<Pinned> {
        self.call(&Request::Pin { path: WirePath::new(path) }, None)
    }

    /// See [`super::Service::unpin`].
    pub fn unpin(&mut self, path: &Path) -> Result<Pinned> {
        self.call(&Request::Unpin { path: WirePath::new(path) }, None)
    }

    /// See [`super::Service::check`]. Waits as long as it takes.
    pub fn check(&mut self) -> Result<CheckReport> {
        self.call(&Request::Check, None)
    }

    /// See [`super::Service::stop`].
    pub fn stop(&mut self) -> Result<()> {
        self.call(&Request::Stop, Some(ANSWER_TIMEOUT))
    }

    fn call<T: DeserializeOwned>(&mut self, request: &Request, timeout: Option<Duration>) -> Result<T> {
        let ended = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Error::new(Kind::TimedOut, "the worker gave no answer in time")
            }
            _ => Error::new(Kind::Offline, format!("the worker ended the connection: {e}")),
        };
        let stream = self.stream.get_mut();
        stream.set_read_timeout(timeout).map_err(ended)?;
        stream.write_all(&wire::encode_request(request)?).map_err(ended)?;
        let mut line = Vec::new();
        let read = (&mut self.stream).take(ANSWER_BYTES_MAX as u64).read_until(b'\n', &mut line).map_err(ended)?;
        match line.pop() {
            Some(b'\n') => wire::decode_answer(&line),
            _ if read == 0 => Err(Error::new(Kind::Offline, "the worker ended the connection")),
            _ => Err(Error::new(Kind::Invalid, "the worker's answer is cut or too long")),
        }
    }
}
