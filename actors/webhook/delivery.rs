//! One attempt to deliver a notice.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode};
use tokio::sync::OnceCell;
use walrust_engine::{DeliveryOutcome, EventKind};
use walrust_storage::trusted_certificates;

use super::notice::VERSION;
use super::resolver::{ThreadResolver, on_thread};
use super::signature::sign;
use super::target::Target;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an attempt may take as a whole.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next event.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What goes to whom.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) target: Arc<Target>,
    pub(super) kind: EventKind,
    pub(super) body: String,
}

/// Why a receiver does not have an event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    /// There can be no requests at all.
    #[error("cannot set up HTTP: {0}")]
    Client(String),
    /// No answer came.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The receiver asks for another attempt.
    #[error("the receiver answers {status}")]
    Unavailable {
        /// Its answer.
        status: StatusCode,
        /// The pause that it asks for.
        retry_after: Option<Duration>,
    },
    /// The receiver does not want it.
    #[error("the receiver refuses it with {0}; check the URL and secret of the webhook")]
    Refused(StatusCode),
}

impl DeliveryError {
    /// What it means for the queue.
    pub(super) fn outcome(&self) -> DeliveryOutcome {
        match self {
            Self::Refused(_) => DeliveryOutcome::Refused,
            Self::Unavailable { retry_after, .. } => {
                DeliveryOutcome::Failed { retry_after: *retry_after }
            }
            Self::Client(_) | Self::NoAnswer(_) => DeliveryOutcome::Failed { retry_after: None },
        }
    }
}

/// Makes the requests. Clones share one client, which is made for the first of them.
#[derive(Clone, Debug)]
pub(super) struct Courier {
    client: Arc<OnceCell<Client>>,
    /// Some receiver is asked over TLS.
    tls: bool,
}

impl Courier {
    /// For receivers of which at least one is asked over TLS, or none.
    pub(super) fn new(tls: bool) -> Self {
        Self { client: Arc::default(), tls }
    }

    /// Posts a notice. Bounded in time.
    pub(super) async fn deliver(&self, parcel: &Parcel) -> Result<(), DeliveryError> {
        let client = self.client.get_or_try_init(|| new_client(self.tls)).await?;
        let target = parcel.target.as_ref();
        let timestamp = unix_seconds().to_string();
        let mut request = client
            .post(target.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("X-Walrust-Event", parcel.kind.as_str())
            .header("X-Walrust-Timestamp", &timestamp);
        if let Some(secret) = &target.secret {
            request = request.header("X-Walrust-Signature", sign(secret, &timestamp, &parcel.body));
        }
        let answer = request.body(parcel.body.clone()).send().await;
        let answer = answer.map_err(|error| DeliveryError::NoAnswer(chain(error.without_url())))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status if is_temporary(status) => Err(DeliveryError::Unavailable {
                status,
                retry_after: retry_after(answer.headers()),
            }),
            status => Err(DeliveryError::Refused(status)),
        }
    }
}

async fn new_client(tls: bool) -> Result<Client, DeliveryError> {
    let make = move || build_client(trusted(tls)?);
    on_thread(make).await.map_err(|error| DeliveryError::Client(error.to_string()))?
}

/// The only certificates to trust; `None`: those of the system.
fn trusted(tls: bool) -> Result<Option<Vec<Vec<u8>>>, DeliveryError> {
    if !tls {
        // Nothing is read, so that it works on systems that have no certificates.
        return Ok(Some(Vec::new()));
    }
    trusted_certificates().map_err(|error| DeliveryError::Client(error.to_string()))
}

/// Reads the certificates of the system: blocking.
fn build_client(trusted: Option<Vec<Vec<u8>>>) -> Result<Client, DeliveryError> {
    let mut builder = Client::builder()
        .user_agent(format!("walrust/{VERSION}"))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(1)
        // A redirected POST becomes a GET, and a signed body is meant for one receiver.
        .redirect(Policy::none())
        .dns_resolver(ThreadResolver);
    if let Some(trusted) = trusted {
        let certificates: Result<Vec<_>, _> =
            trusted.iter().map(|certificate| Certificate::from_der(certificate)).collect();
        builder = builder.tls_certs_only(certificates.map_err(setup)?);
    }
    builder.build().map_err(setup)
}

fn setup(error: reqwest::Error) -> DeliveryError {
    DeliveryError::Client(chain(error))
}

fn is_temporary(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// The pause that a receiver asks for, if it says so in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// An error with its causes, which reqwest does not print by itself.
fn chain(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
