//! A server that answers as a test tells it, for what no real store does on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use walrust_storage::{S3Credentials, S3Options, S3Store};

/// What arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is sent back.
pub(crate) enum Reply {
    /// An answer with a body, whose length is announced as it is.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// An answer whose body ends before the announced length.
    Truncated { announced: usize, body: &'static str },
    /// No answer, and the connection is reset.
    Reset,
    /// No answer, and the connection stays.
    Silence,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self::Answer { status: 200, headers: Vec::new(), body: body.into() }
    }

    /// An error as S3 sends it.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>the server says no\
             </Message></Error>"
        );
        Self::Answer { status, headers: Vec::new(), body }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// A running server; it ends with the runtime of the test.
pub(crate) struct FakeServer {
    pub(crate) endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeServer {
    pub(crate) async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, reply) = (Arc::clone(&requests), Arc::new(reply));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, reply) = (Arc::clone(&seen), Arc::clone(&reply));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let Some(request) = receive(&mut stream).await else { return };
                    let answer = reply(&request);
                    let is_head = request.method == "HEAD";
                    seen.lock().unwrap().push(request);
                    send(stream.into_inner(), answer, is_head).await;
                });
            }
        });
        Self { endpoint, requests }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// A store with this server behind it.
    pub(crate) async fn store(&self) -> S3Store {
        S3Store::open("bucket", "prefix", &self.options()).await.unwrap()
    }

    pub(crate) fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint.clone()),
            region: Some("us-east-1".to_owned()),
            credentials: Some(S3Credentials {
                access_key: "AKIDTEST".to_owned(),
                secret_key: "the-secret-of-the-tests".to_owned(),
                session_token: None,
            }),
            ..S3Options::default()
        }
    }
}

async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if request.header("expect").is_some() {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

async fn send(mut stream: TcpStream, reply: Reply, is_head: bool) {
    let (status, headers, body, length) = match reply {
        Reply::Answer { status, headers, body } => {
            let length = body.len();
            (status, headers, body, length)
        }
        Reply::Truncated { announced, body } => {
            (200, vec![("etag", "\"1\"".to_owned())], body.to_owned(), announced)
        }
        Reply::Reset => {
            stream.set_zero_linger().unwrap();
            return;
        }
        Reply::Silence => std::future::pending().await,
    };
    let mut head = format!("HTTP/1.1 {status} Answer\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "content-length") {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    if !is_head {
        head.push_str(&body);
    }
    // The client may have gone already; its side of the test notices.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.shutdown().await;
}
