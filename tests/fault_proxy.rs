//! A proxy before the S3 server that lets requests fail as a test tells it, and remembers them.
//!
//! Requests pass as they are, so their signatures hold. Every connection carries one request: what
//! a fault does to it can touch no other.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::runtime;
use walrust_ltx::FileName;
use walrust_testkit::S3Server;

use crate::recording_server::error_body;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// It is answered by the proxy, with a status and a code of S3.
    Answer(u16, &'static str),
    /// The connection ends instead.
    HangUp,
    /// It is never answered.
    Silence,
    /// It is passed on after a while.
    Late(Duration),
    /// It is passed on, and the connection ends after so many bytes of the answer.
    Torn(u64),
    /// It is passed on, and the connection ends instead of an answer.
    LostReply,
    /// It is passed on, and never answered.
    HeldReply,
}

/// What was asked, and what the server answered.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Size of the body.
    pub(crate) length: u64,
    /// The server's status; `None` until it has answered, or if it was not asked. It is here before
    /// the client has the answer.
    pub(crate) status: Option<u16>,
}

impl Exchange {
    /// The LTX file of which it is the upload, or a part of that.
    pub(crate) fn uploads(&self) -> Option<FileName> {
        (self.method == "PUT").then(|| self.file()).flatten()
    }

    /// The LTX file that it is about.
    pub(crate) fn file(&self) -> Option<FileName> {
        self.path().rsplit('/').next()?.parse().ok()
    }

    /// Whether it lists objects.
    pub(crate) fn lists(&self) -> bool {
        self.target.contains("list-type=2")
    }

    /// Whether it is about objects of a database.
    pub(crate) fn concerns(&self, name: &str) -> bool {
        let (object, listing) = (format!("/{name}/"), format!("%2F{name}%2F"));
        self.target.contains(&object) || (self.lists() && self.target.contains(&listing))
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

type Rule = dyn Fn(&Exchange) -> Fault + Send + Sync;

/// A proxy on loopback, for as long as the test runs.
pub(crate) struct FaultProxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// Address of the S3 server.
    server: String,
    rule: Mutex<Arc<Rule>>,
    exchanges: Mutex<Vec<Exchange>>,
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy").field("port", &self.port).finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// A proxy that lets everything pass.
    pub(crate) fn start() -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    /// A proxy at a port that somebody knows already.
    pub(crate) fn start_on(listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("it is bound").port();
        let server = S3Server::from_env();
        let shared = Arc::new(Shared {
            server: server.endpoint().trim_start_matches("http://").to_owned(),
            rule: Mutex::new(Arc::new(|_: &Exchange| Fault::Pass)),
            exchanges: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // Either side may go away at any time, which is what tests are about.
                thread::spawn(move || shared.serve(&client).ok());
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Decides what happens to requests from now on; returns the number of those that were before.
    pub(crate) fn set(&self, rule: impl Fn(&Exchange) -> Fault + Send + Sync + 'static) -> usize {
        let exchanges = lock(&self.shared.exchanges);
        *lock(&self.shared.rule) = Arc::new(rule);
        exchanges.len()
    }

    /// From now on everything passes; returns the number of requests that were before.
    pub(crate) fn pass(&self) -> usize {
        self.set(|_| Fault::Pass)
    }

    /// From now on nobody gets an answer.
    pub(crate) fn go_down(&self) {
        self.set(|_| Fault::HangUp);
    }

    /// Everything so far, in the order of arrival.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.shared.exchanges).clone()
    }

    /// The attempts to upload LTX files of a database, so far.
    pub(crate) fn uploads(&self, name: &str) -> Vec<Exchange> {
        self.uploads_after(0, name)
    }

    /// Those among them that came after the first `earlier` requests.
    pub(crate) fn uploads_after(&self, earlier: usize, name: &str) -> Vec<Exchange> {
        let mut exchanges = self.exchanges().split_off(earlier);
        exchanges.retain(|exchange| exchange.concerns(name) && exchange.uploads().is_some());
        exchanges
    }
}

/// A port of one test's own at which nobody listens yet.
pub(crate) struct ReservedPort(TcpSocket);

impl ReservedPort {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        Self(socket)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("it is bound"))
    }

    /// From now on somebody listens.
    pub(crate) fn listen(self) -> TcpListener {
        let runtime = runtime::Builder::new_current_thread().enable_io().build();
        let listener = runtime.expect("a runtime").block_on(async {
            let listener = self.0.listen(1024)?.into_std()?;
            listener.set_nonblocking(false).map(|()| listener)
        });
        listener.expect("nobody else has the port")
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let mut input = BufReader::new(client);
        let (exchange, head, expects) = read_head(&mut input)?;
        let ((index, rule), length) = (self.record(&exchange), exchange.length);
        let fault = rule(&exchange);
        if fault == Fault::HangUp {
            return Ok(());
        }
        let mut output = client;
        if expects {
            output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = input.by_ref().take(length);
        match fault {
            Fault::Answer(status, code) => {
                io::copy(&mut body, &mut io::sink())?;
                return answer(output, &exchange, status, code);
            }
            Fault::Silence => {
                // Until the client gives up.
                return io::copy(&mut input, &mut io::sink()).map(drop);
            }
            Fault::Late(pause) => thread::sleep(pause),
            _ => {}
        }
        let mut server = TcpStream::connect(&self.server)?;
        server.write_all(head.as_bytes())?;
        io::copy(&mut body, &mut server)?;
        let mut reply = BufReader::new(server);
        let mut line = String::new();
        reply.read_line(&mut line)?;
        // What a test sees of a client that goes on must be here.
        self.note(index, line.split(' ').nth(1).and_then(|status| status.parse().ok()));
        let rest = line.as_bytes().chain(&mut reply);
        let passed = match fault {
            Fault::Torn(bytes) => io::copy(&mut rest.take(bytes), &mut output),
            Fault::LostReply => Ok(0),
            Fault::HeldReply => io::copy(&mut input, &mut io::sink()),
            _ => {
                let mut rest = rest;
                io::copy(&mut rest, &mut output)
            }
        };
        passed.map(drop)
    }

    /// Remembers a request; its number, and the rule for it.
    fn record(&self, exchange: &Exchange) -> (usize, Arc<Rule>) {
        let mut exchanges = lock(&self.exchanges);
        exchanges.push(exchange.clone());
        (exchanges.len() - 1, Arc::clone(&lock(&self.rule)))
    }

    fn note(&self, index: usize, status: Option<u16>) {
        lock(&self.exchanges)[index].status = status;
    }
}

/// Reads a request up to its body. The head that is returned asks the server to close the
/// connection after its answer; the flag tells whether the client waits before it sends the body.
fn read_head(input: &mut impl BufRead) -> io::Result<(Exchange, String, bool)> {
    let (mut head, mut length, mut expects) = (String::new(), 0, false);
    loop {
        let start = head.len();
        if input.read_line(&mut head)? <= 2 {
            head.truncate(start);
            break;
        }
        let line = head[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        expects |= line.starts_with("expect:");
        if line.starts_with("expect:") || line.starts_with("connection:") {
            head.truncate(start);
        }
    }
    if head.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    head += "Connection: close\r\n\r\n";
    let mut words = head.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    Ok((Exchange { method: word(), target: word(), length, status: None }, head, expects))
}

fn answer(mut output: &TcpStream, exchange: &Exchange, status: u16, code: &str) -> io::Result<()> {
    let body = if exchange.method == "HEAD" { String::new() } else { error_body(code) };
    write!(
        output,
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
