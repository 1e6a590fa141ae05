//! What client and storage see of each fault.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::Proxy;
use crate::fault::{Fault, Faults};
use crate::weather::Weather;

const PUT: &str = "PUT /key HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody";
const SOON: Duration = Duration::from_secs(10);

/// A storage that says yes, behind a proxy.
struct Way {
    weather: Arc<Weather>,
    proxy: Proxy,
    stored: Receiver<String>,
}

impl Way {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, stored) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut input = BufReader::new(stream);
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") {
                    assert_ne!(input.read_line(&mut request).unwrap(), 0, "{request}");
                }
                let mut body = [0; 4];
                input.read_exact(&mut body).unwrap();
                request += std::str::from_utf8(&body).unwrap();
                let answer =
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nyes";
                // Before anybody can see that it was answered.
                sender.send(request).ok();
                input.into_inner().write_all(answer).unwrap();
            }
        });
        let weather = Arc::new(Weather::new(1, 0, Arc::new(Faults::default())));
        let proxy = Proxy::start(&format!("http://127.0.0.1:{port}"), &weather);
        Self { weather, proxy, stored }
    }

    fn connect(&self) -> TcpStream {
        let address = self.proxy.endpoint().strip_prefix("http://").unwrap().to_owned();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// The answer to an upload that meets a fault, as far as it came.
    fn put_in(&self, fault: Fault) -> String {
        self.weather.storm(fault, Duration::from_secs(60));
        let mut client = self.connect();
        client.write_all(PUT.as_bytes()).unwrap();
        // A client that has said all is told all before the end; a reset is an end, too.
        client.shutdown(Shutdown::Write).ok();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).ok();
        self.weather.calm();
        String::from_utf8(answer).unwrap()
    }

    fn is_stored(&self) -> bool {
        self.stored.recv_timeout(Duration::from_millis(200)).is_ok()
    }
}

#[test]
fn good_weather_changes_nothing_but_the_connection() {
    let way = Way::new();
    let mut client = way.connect();
    for _ in 0..2 {
        client.write_all(PUT.as_bytes()).unwrap();
        let mut answer = [0; 41];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes");
        let stored = way.stored.recv_timeout(SOON).unwrap();
        assert_eq!(stored.replace("Connection: close\r\n", ""), PUT);
    }
}

#[test]
fn what_storage_refuses_it_does_not_store() {
    let way = Way::new();
    for (fault, status, code) in [
        (Fault::InternalError, "500", "<Code>InternalError</Code>"),
        (Fault::SlowDown, "503", "<Code>SlowDown</Code>"),
        (Fault::AccessDenied, "403", "<Code>AccessDenied</Code>"),
    ] {
        let answer = way.put_in(fault);
        assert!(answer.contains(status) && answer.contains(code), "{answer}");
        assert!(!way.is_stored(), "{fault:?}");
    }
}

#[test]
fn what_gets_lost_on_the_way_is_not_stored() {
    let way = Way::new();
    for fault in [Fault::ResetOnArrival, Fault::ResetDuringUpload, Fault::BlackHole] {
        assert_eq!(way.put_in(fault), "", "{fault:?}");
        assert!(!way.is_stored(), "{fault:?}");
    }
}

#[test]
fn an_upload_whose_reply_is_lost_is_stored() {
    let way = Way::new();
    assert_eq!(way.put_in(Fault::LostReply), "");
    assert!(way.is_stored());
}

#[test]
fn a_truncated_answer_ends_too_early() {
    let way = Way::new();
    let answer = way.put_in(Fault::TruncatedAnswer);
    assert!(!answer.is_empty() && !answer.ends_with("yes"), "{answer}");
    assert!(way.is_stored());
}

#[test]
fn an_upload_can_outlive_its_sender() {
    let way = Way::new();
    way.weather.storm(Fault::Latency, Duration::from_secs(60));
    let mut client = way.connect();
    client.write_all(PUT.as_bytes()).unwrap();
    drop(client);
    assert!(way.stored.recv_timeout(SOON).is_ok());
}
