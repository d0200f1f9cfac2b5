//! Answering exactly once: at once, or later with a deadline and an eye on the caller's signals.

use super::DriveFs;
use super::interrupt::interrupted;
use crate::drive::Answer;
use crate::error::{Error, Kind, Result};
use fuser::Errno;
use std::time::Duration;

/// A reply that can say no.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ident),*) => {
        $(impl Refuse for fuser::$reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse!(
    ReplyEntry,
    ReplyAttr,
    ReplyData,
    ReplyEmpty,
    ReplyOpen,
    ReplyWrite,
    ReplyCreate,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyStatfs,
    ReplyXattr,
    ReplyLseek
);

/// The kernel's word for an error.
pub(super) fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

/// Whether an error is worth a line in the log: not the everyday answers that programs ask for.
fn log(op: &'static str, error: &Error) {
    match error.kind {
        Kind::NotFound | Kind::Exists | Kind::NoAttribute | Kind::NotEmpty | Kind::Interrupted => {
            tracing::trace!(op, "{error}");
        }
        _ => tracing::warn!(op, "{error}"),
    }
}

impl DriveFs {
    /// Gives a result to the kernel.
    pub(super) fn give<T, R: Refuse>(op: &'static str, reply: R, result: Result<T>, yes: impl FnOnce(R, T)) {
        match result {
            Ok(value) => yes(reply, value),
            Err(e) => {
                log(op, &e);
                reply.refuse(errno(&e));
            }
        }
    }

    /// Gives an answer to the kernel: now, or when it is there, or when the deadline passes or the caller is interrupted.
    pub(super) fn answer<T, R, Y>(
        &self,
        op: &'static str,
        tid: u32,
        deadline: Duration,
        reply: R,
        answer: Answer<T>,
        yes: Y,
    ) where
        T: Send + 'static,
        R: Refuse,
        Y: FnOnce(R, T) + Send + 'static,
    {
        let work = match answer {
            Answer::Now(result) => return Self::give(op, reply, result, yes),
            Answer::Later(work) => work,
        };
        self.runtime.spawn(async move {
            let result = tokio::select! {
                biased;
                result = work => result,
                () = tokio::time::sleep(deadline) => {
                    Err(Error::new(Kind::TimedOut, format!("no answer within {} s", deadline.as_secs_f32())))
                }
                () = interrupted(tid) => Err(Error::new(Kind::Interrupted, "the caller was interrupted")),
            };
            Self::give(op, reply, result, yes);
        });
    }
}
