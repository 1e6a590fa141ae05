use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
fn instant() -> Instant {
    Instant::now()
}

#[test]
fn jobs_of_one_database_go_one_at_a_time_and_in_order() {
    let now = instant();
    let mut queue = UploadQueue::new(8);
    for job in 1..=3 {
        queue.offer("a", job);
    }
    for job in 1..=3 {
        assert_eq!(queue.start_next(now), Some(("a", job, 1)));
        assert_eq!(queue.start_next(now), None);
        queue.finish(&"a");
    }
    assert!(queue.is_empty());
}

#[test]
fn databases_take_turns_and_the_limit_holds() {
    let now = instant();
    let mut queue = UploadQueue::new(2);
    for job in 1..=2 {
        for key in ["a", "b", "c"] {
            queue.offer(key, job);
        }
    }
    assert_eq!(queue.start_next(now), Some(("a", 1, 1)));
    assert_eq!(queue.start_next(now), Some(("b", 1, 1)));
    assert_eq!(queue.start_next(now), None);
    queue.finish(&"a");
    assert_eq!(queue.start_next(now), Some(("c", 1, 1)), "the busy database waits for its turn");
}

#[test]
fn a_database_that_waits_for_a_retry_does_not_hold_up_the_others() {
    let now = instant();
    let later = now + Duration::from_secs(5);
    let mut queue = UploadQueue::new(1);
    queue.offer("a", 1);
    queue.offer("a", 2);
    queue.offer("b", 1);
    assert_eq!(queue.start_next(now), Some(("a", 1, 1)));
    queue.retry(&"a", later);
    assert_eq!(queue.wake_at(), Some(later));
    assert_eq!(queue.start_next(now), Some(("b", 1, 1)));
    queue.finish(&"b");
    assert_eq!(queue.start_next(now), None);
    assert_eq!(queue.start_next(later), Some(("a", 1, 2)), "the same job again, never the next");
}

#[test]
fn a_forgotten_job_under_way_is_not_tried_again_and_holds_up_nothing() {
    let now = instant();
    let mut queue = UploadQueue::new(8);
    queue.offer("a", 1);
    queue.offer("a", 2);
    assert_eq!(queue.start_next(now), Some(("a", 1, 1)));
    queue.forget(&"a");
    queue.offer("a", 3);
    queue.retry(&"a", now + Duration::from_secs(5));
    assert_eq!(queue.start_next(now), Some(("a", 3, 1)));
    queue.finish(&"a");
    assert!(queue.is_empty());
}

#[test]
fn a_forgotten_database_that_waits_for_a_retry_is_gone() {
    let now = instant();
    let mut queue = UploadQueue::new(8);
    queue.offer("a", 1);
    assert_eq!(queue.start_next(now), Some(("a", 1, 1)));
    queue.retry(&"a", now + Duration::from_secs(5));
    queue.forget(&"a");
    assert!(queue.is_empty());
    assert_eq!(queue.start_next(now + Duration::from_secs(9)), None);
}

proptest! {
    /// Whatever fails and however often, every job succeeds once, in the order of its database.
    #[test]
    fn every_job_is_delivered_once_and_in_order(
        jobs in prop::collection::vec(0_u8..4, 1..60),
        failures in prop::collection::vec(any::<bool>(), 0..200),
        limit in 1_usize..5,
    ) {
        let mut now = instant();
        let mut queue = UploadQueue::new(limit);
        for (number, key) in jobs.iter().enumerate() {
            queue.offer(*key, number);
        }
        let mut failures = failures.into_iter();
        let mut done: HashMap<u8, Vec<usize>> = HashMap::new();
        let mut under_way = Vec::new();
        while !queue.is_empty() {
            while let Some((key, job, _)) = queue.start_next(now) {
                prop_assert!(!under_way.iter().any(|(other, _)| *other == key));
                under_way.push((key, job));
            }
            prop_assert!(under_way.len() <= limit);
            if under_way.is_empty() {
                now = queue.wake_at().expect("a queue with jobs waits for something");
                continue;
            }
            let (key, job) = under_way.remove(0);
            if failures.next().unwrap_or(false) {
                queue.retry(&key, now + Duration::from_secs(1));
            } else {
                done.entry(key).or_default().push(job);
                queue.finish(&key);
            }
        }
        for (key, delivered) in done {
            let offered = jobs.iter().enumerate().filter(|(_, k)| **k == key).map(|(n, _)| n);
            prop_assert_eq!(delivered, offered.collect::<Vec<_>>());
        }
    }
}
