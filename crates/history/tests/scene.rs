//! Histories of real LTX files, and the database that each of their states is.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use walrust_engine::manifest::{FORMAT, FileEntry, Manifest, Writer};
use walrust_engine::{RestorePlan, RestoreTarget, Tree, manifest_key, object_key, plan_restore};
use walrust_history::{Retention, SHA256, describe_file, read_manifest};
use walrust_ltx::{Checksum, Decoder, Encoder, FileName, Header, Mode, PageSize, Pgno, Txid};
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::crashing_store::CrashingStore;

pub(crate) const NAME: &str = "tenants/app";
pub(crate) const HOUR_MS: i64 = 3_600_000;
const PAGE: u32 = 512;

/// The pages of a database.
pub(crate) type Pages = BTreeMap<Pgno, Vec<u8>>;

/// A history that grows, and the state behind each of its TXIDs.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) store: CrashingStore,
    pub(crate) now_ms: i64,
    pub(crate) head: u64,
    pub(crate) states: BTreeMap<u64, Pages>,
    pages: Pages,
    manifest: Manifest,
    seed: u64,
    /// What was stored.
    pub(crate) bytes: BTreeMap<FileName, Vec<u8>>,
}

/// The time so many milliseconds after the Unix epoch.
pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

pub(crate) fn txid(number: u64) -> Txid {
    Txid::new(number).unwrap()
}

pub(crate) fn name(min: u64, max: u64) -> FileName {
    FileName { min: txid(min), max: txid(max) }
}

pub(crate) fn key(min: u64, max: u64) -> String {
    object_key(NAME, name(min, max))
}

impl Scene {
    /// A snapshot of TXID 1 at a time, and its manifest.
    pub(crate) async fn begin(time: &str) -> Self {
        let writer = Writer { id: "ab".repeat(16), host: "host".to_owned(), epoch: 1 };
        let manifest = Manifest {
            format: FORMAT,
            name: NAME.to_owned(),
            lineage: "cd".repeat(16),
            writer,
            page_size: PAGE,
            files: Vec::new(),
            retired: Vec::new(),
        };
        let mut scene = Self {
            store: CrashingStore::new(),
            now_ms: time.parse::<Timestamp>().unwrap().as_millisecond(),
            head: 1,
            states: BTreeMap::new(),
            pages: (1..=5).map(|pgno| (pgno, vec![0; PAGE as usize])).collect(),
            manifest,
            seed: 0,
            bytes: BTreeMap::new(),
        };
        scene.states.insert(1, scene.pages.clone());
        scene.snapshot(true).await;
        scene.write_manifest().await;
        scene
    }

    /// The file of some commits.
    pub(crate) async fn commit(&mut self, commits: u64, indexed: bool) {
        self.seed += 1;
        let (before, size) = (rolling(&self.pages), self.pages.len() as u32);
        let mut changed: BTreeSet<Pgno> =
            (0..3).map(|i| (self.seed * (i + 3) % 7) as Pgno + 1).collect();
        // The database grows and shrinks.
        let commit = 5 + (self.seed * self.seed % 6) as Pgno;
        changed.retain(|pgno| *pgno <= commit);
        changed.extend(size + 1..=commit);
        changed.insert(1);
        for pgno in &changed {
            let version = (self.seed << 8 | u64::from(*pgno)).to_be_bytes();
            self.pages.insert(*pgno, version.into_iter().cycle().take(PAGE as usize).collect());
        }
        self.pages.retain(|pgno, _| *pgno <= commit);
        let range = (self.head + 1, self.head + commits);
        let pages = self.pages.iter().filter(|(pgno, _)| changed.contains(pgno));
        let pages = pages.map(|(pgno, page)| (*pgno, page.clone())).collect();
        self.put(range, Some(before), &pages, indexed).await;
        self.head += commits;
        self.states.insert(self.head, self.pages.clone());
    }

    /// A snapshot of the head.
    pub(crate) async fn snapshot(&mut self, indexed: bool) {
        let pages = self.pages.clone();
        self.put((1, self.head), None, &pages, indexed).await;
    }

    async fn put(
        &mut self,
        (min, max): (u64, u64),
        pre_apply: Option<Checksum>,
        pages: &Pages,
        indexed: bool,
    ) {
        let (page_size, commit) = (PageSize::try_from(PAGE).unwrap(), self.pages.len() as u32);
        let header = Header {
            tracking: true,
            timestamp_ms: self.now_ms,
            pre_apply,
            ..Header::new(page_size, commit, txid(min), txid(max))
        };
        let mut encoder = Encoder::new(Vec::new(), header.clone()).unwrap();
        for (pgno, page) in pages {
            encoder.page(*pgno, page).unwrap();
        }
        let (bytes, summary) = encoder.finish(Some(rolling(&self.pages))).unwrap();
        let sha256 = walrust_sqlite::hex(&Sha256::digest(&bytes));
        let metadata = Metadata::from([(SHA256.to_owned(), sha256.clone())]);
        let name = name(min, max);
        if indexed {
            let post_apply = summary.trailer.post_apply.unwrap();
            let entry = describe_file(name, &header, post_apply, summary.size, sha256);
            self.manifest.add([entry]);
        }
        let key = object_key(NAME, name);
        self.bytes.insert(name, bytes.clone());
        self.store.put(&key, bytes.into(), &metadata, &Condition::None).await.unwrap();
    }

    pub(crate) async fn write_manifest(&mut self) {
        let bytes = self.manifest.to_bytes().into();
        let key = manifest_key(NAME);
        self.store.put(&key, bytes, &Metadata::new(), &Condition::None).await.unwrap();
    }

    /// What the manifest has of the files after a TXID, once it is written.
    pub(crate) fn entries_after(&self, head: u64) -> Vec<FileEntry> {
        let entries = self.manifest.files.iter();
        let is_after = |entry: &&FileEntry| entry.file_name().is_some_and(|it| it.min > txid(head));
        entries.filter(is_after).cloned().collect()
    }

    /// The database changes, and nothing is stored of it.
    pub(crate) fn commit_unseen(&mut self) {
        self.pages.insert(1, vec![0xee; PAGE as usize]);
    }

    /// Goes back to an earlier state: what is committed next is another chain.
    pub(crate) fn go_back(&mut self, head: u64) {
        self.head = head;
        self.pages = self.states[&head].clone();
    }

    pub(crate) fn wait_hours(&mut self, hours: f64) {
        self.now_ms += (hours * HOUR_MS as f64) as i64;
    }

    /// Asserts that each restore point of a plan gives the state that it was.
    pub(crate) async fn assert_restorable(&self, store: &CrashingStore, points: &BTreeSet<Txid>) {
        for point in points {
            let restored = restore(store, *point).await;
            assert!(restored == self.states[&point.get()], "TXID {point} is another state");
        }
    }
}

fn rolling(pages: &Pages) -> Checksum {
    pages
        .iter()
        .fold(Checksum::EMPTY, |sum, (&pgno, page)| sum.toggle(Checksum::of_page(pgno, page)))
}

pub(crate) async fn tree(store: &CrashingStore) -> Tree {
    let listing = store.list(&format!("{NAME}/"), None).await.unwrap();
    Tree::read(NAME, listing.iter().map(|entry| (entry.key.as_str(), entry.size)))
}

pub(crate) async fn file_names(store: &CrashingStore) -> Vec<FileName> {
    tree(store).await.files.iter().map(|file| file.name).collect()
}

pub(crate) async fn manifest(store: &CrashingStore) -> Manifest {
    read_manifest(store, NAME).await.unwrap().expect("it has a manifest").manifest
}

/// Asserts that the manifest lists what is there, and nothing that is not.
pub(crate) async fn assert_indexed(store: &CrashingStore) {
    let tree = tree(store).await;
    assert_eq!(manifest(store).await.missing_from(&tree), []);
}

/// The state of a TXID, as a restore puts it together; every file and every link is verified.
pub(crate) async fn restore(store: &CrashingStore, target: Txid) -> Pages {
    let plan = plan_restore(&tree(store).await, RestoreTarget::Txid(target));
    let plan = plan.unwrap_or_else(|error| panic!("TXID {target}: {error}"));
    apply(store, &plan).await
}

/// The state that the files of a plan give; every file and every link is verified.
pub(crate) async fn apply(store: &CrashingStore, plan: &RestorePlan) -> Pages {
    let (mut pages, mut before) = (Pages::new(), None);
    for (file, _) in &plan.files {
        let bytes = store.get(&file.key).await.unwrap().bytes().await.unwrap();
        let mut decoder = Decoder::new(bytes.as_ref(), Mode::Strict).unwrap();
        let header = decoder.header().clone();
        assert_eq!(header.file_name(), file.name);
        assert_eq!(header.pre_apply, before, "a broken link before {}", file.name);
        let mut page = vec![0; PAGE as usize];
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            pages.insert(pgno, page.clone());
        }
        pages.retain(|pgno, _| *pgno <= header.commit);
        before = decoder.finish().unwrap().post_apply;
    }
    assert_eq!(before, Some(rolling(&pages)));
    pages
}

/// Plans at a time.
pub(crate) async fn plan(
    store: &CrashingStore,
    policy: &walrust_engine::RetentionPolicy,
    now_ms: i64,
) -> Retention {
    Retention::plan(store, NAME, policy, at(now_ms)).await.unwrap()
}
