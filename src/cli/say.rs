//! Answers on stdout, talk on stderr; neither can panic.

use crate::error::{Error, Kind, Result};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Writes an answer to stdout, as it is. A reader that went away (`| head`) is no error.
pub fn answer(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Disk, format!("write the answer to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr, the program's name before it. Nobody to hear it is no error.
pub fn talk(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "fourwheel: {text}");
}

/// A line on stderr that is overwritten by the next on a terminal; elsewhere each is a line of its own.
pub struct Progress {
    terminal: bool,
    shown: bool,
}

impl Progress {
    /// Progress on stderr, live if that is a terminal.
    pub fn on_stderr() -> Self {
        Progress { terminal: io::stderr().is_terminal(), shown: false }
    }

    /// Whether lines replace each other, so that they may come often.
    pub fn is_live(&self) -> bool {
        self.terminal
    }

    /// Shows `text`.
    pub fn show(&mut self, text: &str) {
        let mut err = io::stderr().lock();
        // Return to the first column, the text, clear the rest of the line (ECMA-48, EL).
        let _ = if self.terminal { write!(err, "\r{text}\x1b[K") } else { writeln!(err, "fourwheel: {text}") };
        let _ = err.flush();
        self.shown = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown {
            let _ = writeln!(io::stderr().lock());
        }
    }
}
