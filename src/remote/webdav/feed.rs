//! A body as it arrives, given to the XML reader, with limits on what one event and the whole may take.

use crate::error::{Error, Kind};
use crate::sys::http;
use bytes::{Buf, Bytes};
use futures_util::Stream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

/// Most that one event (a tag, a text) may take, bytes. More is an attack, and would be held in memory.
const EVENT_BYTES_MAX: u64 = 1 << 20;
/// Most that an answer may take, bytes: a million entries of 1 KiB.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// A stream of chunks as a buffered reader.
pub(super) struct Feed<S> {
    stream: S,
    chunk: Bytes,
    of_event: u64,
    of_answer: u64,
    failure: Option<Error>,
}

impl<S> Feed<S> {
    pub(super) fn new(stream: S) -> Self {
        Feed { stream, chunk: Bytes::new(), of_event: 0, of_answer: 0, failure: None }
    }

    /// Tells that the next event begins here.
    pub(super) fn event_begins(&mut self) {
        self.of_event = 0;
    }

    /// What ended the stream, if it was not its end.
    pub(super) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn fail(&mut self, error: Error) -> io::Error {
        let told = io::Error::other(error.message().to_owned());
        self.failure = Some(error);
        told
    }
}

impl<S, E> AsyncBufRead for Feed<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.chunk.is_empty() {
            match Pin::new(&mut this.stream).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => break,
                Poll::Ready(Some(Ok(chunk))) => this.chunk = chunk,
                Poll::Ready(Some(Err(error))) => {
                    let error = Error::new(Kind::Unavailable, format!("the answer was cut: {}", http::chain(&error)));
                    return Poll::Ready(Err(this.fail(error)));
                }
            }
        }
        if this.of_event > EVENT_BYTES_MAX || this.of_answer > ANSWER_BYTES_MAX {
            let error = Error::new(Kind::Corrupt, "a WebDAV answer of absurd length");
            return Poll::Ready(Err(this.fail(error)));
        }
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.chunk.advance(amount);
        this.of_event += amount as u64;
        this.of_answer += amount as u64;
    }
}

/// Never called by the XML reader; [`AsyncBufRead`] asks for it.
impl<S, E> AsyncRead for Feed<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let taken = match self.as_mut().poll_fill_buf(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(chunk)) => {
                let taken = chunk.len().min(buf.remaining());
                buf.put_slice(&chunk[..taken]);
                taken
            }
        };
        self.consume(taken);
        Poll::Ready(Ok(()))
    }
}
