//! A TCP proxy in front of an S3 server that notes when uploads of LTX files were answered, counts
//! requests, and can be away.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// An upload that the server took.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    /// Path of the request: bucket and key.
    pub(crate) path: String,
    /// When the answer came.
    pub(crate) at: Instant,
}

#[derive(Debug, Default)]
struct Record {
    uploads: Mutex<Vec<Upload>>,
    requests: AtomicUsize,
    away: AtomicBool,
    leaves: Notify,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct RecordingProxy {
    address: SocketAddr,
    record: Arc<Record>,
}

impl RecordingProxy {
    /// Starts a proxy in front of `server`, which is `http://host:port`.
    pub(crate) async fn start(server: &str) -> Self {
        let server = server.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let address = listener.local_addr().expect("the listener is bound");
        let record = Arc::new(Record::default());
        let shared = Arc::clone(&record);
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                if shared.away.load(Ordering::SeqCst) {
                    continue;
                }
                let (record, server) = (Arc::clone(&shared), server.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        // Clients and servers end connections as they like.
                        _ = forward(client, &server, &record) => {}
                        () = record.leaves.notified() => {}
                    }
                });
            }
        });
        Self { address, record }
    }

    /// Its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.record.requests.load(Ordering::SeqCst)
    }

    /// Uploads that were answered with success so far.
    pub(crate) fn uploads(&self) -> Vec<Upload> {
        self.record.uploads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// While it is away it closes every connection at once.
    pub(crate) fn set_away(&self, away: bool) {
        self.record.away.store(away, Ordering::SeqCst);
        self.record.leaves.notify_waiters();
    }
}

/// Passes bytes on in both directions. A client of ours sends one request at a time.
async fn forward(client: TcpStream, server: &str, record: &Record) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked: Mutex<Option<String>> = Mutex::new(None);
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                return to_server.shutdown().await;
            }
            if let Some((method, path)) = request_line(&buffer[..length]) {
                record.requests.fetch_add(1, Ordering::SeqCst);
                let put = (method == "PUT" && path.contains(".ltx")).then_some(path);
                *asked.lock().unwrap_or_else(PoisonError::into_inner) = put;
            }
            to_server.write_all(&buffer[..length]).await?;
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return to_client.shutdown().await;
            }
            if buffer[..length].starts_with(b"HTTP/1.1 200") {
                let path = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(path) = path {
                    let upload = Upload { path, at: Instant::now() };
                    record.uploads.lock().unwrap_or_else(PoisonError::into_inner).push(upload);
                }
            }
            to_client.write_all(&buffer[..length]).await?;
        }
    };
    tokio::try_join!(up, down).map(|_| ())
}

/// Method and path, if a request begins here.
fn request_line(bytes: &[u8]) -> Option<(String, String)> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (request, _) = line.split_once(" HTTP/1.1")?;
    let (method, path) = request.split_once(' ')?;
    let path = path.split('?').next().unwrap_or(path);
    Some((method.to_owned(), path.to_owned()))
}
