//! The daemon's end of the control socket.
//!
//! Invariants: nobody but the owner of the process can connect, from the moment the socket has its
//! name; a socket that another daemon answers on is left alone; one that a crash left behind is
//! replaced; requests never run in the tasks of the supervision tree.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::task::AbortHandle;
use walrust_actors::{Cause, Replicator, ReplicatorError};

use super::{
    CauseName, DatabaseAnswer, DatabaseRequest, Problem, Socket, StatusReport, SyncReport,
    SyncRequest, SyncResult, state_name,
};
use crate::problems::Problems;

/// A request is a few names.
const MAX_BODY: usize = 1024 * 1024;
/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What requests are about.
#[derive(Debug)]
pub struct Served {
    /// The tree.
    pub replicator: Replicator,
    /// Where everything goes; another URL after a change of the configuration.
    pub storage: ArcSwap<String>,
    /// What keeps the daemon from doing all that was configured.
    pub problems: ArcSwap<Problems>,
}

/// A control socket that clients can connect to, whose requests wait until it is served.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    file: SocketFile,
}

impl Listening {
    /// Listens on a socket.
    ///
    /// # Errors
    /// If another daemon listens there, the socket cannot be made, or others could replace it.
    pub async fn on(socket: &Socket) -> io::Result<Self> {
        socket.prepare()?;
        let path = socket.path();
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            let problem = format!("{} belongs to another running daemon", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
        }
        let listener = bind_privately(path)?;
        let metadata = fs::symlink_metadata(path)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { listener, file: SocketFile { path: path.to_owned(), identity } })
    }

    /// Serves requests from now on.
    #[must_use]
    pub fn serve(self, served: Arc<Served>) -> Server {
        let task = tokio::spawn(accept(self.listener, served));
        Server { task: task.abort_handle(), _file: self.file }
    }
}

/// A control socket that is served; dropping it closes and removes it.
#[derive(Debug)]
pub struct Server {
    task: AbortHandle,
    _file: SocketFile,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name of a socket, which goes with it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: what is removed is what was made.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

/// Binds under a name that nobody can reach and gives the socket its own name when only its owner
/// may connect. The new name replaces what a crash left there.
fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    let private = tempfile::Builder::new()
        .prefix(".walrust-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(directory.unwrap_or(Path::new(".")))?;
    let temporary = private.path().join("socket");
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
    fs::rename(&temporary, path)?;
    Ok(listener)
}

async fn accept(listener: UnixListener, served: Arc<Served>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: somebody will close one.
                tracing::warn!(%error, "the control socket cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, Arc::clone(&served)));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a control connection ended early");
            }
        });
    }
}

/// What a request came to: the JSON of the answer, or why there is none.
type Outcome = Result<Vec<u8>, Failure>;

/// Why there is no answer: the status and the problem.
type Failure = (StatusCode, Problem);

async fn respond(
    request: Request<Incoming>,
    served: Arc<Served>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let outcome = match (&method, path.as_str()) {
        (&Method::GET, "/v1/status") => status(&served).await,
        (&Method::POST, "/v1/sync") => match read(request).await {
            Ok(wanted) => sync(&served, wanted).await,
            Err(problem) => Err(problem),
        },
        (&Method::POST, "/v1/snapshot" | "/v1/pause" | "/v1/resume") => match read(request).await {
            Ok(DatabaseRequest { name }) => about_database(&served, &path, name).await,
            Err(problem) => Err(problem),
        },
        _ => Err(failure(StatusCode::NOT_FOUND, format!("there is no {method} {path}"))),
    };
    let (code, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err((code, problem)) => (code, to_json(&problem)),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

async fn status(served: &Served) -> Outcome {
    let status = served.replicator.overview().await.map_err(problem)?;
    let uploads = served.replicator.uploader_status().await.ok();
    let (storage, problems) = (served.storage.load().to_string(), served.problems.load());
    Ok(to_json(&StatusReport::new(status, uploads, storage, &problems)))
}

async fn sync(served: &Served, request: SyncRequest) -> Outcome {
    let SyncRequest { mut names, timeout_seconds } = request;
    let all = names.is_empty();
    let Ok(timeout) = Duration::try_from_secs_f64(timeout_seconds) else {
        let error = "timeout_seconds must be a non-negative number";
        return Err(failure(StatusCode::BAD_REQUEST, error.to_owned()));
    };
    if all {
        names = served.replicator.names().await.map_err(problem)?;
    }
    let syncs = names.into_iter().map(|name| async move {
        let result = tokio::time::timeout(timeout, served.replicator.sync(&name)).await;
        let paused = matches!(result, Ok(Err(ReplicatorError::Paused { .. })));
        let (txid, problem) = match result {
            // Nobody asked for it by its name.
            Ok(Err(ReplicatorError::Paused { .. })) if all => (txid_of(served, &name).await, None),
            Ok(Ok(txid)) => (txid.map(|txid| txid.to_string()), None),
            Ok(Err(ReplicatorError::Refused { reason, cause, .. })) => {
                (None, Some((reason, cause)))
            }
            Ok(Err(error)) => (None, Some((error.to_string(), Cause::Other))),
            // Every other obstacle refuses the request.
            Err(_) => (None, Some((overdue(served, &name, timeout).await, Cause::Storage))),
        };
        let (error, cause) = problem.unzip();
        SyncResult { name, txid, error, cause: cause.map(CauseName::from), paused }
    });
    Ok(to_json(&SyncReport { databases: join_all(syncs).await }))
}

/// What storage has of a database.
async fn txid_of(served: &Served, name: &str) -> Option<String> {
    let status = served.replicator.status(name).await.ok();
    status.and_then(|status| status.txid).map(|txid| txid.to_string())
}

/// Why a sync takes so long.
async fn overdue(served: &Served, name: &str, timeout: Duration) -> String {
    let status = served.replicator.status(name).await.ok();
    let error = status.and_then(|status| status.last_error);
    let error = error.unwrap_or_else(|| "storage has not answered".to_owned());
    format!("not everything is in storage after {timeout:?}: {error}")
}

async fn about_database(served: &Served, path: &str, name: String) -> Outcome {
    let replicator = &served.replicator;
    let (mut txid, mut warning, mut state) = (None, None, None);
    match path {
        "/v1/snapshot" => txid = Some(replicator.snapshot(&name).await.map_err(problem)?),
        "/v1/pause" => warning = replicator.pause(&name).await.map_err(problem)?,
        _ => state = Some(replicator.resume(&name).await.map_err(problem)?),
    }
    let (txid, state) = (txid.map(|it| it.to_string()), state.map(|it| state_name(it).to_owned()));
    Ok(to_json(&DatabaseAnswer { name, txid, warning, state }))
}

fn problem(error: ReplicatorError) -> Failure {
    let (code, cause) = match &error {
        ReplicatorError::NotRunning { .. } => (StatusCode::NOT_FOUND, Cause::Other),
        ReplicatorError::Refused { cause: Cause::Storage, .. } => {
            (StatusCode::BAD_GATEWAY, Cause::Storage)
        }
        ReplicatorError::Paused { .. } => (StatusCode::CONFLICT, Cause::Other),
        ReplicatorError::Refused { cause, .. } => (StatusCode::CONFLICT, *cause),
        _ => (StatusCode::SERVICE_UNAVAILABLE, Cause::Other),
    };
    (code, Problem { error: error.to_string(), cause: cause.into() })
}

fn failure(code: StatusCode, error: String) -> Failure {
    (code, Problem { error, cause: CauseName::Other })
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    let bad = |error: String| failure(StatusCode::BAD_REQUEST, error);
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names and numbers always have a JSON form")
}
