use proptest::prelude::*;

use super::*;

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
fn instant() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

const NEVER: SnapshotSettings = SnapshotSettings {
    interval: Duration::ZERO,
    max_changes: 0,
    max_interval: Duration::ZERO,
    on_idle: Duration::ZERO,
    on_startup: false,
};
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn fresh(settings: SnapshotSettings, now: Instant) -> SnapshotSchedule {
    let last = LastSnapshot { txid: 10, age: Duration::ZERO };
    SnapshotSchedule::new(settings, Some(last), 10, now, 0.0)
}

#[test]
fn d05_a_database_that_did_not_change_is_never_due() {
    let now = instant();
    let all = SnapshotSettings {
        interval: MINUTE,
        max_changes: 1,
        max_interval: MINUTE,
        on_idle: MINUTE,
        on_startup: true,
    };
    let schedule = fresh(all, now);
    assert_eq!(schedule.due(now + 24 * HOUR), None);
    assert_eq!(schedule.next_look(now + 24 * HOUR), None, "nobody has to look");
}

#[test]
fn the_interval_counts_from_the_last_snapshot() {
    let now = instant();
    let mut schedule = fresh(SnapshotSettings { interval: HOUR, ..NEVER }, now);
    schedule.confirmed(11, now + MINUTE);
    assert_eq!(schedule.due(now + 59 * MINUTE), None);
    assert_eq!(schedule.next_look(now + MINUTE), Some(now + HOUR));
    assert_eq!(schedule.due(now + HOUR), Some(SnapshotReason::Interval));
    schedule.taken(11, now + HOUR);
    assert_eq!(schedule.due(now + 3 * HOUR), None);
    schedule.confirmed(12, now + 3 * HOUR);
    assert_eq!(schedule.due(now + 3 * HOUR), Some(SnapshotReason::Interval), "the last is old");
}

#[test]
fn many_changes_the_first_change_and_rest_are_reasons() {
    let now = instant();
    let mut schedule = fresh(SnapshotSettings { max_changes: 5, ..NEVER }, now);
    schedule.confirmed(14, now);
    assert_eq!(schedule.due(now + 24 * HOUR), None);
    schedule.confirmed(15, now);
    assert_eq!(schedule.due(now), Some(SnapshotReason::Changes));

    let mut schedule = fresh(SnapshotSettings { max_interval: MINUTE, ..NEVER }, now);
    for second in 0..60 {
        schedule.confirmed(11 + second, now + Duration::from_secs(second));
    }
    assert_eq!(schedule.due(now + MINUTE), Some(SnapshotReason::MaxInterval));

    let mut schedule = fresh(SnapshotSettings { on_idle: MINUTE, ..NEVER }, now);
    schedule.confirmed(11, now);
    schedule.confirmed(12, now + MINUTE / 2);
    assert_eq!(schedule.due(now + MINUTE), None, "it is not at rest");
    assert_eq!(schedule.due(now + MINUTE * 3 / 2), Some(SnapshotReason::Idle));
}

#[test]
fn changes_during_a_snapshot_belong_to_the_next() {
    let now = instant();
    let mut schedule = fresh(SnapshotSettings { max_interval: MINUTE, ..NEVER }, now);
    schedule.confirmed(20, now);
    schedule.confirmed(25, now + MINUTE);
    schedule.taken(20, now + MINUTE);
    assert_eq!(schedule.due(now + MINUTE), None);
    assert_eq!(schedule.due(now + 2 * MINUTE), Some(SnapshotReason::MaxInterval));
}

#[test]
fn a_failed_snapshot_is_tried_again_later_and_later() {
    let now = instant();
    let mut schedule = fresh(SnapshotSettings { max_changes: 1, ..NEVER }, now);
    schedule.confirmed(11, now);
    schedule.failed(now);
    assert_eq!(schedule.due(now), None);
    assert_eq!(schedule.due(now + MIN_PAUSE), Some(SnapshotReason::Changes));
    assert_eq!(schedule.next_look(now), Some(now + MIN_PAUSE));
    schedule.failed(now + MIN_PAUSE);
    assert_eq!(schedule.due(now + 2 * MIN_PAUSE), None);
    for _ in 0..30 {
        schedule.failed(now);
    }
    assert_eq!(schedule.due(now + MAX_PAUSE), Some(SnapshotReason::Changes));
}

#[test]
fn b20_the_start_is_no_herd_and_postpones_nothing_for_ever() {
    let now = instant();
    let settings = SnapshotSettings { interval: HOUR, ..NEVER };
    let old = LastSnapshot { txid: 1, age: 5 * HOUR };
    let dues: Vec<_> = (0..400)
        .map(|number| SnapshotSchedule::new(settings, Some(old), 9, now, f64::from(number) / 400.0))
        .map(|schedule| schedule.next_look(now).unwrap().max(now) - now)
        .collect();
    let within = |second: u64| dues.iter().filter(|it| it.as_secs() == second).count();
    assert!((0..360).all(|second| within(second) <= 2), "{dues:?}");
    assert!(dues.iter().all(|due| *due <= 6 * MINUTE), "{dues:?}");
    // A restart does not begin the hour anew.
    let half = LastSnapshot { txid: 1, age: HOUR / 2 };
    let schedule = SnapshotSchedule::new(settings, Some(half), 9, now, 0.0);
    assert_eq!(schedule.next_look(now), Some(now + HOUR / 2));
    // One that is wanted at the start is due at once.
    let starts = SnapshotSettings { on_startup: true, ..settings };
    let schedule = SnapshotSchedule::new(starts, Some(old), 9, now, 0.9);
    assert_eq!(schedule.due(now), Some(SnapshotReason::Startup));
}

proptest! {
    /// Whatever happens: what is due at a time is due at the latest when the next look says so.
    #[test]
    fn nothing_becomes_due_without_a_look(
        interval in 0_u64..100, max_changes in 0_u64..5, max_interval in 0_u64..100, idle in 0_u64..100,
        steps in prop::collection::vec((0_u8..4, 1_u64..40), 1..40),
    ) {
        let seconds = Duration::from_secs;
        let settings = SnapshotSettings {
            interval: seconds(interval),
            max_changes,
            max_interval: seconds(max_interval),
            on_idle: seconds(idle),
            on_startup: false,
        };
        let mut now = instant();
        let mut schedule = fresh(settings, now);
        let mut txid = 10;
        for (step, length) in steps {
            match step {
                0 => { txid += length; schedule.confirmed(txid, now); }
                1 => schedule.taken(txid, now),
                2 => schedule.failed(now),
                _ => {}
            }
            if schedule.due(now).is_none() {
                let look = schedule.next_look(now);
                let quiet = look.map_or(seconds(length), |at| at.saturating_duration_since(now));
                let before = now + quiet.saturating_sub(Duration::from_millis(1));
                prop_assert_eq!(schedule.due(before), None, "{:?} {:?}", look, quiet);
            }
            now += seconds(length);
        }
    }
}
