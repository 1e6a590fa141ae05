//! The states in which the database has been, in the order of its commits.

use std::collections::HashMap;

use crate::image::Image;

/// All states; the index of one is the number of its commit.
#[derive(Debug)]
pub(crate) struct History {
    states: Vec<Image>,
    by_checksum: HashMap<u64, usize>,
}

impl History {
    pub(crate) fn new(first: Image) -> Self {
        let mut history = Self { states: Vec::new(), by_checksum: HashMap::new() };
        history.push(first);
        history
    }

    pub(crate) fn push(&mut self, state: Image) {
        let number = self.states.len();
        let before = self.by_checksum.insert(state.checksum.raw(), number);
        assert_eq!(before, None, "the workload makes no state twice");
        self.states.push(state);
    }

    pub(crate) fn last(&self) -> &Image {
        self.states.last().expect("there is a first state")
    }

    pub(crate) fn last_number(&self) -> usize {
        self.states.len() - 1
    }

    /// The number of the commit that led to a state.
    pub(crate) fn number_of(&self, checksum: walrust_ltx::Checksum) -> Option<usize> {
        self.by_checksum.get(&checksum.raw()).copied()
    }

    pub(crate) fn state(&self, number: usize) -> &Image {
        &self.states[number]
    }
}
