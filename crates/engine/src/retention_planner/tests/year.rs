//! A year of snapshots and incrementals, with a plan carried out every hour.

use std::collections::HashMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use super::*;

/// What the contract says, written from its words with another calendar: the newest snapshot ever
/// taken in each of the last hours, days, ISO weeks and months.
#[derive(Default)]
struct Oracle {
    /// The newest snapshot of a bucket, by the name of the bucket.
    newest: HashMap<String, u64>,
    /// What was kept the last time, and what was taken since: the times, and the chains.
    alive: BTreeMap<u64, (DateTime, u64)>,
    /// All states: the times, and the chains.
    states: BTreeMap<u64, (DateTime, u64)>,
}

impl Oracle {
    fn taken(&mut self, at: DateTime, txid: u64) {
        for bucket in Self::buckets(at) {
            self.newest.insert(bucket, txid);
        }
        self.alive.insert(txid, self.states[&txid]);
    }

    /// The first state of each chain in the finest window, with the state in which it begins.
    fn first_in_window(&self, start: DateTime) -> BTreeMap<u64, u64> {
        let recent = self.states.iter().find(|(_, (at, _))| *at > start);
        let Some((first, _)) = recent.or(self.states.last_key_value()) else {
            return BTreeMap::new();
        };
        let before = self.states.range(..first).next_back().map_or(*first, |(txid, _)| *txid);
        let points = self.states.range(before..).rev();
        points.map(|(txid, (_, chain))| (*chain, *txid)).collect()
    }

    fn buckets(at: DateTime) -> [String; 4] {
        let week = at.date().iso_week_date();
        [
            at.strftime("%Y-%m-%d %H").to_string(),
            at.strftime("%Y-%m-%d").to_string(),
            format!("{}W{}", week.year(), week.week()),
            at.strftime("%Y-%m").to_string(),
        ]
    }

    fn keep(&mut self, now: DateTime, policy: &RetentionPolicy) -> BTreeSet<u64> {
        let month = now.first_of_month();
        let hours = (0..policy.hourly).map(|back| (0, now - i64::from(back).hours()));
        let days = (0..policy.daily).map(|back| (1, now - i64::from(back).days()));
        let weeks = (0..policy.weekly).map(|back| (2, now - i64::from(back).weeks()));
        let months = (0..policy.monthly).map(|back| (3, month - i64::from(back).months()));
        let times = hours.chain(days).chain(weeks).chain(months);
        let buckets = times.map(|(tier, at): (usize, DateTime)| Self::buckets(at)[tier].clone());
        let mut kept: BTreeSet<u64> =
            buckets.filter_map(|bucket| self.newest.get(&bucket).copied()).collect();
        kept.extend(self.alive.keys().next_back());
        if kept.len() < 2 {
            kept.extend(self.alive.keys().rev().take(2));
        }
        // Each chain of the finest window needs a snapshot before its first state.
        let start = now - i64::from(policy.hourly).hours();
        for (chain, first) in self.first_in_window(start) {
            let of_chain = self.alive.range(..=first).filter(|(_, (_, it))| *it == chain);
            let bases: Vec<u64> = of_chain.map(|(txid, _)| *txid).collect();
            if !bases.iter().any(|txid| kept.contains(txid)) {
                kept.extend(bases.last());
            }
        }
        self.alive.retain(|txid, _| kept.contains(txid));
        kept
    }
}

/// Hours without a daemon: a night, a week, and two months.
fn is_down(hour: i64) -> bool {
    (1000..1010).contains(&hour) || (3000..3168).contains(&hour) || (6000..7440).contains(&hour)
}

/// `breaks`: after so many hours each a chain ends, and another begins with a snapshot; 0: never.
fn simulate(policy: RetentionPolicy, hours: i64, incrementals_an_hour: i64, breaks: i64) {
    let begin: Timestamp = "2026-09-10T00:30:00Z".parse().unwrap();
    let (mut oracle, mut files) = (Oracle::default(), Vec::<HistoryFile>::new());
    let (mut head, mut chain, mut broken) = (0, 0, 0);
    for hour in 0..hours {
        let start = begin + hour.hours();
        let span = 3600 / (incrementals_an_hour + 1);
        // Snapshots wander through their hour, and there are two in some.
        let mut snapshots = vec![(hour * 7) % 50 * 60];
        snapshots.extend((hour % 9 == 0).then(|| (hour * 7) % 50 * 60 + 1300));
        for seconds in (0..=incrementals_an_hour).map(|index| index * span) {
            if is_down(hour) {
                break;
            }
            head += 1;
            let at = start + seconds.seconds();
            let state =
                |range| HistoryFile { timestamp_ms: at.as_millisecond(), ..file(range, 0.0) };
            let is_due = snapshots.iter().any(|due| (seconds - span + 1..=seconds).contains(due));
            let begins = head == 1 || breaks > 0 && hour >= broken + breaks;
            if begins {
                (chain, broken) = (chain + 1, hour);
            } else {
                files.push(state((head, head)));
            }
            let at = at.to_zoned(TimeZone::UTC).datetime();
            oracle.states.insert(head, (at, chain));
            if is_due || begins {
                files.push(state((1, head)));
                oracle.taken(at, head);
            }
        }
        let end = (start + 1.hour()).to_zoned(TimeZone::UTC);
        check_hour(&mut files, &mut oracle, &policy, &end, breaks > 0);
    }
}

/// Carries the plan of an hour out and compares what is left with what the contract says.
fn check_hour(
    files: &mut Vec<HistoryFile>,
    oracle: &mut Oracle,
    policy: &RetentionPolicy,
    now: &Zoned,
    has_chains: bool,
) {
    let now_ms = now.timestamp().as_millisecond();
    // States of long ago are asked for no more.
    let old = now.datetime() - i64::from(policy.hourly).hours() - 1.day();
    let last = oracle.states.keys().rev().nth(1).copied().unwrap_or_default();
    oracle.states.retain(|txid, (at, _)| *at > old || *txid >= last);
    let plan = plan_retention(files, &BTreeSet::new(), policy, now_ms);
    let before = std::mem::take(files);
    *files = carry_out(&before, &plan);
    let snapshots = files.iter().filter(|file| file.name.is_snapshot());
    let snapshots: BTreeSet<u64> = snapshots.map(|file| file.name.max.get()).collect();
    assert_eq!(snapshots, oracle.keep(now.datetime(), policy), "at {now}");

    // Every sync of the finest window is there, and what is older is merged.
    let window = now_ms - i64::from(policy.hourly) * HOUR_MS;
    let recent = |files: &[HistoryFile]| -> BTreeSet<FileName> {
        let incrementals = files.iter().filter(|file| !file.name.is_snapshot());
        incrementals.filter(|file| file.timestamp_ms > window).map(|file| file.name).collect()
    };
    assert_eq!(recent(&before), recent(files), "at {now}");
    let old = files.len() - recent(files).len() - snapshots.len();
    assert!(old <= snapshots.len() + 2, "{old} incrementals before the window at {now}");

    if now.hour() != 12 {
        return;
    }
    // Once a day: nothing is left that gives no state, and without a break one chain leads from the
    // oldest snapshot to everything else.
    let given = restorable(files);
    assert!(files.iter().all(|file| is_of_use(file, &given)), "a useless file at {now}");
    assert!(given.is_superset(&plan.restore_points), "at {now}");
    if has_chains {
        return;
    }
    let mut chain = files.clone();
    let oldest = *snapshots.first().expect("two stay");
    chain.retain(|file| !file.name.is_snapshot() || file.name.max.get() == oldest);
    let reached = restorable(&chain);
    assert!(snapshots.iter().all(|it| reached.contains(&txid(*it))), "a broken chain at {now}");
    assert!(reached.is_superset(&plan.restore_points), "at {now}");
}

#[test]
fn c07_a_year_of_hourly_snapshots_keeps_exactly_what_the_contract_says() {
    simulate(RetentionPolicy::default(), 366 * 24 + 48, 2, 0);
}

#[test]
fn other_policies_keep_exactly_what_they_say() {
    for (hourly, daily, weekly, monthly) in
        [(0, 0, 0, 0), (0, 3, 0, 0), (5, 0, 2, 0), (48, 2, 30, 1), (1, 0, 0, 3)]
    {
        simulate(RetentionPolicy { hourly, daily, weekly, monthly }, 60 * 24, 2, 0);
    }
}

#[test]
fn c07_of_chains_that_end_nothing_is_left_that_gives_no_state() {
    simulate(RetentionPolicy::default(), 100 * 24, 1, 31);
    for (hourly, daily, weekly, monthly) in
        [(0, 0, 0, 0), (0, 3, 0, 2), (5, 0, 2, 0), (48, 2, 30, 1), (1, 0, 0, 3)]
    {
        let policy = RetentionPolicy { hourly, daily, weekly, monthly };
        simulate(policy, 40 * 24, 2, 13);
        simulate(policy, 20 * 24, 2, 3);
    }
}
