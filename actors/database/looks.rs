//! When a database looks for commits.

use std::time::{Duration, Instant};

use walrust_engine::Pacing;

/// A writer changes the WAL before the wal-index says so: a hint that shows nothing new yet is
/// looked into again after these pauses.
const SECOND_LOOKS: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(25), Duration::from_millis(125)];

/// What is known of commits that storage does not have.
#[derive(Debug)]
pub(super) struct Looks {
    /// Something may be there to ship.
    pub(super) is_wanted: bool,
    /// Since when something may be there that storage does not have.
    pub(super) behind_since: Option<Instant>,
    /// When a job last looked at the WAL.
    pub(super) last_at: Instant,
    /// Before this a look would find nothing.
    pub(super) next_at: Option<Instant>,
    /// Second looks that the last hint has had.
    second_looks: usize,
    /// The least time between two uploads.
    pub(super) pacing: Pacing,
}

impl Looks {
    /// Of a database that nobody has looked at yet.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            is_wanted: true,
            behind_since: Some(now),
            last_at: now,
            next_at: None,
            second_looks: 0,
            pacing: Pacing::new(interval),
        }
    }

    /// There is a hint that something was committed.
    pub(super) fn hinted(&mut self, now: Instant) {
        self.is_wanted = true;
        self.behind_since.get_or_insert(now);
        self.second_looks = 0;
        self.next_at = None;
    }

    /// A sync begins.
    pub(super) fn began(&mut self) {
        self.is_wanted = false;
        self.next_at = None;
    }

    /// It found nothing.
    pub(super) fn found_nothing(&mut self, now: Instant) {
        if let Some(pause) = SECOND_LOOKS.get(self.second_looks) {
            self.second_looks += 1;
            self.is_wanted = true;
            self.next_at = Some(now + *pause);
        }
    }

    /// A sync that began then found something.
    pub(super) fn found(&mut self, began: Instant) {
        self.second_looks = SECOND_LOOKS.len();
        self.pacing.began(began);
    }
}
