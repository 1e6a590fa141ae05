use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
fn instant() -> Instant {
    Instant::now()
}

const FAILED: DeliveryOutcome = DeliveryOutcome::Failed { retry_after: None };

fn policy() -> DeliveryPolicy {
    DeliveryPolicy { spacing: Duration::ZERO, ..DeliveryPolicy::default() }
}

fn queue(policy: DeliveryPolicy) -> DeliveryQueue<&'static str, u32> {
    DeliveryQueue::new(policy)
}

/// Everything the queue delivers at one moment, if the receiver takes all of it.
fn deliver(queue: &mut DeliveryQueue<&'static str, u32>, now: Instant) -> Vec<(u32, u32)> {
    let mut delivered = Vec::new();
    while let Some(attempt) = queue.start_next(now) {
        delivered.push((attempt.notice, attempt.repeats));
        queue.ended(now, DeliveryOutcome::Delivered, 0.5);
    }
    delivered
}

#[test]
fn notices_go_in_order_and_one_at_a_time() {
    let (mut queue, now) = (queue(policy()), instant());
    queue.push("a", false, 1);
    queue.push("b", false, 2);
    assert_eq!(queue.start_next(now).map(|attempt| attempt.notice), Some(1));
    assert_eq!(queue.start_next(now), None, "one is under way");
    queue.ended(now, DeliveryOutcome::Delivered, 0.5);
    assert_eq!(deliver(&mut queue, now), [(2, 0)]);
    assert!(queue.is_empty());
}

#[test]
fn equal_notices_become_one_that_says_what_happened_last() {
    let (mut queue, now) = (queue(policy()), instant());
    assert_eq!(queue.push("down", true, 1), Queued::Added);
    queue.push("up", false, 2);
    assert_eq!(queue.push("down", true, 3), Queued::Repeated);
    assert_eq!(queue.push("down", true, 4), Queued::Repeated);
    assert_eq!(deliver(&mut queue, now), [(2, 0), (4, 2)]);
}

#[test]
fn a_notice_that_was_tried_is_not_changed_any_more() {
    let (mut queue, now) = (queue(policy()), instant());
    queue.push("a", false, 1);
    queue.start_next(now);
    queue.ended(now, FAILED, 0.5);
    assert_eq!(queue.push("a", false, 2), Queued::Added);
    let again = queue.start_next(now + Duration::from_secs(1)).unwrap();
    assert_eq!(again, DeliveryAttempt { notice: 1, repeats: 0, number: 2 });
}

#[test]
fn a_full_queue_loses_the_oldest_that_is_not_critical() {
    let (mut queue, now) = (queue(DeliveryPolicy { capacity: 3, ..policy() }), instant());
    queue.push("a", true, 1);
    queue.push("b", false, 2);
    queue.push("c", false, 3);
    assert_eq!(queue.push("d", false, 4), Queued::Overflowed { lost: 1 });
    assert_eq!(queue.push("e", true, 5), Queued::Overflowed { lost: 2 });
    assert_eq!(queue.push("f", true, 6), Queued::Overflowed { lost: 3 });
    assert_eq!(queue.push("g", false, 7), Queued::Overflowed { lost: 4 }, "only critical ones");
    assert_eq!(queue.push("h", true, 8), Queued::Overflowed { lost: 5 });
    assert_eq!(deliver(&mut queue, now), [(5, 0), (6, 0), (8, 0)]);
    assert_eq!((queue.take_lost(), queue.take_lost()), (5, 0));
}

#[test]
fn pauses_double_up_to_the_maximum_and_the_last_attempt_gives_up() {
    let policy = DeliveryPolicy {
        max_attempts: 4,
        base_delay: Duration::from_secs(4),
        max_delay: Duration::from_secs(10),
        ..policy()
    };
    let (mut queue, mut now) = (queue(policy), instant());
    queue.push("a", false, 1);
    for (random, pause) in [(0.0, 2), (1.0, 8), (1.0, 10)] {
        let attempt = queue.start_next(now).unwrap();
        assert_eq!(attempt.notice, 1);
        let pause = Duration::from_secs(pause);
        assert_eq!(queue.ended(now, FAILED, random), DeliveryDecision::Retry(pause));
        assert_eq!(queue.next_look(now), Some(now + pause));
        assert_eq!(queue.start_next(now), None, "it has to wait");
        now += pause;
    }
    assert_eq!(queue.start_next(now).unwrap().number, 4);
    assert_eq!(queue.ended(now, FAILED, 0.5), DeliveryDecision::GiveUp);
    assert!(queue.is_empty());
}

#[test]
fn a_critical_notice_is_tried_for_longer() {
    let policy = DeliveryPolicy { max_attempts: 1, max_critical_attempts: 3, ..policy() };
    let (mut queue, mut now) = (queue(policy), instant());
    queue.push("a", true, 1);
    queue.push("b", false, 2);
    for number in 1..=3 {
        assert_eq!(queue.start_next(now).unwrap().number, number);
        match queue.ended(now, FAILED, 0.5) {
            DeliveryDecision::Retry(pause) => now += pause,
            decision => assert_eq!((decision, number), (DeliveryDecision::GiveUp, 3)),
        }
    }
    assert_eq!(queue.start_next(now).unwrap().notice, 2);
    assert_eq!(queue.ended(now, FAILED, 0.5), DeliveryDecision::GiveUp);
}

#[test]
fn what_was_not_delivered_can_be_taken_over() {
    let (mut queue, now) = (queue(policy()), instant());
    for (key, notice) in [("a", 1), ("b", 2), ("a", 3)] {
        queue.push(key, false, notice);
    }
    queue.start_next(now);
    assert_eq!(queue.into_undelivered(), [2, 3]);
}

#[test]
fn a_refusal_is_final() {
    let (mut queue, now) = (queue(policy()), instant());
    queue.push("a", false, 1);
    queue.start_next(now);
    assert_eq!(queue.ended(now, DeliveryOutcome::Refused, 0.5), DeliveryDecision::Done);
    assert!(queue.is_empty());
}

#[test]
fn a_pause_that_the_receiver_asks_for_is_kept_within_bounds() {
    for (asked, pause) in [(0, 1), (20, 20), (1_000_000, 60)] {
        let (mut queue, now) = (queue(policy()), instant());
        queue.push("a", false, 1);
        queue.start_next(now);
        let outcome = DeliveryOutcome::Failed { retry_after: Some(Duration::from_secs(asked)) };
        let decision = queue.ended(now, outcome, 1.0);
        assert_eq!(decision, DeliveryDecision::Retry(Duration::from_secs(pause)));
    }
}

#[test]
fn after_a_burst_attempts_are_spaced() {
    let spacing = Duration::from_secs(1);
    let policy = DeliveryPolicy { burst: 3, spacing, ..policy() };
    let (mut queue, now) = (queue(policy), instant());
    for (index, key) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        queue.push(key, false, u32::try_from(index).unwrap());
    }
    assert_eq!(deliver(&mut queue, now).len(), 3);
    assert_eq!(queue.next_look(now), Some(now + spacing));
    assert_eq!(deliver(&mut queue, now + spacing).len(), 1);
    assert_eq!(deliver(&mut queue, now + spacing * 10).len(), 1);
}

#[test]
fn in_a_hurry_nothing_waits_longer_than_the_first_pause() {
    let spacing = Duration::from_secs(100);
    let policy = DeliveryPolicy { burst: 1, spacing, ..policy() };
    let (mut queue, mut now) = (queue(policy), instant());
    queue.push("a", false, 1);
    queue.push("b", false, 2);
    for _ in 0..5 {
        queue.start_next(now).unwrap();
        queue.ended(now, FAILED, 1.0);
        now = queue.next_look(now).unwrap();
    }
    queue.hurry(now);
    assert_eq!(queue.start_next(now).unwrap().number, 6);
    let first = DeliveryDecision::Retry(Duration::from_secs(1));
    assert_eq!(queue.ended(now, FAILED, 1.0), first);
    assert_eq!(deliver(&mut queue, now + Duration::from_secs(1)), [(1, 0), (2, 0)]);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, bool),
    Start,
    End(DeliveryOutcome),
    Pass(u64),
    Hurry,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8, any::<bool>()).prop_map(|(key, critical)| Step::Push(key, critical)),
        4 => Just(Step::Start),
        2 => Just(Step::End(DeliveryOutcome::Delivered)),
        1 => Just(Step::End(DeliveryOutcome::Refused)),
        3 => Just(Step::End(FAILED)),
        3 => (0..5_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Hurry),
    ]
}

proptest! {
    /// Of every notice that was pushed it is known what became of it: it is counted as delivered,
    /// refused, given up, lost, repeated, or it is still there; and none is delivered twice.
    #[test]
    fn no_notice_vanishes_or_is_delivered_twice(steps in prop::collection::vec(step(), 0..200)) {
        let policy = DeliveryPolicy {
            capacity: 6,
            max_attempts: 3,
            max_critical_attempts: 4,
            ..DeliveryPolicy::default()
        };
        let mut queue = DeliveryQueue::new(policy);
        let mut now = instant();
        let (mut pushed, mut gone, mut delivered) = (0_usize, 0_usize, BTreeSet::new());
        let mut under_way = None;
        for step in steps {
            match step {
                Step::Push(key, critical) => {
                    pushed += 1;
                    gone += usize::from(queue.push(key, critical, pushed) == Queued::Repeated);
                }
                Step::Start => {
                    let attempt = queue.start_next(now);
                    prop_assert!(under_way.is_none() || attempt.is_none());
                    if let Some(attempt) = attempt {
                        prop_assert!(attempt.number <= policy.max_critical_attempts);
                        under_way = Some(attempt.notice);
                    }
                }
                Step::End(outcome) => if let Some(notice) = under_way.take() {
                    match queue.ended(now, outcome, 0.5) {
                        DeliveryDecision::Retry(_) => {}
                        DeliveryDecision::Done | DeliveryDecision::GiveUp => {
                            gone += 1;
                            prop_assert!(delivered.insert(notice));
                        }
                    }
                },
                Step::Pass(ms) => now += Duration::from_millis(ms),
                Step::Hurry => queue.hurry(now),
            }
            gone += usize::try_from(queue.take_lost()).unwrap();
            prop_assert_eq!(pushed, gone + queue.len());
            prop_assert!(queue.len() <= policy.capacity + 1);
        }
    }
}
