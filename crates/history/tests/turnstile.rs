//! A store that several users share, one request at a time, in an order that a test chooses.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use walrust_storage::{
    Condition, DeleteFailure, ListEntry, Metadata, Object, ObjectMeta, ObjectStore, PutReceipt,
    StorageError,
};

use crate::crashing_store::CrashingStore;

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
pub(crate) fn turnstile(store: &Arc<CrashingStore>) -> ([User; 2], Turnstile) {
    let (sender, told) = mpsc::unbounded_channel();
    let users = [0, 1].map(|number| User {
        number,
        store: Arc::clone(store),
        turns: Semaphore::new(0),
        told: sender.clone(),
    });
    (users, Turnstile { told })
}

impl User {
    async fn turn(&self) {
        // Whoever chooses has gone if the test has failed.
        let _ = self.told.send(Told::Waits(self.number));
        self.turns.acquire().await.expect("it is never closed").forget();
    }

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
        users: &[User; 2],
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
            users[next].turns.add_permits(1);
        }
        requests
    }
}

#[async_trait]
impl ObjectStore for User {
    fn url(&self) -> String {
        self.store.url()
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.turn().await;
        self.store.put(key, body, metadata, condition).await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.turn().await;
        self.store.put_file(key, path, metadata, condition).await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        self.turn().await;
        self.store.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.turn().await;
        self.store.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        self.turn().await;
        self.store.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.turn().await;
        self.store.list(prefix, after).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        self.turn().await;
        self.store.delete(keys).await
    }
}
