//! The events that the uploader raises. Jobs are manifests: they need no database.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use walrust_engine::manifest::Writer;
use walrust_engine::{BreakerState, ErrorClass, EventKind};
use walrust_storage::{
    Condition, DeleteFailure, ListEntry, MemoryStore, Metadata, Object, ObjectMeta, PutReceipt,
    StorageError,
};

use super::*;
use crate::database::DatabaseMsg;
use crate::event::Event;
use crate::manifest_update::ManifestUpdate;
use crate::request_rate::RequestRate;
use crate::run_files::RunFiles;
use crate::webhook::WebhookMsg;

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store of which every manifest fails as it is told, and that never tells of single objects.
#[derive(Debug, Default)]
struct Store {
    inner: MemoryStore,
    fails: Mutex<Option<ErrorClass>>,
}

impl Store {
    fn fail(&self, class: Option<ErrorClass>) {
        *self.fails.lock().unwrap() = class;
    }
}

#[async_trait]
impl ObjectStore for Store {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(
        &self,
        key: &str,
        body: bytes::Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        let fails = *self.fails.lock().unwrap();
        match fails {
            Some(class) => Err(StorageError::new("put", self.url(), key, class, "injected fault")),
            None => self.inner.put(key, body, metadata, condition).await,
        }
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.inner.put_file(key, path, metadata, condition).await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<bytes::Bytes, StorageError> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, _: &str) -> Result<ObjectMeta, StorageError> {
        std::future::pending().await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        self.inner.delete(keys).await
    }
}

/// Passes on what it is told.
struct Ear<M>(mpsc::UnboundedSender<M>);

impl<M: ractor::Message> Actor for Ear<M> {
    type Msg = M;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<M>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<M>,
        message: M,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.0.send(message).map_err(|_| "the test has ended".into())
    }
}

async fn ear<M: ractor::Message>() -> (ActorRef<M>, mpsc::UnboundedReceiver<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (actor, _) = Actor::spawn(None, Ear(sender), ()).await.unwrap();
    (actor, receiver)
}

/// An uploader between a store and those who are told.
struct Scene {
    store: Arc<Store>,
    services: Services,
    uploader: ActorRef<UploaderMsg>,
    database: ActorRef<DatabaseMsg>,
    outcomes: mpsc::UnboundedReceiver<DatabaseMsg>,
    events: mpsc::UnboundedReceiver<WebhookMsg>,
}

impl Scene {
    async fn new(max_retries: u32, breaker: BreakerSettings) -> Self {
        let services = Services::new();
        let (webhook, events) = ear().await;
        services.webhook.set(webhook);
        let (database, outcomes) = ear().await;
        let store = Arc::new(Store::default());
        let arguments = UploaderArguments {
            store: store.clone(),
            retry: RetryPolicy {
                max_retries,
                base_delay: Duration::from_millis(1),
                max_delay: Duration::from_millis(5),
            },
            limits: UploadLimits::default(),
            breaker,
            rate: RequestRate::new(0),
            services: services.clone(),
        };
        let (uploader, _) = Actor::spawn(None, UploaderActor, arguments).await.unwrap();
        Self { store, services, uploader, database, outcomes, events }
    }

    fn job(&self, writer: &str, epoch: u64) -> UploadJob {
        let writer = Writer { id: writer.to_owned(), host: "host".to_owned(), epoch };
        let update = ManifestUpdate {
            page_size: 4096,
            writer,
            first: false,
            run: RunFiles::default(),
            entries: Vec::new(),
        };
        UploadJob {
            database: "a".to_owned(),
            upload: Upload::Manifest(Arc::new(update)),
            lane: Lane::History,
            reply: self.database.clone(),
        }
    }

    fn offer(&self, writer: &str, epoch: u64) {
        let job = self.job(writer, epoch);
        self.uploader.cast(UploaderMsg::Offer(job)).unwrap();
    }

    async fn outcome(&mut self) -> DatabaseMsg {
        let outcome = tokio::time::timeout(PATIENCE, self.outcomes.recv()).await;
        outcome.expect("the uploader answers").unwrap()
    }

    async fn failures(&mut self, count: usize) {
        for _ in 0..count {
            let outcome = self.outcome().await;
            assert!(matches!(outcome, DatabaseMsg::UploadFailed { .. }), "{outcome:?}");
        }
    }

    /// Lets the store heal and waits until it has what was offered.
    async fn heal(&mut self) {
        self.store.fail(None);
        while !matches!(self.outcome().await, DatabaseMsg::ManifestWritten(_)) {}
    }

    /// The events until now.
    async fn events(&mut self) -> Vec<Event> {
        // What the uploader has raised is before its answer, and this mark behind it.
        ractor::call!(self.uploader, UploaderMsg::Status).unwrap();
        self.services.raise(Event::new(EventKind::Heartbeat));
        let mut events = Vec::new();
        loop {
            match self.next_event().await {
                Event { kind: EventKind::Heartbeat, .. } => return events,
                event => events.push(event),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        match event.expect("there is an event") {
            Some(WebhookMsg::Raise(event)) => event,
            other => panic!("{other:?}"),
        }
    }
}

const NO_BREAKER: BreakerSettings =
    BreakerSettings { enabled: false, threshold: 1, cooldown: Duration::ZERO };

#[tokio::test]
async fn b11_a_failure_that_lasts_is_told_once_with_the_attempt_that_max_retries_names() {
    let mut scene = Scene::new(3, NO_BREAKER).await;
    for _ in 0..2 {
        scene.store.fail(Some(ErrorClass::Transient));
        scene.offer("we", 1);
        let event = scene.next_event().await;
        assert_eq!((event.kind, event.attempts), (EventKind::SyncFailed, 3));
        assert_eq!(event.database.as_deref(), Some("a"));
        assert!(event.error.unwrap().contains("injected fault"));
        scene.failures(10).await;
        scene.heal().await;
        assert_eq!(scene.events().await, [], "it is told again only after a success");
    }
}

#[tokio::test]
async fn b09_refused_credentials_are_told_with_the_first_refusal_and_once() {
    let mut scene = Scene::new(3, NO_BREAKER).await;
    scene.store.fail(Some(ErrorClass::Auth));
    scene.offer("we", 1);
    let event = scene.next_event().await;
    assert_eq!((event.kind, event.attempts), (EventKind::AuthFailure, 1));
    scene.failures(10).await;
    scene.heal().await;
    assert_eq!(scene.events().await, []);
}

#[tokio::test]
async fn a_race_for_the_manifest_is_tried_again_and_no_alarm() {
    let mut scene = Scene::new(3, NO_BREAKER).await;
    scene.store.fail(Some(ErrorClass::Precondition));
    scene.offer("we", 1);
    scene.failures(1).await;
    scene.heal().await;
    assert_eq!(scene.events().await, []);
}

#[tokio::test]
async fn b11_the_breaker_tells_when_it_opens_and_when_it_closes() {
    let breaker =
        BreakerSettings { enabled: true, threshold: 2, cooldown: Duration::from_millis(20) };
    let mut scene = Scene::new(1000, breaker).await;
    scene.store.fail(Some(ErrorClass::Throttled));
    scene.offer("we", 1);
    // The breaker opens with the second; the others are probes.
    scene.failures(5).await;
    scene.heal().await;
    let events = scene.events().await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::CircuitBreakerOpen, EventKind::CircuitBreakerClosed]);
    assert!(events[0].error.as_ref().unwrap().contains("injected fault"));
}

#[tokio::test]
async fn another_writer_is_told_and_leaves_no_upload_behind() {
    let mut scene = Scene::new(3, NO_BREAKER).await;
    scene.offer("they", 7);
    scene.heal().await;
    scene.offer("we", 1);
    let outcome = scene.outcome().await;
    assert!(matches!(outcome, DatabaseMsg::UploadConflict(_)), "{outcome:?}");
    let event = scene.next_event().await;
    assert_eq!(event.kind, EventKind::WriterConflict);
    assert!(event.error.unwrap().contains("has taken the name over"));
    let status = ractor::call!(scene.uploader, UploaderMsg::Status).unwrap();
    assert_eq!((status.queued, status.under_way), (0, 0));
    assert_eq!(status.breaker, BreakerState::Closed);
}

#[tokio::test]
async fn what_a_database_offers_twice_is_uploaded_once() {
    let mut scene = Scene::new(3, NO_BREAKER).await;
    let job = scene.job("we", 1);
    for _ in 0..5 {
        scene.uploader.cast(UploaderMsg::Offer(job.clone())).unwrap();
    }
    scene.heal().await;
    let status = ractor::call!(scene.uploader, UploaderMsg::Status).unwrap();
    assert_eq!((status.queued, status.under_way), (0, 0));
    assert!(scene.outcomes.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_manifest_is_written_although_files_of_earlier_runs_take_too_long_to_describe() {
    let store = Store::default();
    let key = "a/0000000000000001-0000000000000001.ltx";
    let file = bytes::Bytes::from_static(&[0; 1000]);
    store.put(key, file, &Metadata::new(), &Condition::IfAbsent).await.unwrap();
    let writer = Writer { id: "we".to_owned(), host: "host".to_owned(), epoch: 1 };
    let update = ManifestUpdate {
        page_size: 4096,
        writer,
        first: true,
        run: RunFiles::default(),
        entries: Vec::new(),
    };
    let upload = Upload::Manifest(Arc::new(update));
    let limit = UploadLimits::default().attempt_timeout;
    let outcome = attempt::attempt(&store, "a", &upload, 1, limit).await;
    assert!(matches!(&outcome, Ok(stored) if stored.partial), "{outcome:?}");
    assert!(store.get("a/manifest.json").await.is_ok());
}

#[test]
fn large_files_get_more_time() {
    let base = UploadLimits::default().attempt_timeout;
    assert_eq!(attempt::time_limit(base, 1000), base);
    let hour = Duration::from_secs(3600);
    assert!(attempt::time_limit(base, 1024 * 1024 * 1024) > hour);
}
