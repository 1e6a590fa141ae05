//! Which upload goes next: in order for each database, in turn among databases, and within the
//! bounds of what may be under way.
//!
//! # Order
//! Of one database at most one upload is under way, and its jobs go in the order they were offered,
//! so a file is in storage before the next one is sent. Among databases that are ready
//! [`Priority`] decides, first attempts before retries, then who has waited longest. Who has waited
//! for [`OVERDUE`] goes before all others, so nobody starves.
//!
//! # Bounds
//! A quarter of the slots, at least one, is kept for incrementals that are small and were not tried
//! before: snapshots, merges, large files and retries, which may all be slow, take at most the
//! others. A quarter of the bytes is kept for small files in the same way: large ones share the
//! rest, and one that is larger than that goes without another large one beside it.
//!
//! A database that waits, for a retry or for its rate limit, takes no slot from the others. Jobs
//! are handles to staged files; the queue holds no bytes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Jobs of one lane that the queue takes: an LTX file and a manifest. What else there is to upload
/// waits with its database, which knows how to make one file of many.
pub const CREDITS: usize = 2;

/// Who has been ready for so long goes before all others.
pub const OVERDUE: Duration = Duration::from_secs(60);

/// What is uploaded first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// New commits, and the manifest, which is small and says that they are there: what is lost if
    /// the machine is lost now.
    Incremental,
    /// Another way to restore what is stored already.
    Snapshot,
    /// Fewer files for what is stored already.
    Merge,
}

/// What the queue has to know of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// How urgent it is.
    pub priority: Priority,
    /// Its size.
    pub bytes: u64,
}

/// The lane has [`CREDITS`] jobs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CREDITS} uploads are queued already, and the queue takes no more of one database")]
pub struct QueueFull;

/// The queue of the shared uploader. `K` names a lane, of which each database has its own; `J` is
/// one upload.
#[derive(Debug)]
pub struct UploadQueue<K, J> {
    lanes: HashMap<K, Lane<J>>,
    /// Lanes with a job to start and none under way, in the order in which they should.
    ready: BTreeMap<(Rank, Turn), (K, Instant)>,
    /// Lanes that become ready at a time.
    waiting: BTreeMap<(Instant, Turn), K>,
    under_way: UnderWay,
    bounds: Bounds,
    turns: Turn,
}

/// Numbers that tell who came first.
type Turn = u64;

#[derive(Debug)]
struct Lane<J> {
    jobs: VecDeque<(J, Demand)>,
    state: LaneState,
    /// Failed attempts of the first job.
    failures: u32,
    /// The first job is under way and nobody wants it any more.
    forgotten: bool,
}

#[derive(Clone, Copy, Debug)]
enum LaneState {
    Ready(Rank, Turn),
    UnderWay(Claim),
    WaitingUntil(Instant, Turn),
}

/// Lesser ranks go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: Priority,
    /// So that a broken upload is not what every other one waits for.
    retried: bool,
}

impl Rank {
    const FIRST: Self = Self { priority: Priority::Incremental, retried: false };
}

/// What one upload takes of the bounds.
#[derive(Clone, Copy, Debug)]
struct Claim {
    bytes: u64,
    large: bool,
    /// May take long: leaves a slot to others.
    slow: bool,
}

/// What all uploads under way take.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    uploads: usize,
    slow: usize,
    bytes: u64,
    large_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    uploads: usize,
    slow: usize,
    large_bytes: u64,
    /// So many bytes are small: if every slot had them, it would be what is kept for small files.
    small: u64,
}

impl Bounds {
    fn new(uploads: usize, bytes: u64) -> Self {
        let uploads = uploads.max(1);
        let bytes = if bytes == 0 { u64::MAX } else { bytes };
        let (kept_uploads, kept_bytes) = ((uploads / 4).max(1), bytes / 4);
        Self {
            uploads,
            slow: (uploads - kept_uploads).max(1),
            large_bytes: bytes - kept_bytes,
            small: kept_bytes / uploads as u64,
        }
    }

    fn allow(&self, claim: Claim, under_way: &UnderWay) -> bool {
        under_way.uploads < self.uploads
            && (!claim.slow || under_way.slow < self.slow)
            && (!claim.large || self.have_room(claim.bytes, under_way))
    }

    fn have_room(&self, bytes: u64, under_way: &UnderWay) -> bool {
        let together = under_way.large_bytes.saturating_add(bytes);
        under_way.large_bytes == 0 || together <= self.large_bytes
    }
}

impl UnderWay {
    fn add(&mut self, claim: Claim) {
        self.uploads += 1;
        self.slow += usize::from(claim.slow);
        self.bytes += claim.bytes;
        self.large_bytes += if claim.large { claim.bytes } else { 0 };
    }

    fn remove(&mut self, claim: Claim) {
        self.uploads -= 1;
        self.slow -= usize::from(claim.slow);
        self.bytes -= claim.bytes;
        self.large_bytes -= if claim.large { claim.bytes } else { 0 };
    }
}

impl<J> Lane<J> {
    fn rank(&self) -> Rank {
        let priority = self.jobs.front().map_or(Priority::Merge, |(_, demand)| demand.priority);
        Rank { priority, retried: self.failures > 0 }
    }

    fn claim(&self, bounds: &Bounds) -> Claim {
        let bytes = self.jobs.front().map_or(0, |(_, demand)| demand.bytes);
        let large = bytes > bounds.small;
        Claim { bytes, large, slow: large || self.rank() != Rank::FIRST }
    }

    /// Jobs at the front that nobody wants any more.
    fn unwanted(&self) -> usize {
        usize::from(self.forgotten)
    }
}

impl<K: Clone + Eq + Hash, J: Clone> UploadQueue<K, J> {
    /// A queue that allows so many uploads and bytes at once; 0 bytes: as many as there are.
    #[must_use]
    pub fn new(uploads: usize, bytes: u64) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            under_way: UnderWay::default(),
            bounds: Bounds::new(uploads, bytes),
            turns: 0,
        }
    }

    /// Adds a job after the others of its lane.
    ///
    /// # Errors
    /// If the lane has [`CREDITS`] jobs.
    pub fn offer(&mut self, key: K, job: J, demand: Demand, now: Instant) -> Result<(), QueueFull> {
        if let Some(lane) = self.lanes.get_mut(&key) {
            if lane.jobs.len() >= CREDITS + lane.unwanted() {
                return Err(QueueFull);
            }
            lane.jobs.push_back((job, demand));
            return Ok(());
        }
        let lane = Lane {
            jobs: VecDeque::from([(job, demand)]),
            state: LaneState::Ready(Rank::FIRST, 0),
            failures: 0,
            forgotten: false,
        };
        self.lanes.insert(key.clone(), lane);
        self.make_ready(key, now);
        Ok(())
    }

    /// The jobs of a lane, first the one that is under way or goes next; without forgotten ones.
    pub fn jobs(&self, key: &K) -> impl Iterator<Item = &J> {
        let jobs = self.lanes.get(key).map(|lane| lane.jobs.iter().skip(lane.unwanted()));
        jobs.into_iter().flatten().map(|(job, _)| job)
    }

    /// The lane whose upload should start next, and that upload; `None` while the bounds do not
    /// allow one, or nothing is ready at `now`. It starts with [`start`](Self::start).
    pub fn peek(&mut self, now: Instant) -> Option<(K, J)> {
        self.wake(now);
        self.promote_overdue(now);
        if self.under_way.uploads >= self.bounds.uploads {
            return None;
        }
        let mut under_way = self.under_way;
        for (key, _) in self.ready.values() {
            let Some(lane) = self.lanes.get(key) else { continue };
            let claim = lane.claim(&self.bounds);
            if self.bounds.allow(claim, &under_way) {
                return lane.jobs.front().map(|(job, _)| (key.clone(), job.clone()));
            }
            if claim.large {
                // No smaller one gets in before it, or it might wait for ever.
                under_way.large_bytes = u64::MAX;
            }
        }
        None
    }

    /// Starts the first job of a lane that is ready; returns the number of this attempt, of which
    /// the first is 1.
    pub fn start(&mut self, key: &K) -> Option<u32> {
        let lane = self.lanes.get_mut(key)?;
        let LaneState::Ready(rank, turn) = lane.state else { return None };
        let claim = lane.claim(&self.bounds);
        debug_assert!(self.bounds.allow(claim, &self.under_way), "it was not the next");
        self.ready.remove(&(rank, turn));
        lane.state = LaneState::UnderWay(claim);
        self.under_way.add(claim);
        Some(lane.failures.saturating_add(1))
    }

    /// Makes a lane that is ready wait, without a failure.
    pub fn defer(&mut self, key: &K, until: Instant) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let LaneState::Ready(rank, turn) = lane.state else { return };
        self.ready.remove(&(rank, turn));
        lane.state = LaneState::WaitingUntil(until, turn);
        self.waiting.insert((until, turn), key.clone());
    }

    /// The upload under way of `key` is done, for good or ill: drops its job.
    pub fn finish(&mut self, key: &K, now: Instant) {
        let Some(lane) = self.take_under_way(key) else { return };
        lane.jobs.pop_front();
        lane.failures = 0;
        lane.forgotten = false;
        if lane.jobs.is_empty() {
            self.lanes.remove(key);
        } else {
            self.make_ready(key.clone(), now);
        }
    }

    /// The upload under way of `key` failed and is to be tried again after `delay`, unless it was
    /// [forgotten](Self::forget) meanwhile.
    pub fn retry(&mut self, key: &K, now: Instant, delay: Duration) {
        if self.lanes.get(key).is_some_and(|lane| lane.forgotten) {
            return self.finish(key, now);
        }
        let turn = self.next_turn();
        let Some(lane) = self.take_under_way(key) else { return };
        lane.failures = lane.failures.saturating_add(1);
        let until = now + delay;
        lane.state = LaneState::WaitingUntil(until, turn);
        self.waiting.insert((until, turn), key.clone());
    }

    /// Forgets all jobs of `key`. One that is under way is not stopped, but not tried again either.
    pub fn forget(&mut self, key: &K) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        match lane.state {
            LaneState::UnderWay(_) => {
                lane.jobs.truncate(1);
                lane.forgotten = true;
                return;
            }
            LaneState::Ready(rank, turn) => drop(self.ready.remove(&(rank, turn))),
            LaneState::WaitingUntil(at, turn) => drop(self.waiting.remove(&(at, turn))),
        }
        self.lanes.remove(key);
    }

    /// When [`peek`](Self::peek) may yield a job although nothing else happened.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether nothing is queued or under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Jobs that are not under way, and their bytes.
    #[must_use]
    pub fn queued(&self) -> (usize, u64) {
        let jobs = self.lanes.values().flat_map(|lane| &lane.jobs);
        let (count, bytes) =
            jobs.fold((0, 0), |(count, bytes), (_, demand)| (count + 1, bytes + demand.bytes));
        (count - self.under_way.uploads, bytes - self.under_way.bytes)
    }

    /// Jobs that are under way, and their bytes.
    #[must_use]
    pub fn under_way(&self) -> (usize, u64) {
        (self.under_way.uploads, self.under_way.bytes)
    }

    fn take_under_way(&mut self, key: &K) -> Option<&mut Lane<J>> {
        let lane = self.lanes.get_mut(key)?;
        let LaneState::UnderWay(claim) = lane.state else { return None };
        self.under_way.remove(claim);
        Some(lane)
    }

    fn make_ready(&mut self, key: K, now: Instant) {
        let turn = self.next_turn();
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let rank = lane.rank();
        lane.state = LaneState::Ready(rank, turn);
        self.ready.insert((rank, turn), (key, now));
    }

    fn next_turn(&mut self) -> Turn {
        self.turns += 1;
        self.turns
    }

    fn wake(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now {
                return;
            }
            let key = first.remove();
            self.make_ready(key, now);
        }
    }

    /// Lets those go first that have waited too long; of each rank the oldest turn is the first.
    fn promote_overdue(&mut self, now: Instant) {
        let mut rank = Rank::FIRST;
        while let Some((&(next, turn), (_, since))) = self.ready.range((rank, Turn::MAX)..).next() {
            if now.saturating_duration_since(*since) < OVERDUE {
                rank = next;
                continue;
            }
            let Some((key, since)) = self.ready.remove(&(next, turn)) else { return };
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.state = LaneState::Ready(Rank::FIRST, turn);
            }
            self.ready.insert((Rank::FIRST, turn), (key, since));
        }
    }
}

#[cfg(test)]
mod tests;
