//! A server that answers as a test tells it, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Gets the request line with the headers; returns status and body of the answer.
type Answer = dyn Fn(&str) -> (u16, String) + Send + Sync;

/// A server on loopback, for as long as the test runs.
#[derive(Debug)]
pub(crate) struct RecordingServer {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl RecordingServer {
    pub(crate) fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (recorded, answer): (_, Arc<Answer>) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (recorded, answer) = (Arc::clone(&recorded), Arc::clone(&answer));
                // A client that goes away is no concern of the server.
                thread::spawn(move || serve(stream, &recorded, answer.as_ref()).ok());
            }
        });
        Self { port, requests }
    }

    /// A server that allows nothing.
    pub(crate) fn that_refuses() -> Self {
        Self::start(|_| (403, error_body("AccessDenied")))
    }

    /// An empty bucket; uploads get the answer of `upload`.
    pub(crate) fn empty_bucket(upload: impl Fn() -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::start(move |request| match request {
            put if put.starts_with("PUT ") => upload(),
            list if list.contains("list-type=2") => (
                200,
                "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount>\
                 </ListBucketResult>"
                    .to_owned(),
            ),
            _ => (404, error_body("NoSuchKey")),
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Request lines with headers, so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The body of an answer that is an error.
pub(crate) fn error_body(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>as the test wants</Message></Error>")
}

fn serve(stream: TcpStream, recorded: &Mutex<Vec<String>>, answer: &Answer) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if input.read_line(&mut head)? <= 2 {
            break;
        }
        let line = head[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    std::io::copy(&mut input.take(length), &mut std::io::sink())?;
    recorded.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let (status, body) = answer(&head);
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         ETag: \"0\"\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
