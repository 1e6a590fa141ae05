//! When walrust checkpoints a database, so that its WAL restarts while a pin is held.
//!
//! Invariant: a checkpoint that lets the WAL restart is proposed only when every frame is captured,
//! or under the write-lock barrier, which captures the rest first. So giving up the old pin for the
//! new one can lose nothing.
//!
//! Two kinds of checkpoint follow from what each costs. A quiet one runs when all frames are in
//! storage; it takes no lock that a writer could notice. Under writes that never pause that moment
//! never comes, so after [`CheckpointSettings::interval`], or past
//! [`CheckpointSettings::truncate_pages`], the writers are stopped for the milliseconds in which the
//! rest is staged durably and copied.

use std::time::{Duration, Instant};

/// Thresholds of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Checkpoint when the WAL has at least this many frames; zero: never for this reason.
    pub min_pages: u32,
    /// Checkpoint a WAL with frames when the last checkpoint is this long ago; zero: never for
    /// this reason.
    pub interval: Duration,
    /// Stop the writers and truncate the WAL when it has this many frames, or when its file is that
    /// large after a checkpoint; zero: never.
    pub truncate_pages: u32,
    /// Give the pin up when the WAL has this many frames and cannot be checkpointed: the disk of
    /// the application comes before an uninterrupted history; zero: never.
    pub limit_pages: u32,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            min_pages: 1000,
            interval: Duration::from_secs(60),
            truncate_pages: 121_359,
            limit_pages: 4 * 121_359,
        }
    }
}

/// How full a WAL is, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalFill {
    /// Committed frames.
    pub frames: u32,
    /// Frames that storage has confirmed.
    pub shipped: u32,
    /// Frames that are in the database file as well.
    pub backfilled: u32,
    /// Size of the WAL file, in frames. After a restart the file keeps its size.
    pub file_frames: u32,
}

impl WalFill {
    /// Whether there are more frames than were shipped, and those are in the database file.
    fn is_copied_as_far_as_shipped(&self) -> bool {
        self.frames > self.shipped && self.backfilled >= self.shipped
    }
}

/// A checkpoint that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// Everything is in storage: copy it, and let the next writer restart the WAL.
    Quiet,
    /// As quiet, then shorten the file.
    Truncate,
    /// Writes do not pause: stop them for the moment in which the rest is staged and copied.
    Barrier {
        /// Shorten the file afterwards.
        truncate: bool,
    },
    /// The WAL is beyond its limit although checkpoints were tried: give the pin up.
    GiveUp,
}

/// The checkpoint state of one database.
#[derive(Clone, Debug)]
pub struct CheckpointPolicy {
    settings: CheckpointSettings,
    /// When the whole WAL was last in the database file, or when the database was opened.
    complete: Instant,
    /// When a checkpoint was last tried.
    tried: Instant,
    /// Tries in a row that could not backfill the whole WAL.
    incomplete: u32,
    /// Quiet ones in a row that copied all there was while more was committed.
    overtaken: u32,
}

/// The pause after the first incomplete checkpoint; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// A reader of the application may hold the WAL for minutes; trying more often helps nobody.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The next moment without a commit may be long enough. While none is, each try copies what came
/// since the one before.
const MAX_PAUSE_OF_QUIET: Duration = Duration::from_secs(1);

impl CheckpointPolicy {
    /// A policy for a database that was opened at `now`.
    #[must_use]
    pub fn new(settings: CheckpointSettings, now: Instant) -> Self {
        Self { settings, complete: now, tried: now, incomplete: 0, overtaken: 0 }
    }

    /// The checkpoint to run now, if any.
    #[must_use]
    pub fn due(&self, wal: &WalFill, now: Instant) -> Option<CheckpointKind> {
        if self.incomplete > 0 && now.saturating_duration_since(self.tried) < self.pause() {
            return None;
        }
        if wal.backfilled >= wal.frames {
            // Nothing in the file is still needed.
            let shipped = wal.shipped >= wal.frames;
            return (shipped && self.is_file_large(wal)).then_some(CheckpointKind::Truncate);
        }
        if reached(self.settings.limit_pages, wal.frames) && self.incomplete > 0 {
            return Some(CheckpointKind::GiveUp);
        }
        let truncate = self.is_file_large(wal);
        if reached(self.settings.truncate_pages, wal.frames) {
            return Some(CheckpointKind::Barrier { truncate });
        }
        if self.overtaken > 0 && now.saturating_duration_since(self.tried) < self.pause() {
            return None;
        }
        let large = reached(self.settings.min_pages, wal.frames);
        let old = !self.settings.interval.is_zero()
            && now.saturating_duration_since(self.complete) >= self.settings.interval;
        if wal.shipped >= wal.frames {
            return (large || old).then_some(CheckpointKind::Quiet);
        }
        (large && old).then_some(CheckpointKind::Barrier { truncate })
    }

    /// Records a checkpoint tried at `now`, after which the WAL is so full; `complete` if the whole
    /// WAL was backfilled.
    pub fn tried(&mut self, kind: CheckpointKind, complete: bool, wal: &WalFill, now: Instant) {
        self.tried = now;
        if complete {
            (self.complete, self.incomplete, self.overtaken) = (now, 0, 0);
        } else if kind == CheckpointKind::Quiet && wal.is_copied_as_far_as_shipped() {
            // Nobody was in the way: it is no reason to put off a checkpoint under the barrier.
            (self.incomplete, self.overtaken) = (0, self.overtaken.saturating_add(1));
        } else {
            (self.incomplete, self.overtaken) = (self.incomplete.saturating_add(1), 0);
        }
    }

    /// How long after the last try the next one may follow.
    fn pause(&self) -> Duration {
        match (self.incomplete, self.overtaken) {
            (0, 0) => Duration::ZERO,
            (0, overtaken) => pause_after(overtaken).min(MAX_PAUSE_OF_QUIET),
            (incomplete, _) => pause_after(incomplete),
        }
    }

    fn is_file_large(&self, wal: &WalFill) -> bool {
        reached(self.settings.truncate_pages, wal.file_frames)
    }

    /// How long after `now` a checkpoint of a WAL that does not change may become due; `None` if
    /// time alone makes none due.
    #[must_use]
    pub fn next_look(&self, wal: &WalFill, now: Instant) -> Option<Duration> {
        let all_copied = wal.backfilled >= wal.frames;
        if all_copied && !self.is_file_large(wal) {
            return None;
        }
        let due = if self.incomplete > 0 || self.overtaken > 0 {
            self.tried + self.pause()
        } else if all_copied || self.settings.interval.is_zero() {
            return None;
        } else {
            self.complete + self.settings.interval
        };
        Some(due.saturating_duration_since(now))
    }
}

/// Whether a threshold that is not zero is reached.
fn reached(threshold: u32, pages: u32) -> bool {
    threshold > 0 && pages >= threshold
}

fn pause_after(incomplete: u32) -> Duration {
    MIN_PAUSE.saturating_mul(1 << (incomplete - 1).min(10)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests;
