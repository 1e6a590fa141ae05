//! What asks storage beside the uploads asks the circuit breaker first, and tells it what it found out:
//! a store that is away when the daemon starts is asked by one database at a time.

use std::time::Duration;

use ractor::rpc::CallResult;
use walrust_engine::{ErrorClass, Evidence, Pass};
use walrust_storage::StorageError;

use super::UploaderMsg;
use crate::service::Service;

/// The right to ask storage something. Dropping it says that nothing was found out.
#[derive(Debug)]
pub(crate) struct Admission {
    uploader: Service<UploaderMsg>,
    database: String,
    pass: Option<Pass>,
}

/// What was found out by somebody who had the right.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) database: String,
    pub(super) pass: Pass,
    /// `None`: storage was not asked.
    pub(super) outcome: Option<Result<(), Unanswered>>,
}

/// Storage did not do what it was asked.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) class: ErrorClass,
    /// There was an answer all the same.
    answered: bool,
    pub(super) error: String,
}

impl Asked {
    pub(super) fn evidence(&self) -> Evidence {
        match &self.outcome {
            None => Evidence::Nothing,
            Some(Ok(())) => Evidence::Answered,
            Some(Err(failed)) => Evidence::of_failure(failed.class, failed.answered),
        }
    }
}

impl Admission {
    /// Waits until the breaker lets a request through.
    pub(crate) async fn of(uploader: &Service<UploaderMsg>, database: &str) -> Self {
        loop {
            let answer = match uploader.get() {
                Some(actor) => actor.call(UploaderMsg::Admit, None).await.ok(),
                None => None,
            };
            if let Some(CallResult::Success(pass)) = answer {
                let (uploader, database) = (uploader.clone(), database.to_owned());
                return Self { uploader, database, pass: Some(pass) };
            }
            // The uploader is being restarted.
            tokio::time::sleep(Self::PAUSE).await;
        }
    }

    const PAUSE: Duration = Duration::from_millis(50);

    /// Storage was asked.
    pub(crate) fn ended(mut self, outcome: Result<(), &StorageError>) {
        self.tell(Some(outcome.map_err(|error| Unanswered {
            class: error.class(),
            answered: error.status().is_some(),
            error: error.to_string(),
        })));
    }

    fn tell(&mut self, outcome: Option<Result<(), Unanswered>>) {
        if let Some(pass) = self.pass.take() {
            let database = std::mem::take(&mut self.database);
            // A new uploader has a new breaker, which wants to know nothing of the old one.
            self.uploader.cast(UploaderMsg::Asked(Asked { database, pass, outcome }));
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.tell(None);
    }
}
