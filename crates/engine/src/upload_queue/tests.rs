use proptest::prelude::*;

use super::*;

const MIB: u64 = 1024 * 1024;
/// Slots and bytes of most queues here: 2 MiB are small, large files share 48 MiB.
const UPLOADS: usize = 8;
const BYTES: u64 = 64 * MIB;

type Queue = UploadQueue<&'static str, u32>;

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
fn instant() -> Instant {
    Instant::now()
}

fn demand(priority: Priority, bytes: u64) -> Demand {
    Demand { priority, bytes }
}

const COMMITS: Demand = Demand { priority: Priority::Incremental, bytes: 1000 };
const SNAPSHOT: Demand = Demand { priority: Priority::Snapshot, bytes: 1000 };
const MERGE: Demand = Demand { priority: Priority::Merge, bytes: 1000 };

/// Starts what is next, as the uploader does.
fn start_next<K: Clone + Eq + Hash, J: Clone>(
    queue: &mut UploadQueue<K, J>,
    now: Instant,
) -> Option<(K, J, u32)> {
    let (key, job) = queue.peek(now)?;
    let attempt = queue.start(&key).expect("what is next can start");
    Some((key, job, attempt))
}

fn start_all(queue: &mut Queue, now: Instant) -> Vec<&'static str> {
    std::iter::from_fn(|| start_next(queue, now)).map(|(key, ..)| key).collect()
}

fn offer(queue: &mut Queue, key: &'static str, job: u32, demand: Demand, now: Instant) {
    queue.offer(key, job, demand, now).expect("the lane has room");
}

#[test]
fn jobs_of_one_database_go_one_at_a_time_and_in_order() {
    let now = instant();
    let mut queue = Queue::new(UPLOADS, BYTES);
    for job in 1..=2 {
        offer(&mut queue, "a", job, COMMITS, now);
    }
    for job in 1..=2 {
        assert_eq!(start_next(&mut queue, now), Some(("a", job, 1)));
        assert_eq!(start_next(&mut queue, now), None);
        queue.finish(&"a", now);
    }
    assert!(queue.is_empty());
}

#[test]
fn databases_take_turns_and_the_limit_holds() {
    let now = instant();
    let mut queue = Queue::new(2, BYTES);
    for job in 1..=2 {
        for key in ["a", "b", "c"] {
            offer(&mut queue, key, job, COMMITS, now);
        }
    }
    assert_eq!(start_all(&mut queue, now), ["a", "b"]);
    queue.finish(&"a", now);
    assert_eq!(start_all(&mut queue, now), ["c"], "the busy database waits for its turn");
}

#[test]
fn no_more_is_taken_of_one_database_than_its_credits() {
    let now = instant();
    let mut queue = Queue::new(UPLOADS, BYTES);
    for job in 1..=2 {
        offer(&mut queue, "a", job, COMMITS, now);
    }
    assert_eq!(queue.offer("a", 3, COMMITS, now), Err(QueueFull));
    start_next(&mut queue, now);
    assert_eq!(queue.offer("a", 3, COMMITS, now), Err(QueueFull), "it is not done");
    queue.finish(&"a", now);
    assert_eq!(queue.offer("a", 3, COMMITS, now), Ok(()));
    assert_eq!(queue.jobs(&"a").collect::<Vec<_>>(), [&2, &3]);
}

#[test]
fn incrementals_go_before_snapshots_and_these_before_merges() {
    let now = instant();
    let mut queue = Queue::new(1, BYTES);
    for (key, demand) in [("merge", MERGE), ("snapshot", SNAPSHOT), ("commits", COMMITS)] {
        offer(&mut queue, key, 1, demand, now);
    }
    for expected in ["commits", "snapshot", "merge"] {
        assert_eq!(start_all(&mut queue, now), [expected]);
        queue.finish(&expected, now);
    }
}

#[test]
fn the_order_of_a_database_is_stronger_than_priority() {
    let now = instant();
    let mut queue = Queue::new(UPLOADS, BYTES);
    offer(&mut queue, "a", 1, SNAPSHOT, now);
    offer(&mut queue, "a", 2, COMMITS, now);
    assert_eq!(start_next(&mut queue, now), Some(("a", 1, 1)));
}

#[test]
fn a_snapshot_that_has_waited_long_enough_goes_before_incrementals() {
    let now = instant();
    let mut queue = Queue::new(1, BYTES);
    offer(&mut queue, "snapshot", 1, SNAPSHOT, now);
    let almost = now + OVERDUE - Duration::from_millis(1);
    offer(&mut queue, "a", 1, COMMITS, almost);
    assert_eq!(start_all(&mut queue, almost), ["a"]);
    queue.finish(&"a", almost);
    offer(&mut queue, "b", 1, COMMITS, almost);
    assert_eq!(start_all(&mut queue, now + OVERDUE), ["snapshot"]);
}

#[test]
fn b10_slow_uploads_leave_a_slot_to_incrementals() {
    let now = instant();
    let mut queue = Queue::new(3, BYTES);
    for (key, demand) in [("a", SNAPSHOT), ("b", MERGE), ("c", SNAPSHOT)] {
        offer(&mut queue, key, 1, demand, now);
    }
    offer(&mut queue, "large", 1, demand(Priority::Incremental, 40 * MIB), now);
    assert_eq!(start_all(&mut queue, now), ["large", "a"]);
    offer(&mut queue, "commits", 1, COMMITS, now);
    assert_eq!(start_all(&mut queue, now + OVERDUE), ["commits"], "also if others are overdue");
}

#[test]
fn b10_retries_leave_a_slot_to_first_attempts_and_go_behind_them() {
    let now = instant();
    let mut queue = Queue::new(2, BYTES);
    for key in ["a", "b"] {
        offer(&mut queue, key, 1, COMMITS, now);
    }
    assert_eq!(start_all(&mut queue, now), ["a", "b"]);
    for key in ["a", "b"] {
        queue.retry(&key, now, Duration::ZERO);
    }
    assert_eq!(start_all(&mut queue, now), ["a"]);
    offer(&mut queue, "c", 1, COMMITS, now);
    assert_eq!(start_all(&mut queue, now), ["c"]);
}

#[test]
fn one_slot_serves_everything_if_there_is_no_other() {
    let now = instant();
    let mut queue = Queue::new(0, BYTES);
    offer(&mut queue, "a", 1, demand(Priority::Snapshot, 1000 * MIB), now);
    assert_eq!(start_all(&mut queue, now), ["a"]);
}

#[test]
fn large_files_share_the_bytes_and_small_ones_pass_them() {
    let now = instant();
    let mut queue = Queue::new(UPLOADS, BYTES);
    for (key, size) in [("a", 30), ("b", 30), ("c", 10)] {
        offer(&mut queue, key, 1, demand(Priority::Incremental, size * MIB), now);
    }
    offer(&mut queue, "small", 1, COMMITS, now);
    assert_eq!(start_all(&mut queue, now), ["a", "small"], "none gets in before the large b");
    queue.finish(&"a", now);
    assert_eq!(start_all(&mut queue, now), ["b", "c"]);
    assert_eq!(queue.under_way(), (3, 40 * MIB + 1000));
}

#[test]
fn a_file_that_is_larger_than_all_bytes_goes_without_other_large_ones() {
    let now = instant();
    let mut queue = Queue::new(UPLOADS, BYTES);
    for (key, size) in [("a", 10), ("huge", 5000), ("b", 10)] {
        offer(&mut queue, key, 1, demand(Priority::Snapshot, size * MIB), now);
    }
    offer(&mut queue, "small", 1, SNAPSHOT, now);
    assert_eq!(start_all(&mut queue, now), ["a", "small"]);
    queue.finish(&"a", now);
    assert_eq!(start_all(&mut queue, now), ["huge"]);
    queue.finish(&"huge", now);
    assert_eq!(start_all(&mut queue, now), ["b"]);
}

#[test]
fn zero_bytes_are_no_bound() {
    let now = instant();
    let mut queue = Queue::new(UPLOADS, 0);
    for key in ["a", "b", "c"] {
        offer(&mut queue, key, 1, demand(Priority::Incremental, 1_000_000 * MIB), now);
    }
    assert_eq!(start_all(&mut queue, now), ["a", "b", "c"]);
}

#[test]
fn a_database_that_waits_for_a_retry_does_not_hold_up_the_others() {
    let now = instant();
    let delay = Duration::from_secs(5);
    let mut queue = Queue::new(1, BYTES);
    offer(&mut queue, "a", 1, COMMITS, now);
    offer(&mut queue, "a", 2, COMMITS, now);
    offer(&mut queue, "b", 1, COMMITS, now);
    assert_eq!(start_next(&mut queue, now), Some(("a", 1, 1)));
    queue.retry(&"a", now, delay);
    assert_eq!(queue.wake_at(), Some(now + delay));
    assert_eq!(start_next(&mut queue, now), Some(("b", 1, 1)));
    queue.finish(&"b", now);
    assert_eq!(start_next(&mut queue, now), None);
    let attempt = start_next(&mut queue, now + delay);
    assert_eq!(attempt, Some(("a", 1, 2)), "the same job again, never the next");
}

#[test]
fn a_database_that_waits_for_its_rate_limit_has_not_failed() {
    let now = instant();
    let later = now + Duration::from_secs(1);
    let mut queue = Queue::new(1, BYTES);
    offer(&mut queue, "a", 1, COMMITS, now);
    offer(&mut queue, "b", 1, COMMITS, now);
    queue.defer(&"a", later);
    assert_eq!(start_all(&mut queue, now), ["b"]);
    assert_eq!(queue.wake_at(), Some(later));
    queue.finish(&"b", now);
    assert_eq!(start_next(&mut queue, later), Some(("a", 1, 1)));
}

#[test]
fn a_forgotten_job_under_way_is_not_tried_again_and_holds_up_nothing() {
    let now = instant();
    let mut queue = Queue::new(UPLOADS, BYTES);
    offer(&mut queue, "a", 1, COMMITS, now);
    offer(&mut queue, "a", 2, COMMITS, now);
    assert_eq!(start_next(&mut queue, now), Some(("a", 1, 1)));
    queue.forget(&"a");
    offer(&mut queue, "a", 3, COMMITS, now);
    offer(&mut queue, "a", 4, COMMITS, now);
    assert_eq!(queue.jobs(&"a").collect::<Vec<_>>(), [&3, &4], "it takes no credit either");
    queue.retry(&"a", now, Duration::from_secs(5));
    for job in 3..=4 {
        assert_eq!(start_next(&mut queue, now), Some(("a", job, 1)));
        queue.finish(&"a", now);
    }
    assert!(queue.is_empty());
}

#[test]
fn a_forgotten_database_is_gone_wherever_it_waits() {
    let now = instant();
    let later = now + Duration::from_secs(9);
    let mut queue = Queue::new(UPLOADS, BYTES);
    offer(&mut queue, "a", 1, COMMITS, now);
    start_next(&mut queue, now);
    queue.retry(&"a", now, Duration::from_secs(5));
    offer(&mut queue, "b", 1, COMMITS, now);
    queue.forget(&"a");
    queue.forget(&"b");
    assert!(queue.is_empty());
    assert_eq!(start_next(&mut queue, later), None);
    assert_eq!(queue.queued(), (0, 0));
}

/// An upload under way, as the uploader sees it.
#[derive(Clone, Debug)]
struct Started {
    key: u8,
    job: usize,
    demand: Demand,
    attempt: u32,
    small: bool,
}

impl Started {
    fn is_slow(&self) -> bool {
        self.demand.priority != Priority::Incremental || !self.small || self.attempt > 1
    }
}

fn one_upload_of_each_database(under_way: &[Started]) -> bool {
    let keys: std::collections::BTreeSet<_> = under_way.iter().map(|each| each.key).collect();
    keys.len() == under_way.len()
}

fn slots_are_left_by_slow_uploads(under_way: &[Started], uploads: usize) -> bool {
    let slow = under_way.iter().filter(|each| each.is_slow()).count();
    let kept = (uploads / 4).max(1);
    under_way.len() <= uploads && slow <= (uploads - kept).max(1)
}

/// All bytes are within the bound, but for one file that is larger than the share of large ones.
fn bytes_are_bounded(under_way: &[Started], bytes: u64) -> bool {
    let total: u64 = under_way.iter().map(|each| each.demand.bytes).sum();
    let large = under_way.iter().filter(|each| !each.small);
    let sizes: Vec<_> = large.map(|each| each.demand.bytes).collect();
    total <= bytes || matches!(sizes[..], [size] if size > bytes - bytes / 4)
}

/// Whoever has been ready for [`OVERDUE`] waits for no more uploads than were ready before it.
fn no_one_starves(passed: usize, databases: usize) -> bool {
    passed <= databases
}

fn demands() -> impl Strategy<Value = Demand> {
    let priority =
        prop_oneof![Just(Priority::Incremental), Just(Priority::Snapshot), Just(Priority::Merge)];
    let bytes = prop_oneof![0..10_u64, 10..400_u64, 400..3000_u64];
    (priority, bytes).prop_map(|(priority, bytes)| Demand { priority, bytes })
}

proptest! {
    /// Whatever fails and however often, every job succeeds once, in the order of its database,
    /// and the bounds hold at every moment.
    #[test]
    fn every_job_is_delivered_once_and_in_order_within_the_bounds(
        jobs in prop::collection::vec((0_u8..12, demands()), 1..60),
        choices in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 1..200),
        uploads in 1_usize..10,
    ) {
        const BYTES: u64 = 1000;
        let mut now = instant();
        let mut queue = UploadQueue::new(uploads, BYTES);
        let mut choices = choices.into_iter().cycle();
        let mut unoffered: HashMap<u8, VecDeque<(usize, Demand)>> = HashMap::new();
        for (number, (key, demand)) in jobs.iter().enumerate() {
            unoffered.entry(*key).or_default().push_back((number, *demand));
        }
        let mut done: HashMap<u8, Vec<usize>> = HashMap::new();
        let mut under_way: Vec<Started> = Vec::new();
        let mut failures = 0;
        loop {
            for (key, jobs) in &mut unoffered {
                while let Some((job, demand)) = jobs.front().copied() {
                    if queue.offer(*key, (job, demand), demand, now).is_err() {
                        break;
                    }
                    jobs.pop_front();
                }
                prop_assert!(queue.jobs(key).count() <= CREDITS);
            }
            if queue.is_empty() {
                break;
            }
            while let Some((key, (job, demand), attempt)) = start_next(&mut queue, now) {
                let small = demand.bytes <= BYTES / 4 / uploads as u64;
                under_way.push(Started { key, job, demand, attempt, small });
                prop_assert!(one_upload_of_each_database(&under_way));
                prop_assert!(slots_are_left_by_slow_uploads(&under_way, uploads));
                prop_assert!(bytes_are_bounded(&under_way, BYTES));
            }
            let bytes = under_way.iter().map(|each| each.demand.bytes).sum();
            prop_assert_eq!(queue.under_way(), (under_way.len(), bytes));
            if under_way.is_empty() {
                now = queue.wake_at().expect("a queue with jobs waits for something");
                continue;
            }
            let (index, fate) = choices.next().expect("it is a cycle");
            let ended = under_way.swap_remove(index.index(under_way.len()));
            if fate == 0 && failures < 300 {
                failures += 1;
                queue.retry(&ended.key, now, Duration::from_secs(1));
            } else {
                done.entry(ended.key).or_default().push(ended.job);
                queue.finish(&ended.key, now);
            }
        }
        prop_assert_eq!(done.values().map(Vec::len).sum::<usize>(), jobs.len());
        for (key, delivered) in done {
            let offered = jobs.iter().enumerate().filter(|(_, (k, _))| *k == key);
            prop_assert_eq!(delivered, offered.map(|(n, _)| n).collect::<Vec<_>>());
        }
    }

    /// Others that always have something new to send do not keep anything waiting for ever.
    #[test]
    fn what_is_overdue_goes_however_busy_the_others_are(
        waits in demands(),
        busy in demands(),
        others in 1_u8..8,
        uploads in 1_usize..4,
        ends in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
    ) {
        const BYTES: u64 = 1000;
        let began = instant();
        let mut now = began;
        let mut queue = UploadQueue::new(uploads, BYTES);
        let (mut under_way, mut passed, mut gone) = (Vec::new(), 0, false);
        for index in ends.iter().cycle().take(200) {
            for key in 1..=others {
                while queue.offer(key, (), busy, now).is_ok() {}
            }
            if now == began + Duration::from_secs(1) {
                queue.offer(0, (), waits, now).expect("the lane is empty");
            }
            while let Some((key, ..)) = start_next(&mut queue, now) {
                gone |= key == 0;
                passed += usize::from(!gone && now > began + OVERDUE);
                under_way.push(key);
            }
            prop_assert!(no_one_starves(passed, usize::from(others)));
            let ended = under_way.swap_remove(index.index(under_way.len()));
            queue.finish(&ended, now);
            now += Duration::from_secs(1);
        }
        prop_assert!(gone);
    }
}
