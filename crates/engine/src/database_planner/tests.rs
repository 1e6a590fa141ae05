use proptest::prelude::*;

use super::*;
use crate::CheckpointSettings;

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
fn instant() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

/// What a view refers to.
struct Parts {
    now: Instant,
    pacing: Pacing,
    checkpoint: CheckpointPolicy,
    wal: WalFill,
}

impl Parts {
    fn new() -> Self {
        let now = instant();
        Self {
            now,
            pacing: Pacing::new(Duration::from_secs(1)),
            checkpoint: CheckpointPolicy::new(CheckpointSettings::default(), now),
            wal: WalFill::default(),
        }
    }

    /// A database of which storage has everything.
    fn view(&self) -> DatabaseView<'_> {
        DatabaseView {
            stored: false,
            gathers: false,
            outstanding: false,
            history_ends: false,
            wants_snapshot: false,
            wants_sync: false,
            asked: false,
            draining: false,
            last_sync_begun: false,
            next_look: None,
            looked: self.now,
            pacing: &self.pacing,
            checkpoint: &self.checkpoint,
            wal: &self.wal,
        }
    }
}

#[test]
fn a_commit_after_a_quiet_spell_is_staged_at_once_and_the_next_waits() {
    let mut parts = Parts::new();
    let wanted = DatabaseView { wants_sync: true, ..parts.view() };
    assert_eq!(plan_database(&wanted, parts.now), DatabaseStep::Sync);
    parts.pacing.began(parts.now);
    let later = |ms| parts.now + Duration::from_millis(ms);
    let wanted = DatabaseView { wants_sync: true, looked: later(300), ..parts.view() };
    // Meanwhile the WAL is looked at now and then.
    assert_eq!(plan_database(&wanted, later(300)), DatabaseStep::Wait(LOOK_INTERVAL));
    assert_eq!(plan_database(&wanted, later(500)), DatabaseStep::Settle);
    let last = DatabaseStep::Wait(Duration::from_millis(100));
    assert_eq!(plan_database(&wanted, later(900)), last);
    assert_eq!(plan_database(&wanted, later(1000)), DatabaseStep::Sync);
    // Somebody who waits does not wait for that.
    let asked = DatabaseView { asked: true, ..wanted };
    assert_eq!(plan_database(&asked, later(300)), DatabaseStep::Sync);
}

#[test]
fn a_hint_that_comes_before_its_commit_is_looked_into_again() {
    let parts = Parts::new();
    let pause = Duration::from_millis(25);
    let view =
        DatabaseView { wants_sync: true, next_look: Some(parts.now + pause), ..parts.view() };
    assert_eq!(plan_database(&view, parts.now), DatabaseStep::Wait(pause));
    assert_eq!(plan_database(&view, parts.now + pause), DatabaseStep::Sync);
}

#[test]
fn the_last_sync_is_the_one_that_begins_after_the_end_was_announced() {
    let parts = Parts::new();
    let draining = DatabaseView { draining: true, wants_sync: true, ..parts.view() };
    assert_eq!(plan_database(&draining, parts.now), DatabaseStep::Sync);
    // The writers go on, and so does what is on its way.
    let begun = DatabaseView { last_sync_begun: true, ..draining };
    let outstanding = DatabaseView { outstanding: true, ..begun };
    assert_ne!(plan_database(&outstanding, parts.now), DatabaseStep::Leave);
    assert_eq!(plan_database(&begun, parts.now), DatabaseStep::Leave);
}

#[test]
fn a_database_with_nothing_to_do_rests_and_one_with_frames_waits_for_their_checkpoint() {
    let mut parts = Parts::new();
    assert_eq!(plan_database(&parts.view(), parts.now), DatabaseStep::Rest);
    parts.wal = WalFill { frames: 10, shipped: 10, backfilled: 0, file_frames: 10 };
    assert!(matches!(plan_database(&parts.view(), parts.now), DatabaseStep::Wait(_)));
    let later = parts.now + CheckpointSettings::default().interval;
    assert!(matches!(plan_database(&parts.view(), later), DatabaseStep::Checkpoint(_)));
}

prop_compose! {
    fn flags()(flags in prop::array::uniform9(any::<bool>())) -> [bool; 9] { flags }
}

proptest! {
    /// Whatever comes together: the order of what is done, and that nothing is forgotten.
    #[test]
    fn what_storage_has_comes_first_and_nothing_is_forgotten(
        flags in flags(),
        frames in 0..600_000_u32,
        shipped in 0..600_000_u32,
        since_sync in 0..3_000_u64,
        since_look in 0..400_u64,
    ) {
        let mut parts = Parts::new();
        parts.wal = WalFill { frames, shipped: shipped.min(frames), backfilled: 0, file_frames: frames };
        parts.pacing.began(parts.now);
        let now = parts.now + Duration::from_millis(since_sync);
        let [stored, gathers, outstanding, history_ends, wants_snapshot, wants_sync, asked, draining,
            last_sync_begun] = flags;
        let looked = now - Duration::from_millis(since_look);
        let view = DatabaseView {
            stored, gathers, outstanding, history_ends, wants_snapshot, wants_sync, asked, draining,
            last_sync_begun, looked, ..parts.view()
        };
        let step = plan_database(&view, now);
        prop_assert_eq!(step == DatabaseStep::Confirm, stored);
        prop_assert_eq!(step == DatabaseStep::Gather, gathers && !stored);
        let under_way = stored || gathers || outstanding;
        match step {
            DatabaseStep::Sync | DatabaseStep::Snapshot | DatabaseStep::EndHistory => {
                prop_assert!(!under_way, "one file at a time");
            }
            DatabaseStep::Leave => {
                prop_assert!(draining && !under_way && !asked && !wants_snapshot && !history_ends);
                prop_assert!(!wants_sync || last_sync_begun);
            }
            DatabaseStep::Rest => {
                let anything = wants_sync || asked || wants_snapshot || history_ends || draining;
                prop_assert!(!under_way && !anything);
            }
            // The upload comes to an end, of which the database hears.
            DatabaseStep::Await => prop_assert!(outstanding),
            DatabaseStep::Wait(wait) => prop_assert!(wait <= Duration::from_secs(60)),
            _ => {}
        }
    }
}
