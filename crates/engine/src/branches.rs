//! Which files a history has left behind.
//!
//! A history has two branches where two writers have continued one state: an upload of a process
//! that was killed comes in after its successor, who has lost the local state, has begun after
//! that state as well; or a host has not heard yet that another has taken its name over. The names
//! of the files cannot tell branches apart, since both count their TXIDs from the same one: the
//! branch with the higher TXID may be the older one, and a way along the names may change from one
//! branch to the other. The checksums of their ends can, and their timestamps, which never descend
//! along a chain, tell which one goes on.
//!
//! Invariant: without the files that are abandoned, what the names allow is one chain, and its end is
//! the newest state; where no two files contradict each other, none is abandoned.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use walrust_ltx::{Checksum, FileName, Txid};

/// The states between which a file leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Rolling checksum of the state that it continues; `None` for a snapshot.
    pub from: Option<Checksum>,
    /// Rolling checksum of the state that it leads to.
    pub to: Checksum,
    /// When that state was committed, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Whether whoever owns the name vouches for it: where nothing continues either of two branches,
    /// its own goes on, whatever the other's clock has said.
    pub is_own: bool,
}

/// What is known of the branches of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Branches {
    /// The ends of these files have to be read to tell.
    Unknown(BTreeSet<FileName>),
    /// These files are not on the branch that goes on. Nothing is abandoned on the word of a file
    /// that cannot be read, nor is such a file.
    Abandoned(BTreeSet<FileName>),
}

/// The ends of files that were looked at; `None` where they cannot be read.
pub type StateChanges = BTreeMap<FileName, Option<StateChange>>;

/// Finds the files that a history in our own layout has left behind.
///
/// Of a history whose files overlap nowhere, and whose snapshots all have an incremental that ends or
/// begins at their state, nothing has to be known but the names.
#[must_use]
pub fn find_branches(
    files: impl IntoIterator<Item = FileName>,
    changes: &StateChanges,
) -> Branches {
    let files: BTreeSet<FileName> = files.into_iter().collect();
    let (snapshots, incrementals): (BTreeSet<_>, BTreeSet<_>) =
        files.iter().partition(|file| file.is_snapshot());
    let mut search = Search { changes, unknown: BTreeSet::new(), abandoned: BTreeSet::new() };
    // From the newest on: which branch goes on is known by what continues it.
    for overlapping in overlaps(&incrementals).iter().rev() {
        search.overlap(overlapping, &files);
    }
    if search.unknown.is_empty() {
        search.head(&snapshots, &incrementals);
    }
    match search.unknown.is_empty() {
        true => Branches::Abandoned(search.abandoned),
        false => Branches::Unknown(search.unknown),
    }
}

/// The groups of files that cover TXIDs of each other, in the order of their TXIDs.
fn overlaps(incrementals: &BTreeSet<FileName>) -> Vec<Vec<FileName>> {
    let mut groups: Vec<Vec<FileName>> = Vec::new();
    let mut end = None;
    for file in incrementals {
        match groups.last_mut().filter(|_| Some(file.min) <= end) {
            Some(group) => group.push(*file),
            None => groups.push(vec![*file]),
        }
        end = end.max(Some(file.max));
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// A state: two branches may have one TXID, but not one checksum.
type State = (Txid, Checksum);

type NamedChange = (FileName, StateChange);

/// The first and the last TXID that files cover.
fn bounds(files: &[FileName]) -> Option<(Txid, Txid)> {
    let first = files.iter().map(|file| file.min).min()?;
    Some((first, files.iter().map(|file| file.max).max()?))
}

/// The states that files continue.
fn continued(files: &[NamedChange]) -> HashSet<State> {
    files.iter().filter_map(before).collect()
}

/// The states that files lead to, after others; these in the order of their names.
fn reached(leading: &[NamedChange], files: &[NamedChange]) -> HashSet<State> {
    let mut reached: HashSet<State> = leading.iter().map(after).collect();
    for change in files {
        if before(change).is_some_and(|before| reached.contains(&before)) {
            reached.insert(after(change));
        }
    }
    reached
}

/// The state that a file continues.
fn before((file, change): &NamedChange) -> Option<State> {
    Some((Txid::new(file.min.get() - 1)?, change.from?))
}

/// The state that a file leads to.
fn after((file, change): &NamedChange) -> State {
    (file.max, change.to)
}

struct Search<'a> {
    changes: &'a StateChanges,
    unknown: BTreeSet<FileName>,
    abandoned: BTreeSet<FileName>,
}

impl Search<'_> {
    /// The ends of files; `None` if one of them cannot be read or has still to be.
    fn known(&mut self, files: &[FileName]) -> Option<Vec<NamedChange>> {
        let known = files.iter().map(|file| Some((*file, (*self.changes.get(file)?)?)));
        let known = known.collect();
        self.unknown.extend(files.iter().filter(|file| !self.changes.contains_key(file)));
        known
    }

    /// Abandons the files of a group that do not lead to its end.
    fn overlap(&mut self, group: &[FileName], files: &BTreeSet<FileName>) {
        let Some((first, last)) = bounds(group) else { return };
        let leads_in = |file: &&FileName| match file.is_snapshot() {
            true => file.max.next() >= first && file.max < last,
            false => file.max.next() == first,
        };
        let readable = |file: &&FileName| !matches!(self.changes.get(file), Some(None));
        let leading: Vec<FileName> =
            files.iter().filter(leads_in).filter(readable).copied().collect();
        let follows = |file: &&FileName| file.min == last.next() && !self.abandoned.contains(file);
        let following: Vec<FileName> =
            files.iter().filter(follows).filter(readable).copied().collect();
        let known = (self.known(group), self.known(&leading), self.known(&following));
        let (Some(group), Some(leading), Some(following)) = known else { return };
        let reached = reached(&leading, &group);
        let (within, beyond) = (continued(&group), continued(&following));
        let ends = group.iter().filter(|change| !within.contains(&after(change)));
        let newest = |change: &&NamedChange| {
            let end = after(change);
            let StateChange { timestamp_ms, is_own, .. } = change.1;
            (reached.contains(&end), beyond.contains(&end), is_own, timestamp_ms, end.0)
        };
        let Some(end) = ends.max_by_key(newest) else { return };
        let mut wanted = HashSet::from([after(end)]);
        // What ends later comes first: a file is seen after all that continue it.
        let mut backwards = group.clone();
        backwards.sort_by_key(|(file, _)| Reverse(file.max));
        for change in backwards {
            match wanted.contains(&after(&change)) {
                true => wanted.extend(before(&change)),
                false => drop(self.abandoned.insert(change.0)),
            }
        }
    }

    /// Abandons what comes after the newest state.
    ///
    /// A snapshot that no incremental meets may have begun another branch, or be the last of one. A
    /// compaction leaves such snapshots as well.
    fn head(&mut self, snapshots: &BTreeSet<FileName>, incrementals: &BTreeSet<FileName>) {
        let going_on = || incrementals.iter().filter(|file| !self.abandoned.contains(file));
        let mut bounds: BTreeSet<Txid> = going_on().map(|file| file.max).collect();
        bounds.extend(going_on().filter_map(|file| Txid::new(file.min.get() - 1)));
        let alone = snapshots.iter().filter(|file| !bounds.contains(&file.max));
        let mut heads: Vec<FileName> = alone.copied().collect();
        let last = going_on().max_by_key(|file| file.max).copied();
        if heads.len() + usize::from(last.is_some()) < 2 {
            return;
        }
        heads.extend(last);
        let readable = |file: &FileName| !matches!(self.changes.get(file), Some(None));
        if !last.is_none_or(|last| readable(&last)) {
            return;
        }
        heads.retain(readable);
        let Some(heads) = self.known(&heads) else { return };
        let newest = heads.iter().max_by_key(|(file, change)| (change.timestamp_ms, file.max));
        let Some((newest, _)) = newest else { return };
        let later = snapshots.iter().chain(incrementals).filter(|file| file.max > newest.max);
        self.abandoned.extend(later.filter(|file| self.changes.get(file) != Some(&None)));
    }
}

#[cfg(test)]
mod tests;
