//! The states in which the database has been, in the order of its commits.

use std::collections::HashMap;

use walrust_ltx::Checksum;

use crate::image::Image;

/// All states; the index of one is the number of its commit.
#[derive(Debug)]
pub(crate) struct History {
    states: Vec<Image>,
    numbers: HashMap<u64, usize>,
    /// States that a loss of power took back, which may be in storage all the same.
    lost: HashMap<u64, Image>,
}

impl History {
    pub(crate) fn new(first: Image) -> Self {
        let mut history =
            Self { states: Vec::new(), numbers: HashMap::new(), lost: HashMap::new() };
        history.push(first);
        history
    }

    pub(crate) fn push(&mut self, state: Image) {
        let before = self.numbers.insert(state.checksum.raw(), self.states.len());
        assert_eq!(before, None, "the workload makes no state twice");
        self.states.push(state);
    }

    /// Takes back the states behind one.
    pub(crate) fn lose_behind(&mut self, state: &Image) {
        let number = self.number_of(state.checksum).expect("a state that there was");
        for lost in self.states.drain(number + 1..) {
            self.numbers.remove(&lost.checksum.raw());
            self.lost.insert(lost.checksum.raw(), lost);
        }
        assert!(state == self.last(), "two states with one checksum");
    }

    pub(crate) fn last(&self) -> &Image {
        self.states.last().expect("there is a first state")
    }

    /// The number of the commit that led to a state, if it is not lost.
    pub(crate) fn number_of(&self, checksum: Checksum) -> Option<usize> {
        self.numbers.get(&checksum.raw()).copied()
    }

    /// How many commits lead from one state to another; `None` if one of them is lost. Negative if
    /// they lead back.
    pub(crate) fn commits_between(&self, one: Checksum, other: Checksum) -> Option<i64> {
        let number = |checksum| i64::try_from(self.number_of(checksum)?).ok();
        Some(number(other)? - number(one)?)
    }

    /// The state with a checksum, lost or not.
    pub(crate) fn find(&self, checksum: Checksum) -> Option<&Image> {
        let lost = || self.lost.get(&checksum.raw());
        self.number_of(checksum).map(|number| &self.states[number]).or_else(lost)
    }
}
