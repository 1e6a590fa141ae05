//! What the way to storage is like: which fault meets which request.
//!
//! Invariant: the sequence of faults follows from the seed. Which request meets which of them
//! depends on when the processes send, as far as that cannot be replayed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use walrust_testkit::Prng;

use crate::fault::{Fault, Faults};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// One of [`Fault::OF_STORAGE`].
    pub(crate) fault: Fault,
    /// How long, where the fault has a length.
    pub(crate) length: Duration,
}

/// Decides for one request after the other.
#[derive(Debug)]
pub(crate) struct Weather {
    sky: Mutex<Sky>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Sky {
    prng: Prng,
    /// How many of a hundred requests meet a fault of any kind.
    percent: u64,
    /// Until then every request meets this fault.
    storm: Option<(Fault, Instant)>,
}

impl Weather {
    /// Weather in which so many of a hundred requests meet a fault.
    pub(crate) fn new(seed: u64, percent: u64, faults: Arc<Faults>) -> Self {
        Self { sky: Mutex::new(Sky { prng: Prng::new(seed), percent, storm: None }), faults }
    }

    /// For a while every request meets this fault.
    pub(crate) fn storm(&self, fault: Fault, length: Duration) {
        self.sky().storm = Some((fault, Instant::now() + length));
    }

    /// No request meets a fault any more.
    pub(crate) fn calm(&self) {
        let mut sky = self.sky();
        sky.storm = None;
        sky.percent = 0;
    }

    /// What the next request meets.
    pub(crate) fn next(&self, method: &str) -> Option<Trouble> {
        let mut sky = self.sky();
        let storm = sky.storm.filter(|(_, end)| Instant::now() < *end).map(|(fault, _)| fault);
        let percent = sky.percent;
        let fault = match storm {
            Some(fault) => fault,
            None if sky.prng.chance(percent) => {
                Fault::OF_STORAGE[sky.prng.below(Fault::OF_STORAGE.len() as u64) as usize]
            }
            None => return None,
        };
        let (fault, longest) = match fault {
            // Only what is sent can be cut off, and only what is stored can be stored unnoticed.
            Fault::ResetDuringUpload if method != "PUT" => (Fault::ResetOnArrival, 0),
            Fault::LostReply if method != "PUT" => (Fault::TruncatedAnswer, 0),
            Fault::BlackHole => (fault, 1500),
            Fault::Latency => (fault, 500),
            other => (other, 0),
        };
        let length = Duration::from_millis(sky.prng.between(longest.min(20), longest));
        self.faults.count(fault);
        Some(Trouble { fault, length })
    }

    fn sky(&self) -> std::sync::MutexGuard<'_, Sky> {
        self.sky.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Weather;
    use crate::fault::{Fault, Faults};

    fn weather(percent: u64) -> Weather {
        Weather::new(7, percent, Arc::new(Faults::default()))
    }

    #[test]
    fn a_seed_brings_the_same_faults_again_and_all_of_them() {
        let (one, other) = (weather(50), weather(50));
        let troubles: Vec<_> = (0..500).map(|_| one.next("PUT")).collect();
        assert!(troubles.iter().eq((0..500).map(|_| other.next("PUT")).collect::<Vec<_>>().iter()));
        let calm = troubles.iter().filter(|trouble| trouble.is_none()).count();
        assert!((200..300).contains(&calm), "{calm}");
        for fault in Fault::OF_STORAGE {
            assert!(troubles.iter().flatten().any(|trouble| trouble.fault == fault), "{fault:?}");
        }
    }

    #[test]
    fn a_storm_hits_every_request_until_it_is_calm() {
        let weather = weather(0);
        assert_eq!(weather.next("GET"), None);
        weather.storm(Fault::SlowDown, Duration::from_secs(60));
        let met = |weather: &Weather| weather.next("GET").map(|trouble| trouble.fault);
        assert_eq!(met(&weather), Some(Fault::SlowDown));
        weather.calm();
        assert_eq!(met(&weather), None);
        let counts = weather.faults.by_kind();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 1);
        assert!(counts.contains(&(Fault::SlowDown, 1)));
    }

    #[test]
    fn what_only_uploads_can_meet_meets_only_uploads() {
        let weather = weather(0);
        for fault in [Fault::LostReply, Fault::ResetDuringUpload] {
            weather.storm(fault, Duration::from_secs(60));
            assert_eq!(weather.next("PUT").map(|trouble| trouble.fault), Some(fault));
            assert_ne!(weather.next("GET").map(|trouble| trouble.fault), Some(fault));
        }
    }
}
