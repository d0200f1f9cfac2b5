//! One ranged read of the remote on its way, and who waits for it.

use crate::error::{Error, Kind, Result};
use std::ops::Range;
use tokio::sync::watch;

/// How far a flight is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// Every piece below this number is there.
    Arrived(u64),
    Done,
    Failed(Error),
}

/// A flight over a run of pieces.
pub(super) struct Flight {
    pieces: Range<u64>,
    progress: watch::Sender<Progress>,
}

impl Flight {
    pub(super) fn new(pieces: Range<u64>) -> Flight {
        let progress = watch::Sender::new(Progress::Arrived(pieces.start));
        Flight { pieces, progress }
    }

    pub(super) fn pieces(&self) -> Range<u64> {
        self.pieces.clone()
    }

    pub(super) fn tell(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Waits until `piece` has arrived, or the flight has failed before it.
    pub(super) async fn wait(&self, piece: u64) -> Result<()> {
        let mut watch = self.progress.subscribe();
        let reached = watch
            .wait_for(|p| match p {
                Progress::Arrived(upto) => *upto > piece,
                Progress::Done | Progress::Failed(_) => true,
            })
            .await;
        match reached.as_deref() {
            Ok(Progress::Failed(e)) => Err(e.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(Kind::Unavailable, "the read was given up")),
        }
    }
}
