use super::*;

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
fn instant() -> Instant {
    Instant::now()
}

fn policy(now: Instant) -> CheckpointPolicy {
    CheckpointPolicy::new(CheckpointSettings::default(), now)
}

fn fill(shipped: u32, frames: u32, backfilled: u32) -> WalFill {
    WalFill { frames, shipped, backfilled, file_frames: frames }
}

const BARRIER: CheckpointKind = CheckpointKind::Barrier { truncate: false };
const TRUNCATING: CheckpointKind = CheckpointKind::Barrier { truncate: true };
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_large_wal_is_due_when_all_of_it_is_shipped() {
    let now = instant();
    let policy = policy(now);
    assert_eq!(policy.due(&fill(999, 999, 0), now), None);
    assert_eq!(policy.due(&fill(999, 1000, 0), now), None, "a frame is not shipped yet");
    assert_eq!(policy.due(&fill(1000, 1000, 0), now), Some(CheckpointKind::Quiet));
    assert_eq!(policy.due(&fill(1000, 1000, 1000), now), None, "nothing is left to backfill");
}

#[test]
fn a_small_wal_is_due_after_the_interval_once_it_is_shipped() {
    let now = instant();
    let policy = policy(now);
    assert_eq!(policy.due(&fill(5, 5, 0), now + 59 * SECOND), None);
    assert_eq!(policy.due(&fill(5, 5, 0), now + 60 * SECOND), Some(CheckpointKind::Quiet));
    assert_eq!(policy.due(&fill(4, 5, 0), now + 60 * SECOND), None, "not worth a barrier");
    assert_eq!(policy.next_look(&fill(5, 5, 0), now), Some(60 * SECOND));
    assert_eq!(policy.next_look(&fill(5, 5, 5), now), None, "nothing is left to backfill");
}

#[test]
fn writers_are_stopped_only_for_a_large_wal_that_is_old_or_past_the_threshold() {
    let now = instant();
    let policy = policy(now);
    assert_eq!(policy.due(&fill(10, 121_358, 0), now), None);
    assert_eq!(policy.due(&fill(10, 121_359, 0), now), Some(TRUNCATING));
    assert_eq!(policy.due(&fill(10, 1000, 0), now + 59 * SECOND), None);
    assert_eq!(policy.due(&fill(10, 1000, 0), now + 60 * SECOND), Some(BARRIER));
}

#[test]
fn a_large_file_is_shortened_once_nothing_in_it_is_needed() {
    let now = instant();
    let policy = policy(now);
    let large = WalFill { file_frames: 200_000, ..fill(7, 7, 7) };
    assert_eq!(policy.due(&large, now), Some(CheckpointKind::Truncate));
    assert_eq!(policy.due(&WalFill { shipped: 6, ..large }, now), None);
    assert_eq!(policy.due(&WalFill { backfilled: 6, ..large }, now), None);
}

#[test]
fn the_pin_is_given_up_only_past_the_limit_and_after_a_checkpoint_was_tried() {
    let now = instant();
    let mut policy = policy(now);
    let full = fill(10, 500_000, 0);
    assert_eq!(policy.due(&full, now), Some(TRUNCATING));
    policy.tried(TRUNCATING, false, &full, now);
    assert_eq!(policy.due(&full, now + SECOND), Some(CheckpointKind::GiveUp));
    let below = fill(10, 485_435, 0);
    assert_eq!(policy.due(&below, now + SECOND), Some(TRUNCATING));
}

#[test]
fn zero_switches_each_reason_off() {
    let now = instant();
    let settings = CheckpointSettings {
        min_pages: 0,
        interval: Duration::ZERO,
        truncate_pages: 0,
        limit_pages: 0,
    };
    let mut policy = CheckpointPolicy::new(settings, now);
    assert_eq!(policy.due(&fill(1_000_000, 1_000_000, 0), now + 3600 * SECOND), None);
    assert_eq!(policy.next_look(&fill(5, 5, 0), now), None);
    policy.tried(BARRIER, false, &fill(5, 5, 0), now);
    assert_eq!(policy.due(&fill(0, 1_000_000, 0), now + 3600 * SECOND), None);
}

#[test]
fn an_incomplete_checkpoint_is_tried_again_with_growing_pauses() {
    let now = instant();
    let mut policy = policy(now);
    let wal = fill(2000, 2000, 0);
    policy.tried(CheckpointKind::Quiet, false, &wal, now);
    assert_eq!(policy.due(&wal, now + Duration::from_millis(99)), None);
    assert_eq!(policy.due(&wal, now + Duration::from_millis(100)), Some(CheckpointKind::Quiet));
    for _ in 0..20 {
        policy.tried(CheckpointKind::Quiet, false, &wal, now);
    }
    assert_eq!(policy.due(&wal, now + 29 * SECOND), None);
    assert_eq!(policy.due(&wal, now + 30 * SECOND), Some(CheckpointKind::Quiet));
    policy.tried(CheckpointKind::Quiet, true, &wal, now);
    assert_eq!(policy.due(&wal, now), Some(CheckpointKind::Quiet));
}

#[test]
fn a_large_file_that_could_not_be_shortened_is_tried_again() {
    let now = instant();
    let mut policy = policy(now);
    let wal = WalFill { file_frames: 200_000, ..fill(5, 5, 5) };
    assert_eq!(policy.due(&wal, now), Some(CheckpointKind::Truncate));
    policy.tried(CheckpointKind::Truncate, false, &wal, now);
    assert_eq!(policy.due(&wal, now), None);
    let pause = policy.next_look(&wal, now).expect("nothing else may happen to this WAL");
    assert_eq!(policy.due(&wal, now + pause), Some(CheckpointKind::Truncate));
}

#[test]
fn a_quiet_checkpoint_that_commits_overtook_puts_off_no_barrier_and_is_tried_again_soon() {
    let now = instant();
    let mut policy = policy(now);
    // All that was shipped is copied, and more has come.
    let (after, shipped) = (fill(2000, 2001, 2000), fill(2001, 2001, 2000));
    for _ in 0..20 {
        policy.tried(CheckpointKind::Quiet, false, &after, now);
    }
    assert_eq!(policy.due(&fill(2000, 121_359, 2000), now), Some(TRUNCATING));
    assert_eq!(
        policy.due(&fill(2000, 500_000, 2000), now),
        Some(TRUNCATING),
        "nobody is in the way"
    );
    assert_eq!(policy.due(&shipped, now + SECOND - Duration::from_millis(1)), None);
    assert_eq!(policy.next_look(&shipped, now), Some(SECOND));
    assert_eq!(policy.due(&shipped, now + SECOND), Some(CheckpointKind::Quiet));
    // A reader keeps it from copying what it may.
    let blocked = fill(2000, 2001, 1999);
    for _ in 0..20 {
        policy.tried(CheckpointKind::Quiet, false, &blocked, now);
    }
    assert_eq!(policy.due(&fill(2000, 121_359, 1999), now + 29 * SECOND), None);
}
