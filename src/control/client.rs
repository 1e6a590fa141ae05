//! A command's end of the control socket.
//!
//! Invariant: a daemon that hangs is said to hang. Only a snapshot, which may take hours, is waited for
//! without a limit, once the daemon has said how it is.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{
    DatabaseAnswer, DatabaseRequest, Problem, Socket, StatusReport, SyncReport, SyncRequest,
};
use crate::Error;

/// How long the daemon may take for an answer, or longer than it was given for its work.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to let go of a database, with the last uploads, or to take it up.
const LETTING_GO: Duration = Duration::from_secs(40);

/// Talks to the daemon that listens on a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Socket,
}

impl Client {
    /// A client of the daemon on a socket.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self { socket }
    }

    /// The daemon and its databases.
    ///
    /// # Errors
    /// If there is no daemon, or it does not answer as it should.
    pub async fn status(&self) -> Result<StatusReport, Error> {
        self.request(Method::GET, "/v1/status", &(), Some(PATIENCE)).await
    }

    /// Ships everything now.
    ///
    /// # Errors
    /// As [`status`](Self::status); what could not be shipped is part of the report.
    pub async fn sync(&self, request: &SyncRequest) -> Result<SyncReport, Error> {
        let work = Duration::try_from_secs_f64(request.timeout_seconds).unwrap_or_default();
        let limit = work.saturating_add(PATIENCE);
        self.request(Method::POST, "/v1/sync", request, Some(limit)).await
    }

    /// Takes a snapshot of a database.
    ///
    /// # Errors
    /// As [`status`](Self::status), or if the daemon refuses.
    pub async fn snapshot(&self, name: &str) -> Result<DatabaseAnswer, Error> {
        self.about("/v1/snapshot", name, None).await
    }

    /// Has the daemon let go of a database.
    ///
    /// # Errors
    /// As [`status`](Self::status), or if the daemon refuses.
    pub async fn pause(&self, name: &str) -> Result<DatabaseAnswer, Error> {
        self.about("/v1/pause", name, Some(LETTING_GO)).await
    }

    /// Has the daemon replicate a database again.
    ///
    /// # Errors
    /// As [`status`](Self::status), or if the daemon refuses.
    pub async fn resume(&self, name: &str) -> Result<DatabaseAnswer, Error> {
        self.about("/v1/resume", name, Some(LETTING_GO)).await
    }

    async fn about(
        &self,
        path: &str,
        name: &str,
        limit: Option<Duration>,
    ) -> Result<DatabaseAnswer, Error> {
        let request = DatabaseRequest { name: name.to_owned() };
        self.request(Method::POST, path, &request, limit).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        limit: Option<Duration>,
    ) -> Result<T, Error> {
        self.socket.check()?;
        let socket = self.socket.path();
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) if is_nobody(&error) => return Err(Error::NoDaemon(socket.to_owned())),
            Err(source) => return Err(self.failed(source)),
        };
        let body = serde_json::to_vec(body).expect("names and numbers always have a JSON form");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "walrust")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("the parts are constants");
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // It ends with the exchange; an error of it is an error of the answer.
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            connection.abort();
            Ok::<_, hyper::Error>((status, body))
        };
        let limit = limit.unwrap_or(Duration::MAX);
        let exchange = tokio::time::timeout(limit, exchange).await.map_err(|_| {
            let problem = format!("no answer within {limit:?}; does it hang?");
            self.failed(io::Error::new(io::ErrorKind::TimedOut, problem))
        })?;
        let (status, body) = exchange.map_err(|error| self.failed(io::Error::other(error)))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| self.failed(error.into()));
        }
        let problem: Problem =
            serde_json::from_slice(&body).map_err(|error| self.failed(error.into()))?;
        Err(Error::Refused { reason: problem.error, cause: problem.cause.into() })
    }

    fn failed(&self, source: io::Error) -> Error {
        let what = format!("cannot talk to the daemon on {}", self.socket.path().display());
        Error::Io { what, source }
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
