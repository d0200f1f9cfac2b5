//! Where log lines go: stderr for commands, a file of bounded size for a worker; and reading the end of that file.

use super::say::talk;
use crate::error::{Context, Result};
use crate::sys::{Disk, Open, RealDisk};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable with the filter: `debug`, or `warn,fourwheel::sync=trace`.
const FILTER: &str = "FOURWHEEL_LOG";

/// The size at which a log becomes `log.1` and a new one is begun, bytes: both together are at most twice that.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Sends log lines to stderr; warnings and errors unless FOURWHEEL_LOG says otherwise.
pub fn to_stderr() {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(LevelFilter::WARN))
        .with_ansi(false)
        .without_time()
        .with_writer(io::stderr)
        .finish();
    // An error says only that there is one already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Sends log lines to the file at `path` and to `path` with `.1` before it; from info on unless FOURWHEEL_LOG says otherwise.
/// The kinds of the local disk.
pub fn to_file(path: &Path) -> Result<()> {
    let log = RotatingLog::open(path, LOG_BYTES_MAX).context(format!("open the log {}", path.display()))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(LevelFilter::INFO))
        .with_ansi(false)
        .with_writer(Arc::new(log))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn filter(default: LevelFilter) -> EnvFilter {
    let builder = EnvFilter::builder().with_default_directive(default.into());
    match std::env::var(FILTER) {
        Ok(text) if !text.is_empty() => builder.parse(&text).unwrap_or_else(|e| {
            talk(format_args!("{FILTER} is not a filter and is passed over: {e}"));
            EnvFilter::default().add_directive(default.into())
        }),
        _ => EnvFilter::default().add_directive(default.into()),
    }
}

/// A log file that starts anew when it is full. A line that cannot be written is lost: a full disk must not end a drive.
#[derive(Debug)]
struct RotatingLog {
    path: PathBuf,
    bytes_max: u64,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
}

impl RotatingLog {
    fn open(path: &Path, bytes_max: u64) -> io::Result<RotatingLog> {
        let current = Mutex::new(Current::open(path)?);
        Ok(RotatingLog { path: path.to_owned(), bytes_max, current })
    }
}

impl Current {
    #[allow(clippy::disallowed_methods, reason = "a log is appended to, which sys::Disk has no call for")]
    fn open(path: &Path) -> io::Result<Current> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Current { file, bytes })
    }
}

/// The name of the older half.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

impl Write for &RotatingLog {
    /// Takes whole lines, as the formatter gives them; always takes all.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.bytes > 0 && current.bytes + line.len() as u64 > self.bytes_max {
            let fresh = RealDisk.rename(&self.path, &older(&self.path)).and_then(|()| Current::open(&self.path));
            // Where that failed the old file goes on: a long log is better than none.
            if let Ok(fresh) = fresh {
                *current = fresh;
            }
        }
        if current.file.write_all(line).is_ok() {
            current.bytes += line.len() as u64;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last `lines` lines of the log at `path`, its older half included; empty where there is none.
/// Bytes that are not UTF-8 are replaced; control characters are as they are in the file.
pub fn tail(path: &Path, lines: usize) -> Result<Vec<String>> {
    let mut text = read(&older(path))?;
    text.push_str(&read(path)?);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].iter().map(|line| line.to_string()).collect())
}

fn read(path: &Path) -> Result<String> {
    let doing = || format!("read the log {}", path.display());
    let file = match RealDisk.open(path, Open::Existing) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(e).context(doing()),
    };
    let size = file.stat().context(doing())?.size;
    // A log is bounded, but the last line may go over the bound; what is longer is not ours, and its end is enough.
    let wanted = size.min(2 * LOG_BYTES_MAX);
    let mut bytes = vec![0; wanted as usize];
    let got = file.read_at(&mut bytes, size - wanted).context(doing())?;
    Ok(String::from_utf8_lossy(&bytes[..got]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_stays_within_its_bound_and_its_end_is_read_across_both_halves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(tail(&path, 5).unwrap(), Vec::<String>::new());
        let log = RotatingLog::open(&path, 100).unwrap();
        for number in 0..50 {
            (&log).write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let sizes = [&path, &older(&path)].map(|path| RealDisk.stat(path).unwrap().size);
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        assert_eq!(tail(&path, 13).unwrap()[0], "line 37");
        drop(log);
        (&RotatingLog::open(&path, 100).unwrap()).write_all(b"after a restart\n").unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["line 49", "after a restart"]);
    }
}
