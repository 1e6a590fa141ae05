//! Which upload goes next: one at a time and in order for each database, in turn among databases.
//!
//! Invariants: of one database at most one upload is under way, and its jobs go in the order they
//! were offered, so a file is in storage before the next one is sent. A database that waits for a
//! retry takes no slot from the others. Jobs are handles to staged files; the queue holds no bytes.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Instant;

/// The queue of the shared uploader. `K` names a database, `J` is one upload.
#[derive(Debug)]
pub struct UploadQueue<K, J> {
    lanes: HashMap<K, Lane<J>>,
    /// Databases with a job to start and none under way, oldest turn first.
    ready: VecDeque<K>,
    under_way: usize,
    /// Uploads at once: enough to hide the latency of the store, few enough to bound memory.
    limit: usize,
}

#[derive(Debug)]
struct Lane<J> {
    jobs: VecDeque<J>,
    state: LaneState,
    /// Failed attempts of the first job.
    failures: u32,
    /// The first job is under way and nobody wants it any more.
    forgotten: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    Idle,
    Ready,
    UnderWay,
    WaitingUntil(Instant),
}

impl<K: Clone + Eq + Hash, J: Clone> UploadQueue<K, J> {
    /// A queue that allows `limit` uploads at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { lanes: HashMap::new(), ready: VecDeque::new(), under_way: 0, limit: limit.max(1) }
    }

    /// Adds a job behind the others of its database.
    pub fn offer(&mut self, key: K, job: J) {
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane {
            jobs: VecDeque::new(),
            state: LaneState::Idle,
            failures: 0,
            forgotten: false,
        });
        lane.jobs.push_back(job);
        if lane.state == LaneState::Idle {
            lane.state = LaneState::Ready;
            self.ready.push_back(key);
        }
    }

    /// The next upload to start, with the number of this attempt (the first is 1); `None` while
    /// the limit is reached or nothing is ready at `now`.
    pub fn start_next(&mut self, now: Instant) -> Option<(K, J, u32)> {
        self.wake(now);
        if self.under_way >= self.limit {
            return None;
        }
        while let Some(key) = self.ready.pop_front() {
            // A forgotten database may still have a place in line.
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            if lane.state != LaneState::Ready {
                continue;
            }
            let Some(job) = lane.jobs.front().cloned() else { continue };
            lane.state = LaneState::UnderWay;
            self.under_way += 1;
            return Some((key, job, lane.failures + 1));
        }
        None
    }

    /// The upload under way of `key` is done, for good or ill: drops its job.
    pub fn finish(&mut self, key: &K) {
        let Some(lane) = self.take_under_way(key) else { return };
        lane.jobs.pop_front();
        lane.failures = 0;
        lane.forgotten = false;
        if lane.jobs.is_empty() {
            self.lanes.remove(key);
        } else {
            lane.state = LaneState::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// The upload under way of `key` failed and is to be tried again at `at`, unless it was
    /// [forgotten](Self::forget) meanwhile.
    pub fn retry(&mut self, key: &K, at: Instant) {
        if self.lanes.get(key).is_some_and(|lane| lane.forgotten) {
            return self.finish(key);
        }
        let Some(lane) = self.take_under_way(key) else { return };
        lane.failures = lane.failures.saturating_add(1);
        lane.state = LaneState::WaitingUntil(at);
    }

    /// Forgets all jobs of `key`. One that is under way is not stopped, but not tried again either.
    pub fn forget(&mut self, key: &K) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.state == LaneState::UnderWay {
            lane.jobs.truncate(1);
            lane.forgotten = true;
        } else {
            self.lanes.remove(key);
        }
    }

    /// When [`start_next`](Self::start_next) may yield a job although nothing else happened.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let waiting = self.lanes.values().filter_map(|lane| match lane.state {
            LaneState::WaitingUntil(at) => Some(at),
            _ => None,
        });
        waiting.min()
    }

    /// Jobs that are queued or under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.jobs.len()).sum()
    }

    /// Whether nothing is queued or under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    fn take_under_way(&mut self, key: &K) -> Option<&mut Lane<J>> {
        let lane = self.lanes.get_mut(key)?;
        if lane.state != LaneState::UnderWay {
            return None;
        }
        self.under_way -= 1;
        Some(lane)
    }

    fn wake(&mut self, now: Instant) {
        for (key, lane) in &mut self.lanes {
            if matches!(lane.state, LaneState::WaitingUntil(at) if at <= now) {
                lane.state = LaneState::Ready;
                self.ready.push_back(key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
