//! What to ship next: the frames after our position, or a healing comparison of all pages.
//!
//! Invariant: a plan continues a history only when no frame can have been missed. SQLite reuses
//! the WAL file, so frames vanish when it restarts; every restart changes the salts. That leaves
//! two cases in which continuing is provable:
//!
//! * The salts are those of the position and the frame before it still carries the checksum that
//!   was recorded: one generation is append-only, so everything after the position is there.
//! * The salts changed while a pin was held that began on a generation of which every frame is
//!   captured. A read lock on a mark forbids the restart, so the pin was a read lock on the database
//!   file alone (read lock 0, taken when all frames are backfilled). Nobody can backfill while it
//!   is held, a WAL with frames that are not backfilled cannot restart, hence all that was written
//!   since then is in the WAL as it is now. If the pin has moved to a mark of the new generation
//!   meanwhile, the same holds as long as that is the generation which is there.
//!
//! Everything else is healed: the pages are compared with the checksums of what was shipped.

use std::fmt;

use walrust_wal::{Salts, WalChecksum};

use crate::position::WalPosition;

/// The WAL as the wal-index and the WAL file show it, read while a pin is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalView {
    /// Salts of the current generation.
    pub salts: Salts,
    /// Committed frames of the current generation (`mxFrame`).
    pub frames: u32,
    /// The running checksum stored at the position's boundary: in the header of the last frame
    /// before it, or in the WAL header if the position has no frames. `None` if the WAL file has
    /// no such frame or header.
    pub anchor: Option<WalChecksum>,
}

/// Since when the WAL has been pinned without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// Salts of the generation in which that began.
    pub salts: Salts,
    /// Committed frames of that generation, read after the lock was taken: an upper bound of what
    /// had been written before it.
    pub frames: u32,
    /// The generation that cannot restart any more, if the lock that is held now forbids it.
    pub holds: Option<Salts>,
}

impl PinRecord {
    /// Whether all that was written after `position` is in the generation `current`, or was
    /// captured before.
    #[must_use]
    pub fn covers_restart(&self, position: &WalPosition, current: Salts) -> bool {
        self.salts == position.salts
            && position.frames >= self.frames
            && self.holds.is_none_or(|held| held == current)
    }
}

/// What a sync has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPlan {
    /// Everything is shipped.
    Nothing,
    /// Ship the frames after the position, continuing its running checksum.
    Append {
        /// Frames to skip.
        from: u32,
        /// Running checksum after the skipped frames.
        checksum: WalChecksum,
    },
    /// The WAL restarted and nothing was missed: ship it from its first frame.
    Restarted,
    /// Frames may be gone: compare every page with what was shipped.
    Heal(HealReason),
}

/// Why a history could not be continued frame by frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealReason {
    /// No position in the WAL is known.
    UnknownPosition,
    /// The WAL restarted while no pin proved that nothing was missed.
    WalRestarted,
    /// The WAL has fewer frames than were shipped.
    WalShrunk,
    /// The frame before the position is not the one that was shipped.
    WalRewritten,
    /// The database file changed in another way than by a checkpoint.
    FileChanged,
}

impl fmt::Display for HealReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownPosition => "no position in the WAL is known",
            Self::WalRestarted => "the WAL restarted while it was not watched",
            Self::WalShrunk => "the WAL has fewer frames than were shipped",
            Self::WalRewritten => "the WAL was rewritten before the shipped position",
            Self::FileChanged => "the database file changed while it was not watched",
        })
    }
}

/// Plans the next sync of one database. Without a pin record nothing proves that a restart of the
/// WAL was complete.
#[must_use]
pub fn plan_sync(
    position: Option<&WalPosition>,
    view: &WalView,
    pin: Option<&PinRecord>,
) -> SyncPlan {
    let Some(position) = position else {
        return SyncPlan::Heal(HealReason::UnknownPosition);
    };
    if view.salts == position.salts {
        return continue_generation(position, view);
    }
    if pin.is_some_and(|pin| pin.covers_restart(position, view.salts)) {
        return if view.frames == 0 { SyncPlan::Nothing } else { SyncPlan::Restarted };
    }
    SyncPlan::Heal(HealReason::WalRestarted)
}

fn continue_generation(position: &WalPosition, view: &WalView) -> SyncPlan {
    if view.frames < position.frames {
        return SyncPlan::Heal(HealReason::WalShrunk);
    }
    if view.frames == position.frames && position.frames == 0 {
        // An empty generation has no anchor yet: its header is written with its first frame.
        return SyncPlan::Nothing;
    }
    if position.frames > 0 && view.anchor != Some(position.checksum) {
        return SyncPlan::Heal(HealReason::WalRewritten);
    }
    if view.frames == position.frames {
        return SyncPlan::Nothing;
    }
    if position.frames == 0 {
        return SyncPlan::Restarted;
    }
    SyncPlan::Append { from: position.frames, checksum: position.checksum }
}

#[cfg(test)]
mod tests;
