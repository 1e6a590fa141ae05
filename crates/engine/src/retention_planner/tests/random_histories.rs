//! Whatever a history looks like, no step of a plan takes a restore point away.

use proptest::prelude::*;

use super::*;

/// Chains with snapshots, holes, second chains, files that are merged already, and files that the
/// manifest does not know.
fn history() -> impl Strategy<Value = Vec<HistoryFile>> {
    let step = (0u32..100, 1u64..4, 0.0..9.0f64, 1u64..5_000_000, 0u32..100);
    proptest::collection::vec(step, 1..60).prop_map(|steps| {
        let mut files = vec![file((1, 1), 300.0)];
        let (mut head, mut age) = (1, 300.0);
        for (kind, commits, hours, size, odd) in steps {
            let next = head + commits;
            age = f64::max(age - hours, 0.0);
            let mut add = |range| {
                files.push(HistoryFile { size, indexed: odd % 8 != 0, ..file(range, age) });
            };
            add((head + 1, next));
            match kind {
                0..25 => add((1, next)),
                25..32 if commits > 1 => add((head + 1, next - 1)),
                32..40 if head > 4 => add((head - 2, next)),
                40..44 => add((next + 2, next + 3)),
                _ => {}
            }
            head = next;
            if kind > 90 {
                // A new chain: nothing but a snapshot leads there.
                head += 1;
                add((1, head));
            }
        }
        // Some vanished.
        let vanished = files.len() % 7;
        if vanished > 1 && files.len() > 10 {
            files.remove(files.len() - vanished);
        }
        files.sort_by_key(|file| file.name);
        files.dedup_by_key(|file| file.name);
        files
    })
}

fn policy() -> impl Strategy<Value = RetentionPolicy> {
    (0u32..30, 0u32..9, 0u32..4, 0u32..4).prop_map(|(hourly, daily, weekly, monthly)| {
        RetentionPolicy { hourly, daily, weekly, monthly }
    })
}

/// The files after each step of a plan: a merged file comes before its sources go, and everything
/// else goes in any order.
fn steps(files: &[HistoryFile], plan: &RetentionPlan, seed: u64) -> Vec<Vec<HistoryFile>> {
    let mut left = files.to_vec();
    let mut steps = vec![left.clone()];
    let mut going: Vec<FileName> = Vec::new();
    for merge in &plan.merges {
        left.push(merged(files, merge));
        steps.push(left.clone());
        going.extend(&merge.sources);
    }
    let removed = plan.decisions.iter().filter(|(_, it)| matches!(it, Decision::Remove(_)));
    going.extend(removed.map(|(name, _)| *name));
    going.sort_by_key(|name| (name.max.get() * 31 + name.min.get() * 17).wrapping_mul(seed) % 1009);
    for name in going {
        left.retain(|file| file.name != name);
        steps.push(left.clone());
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn c07_every_restore_point_survives_every_step(
        files in history(),
        policy in policy(),
        seed in 1u64..u64::MAX,
    ) {
        let plan = plan_retention(&files, &BTreeSet::new(), &policy, NOW);
        prop_assert_eq!(plan.decisions.len(), files.len());
        for step in steps(&files, &plan, seed) {
            let lost: Vec<_> = plan.restore_points.difference(&restorable(&step)).copied().collect();
            prop_assert!(lost.is_empty(), "lost {:?}", lost);
            // Who finds it like this and plans anew promises the same.
            let again = plan_retention(&step, &BTreeSet::new(), &policy, NOW);
            prop_assert!(again.restore_points.is_superset(&plan.restore_points));
        }
    }

    #[test]
    fn what_the_manifest_does_not_know_and_the_newest_files_stay(
        files in history(),
        policy in policy(),
    ) {
        let plan = plan_retention(&files, &BTreeSet::new(), &policy, NOW);
        let start = NOW - i64::from(policy.hourly) * HOUR_MS;
        let reachable = restorable(&files);
        for file in &files {
            let stays = matches!(plan.decisions[&file.name], Decision::Keep(_));
            let point = reachable.contains(&file.name.max) && !file.name.is_snapshot();
            let recent = file.timestamp_ms > start || reachable.last() == Some(&file.name.max);
            prop_assert!(
                stays || file.indexed && !(point && recent),
                "{} goes: {}", file.name, plan.decisions[&file.name]
            );
        }
        let snapshots = |files: &[HistoryFile]| {
            files.iter().filter(|file| file.name.is_snapshot()).count()
        };
        let left = snapshots(&carry_out(&files, &plan));
        prop_assert!(left >= snapshots(&files).min(2), "{} snapshots are left", left);
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(files in history(), policy in policy()) {
        let mut left = files;
        // Files of other sizes may make another merge worth while, but not without end.
        for _ in 0..8 {
            left = carry_out(&left, &plan_retention(&left, &BTreeSet::new(), &policy, NOW));
        }
        let plan = plan_retention(&left, &BTreeSet::new(), &policy, NOW);
        prop_assert_eq!(plan.merges, []);
        prop_assert!(plan.decisions.values().all(|it| matches!(it, Decision::Keep(_))));
        // Before the finest window nothing is left of a chain without a snapshot.
        let given = restorable(&left);
        let recent = Decision::Keep(vec![KeepReason::Stranded]);
        for file in left.iter().filter(|file| file.indexed && !is_of_use(file, &given)) {
            prop_assert_eq!(&plan.decisions[&file.name], &recent, "{} is left", file.name);
        }
    }

    #[test]
    fn a_history_is_quiet_for_exactly_as_long_as_there_is_nothing_new_to_do(
        files in history(),
        policy in policy(),
    ) {
        let plan = |now_ms| plan_retention(&files, &BTreeSet::new(), &policy, now_ms);
        let until = quiet_until(&files, &BTreeSet::new(), &policy, NOW);
        let now = plan(NOW);
        prop_assert!(until > NOW);
        for minutes in (0..60 * 24 * 40).step_by(717) {
            let time = NOW + minutes * 60_000;
            prop_assert!((time >= until) != plan(time).does_the_same_as(&now), "{} minutes", minutes);
        }
        prop_assert!(until == i64::MAX || !plan(until).does_the_same_as(&now));
        prop_assert!(plan(until - 1).does_the_same_as(&now));
    }
}
