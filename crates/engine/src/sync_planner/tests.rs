use super::*;

const OLD: Salts = Salts(7, 100);
const NEW: Salts = Salts(8, 200);
const SUM: WalChecksum = WalChecksum { s1: 1, s2: 2 };

fn position(frames: u32) -> WalPosition {
    WalPosition { salts: OLD, frames, checksum: SUM }
}

fn view(salts: Salts, frames: u32, anchor: Option<WalChecksum>) -> WalView {
    WalView { salts, frames, anchor }
}

/// The record of read lock 0, under which the WAL may restart.
fn pin(salts: Salts, frames: u32) -> PinRecord {
    PinRecord { salts, frames, holds: None }
}

fn plan(position: &WalPosition, view: &WalView, pin: &PinRecord) -> SyncPlan {
    plan_sync(Some(position), view, Some(pin))
}

#[test]
fn same_generation_with_its_anchor_is_continued_with_or_without_a_pin_record() {
    let next = plan(&position(10), &view(OLD, 15, Some(SUM)), &pin(NEW, 0));
    assert_eq!(next, SyncPlan::Append { from: 10, checksum: SUM });
    let next = plan(&position(10), &view(OLD, 10, Some(SUM)), &pin(OLD, 3));
    assert_eq!(next, SyncPlan::Nothing);
}

#[test]
fn a_rewritten_or_missing_anchor_is_healed() {
    for anchor in [None, Some(WalChecksum { s1: 9, s2: 9 })] {
        let next = plan(&position(10), &view(OLD, 15, anchor), &pin(OLD, 10));
        assert_eq!(next, SyncPlan::Heal(HealReason::WalRewritten));
    }
}

#[test]
fn a_wal_shorter_than_what_was_shipped_is_healed() {
    let next = plan(&position(10), &view(OLD, 9, Some(SUM)), &pin(OLD, 10));
    assert_eq!(next, SyncPlan::Heal(HealReason::WalShrunk));
}

#[test]
fn a_restart_is_continued_only_under_a_pin_on_a_fully_shipped_generation() {
    let restarted = view(NEW, 4, None);
    assert_eq!(plan(&position(10), &restarted, &pin(OLD, 10)), SyncPlan::Restarted);
    // The pin saw frames that were never shipped: they may be gone.
    let lost = SyncPlan::Heal(HealReason::WalRestarted);
    assert_eq!(plan(&position(10), &restarted, &pin(OLD, 11)), lost);
    // The pin began after the restart.
    assert_eq!(plan(&position(10), &restarted, &pin(NEW, 0)), lost);
    assert_eq!(plan(&position(10), &view(NEW, 0, None), &pin(NEW, 0)), lost);
}

#[test]
fn an_empty_wal_after_a_proven_restart_has_nothing_to_ship() {
    let next = plan(&position(10), &view(NEW, 0, None), &pin(OLD, 10));
    assert_eq!(next, SyncPlan::Nothing);
}

#[test]
fn the_first_frames_of_an_empty_generation_are_shipped_from_its_start() {
    assert_eq!(plan(&position(0), &view(OLD, 0, None), &pin(OLD, 0)), SyncPlan::Nothing);
    assert_eq!(plan(&position(0), &view(OLD, 3, Some(SUM)), &pin(OLD, 0)), SyncPlan::Restarted);
}

#[test]
fn without_a_position_everything_is_compared() {
    let plan = plan_sync(None, &view(OLD, 3, None), Some(&pin(OLD, 3)));
    assert_eq!(plan, SyncPlan::Heal(HealReason::UnknownPosition));
}

#[test]
fn a_restart_is_continued_when_the_pin_has_moved_to_the_new_generation_and_to_no_other() {
    let moved = PinRecord { holds: Some(NEW), ..pin(OLD, 10) };
    assert_eq!(plan(&position(10), &view(NEW, 4, None), &moved), SyncPlan::Restarted);
    let lost = SyncPlan::Heal(HealReason::WalRestarted);
    assert_eq!(plan(&position(10), &view(Salts(9, 300), 4, None), &moved), lost);
    // A lock on a mark forbids the restart: one that happened all the same proves it was lost.
    let violated = PinRecord { holds: Some(OLD), ..pin(OLD, 10) };
    assert_eq!(plan(&position(10), &view(NEW, 4, None), &violated), lost);
    assert_eq!(plan_sync(Some(&position(10)), &view(NEW, 4, None), None), lost);
}
