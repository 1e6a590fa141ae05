use proptest::prelude::*;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(60);

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
fn instant() -> Instant {
    Instant::now()
}

fn breaker(threshold: u32) -> CircuitBreaker {
    CircuitBreaker::new(BreakerSettings { enabled: true, threshold, cooldown: COOLDOWN })
}

fn one(breaker: &mut CircuitBreaker, now: Instant, evidence: Evidence) -> Option<BreakerChange> {
    let pass = breaker.begin(now).expect("the breaker lets requests through");
    breaker.ended(now, pass, evidence)
}

/// A breaker that has just opened.
fn open(now: Instant) -> CircuitBreaker {
    let mut breaker = breaker(1);
    assert_eq!(one(&mut breaker, now, Evidence::Failed), Some(BreakerChange::Opened));
    breaker
}

#[test]
fn b11_it_opens_with_the_failure_that_reaches_the_threshold() {
    let now = instant();
    let mut breaker = breaker(3);
    assert_eq!(one(&mut breaker, now, Evidence::Failed), None);
    assert_eq!(one(&mut breaker, now, Evidence::Failed), None);
    assert_eq!(breaker.state(now), BreakerState::Closed);
    assert_eq!(one(&mut breaker, now, Evidence::Failed), Some(BreakerChange::Opened));
    assert_eq!(breaker.state(now), BreakerState::Open);
    assert!(breaker.begin(now).is_none());
}

#[test]
fn only_failures_in_a_row_count() {
    let now = instant();
    let mut breaker = breaker(2);
    for _ in 0..10 {
        assert_eq!(one(&mut breaker, now, Evidence::Failed), None);
        assert_eq!(one(&mut breaker, now, Evidence::Nothing), None);
        assert_eq!(one(&mut breaker, now, Evidence::Answered), None);
    }
}

#[test]
fn b11_half_open_lets_exactly_one_probe_through() {
    let now = instant();
    let mut breaker = open(now);
    let almost = now + COOLDOWN - Duration::from_millis(1);
    assert!(breaker.begin(almost).is_none());
    assert_eq!(breaker.wake_at(almost), Some(now + COOLDOWN));
    let later = now + COOLDOWN;
    assert_eq!(breaker.state(later), BreakerState::HalfOpen);
    let probe = breaker.begin(later).unwrap();
    assert!(breaker.begin(later + COOLDOWN).is_none(), "it has to end first");
    assert_eq!(breaker.ended(later, probe, Evidence::Answered), Some(BreakerChange::Closed));
    assert!(breaker.begin(later).is_some() && breaker.begin(later).is_some());
}

#[test]
fn a_probe_that_fails_begins_another_cooldown_and_is_no_news() {
    let now = instant();
    let mut breaker = open(now);
    let later = now + COOLDOWN;
    assert_eq!(one(&mut breaker, later, Evidence::Failed), None);
    assert_eq!(breaker.state(later), BreakerState::Open);
    assert_eq!(breaker.wake_at(later), Some(later + COOLDOWN));
}

#[test]
fn a_probe_that_was_never_sent_leaves_its_place_to_the_next() {
    let now = instant();
    let mut breaker = open(now);
    assert_eq!(one(&mut breaker, now + COOLDOWN, Evidence::Nothing), None);
    let answered = one(&mut breaker, now + COOLDOWN, Evidence::Answered);
    assert_eq!(answered, Some(BreakerChange::Closed));
}

#[test]
fn what_was_under_way_when_it_opened_prolongs_nothing_and_may_bring_the_probe_forward() {
    let now = instant();
    let mut breaker = breaker(1);
    let passes: Vec<_> = (0..3).map(|_| breaker.begin(now).unwrap()).collect();
    assert_eq!(breaker.ended(now, passes[0], Evidence::Failed), Some(BreakerChange::Opened));
    let later = now + Duration::from_secs(30);
    assert_eq!(breaker.ended(later, passes[1], Evidence::Failed), None);
    assert_eq!(breaker.wake_at(later), Some(now + COOLDOWN));
    assert_eq!(breaker.ended(later, passes[2], Evidence::Answered), None);
    assert_eq!(breaker.state(later), BreakerState::HalfOpen);
    let probe = breaker.begin(later).unwrap();
    assert_eq!(breaker.ended(later, probe, Evidence::Answered), Some(BreakerChange::Closed));
}

#[test]
fn late_failures_do_not_open_a_breaker_that_has_closed_again() {
    let now = instant();
    let mut breaker = breaker(1);
    let (first, late) = (breaker.begin(now).unwrap(), breaker.begin(now).unwrap());
    breaker.ended(now, first, Evidence::Failed);
    one(&mut breaker, now + COOLDOWN, Evidence::Answered);
    assert_eq!(breaker.ended(now + COOLDOWN, late, Evidence::Failed), None);
    assert_eq!(breaker.state(now + COOLDOWN), BreakerState::Closed);
}

#[test]
fn a_disabled_breaker_never_opens() {
    let now = instant();
    let settings = BreakerSettings { enabled: false, threshold: 1, cooldown: COOLDOWN };
    let mut breaker = CircuitBreaker::new(settings);
    for _ in 0..100 {
        assert_eq!(one(&mut breaker, now, Evidence::Failed), None);
    }
}

#[test]
fn only_an_endpoint_that_cannot_work_is_a_failing_endpoint() {
    for class in [ErrorClass::Transient, ErrorClass::Throttled] {
        assert_eq!(Evidence::of_failure(class, true), Evidence::Failed);
    }
    for class in [ErrorClass::Auth, ErrorClass::NotFound, ErrorClass::Precondition] {
        assert_eq!(Evidence::of_failure(class, true), Evidence::Answered);
    }
    assert_eq!(Evidence::of_failure(ErrorClass::Permanent, true), Evidence::Answered);
    assert_eq!(Evidence::of_failure(ErrorClass::Permanent, false), Evidence::Nothing);
}

/// What may happen to a breaker.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    /// One of the requests under way ends.
    End(prop::sample::Index, Evidence),
    Wait(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let evidence = prop_oneof![1 => Just(Evidence::Answered), 3 => Just(Evidence::Failed), 1 => Just(Evidence::Nothing)];
    let end = (any::<prop::sample::Index>(), evidence);
    let step = prop_oneof![
        3 => Just(Step::Begin),
        3 => end.prop_map(|(index, evidence)| Step::End(index, evidence)),
        1 => (0_u64..90).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
    ];
    prop::collection::vec(step, 0..200)
}

/// Of the requests that began since the breaker last was closed or open, at most one is under way.
fn half_open_lets_one_through(breaker: &CircuitBreaker, now: Instant, probes: usize) -> bool {
    breaker.state(now) != BreakerState::HalfOpen || probes <= 1
}

/// Time and an endpoint that answers always close the breaker.
fn no_state_is_absorbing(mut breaker: CircuitBreaker, under_way: &[Pass], now: Instant) -> bool {
    for pass in under_way {
        breaker.ended(now, *pass, Evidence::Nothing);
    }
    let later = now + COOLDOWN;
    let Some(pass) = breaker.begin(later) else { return false };
    breaker.ended(later, pass, Evidence::Answered);
    breaker.state(later) == BreakerState::Closed
}

proptest! {
    #[test]
    fn b11_the_invariants_hold_whatever_happens(steps in steps(), threshold in 1_u32..5) {
        let mut now = instant();
        let mut breaker = breaker(threshold);
        let mut under_way: Vec<(Pass, BreakerState)> = Vec::new();
        for step in steps {
            match step {
                Step::Begin => {
                    let before = breaker.state(now);
                    let pass = breaker.begin(now);
                    prop_assert!(before != BreakerState::Open || pass.is_none());
                    under_way.extend(pass.map(|pass| (pass, before)));
                }
                Step::End(index, evidence) if !under_way.is_empty() => {
                    let (pass, _) = under_way.swap_remove(index.index(under_way.len()));
                    breaker.ended(now, pass, evidence);
                }
                Step::End(..) => {}
                Step::Wait(time) => now += time,
            }
            let probes = under_way.iter().filter(|(_, at)| *at == BreakerState::HalfOpen).count();
            prop_assert!(half_open_lets_one_through(&breaker, now, probes));
            let passes: Vec<_> = under_way.iter().map(|(pass, _)| *pass).collect();
            prop_assert!(no_state_is_absorbing(breaker.clone(), &passes, now));
        }
    }
}
