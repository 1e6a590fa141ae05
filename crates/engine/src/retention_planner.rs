//! Which files of a history stay, which are merged, and which may go: grandfather, father, son.
//!
//! Invariant: every restore point of a plan can be restored from the files that the plan keeps, and
//! from these together with any of the others. Restore points are the snapshots that are kept, the
//! head, and every state of the finest window, which reaches as many hours back as the hourly tier
//! has, with the state in which the window begins. The snapshots that are kept are the newest of
//! each hour, day, ISO week and month that a tier covers, the latest, and two in any case.
//!
//! What leads from one kept snapshot to the next stays as well, merged where the finest window has
//! passed. A chain goes with its last snapshot: once the finest window has passed, a file that no kept
//! snapshot leads to gives no state. What cannot be judged stays: a file that perhaps one leads to that
//! cannot be read, one that the manifest does not know yet, one of a second chain.
//!
//! A plan depends on the files, the policy and the time alone: a plan that was carried out in part,
//! by a process that died, is continued by making it again.

use std::collections::{BTreeMap, BTreeSet};

use walrust_ltx::{FileName, Txid};

use crate::bucket::{Bucket, Tier};
use crate::compaction_planner::{Merge, plan_compaction};
use crate::links::Links;
use crate::retention_decision::{Decision, KeepReason, RemoveReason};
use crate::retention_policy::RetentionPolicy;

/// One LTX file of a history in our own layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryFile {
    /// Its name.
    pub name: FileName,
    /// Its size in bytes.
    pub size: u64,
    /// When its state was committed: the timestamp of its header, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Whether the manifest knows it. Another file was just stored, or its writer died: it stays.
    pub indexed: bool,
}

/// What is to become of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// One decision for each file, in the order of their names.
    pub decisions: BTreeMap<FileName, Decision>,
    /// The merges, each of files that are decided to be merged.
    pub merges: Vec<Merge>,
    /// The states that can be restored before, while and after the plan is carried out.
    pub restore_points: BTreeSet<Txid>,
}

/// Plans the retention of a history.
///
/// `files` has the files that can be read. `odd` are files that are not what their names promise, among
/// `files` or not, and names that cannot be given to a merged file: they have no part in a merge, and
/// what only they lead to stays. `now_ms` is milliseconds since the Unix epoch.
#[must_use]
pub fn plan_retention(
    files: &[HistoryFile],
    odd: &BTreeSet<FileName>,
    policy: &RetentionPolicy,
    now_ms: i64,
) -> RetentionPlan {
    let files = sorted(files);
    let links = Links::new(&files);
    let snapshots = files.iter().filter(|file| file.name.is_snapshot());
    let restorable = links.reachable(snapshots.map(|file| file.name.max));
    let window = Window::new(&files, &restorable, policy.window_start(now_ms));
    let mut kept = keep_by_tier(&files, policy, now_ms);
    keep_bases(&mut kept, &files, &links, &window);
    Planner { files: &files, odd, links, kept, window }.plan()
}

/// Until when a history that does not change needs no other plan than it has now: a time in
/// milliseconds since the Unix epoch, `i64::MAX` if it never will.
///
/// What was decided to be done stays to be done, so a plan changes at most once in a way that matters
/// here, and only when a file leaves the finest window, or a snapshot the buckets of a tier.
#[must_use]
pub fn quiet_until(
    files: &[HistoryFile],
    odd: &BTreeSet<FileName>,
    policy: &RetentionPolicy,
    now_ms: i64,
) -> i64 {
    let window_ends = files.iter().map(|file| policy.window_end(file.timestamp_ms));
    let snapshots = files.iter().filter(|file| file.name.is_snapshot());
    let tier_ends = snapshots.flat_map(|file| policy.tier_ends(file.timestamp_ms));
    let mut times: Vec<i64> = window_ends.chain(tier_ends).filter(|time| *time > now_ms).collect();
    times.sort_unstable();
    times.dedup();
    let now = plan_retention(files, odd, policy, now_ms);
    let is_quiet = |time: &i64| plan_retention(files, odd, policy, *time).does_the_same_as(&now);
    times.get(times.partition_point(is_quiet)).copied().unwrap_or(i64::MAX)
}

impl RetentionPlan {
    /// Whether two plans change the same.
    fn does_the_same_as(&self, other: &Self) -> bool {
        let removed = |plan: &Self| -> Vec<FileName> {
            let decisions = plan.decisions.iter();
            let removed = decisions.filter(|(_, it)| matches!(it, Decision::Remove(_)));
            removed.map(|(name, _)| *name).collect()
        };
        self.merges == other.merges && removed(self) == removed(other)
    }
}

fn sorted(files: &[HistoryFile]) -> Vec<HistoryFile> {
    let mut files = files.to_vec();
    files.sort_by_key(|file| file.name);
    files
}

/// The states of which each stays: those of the finest window, else the newest one, and the state
/// before the first of them.
struct Window {
    points: BTreeSet<Txid>,
}

impl Window {
    fn new(files: &[HistoryFile], restorable: &BTreeSet<Txid>, start_ms: i64) -> Self {
        let recent = files.iter().filter(|file| file.timestamp_ms > start_ms);
        let recent = recent.map(|file| file.name.max).filter(|txid| restorable.contains(txid));
        let Some(first) = recent.min().or(restorable.last().copied()) else {
            return Self { points: BTreeSet::new() };
        };
        let mut from = restorable.range(..first).next_back().copied().unwrap_or(first);
        // With two chains a file may lead into the window from a state further back.
        let begins = |file: &HistoryFile| Txid::new(file.name.min.get() - 1);
        let leads_in = |from| {
            let files = files.iter().filter(move |file| file.name.max > from);
            files.filter_map(begins).filter(|txid| restorable.contains(txid)).min()
        };
        while let Some(before) = leads_in(from).filter(|before| *before < from) {
            from = before;
        }
        Self { points: restorable.range(from..).copied().collect() }
    }

    /// The state in which it begins; `None` of a history without any state.
    fn floor(&self) -> Option<Txid> {
        self.points.first().copied()
    }
}

/// The snapshots that are kept, by their TXID.
type Kept = BTreeMap<Txid, Vec<KeepReason>>;

fn keep_by_tier(files: &[HistoryFile], policy: &RetentionPolicy, now_ms: i64) -> Kept {
    let mut kept = Kept::new();
    let snapshots: Vec<_> = files.iter().filter(|file| file.name.is_snapshot()).collect();
    if let Some(latest) = snapshots.last() {
        kept.entry(latest.name.max).or_default().push(KeepReason::Latest);
    }
    for tier in Tier::ALL {
        let oldest = Bucket::of(tier, now_ms).number - i64::from(policy.buckets(tier));
        let mut newest: BTreeMap<Bucket, &HistoryFile> = BTreeMap::new();
        for file in &snapshots {
            let bucket = Bucket::of(tier, file.timestamp_ms);
            // A clock that was ahead may have made snapshots of buckets that are yet to come.
            if bucket.number > oldest && policy.buckets(tier) > 0 {
                let known = newest.entry(bucket).or_insert(file);
                if (file.timestamp_ms, file.name.max) > (known.timestamp_ms, known.name.max) {
                    *known = file;
                }
            }
        }
        for (bucket, file) in newest {
            kept.entry(file.name.max).or_default().push(KeepReason::NewestOf(bucket));
        }
    }
    if kept.len() < 2
        && let Some(second) = snapshots.iter().rev().nth(1)
    {
        kept.entry(second.name.max).or_default().push(KeepReason::SecondSnapshot);
    }
    kept
}

/// Adds the snapshots without which a state of the window could not be reached.
fn keep_bases(kept: &mut Kept, files: &[HistoryFile], links: &Links<'_>, window: &Window) {
    let mut reached = links.reachable(kept.keys().copied());
    for point in &window.points {
        if reached.contains(point) {
            continue;
        }
        let bases = files.iter().filter(|file| file.name.is_snapshot() && file.name.max <= *point);
        let mut bases = bases.rev().map(|base| base.name.max);
        let leads_there = |base: &Txid| links.reachable([*base]).contains(point);
        if let Some(base) = bases.find(leads_there) {
            kept.entry(base).or_default().push(KeepReason::BaseOf(*point));
            reached.extend(links.reachable([base]));
        }
    }
}

/// Whether an incremental continues one of some states.
fn continues(states: &BTreeSet<Txid>, name: FileName) -> bool {
    Txid::new(name.min.get() - 1).is_some_and(|before| states.contains(&before))
}

/// The states that files lead to.
struct Reached {
    from_kept: BTreeSet<Txid>,
    /// Those that files which cannot be read may lead to.
    from_odd: BTreeSet<Txid>,
}

struct Planner<'a> {
    files: &'a [HistoryFile],
    odd: &'a BTreeSet<FileName>,
    links: Links<'a>,
    kept: Kept,
    window: Window,
}

impl Planner<'_> {
    fn plan(self) -> RetentionPlan {
        let chains = self.chains();
        let (mut decisions, mut merges) = (BTreeMap::new(), Vec::new());
        let mut on_chains: BTreeSet<FileName> = BTreeSet::new();
        for chain in &chains {
            // What is odd or not in the manifest stays as it is, and so does what two chains share
            // and the first of them has merged.
            let stays = |file: &&HistoryFile| {
                !file.indexed || self.odd.contains(&file.name) || on_chains.contains(&file.name)
            };
            for stretch in chain.split(stays) {
                let planned = plan_compaction(stretch).into_iter();
                merges.extend(planned.filter(|merge| !self.odd.contains(&merge.into)));
            }
            on_chains.extend(chain.iter().map(|file| file.name));
        }
        let reached = Reached {
            from_kept: self.links.reachable(self.kept.keys().copied()),
            from_odd: self.links.reachable(self.odd.iter().map(|name| name.max)),
        };
        for file in self.files {
            let decision = match self.decide(file, &on_chains, &reached) {
                Decision::Remove(_) if !file.indexed => {
                    Decision::Keep(vec![KeepReason::NotIndexed])
                }
                decision => decision,
            };
            decisions.insert(file.name, decision);
        }
        for merge in &merges {
            for source in &merge.sources {
                decisions.insert(*source, Decision::Merge { into: merge.into });
            }
        }
        let restore_points = self.kept.into_keys().chain(self.window.points).collect();
        RetentionPlan { decisions, merges, restore_points }
    }

    /// The fewest files that lead from each kept snapshot before the window towards the next, and to
    /// the state in which the window begins.
    fn chains(&self) -> Vec<Vec<&HistoryFile>> {
        let Some(floor) = self.window.floor() else { return Vec::new() };
        let mut ends: Vec<Txid> = self.kept.range(..floor).map(|(txid, _)| *txid).collect();
        // Usually the last of them. After a chain that ended it may be an older one, whose files pass
        // by the snapshots behind it.
        let leads_to_floor = |txid: &&Txid| self.links.reachable([**txid]).contains(&floor);
        let base = ends.iter().rev().find(leads_to_floor).copied();
        let last = base.map(|base| self.links.path_towards(base, floor));
        ends.push(floor);
        let others = ends.windows(2).filter(|pair| Some(pair[0]) != base || pair[1] != floor);
        let others = others.map(|pair| self.links.path_towards(pair[0], pair[1]));
        last.into_iter().chain(others).collect()
    }

    fn decide(
        &self,
        file: &HistoryFile,
        on_chains: &BTreeSet<FileName>,
        reached: &Reached,
    ) -> Decision {
        let name = file.name;
        let keep = |reason| Decision::Keep(vec![reason]);
        if name.is_snapshot() {
            return match self.kept.get(&name.max) {
                Some(reasons) => Decision::Keep(reasons.clone()),
                None => Decision::Remove(RemoveReason::NoTier),
            };
        }
        let Some((oldest, _)) = self.kept.first_key_value() else {
            return keep(KeepReason::Unreachable);
        };
        if name.max <= *oldest {
            return Decision::Remove(RemoveReason::BeforeOldest(*oldest));
        }
        if on_chains.contains(&name) {
            return keep(KeepReason::Chain);
        }
        if self.window.floor().is_none_or(|floor| name.max > floor) {
            if !continues(&reached.from_kept, name) {
                return keep(KeepReason::Stranded);
            }
            let is_head = self.window.points.last() == Some(&name.max);
            return keep(if is_head { KeepReason::Head } else { KeepReason::InsideWindow });
        }
        let whole = on_chains.iter().find(|whole| whole.min <= name.min && name.max <= whole.max);
        match whole {
            Some(whole) => Decision::Remove(RemoveReason::PartOf(*whole)),
            None if continues(&reached.from_kept, name) => keep(KeepReason::OtherChain),
            None if continues(&reached.from_odd, name) => keep(KeepReason::Unreachable),
            None => Decision::Remove(RemoveReason::BaseExpired),
        }
    }
}

#[cfg(test)]
mod tests;
