//! The actor by its messages, against real receivers.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, mpsc};

use ractor::rpc::CallResult;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use walrust_testkit::{ReceivedWebhook, ReceiverAnswer, WebhookReceiver};

use super::*;
use crate::settings::Secret;

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const SECRET: &str = "whsec-5d1c0a77";

/// A running actor.
struct Webhooks {
    actor: ActorRef<WebhookMsg>,
    task: JoinHandle<()>,
}

impl Webhooks {
    async fn start(webhooks: Vec<WebhookSettings>) -> Self {
        // Retries come soon.
        let policy = DeliveryPolicy {
            base_delay: Duration::from_millis(20),
            max_delay: Duration::from_millis(50),
            ..DeliveryPolicy::default()
        };
        Self::start_with(webhooks, policy).await
    }

    async fn start_with(webhooks: Vec<WebhookSettings>, policy: DeliveryPolicy) -> Self {
        let arguments = WebhookArguments { webhooks, policy };
        let (actor, task) = Actor::spawn(None, WebhookActor, arguments).await.unwrap();
        Self { actor, task }
    }

    fn raise(&self, event: Event) {
        self.actor.cast(WebhookMsg::Raise(event)).unwrap();
    }

    fn reconfigure(&self, receivers: Vec<WebhookSettings>) {
        self.actor.cast(WebhookMsg::Reconfigure(receivers)).unwrap();
    }

    async fn flush(&self, timeout: Duration) -> Duration {
        let began = Instant::now();
        let message = |reply| WebhookMsg::Flush { timeout, reply };
        let answer = self.actor.call(message, Some(PATIENCE)).await.unwrap();
        assert!(matches!(answer, CallResult::Success(())), "{answer:?}");
        began.elapsed()
    }

    async fn stop(self) {
        self.actor.stop(None);
        self.task.await.unwrap();
    }
}

fn webhook(receiver: &WebhookReceiver) -> WebhookSettings {
    WebhookSettings {
        url: receiver.url("/hook"),
        events: Vec::new(),
        secret: Some(Secret::new(SECRET.to_owned())),
        heartbeat_interval: Duration::from_millis(20),
    }
}

/// Waits for some deliveries without holding the runtime.
async fn deliveries(receiver: &WebhookReceiver, at_least: usize) -> Vec<ReceivedWebhook> {
    let receiver = receiver.clone();
    let wait = move || receiver.wait_until(PATIENCE, |received| received.len() >= at_least);
    tokio::task::spawn_blocking(wait).await.unwrap()
}

/// A receiver whose first answer comes when it is told so.
fn receiver_that_waits() -> (WebhookReceiver, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let receiver = WebhookReceiver::start(move |number| {
        if number == 0 {
            released.lock().unwrap().recv().unwrap();
        }
        ReceiverAnswer::Status(200)
    });
    (receiver, release)
}

fn body(webhook: &ReceivedWebhook) -> Value {
    serde_json::from_str(&webhook.body).unwrap()
}

/// Name and database of deliveries.
fn summary(deliveries: &[ReceivedWebhook]) -> Vec<String> {
    let words = deliveries.iter().map(body).map(|body| {
        let database = body["database"].as_str().unwrap_or("-").to_owned();
        format!("{} {database}", body["event"].as_str().unwrap())
    });
    words.collect()
}

/// HMAC-SHA256 as RFC 2104 spells it out, for keys of at most one block.
fn hmac(secret: &str, message: &str) -> String {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(secret.bytes()).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a receiver does with a delivery: refuses old ones, and ones that were not signed by us.
fn is_authentic(webhook: &ReceivedWebhook, secret: &str, now: u64) -> bool {
    let timestamp = &webhook.headers["x-walrust-timestamp"];
    let signed = hmac(secret, &format!("{timestamp}.{}", webhook.body));
    webhook.headers.get("x-walrust-signature") == Some(&format!("sha256={signed}"))
        && now.abs_diff(timestamp.parse().unwrap()) < 300
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_with_everything_that_the_contract_names() {
    let receiver = WebhookReceiver::that_accepts();
    let webhooks = Webhooks::start(vec![webhook(&receiver)]).await;
    let event = Event::of(EventKind::SyncFailed, "app").error("no route").attempts(5);
    webhooks.raise(event.with("txid", 17));
    let [delivery] = &deliveries(&receiver, 1).await[..] else { panic!("one event") };
    assert_eq!(delivery.request, "POST /hook HTTP/1.1");
    assert_eq!(delivery.headers["x-walrust-event"], "sync_failed");
    assert_eq!(delivery.headers["user-agent"], format!("walrust/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(delivery.headers["content-type"], "application/json");
    let body = body(delivery);
    assert_eq!(body["event"], "sync_failed");
    assert_eq!(body["database"], "app");
    assert_eq!(body["error"], "no route");
    assert_eq!(body["attempts"], 5);
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["context"], serde_json::json!({ "txid": 17 }));
    assert_eq!(body["id"].as_str().unwrap().len(), 32);
    let raised: jiff::Timestamp = body["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(raised.duration_until(jiff::Timestamp::now()).abs().as_secs() < 60);
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_a_delivery_proves_who_sent_it_and_when() {
    let receiver = WebhookReceiver::that_accepts();
    let unsigned = WebhookReceiver::that_accepts();
    let without = WebhookSettings { secret: None, ..webhook(&unsigned) };
    let webhooks = Webhooks::start(vec![webhook(&receiver), without]).await;
    webhooks.raise(Event::of(EventKind::AuthFailure, "app"));
    let delivery = deliveries(&receiver, 1).await.remove(0);
    assert!(is_authentic(&delivery, SECRET, now()));
    assert!(!is_authentic(&delivery, "another secret", now()));
    assert!(!is_authentic(&delivery, SECRET, now() + 3600), "a recorded delivery is old");
    let mut replayed = delivery.clone();
    replayed.headers.insert("x-walrust-timestamp".to_owned(), (now() + 3600).to_string());
    assert!(!is_authentic(&replayed, SECRET, now() + 3600), "its time cannot be changed");
    let unsigned = deliveries(&unsigned, 1).await.remove(0);
    assert!(!unsigned.headers.contains_key("x-walrust-signature"));
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_what_may_succeed_is_tried_again_as_the_same_event() {
    let answers = [
        ReceiverAnswer::Status(500),
        ReceiverAnswer::Status(429),
        ReceiverAnswer::Status(408),
        ReceiverAnswer::Broken,
        ReceiverAnswer::Status(200),
    ];
    let receiver = WebhookReceiver::start(move |number| answers[number]);
    let webhooks = Webhooks::start(vec![webhook(&receiver)]).await;
    webhooks.raise(Event::of(EventKind::WriterConflict, "app"));
    let attempts = deliveries(&receiver, 5).await;
    for attempt in &attempts {
        assert_eq!(attempt.body, attempts[0].body, "identifier and all");
        assert!(is_authentic(attempt, SECRET, now()));
    }
    webhooks.flush(PATIENCE).await;
    assert_eq!(receiver.received().len(), 5, "it is not sent again once it is accepted");
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_hangs_ends_and_is_tried_again() {
    let receiver = WebhookReceiver::start(|number| match number {
        0 => ReceiverAnswer::Never,
        _ => ReceiverAnswer::Status(200),
    });
    let webhooks = Webhooks::start(vec![webhook(&receiver)]).await;
    webhooks.raise(Event::of(EventKind::WriterConflict, "app"));
    let attempts = deliveries(&receiver, 2).await;
    assert_eq!(attempts[0].body, attempts[1].body);
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_final_and_attempts_are_bounded() {
    for (answer, attempts) in [
        (ReceiverAnswer::Status(400), 1),
        (ReceiverAnswer::Status(401), 1),
        (ReceiverAnswer::Status(404), 1),
        (ReceiverAnswer::Redirect, 1),
        (ReceiverAnswer::Status(503), 8),
        (ReceiverAnswer::RetryAfter(503, 0), 8),
    ] {
        let receiver = WebhookReceiver::start(move |_| answer);
        let webhooks = Webhooks::start(vec![webhook(&receiver)]).await;
        webhooks.raise(Event::of(EventKind::SnapshotCompleted, "app"));
        webhooks.flush(PATIENCE).await;
        assert_eq!(receiver.received().len(), attempts, "{answer:?}");
        webhooks.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_the_receiver_asks_for_is_kept() {
    let receiver = WebhookReceiver::start(|number| match number {
        0 => ReceiverAnswer::RetryAfter(429, 1),
        _ => ReceiverAnswer::Status(200),
    });
    let policy =
        DeliveryPolicy { base_delay: Duration::from_millis(1), ..DeliveryPolicy::default() };
    let webhooks = Webhooks::start_with(vec![webhook(&receiver)], policy).await;
    let began = Instant::now();
    webhooks.raise(Event::of(EventKind::SyncFailed, "app"));
    deliveries(&receiver, 2).await;
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_a_receiver_that_hangs_delays_no_other_and_the_end_only_within_bounds() {
    let hanging = WebhookReceiver::start(|_| ReceiverAnswer::Never);
    let other = WebhookReceiver::that_accepts();
    let webhooks = Webhooks::start(vec![webhook(&hanging), webhook(&other)]).await;
    let began = Instant::now();
    for database in ["a", "b", "c"] {
        webhooks.raise(Event::of(EventKind::SyncFailed, database));
    }
    deliveries(&other, 3).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    deliveries(&hanging, 1).await;
    let bound = Duration::from_millis(500);
    let taken = webhooks.flush(bound).await;
    assert!(bound <= taken && taken < bound + Duration::from_secs(3), "{taken:?}");
    assert_eq!(hanging.received().len(), 1, "one request at a time");
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_flushing_delivers_what_waits_and_then_answers_at_once() {
    let receiver = WebhookReceiver::start(|number| match number {
        0 => ReceiverAnswer::Status(503),
        _ => ReceiverAnswer::Status(200),
    });
    // Without the flush the second attempt would come in a minute, the others later.
    let policy =
        DeliveryPolicy { burst: 1, spacing: Duration::from_secs(60), ..DeliveryPolicy::default() };
    let webhooks = Webhooks::start_with(vec![webhook(&receiver)], policy).await;
    for database in ["a", "b", "c"] {
        webhooks.raise(Event::of(EventKind::SnapshotCompleted, database));
    }
    deliveries(&receiver, 1).await;
    let taken = webhooks.flush(PATIENCE).await;
    assert!(taken < Duration::from_secs(10), "{taken:?}");
    let expected = ["a", "a", "b", "c"].map(|database| format!("snapshot_completed {database}"));
    assert_eq!(summary(&receiver.received()), expected);
    assert!(webhooks.flush(PATIENCE).await < Duration::from_secs(5), "nothing is left");
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_events_that_wait_become_one_with_a_count() {
    let (receiver, release) = receiver_that_waits();
    let webhooks = Webhooks::start(vec![webhook(&receiver)]).await;
    webhooks.raise(Event::of(EventKind::SyncFailed, "first"));
    deliveries(&receiver, 1).await;
    for attempts in 1..=4 {
        webhooks.raise(Event::of(EventKind::SyncFailed, "app").attempts(attempts));
        webhooks.raise(Event::of(EventKind::SyncFailed, "other"));
    }
    webhooks.raise(Event::of(EventKind::AuthFailure, "app"));
    release.send(()).unwrap();
    webhooks.flush(PATIENCE).await;
    let received = receiver.received();
    let expected =
        ["sync_failed first", "sync_failed app", "sync_failed other", "auth_failure app"];
    assert_eq!(summary(&received), expected);
    let repeated = body(&received[1]);
    assert_eq!((&repeated["context"]["repeats"], &repeated["attempts"]), (&3.into(), &4.into()));
    assert_eq!(body(&received[3])["context"], serde_json::json!({}));
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_get_the_events_they_list_and_heartbeats_only_then() {
    let all = WebhookReceiver::that_accepts();
    let some = WebhookReceiver::that_accepts();
    let beats = WebhookReceiver::that_accepts();
    let listing = |receiver, events: &[EventKind]| WebhookSettings {
        events: events.to_vec(),
        ..webhook(receiver)
    };
    let webhooks = Webhooks::start(vec![
        listing(&all, &[]),
        listing(&some, &[EventKind::ActorQuarantined, EventKind::WriterConflict]),
        listing(&beats, &[EventKind::Heartbeat]),
    ])
    .await;
    let received = deliveries(&beats, 5).await;
    let identifiers: std::collections::BTreeSet<_> =
        received.iter().map(|beat| body(beat)["id"].to_string()).collect();
    assert_eq!(identifiers.len(), received.len(), "each is an event of its own");
    for kind in EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Heartbeat) {
        webhooks.raise(Event::of(kind, "app"));
    }
    webhooks.flush(PATIENCE).await;
    assert_eq!(all.received().len(), EventKind::ALL.len() - 1);
    let expected = ["writer_conflict app", "actor_quarantined app"];
    assert_eq!(summary(&some.received()), expected);
    assert!(summary(&beats.received()).iter().all(|event| event == "heartbeat -"));
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_keeps_what_is_critical() {
    let (receiver, release) = receiver_that_waits();
    let policy = DeliveryPolicy { capacity: 3, ..DeliveryPolicy::default() };
    let webhooks = Webhooks::start_with(vec![webhook(&receiver)], policy).await;
    webhooks.raise(Event::of(EventKind::SnapshotCompleted, "first"));
    deliveries(&receiver, 1).await;
    webhooks.raise(Event::of(EventKind::CorruptionDetected, "a"));
    for database in ["b", "c", "d", "e"] {
        webhooks.raise(Event::of(EventKind::SnapshotCompleted, database));
    }
    release.send(()).unwrap();
    webhooks.flush(PATIENCE).await;
    let expected = [
        "snapshot_completed first",
        "corruption_detected a",
        "snapshot_completed d",
        "snapshot_completed e",
    ];
    assert_eq!(summary(&receiver.received()), expected);
    webhooks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_cannot_be_used_stops_only_its_own_webhook() {
    let receiver = WebhookReceiver::that_accepts();
    let broken = ["ftp://example.com/x", "http://", "hello"]
        .map(|url| WebhookSettings { url: url.to_owned(), ..webhook(&receiver) });
    let webhooks = broken.into_iter().chain([webhook(&receiver)]).collect();
    let webhooks = Webhooks::start(webhooks).await;
    webhooks.raise(Event::of(EventKind::SyncFailed, "app"));
    deliveries(&receiver, 1).await;
    webhooks.stop().await;
}

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn debug(value: &impl fmt::Debug) -> String {
    format!("{value:?} {value:#?}")
}

#[tokio::test]
async fn a_corrected_receiver_gets_what_the_wrong_one_did_not() {
    let right = WebhookReceiver::start(|_| ReceiverAnswer::Status(200));
    let nobody = WebhookSettings { url: "http://127.0.0.1:1/hook".to_owned(), ..webhook(&right) };
    let webhooks = Webhooks::start(vec![nobody]).await;
    webhooks.raise(Event::of(EventKind::SyncFailed, "a"));
    webhooks.raise(Event::of(EventKind::WriterConflict, "b"));
    webhooks.reconfigure(vec![webhook(&right)]);
    assert_eq!(summary(&deliveries(&right, 2).await), ["sync_failed a", "writer_conflict b"]);
    webhooks.stop().await;
}

#[tokio::test]
async fn a_receiver_that_stays_keeps_its_queue_and_what_is_under_way() {
    let (stays, release) = receiver_that_waits();
    let comes = WebhookReceiver::start(|_| ReceiverAnswer::Status(200));
    let webhooks = Webhooks::start(vec![webhook(&stays)]).await;
    webhooks.raise(Event::of(EventKind::SyncFailed, "a"));
    deliveries(&stays, 1).await;
    webhooks.raise(Event::of(EventKind::SyncFailed, "b"));
    webhooks.reconfigure(vec![webhook(&comes), webhook(&stays)]);
    webhooks.raise(Event::of(EventKind::SyncFailed, "c"));
    release.send(()).unwrap();
    webhooks.flush(PATIENCE).await;
    assert_eq!(summary(&stays.received()), ["sync_failed a", "sync_failed b", "sync_failed c"]);
    assert_eq!(summary(&comes.received()), ["sync_failed c"]);
    webhooks.stop().await;
}

/// On one thread, so that the log gets everything.
#[tokio::test]
async fn e04_neither_secret_nor_path_of_a_webhook_shows_in_logs_or_debug_output() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let failing = WebhookReceiver::start(|number| match number {
        0 => ReceiverAnswer::Broken,
        1 => ReceiverAnswer::Status(500),
        _ => ReceiverAnswer::Status(403),
    });
    let secret_path = |url: String| WebhookSettings { url, ..webhook(&failing) };
    let [path, user] = ["services-T0KEN", "us3r-passw0rd"];
    let url = failing.url(&format!("/{path}?key={path}"));
    let settings = vec![
        secret_path(url.replace("http://", &format!("http://{user}:{user}@"))),
        // Nobody listens, and no such URL.
        secret_path(format!("http://127.0.0.1:1/{path}")),
        secret_path(format!("gopher://{user}@host:1/{path}")),
        secret_path(format!("{path}/{user}")),
    ];
    let mut shown = debug(&settings);
    let policy =
        DeliveryPolicy { base_delay: Duration::from_millis(5), ..DeliveryPolicy::default() };
    let arguments = WebhookArguments { webhooks: settings.clone(), policy };
    shown += &debug(&arguments);
    let webhooks = Webhooks::start_with(settings, policy).await;
    let mut state = WebhookState::new(webhooks.actor.clone(), arguments);
    state.raise(Event::of(EventKind::SyncFailed, "app"));
    shown += &debug(&state);
    let mut receivers = state.receivers.into_values();
    let parcel = receivers.next().and_then(|mut it| it.start_next(Instant::now())).unwrap();
    shown += &debug(&parcel);
    webhooks.raise(Event::of(EventKind::SyncFailed, "app"));
    webhooks.flush(PATIENCE).await;
    webhooks.stop().await;
    assert_eq!(failing.received().len(), 3);
    shown += &log.text();
    assert!(shown.contains("event not delivered"), "the log is heard:\n{shown}");
    assert!(shown.contains(&failing.url("")), "and names the receiver");
    for hidden in [SECRET, path, user] {
        assert!(!shown.contains(hidden), "{hidden} shows in:\n{shown}");
    }
}
