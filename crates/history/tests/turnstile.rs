//! A store that several users share, one request at a time, in an order that a test chooses.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};

use crate::crashing_store::CrashingStore;
use crate::through::{Through, Way};

/// What a user tells whoever chooses.
#[derive(Debug)]
enum Told {
    /// It waits with a request.
    Waits(usize),
    /// It needs the store no more.
    Leaves(usize),
}

/// One of the users' ways to the store.
#[derive(Debug)]
pub(crate) struct User {
    number: usize,
    store: Arc<CrashingStore>,
    turns: Semaphore,
    told: mpsc::UnboundedSender<Told>,
}

/// Lets users in.
#[derive(Debug)]
pub(crate) struct Turnstile {
    told: mpsc::UnboundedReceiver<Told>,
}

/// Two users of a store, and who lets them in.
pub(crate) fn turnstile(store: &Arc<CrashingStore>) -> ([Through<User>; 2], Turnstile) {
    let (sender, told) = mpsc::unbounded_channel();
    let users = [0, 1].map(|number| {
        Through(User {
            number,
            store: Arc::clone(store),
            turns: Semaphore::new(0),
            told: sender.clone(),
        })
    });
    (users, Turnstile { told })
}

#[async_trait]
impl Way for User {
    fn store(&self) -> &CrashingStore {
        &self.store
    }

    /// Waits for its turn.
    async fn before(&self) {
        // Whoever chooses has gone if the test has failed.
        let _ = self.told.send(Told::Waits(self.number));
        self.turns.acquire().await.expect("it is never closed").forget();
    }
}

impl User {
    /// To be called at the end.
    pub(crate) fn leaves(&self) {
        let _ = self.told.send(Told::Leaves(self.number));
    }
}

impl Turnstile {
    /// Lets the users in until both have left. `choose` is asked, with the number of requests of each so
    /// far, who comes next while both wait.
    pub(crate) async fn run(
        &mut self,
        users: &[Through<User>; 2],
        mut choose: impl FnMut([usize; 2]) -> usize,
    ) -> [usize; 2] {
        let (mut waiting, mut has_left, mut requests) = ([0; 2], [false; 2], [0; 2]);
        while has_left != [true; 2] {
            let is_busy = |user: usize| !has_left[user] && waiting[user] == 0;
            if is_busy(0) || is_busy(1) {
                match self.told.recv().await.expect("the users have senders") {
                    Told::Waits(user) => waiting[user] += 1,
                    Told::Leaves(user) => has_left[user] = true,
                }
                continue;
            }
            let next = match has_left {
                [false, false] => choose(requests),
                [left, _] => usize::from(left),
            };
            waiting[next] -= 1;
            requests[next] += 1;
            users[next].0.turns.add_permits(1);
        }
        requests
    }
}
