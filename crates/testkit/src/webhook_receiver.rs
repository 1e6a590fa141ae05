//! A receiver of webhooks that answers as a test tells it, and keeps what it got.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverAnswer {
    /// With this status.
    Status(u16),
    /// With this status and a pause in seconds that it asks for.
    RetryAfter(u16, u32),
    /// With a redirection to the path `/elsewhere`.
    Redirect,
    /// Never.
    Never,
    /// The connection breaks.
    Broken,
}

/// A request that was received whole.
#[derive(Clone, Debug)]
pub struct ReceivedWebhook {
    /// Method and path.
    pub request: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// A server on loopback, for as long as the test runs.
#[derive(Clone, Debug)]
pub struct WebhookReceiver {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Vec<ReceivedWebhook>>,
    arrived: Condvar,
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Vec<ReceivedWebhook>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WebhookReceiver {
    /// Starts a receiver. `answer` gets the number of the request, from 0.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(answer: impl Fn(usize) -> ReceiverAnswer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (shared, answer) = (Arc::new(Shared::default()), Arc::new(answer));
        let receiver = Self { port, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                // A client that goes away is no concern of the receiver.
                thread::spawn(move || serve(stream, &shared, answer.as_ref()).ok());
            }
        });
        receiver
    }

    /// A receiver that takes everything.
    #[must_use]
    pub fn that_accepts() -> Self {
        Self::start(|_| ReceiverAnswer::Status(204))
    }

    /// URL of a path on this receiver.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What has arrived so far.
    #[must_use]
    pub fn received(&self) -> Vec<ReceivedWebhook> {
        self.shared.received().clone()
    }

    /// Blocks until `wanted` holds for what has arrived, and returns that.
    ///
    /// # Panics
    /// If it does not within `patience`.
    #[track_caller]
    #[must_use]
    pub fn wait_until(
        &self,
        patience: Duration,
        wanted: impl Fn(&[ReceivedWebhook]) -> bool,
    ) -> Vec<ReceivedWebhook> {
        let deadline = Instant::now() + patience;
        let mut received = self.shared.received();
        while !wanted(&received) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {patience:?}; received: {received:#?}");
            let waited = self.shared.arrived.wait_timeout(received, left);
            received = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        received.clone()
    }
}

fn serve(
    mut stream: TcpStream,
    shared: &Shared,
    answer: &dyn Fn(usize) -> ReceiverAnswer,
) -> io::Result<()> {
    let webhook = read_request(&mut BufReader::new(&stream))?;
    let number = {
        let mut received = shared.received();
        received.push(webhook);
        received.len() - 1
    };
    shared.arrived.notify_all();
    let (status, header) = match answer(number) {
        ReceiverAnswer::Status(status) => (status, String::new()),
        ReceiverAnswer::RetryAfter(status, seconds) => {
            (status, format!("Retry-After: {seconds}\r\n"))
        }
        ReceiverAnswer::Redirect => (307, "Location: /elsewhere\r\n".to_owned()),
        ReceiverAnswer::Broken => return Ok(()),
        ReceiverAnswer::Never => loop {
            // Keeps the connection open until the test ends.
            thread::park();
        },
    };
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

fn read_request(input: &mut impl BufRead) -> io::Result<ReceivedWebhook> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: BTreeMap<_, _> = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    input.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(ReceivedWebhook { request: lines.first().cloned().unwrap_or_default(), headers, body })
}
