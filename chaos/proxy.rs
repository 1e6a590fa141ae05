//! A proxy in front of the S3 server in which requests meet the weather.
//!
//! Invariant: what is passed on is passed on byte for byte, signatures included; only the headers
//! `Connection` belong to each of the two connections. A connection that a fault breaks is broken
//! for good. Nothing runs on when the value is gone.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::time::sleep;

use crate::fault::Fault;
use crate::weather::{Trouble, Weather};

/// A proxy on loopback.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    /// Ends every connection when it goes.
    _runtime: Runtime,
}

impl Proxy {
    /// Starts a proxy in front of `http://host:port`.
    pub(crate) fn start(upstream: &str, weather: &Arc<Weather>) -> Self {
        let upstream: Arc<str> =
            upstream.strip_prefix("http://").expect("the test server has no TLS").into();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime needs no more than a thread");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let weather = Arc::clone(weather);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, weather) = (Arc::clone(&upstream), Arc::clone(&weather));
                // A client that goes away is no concern of the proxy.
                tokio::spawn(async move { serve(client, &upstream, &weather).await.ok() });
            }
        });
        Self { port, _runtime: runtime }
    }

    /// What clients take for the S3 server.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn serve(client: TcpStream, upstream: &str, weather: &Weather) -> io::Result<()> {
    let mut client = BufReader::new(client);
    while let Some(head) = Head::read(&mut client).await? {
        let trouble = weather.next(head.method());
        let meets = |fault: Fault| trouble.is_some_and(|trouble| trouble.fault == fault);
        if meets(Fault::ResetOnArrival) {
            return reset(client);
        }
        if head.value("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut body = vec![0; head.content_length() >> u32::from(meets(Fault::ResetDuringUpload))];
        client.read_exact(&mut body).await?;
        if meets(Fault::ResetDuringUpload) {
            return reset(client);
        }
        if let Some(Trouble { length, .. }) = trouble {
            sleep(length).await;
        }
        if meets(Fault::BlackHole) {
            return reset(client);
        }
        if let Some(refusal) = trouble.and_then(|trouble| refusal(trouble.fault, head.method())) {
            client.write_all(refusal.as_bytes()).await?;
            continue;
        }
        let answer = forward(upstream, &head, &body).await?;
        if meets(Fault::LostReply) {
            return reset(client);
        }
        if meets(Fault::TruncatedAnswer) {
            client.write_all(&answer.bytes[..answer.bytes.len() / 2]).await?;
            return client.shutdown().await;
        }
        client.write_all(&answer.bytes).await?;
        if !answer.has_length {
            return client.shutdown().await;
        }
    }
    Ok(())
}

/// Breaks a connection as a network does, without a polite end.
fn reset(client: BufReader<TcpStream>) -> io::Result<()> {
    client.into_inner().set_zero_linger()
}

/// The answer of a server that does not want.
fn refusal(fault: Fault, method: &str) -> Option<String> {
    let (status, code) = match fault {
        Fault::InternalError => ("500 Internal Server Error", "InternalError"),
        Fault::SlowDown => ("503 Slow Down", "SlowDown"),
        Fault::AccessDenied => ("403 Forbidden", "AccessDenied"),
        _ => return None,
    };
    let body = format!("<Error><Code>{code}</Code><Message>chaos</Message></Error>");
    let length = body.len();
    // An answer to HEAD tells the length of what it leaves out.
    let body = if method == "HEAD" { "" } else { &body };
    Some(format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n\
         {body}"
    ))
}

struct Answer {
    bytes: Vec<u8>,
    /// Whether a client can tell where it ends.
    has_length: bool,
}

async fn forward(upstream: &str, request: &Head, body: &[u8]) -> io::Result<Answer> {
    let mut server = BufReader::new(TcpStream::connect(upstream).await?);
    server.write_all(&request.with_connection_close()).await?;
    server.write_all(body).await?;
    let head = loop {
        let head = Head::read(&mut server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        // The client has its own 100 Continue.
        if !head.lines[0].starts_with("HTTP/1.1 1") {
            break head;
        }
    };
    let has_length = request.method() == "HEAD"
        || ["content-length", "transfer-encoding"].iter().any(|name| head.value(name).is_some())
        || ["204", "304"].iter().any(|status| head.lines[0].contains(status));
    let mut bytes = head.without_connection();
    server.read_to_end(&mut bytes).await?;
    Ok(Answer { bytes, has_length })
}

/// The head of a request or an answer.
struct Head {
    /// Without the ends of the lines and without the empty line.
    lines: Vec<String>,
}

impl Head {
    /// `None` if the peer has nothing more to say.
    async fn read(input: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            match line.trim_end_matches(['\r', '\n']) {
                "" if lines.is_empty() => {}
                "" => return Ok(Some(Self { lines })),
                line => lines.push(line.to_owned()),
            }
        }
    }

    fn method(&self) -> &str {
        self.lines[0].split(' ').next().unwrap_or_default()
    }

    fn value(&self, name: &str) -> Option<&str> {
        let headers = self.lines[1..].iter().filter_map(|line| line.split_once(':'));
        headers.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    }

    fn content_length(&self) -> usize {
        self.value("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn with_connection_close(&self) -> Vec<u8> {
        self.text("Connection: close\r\n")
    }

    fn without_connection(&self) -> Vec<u8> {
        self.text("")
    }

    fn text(&self, connection: &str) -> Vec<u8> {
        let of_connection = |line: &&String| !line.to_ascii_lowercase().starts_with("connection:");
        let kept: Vec<_> = self.lines.iter().filter(of_connection).map(String::as_str).collect();
        format!("{}\r\n{connection}\r\n", kept.join("\r\n")).into_bytes()
    }
}

#[cfg(test)]
mod tests;
