//! Merging files in storage: what it costs, and what odd files do to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walrust_engine::manifest::Manifest;
use walrust_engine::{RestoreTarget, RetentionPolicy, plan_restore};
use walrust_history::{
    HistoryError, PlannedRestore, RestoreOptions, Retention, RetentionProblem, RetentionReport,
};
use walrust_ltx::{Decoder, Encoder, Header, Mode};
use walrust_sqlite::IntegrityCheck;
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::retention::runtime;
use crate::scene::{
    NAME, Scene, assert_indexed, at, file_names, key, manifest, name, plan, restore, tree, txid,
};

const MERGE_ALL: RetentionPolicy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

/// A snapshot of TXID 1 and incrementals behind it.
async fn incrementals(count: u64) -> Scene {
    let mut scene = Scene::begin("2026-12-31T22:00:00Z").await;
    for _ in 0..count {
        scene.now_ms += 1000;
        scene.commit(1, true).await;
    }
    scene.write_manifest().await;
    scene
}

async fn compact(scene: &Scene) -> RetentionReport {
    let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
    let report =
        retention.execute(&scene.store, Duration::ZERO, &|| at(scene.now_ms)).await.unwrap();
    scene.assert_restorable(&scene.store, &retention.plan.restore_points).await;
    assert_indexed(&scene.store).await;
    report
}

#[test]
fn ten_thousand_small_files_are_restored_with_a_few_requests_after_merging() {
    runtime().block_on(async {
        let scene = incrementals(10_000).await;
        let report = compact(&scene).await;
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!(report.deleted.len(), 9_999);
        assert_eq!(report.quiet_until_ms, i64::MAX, "nothing is left to do");
        let store = Arc::new(scene.store.copied().await);
        let planned = PlannedRestore::plan(store.as_ref(), NAME, RestoreTarget::Latest).await;
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("restored.db");
        // Its pages are no database that SQLite could look at.
        let integrity_check = IntegrityCheck::None;
        let options = RestoreOptions { integrity_check, ..RestoreOptions::default() };
        let restored = planned.unwrap().execute(store.clone(), &output, options, |_| {}).await;
        assert_eq!(restored.unwrap().txid, txid(scene.head));
        let requests = store.take_requests();
        assert!(requests < 100, "{requests} requests");
        let pages: Vec<u8> = scene.states[&scene.head].values().flatten().copied().collect();
        assert!(std::fs::read(&output).unwrap() == pages, "it is another state");
    });
}

#[test]
fn c15_a_merged_file_has_the_time_of_its_last_state() {
    runtime().block_on(async {
        let scene = incrementals(5).await;
        let entry_of = |manifest: &Manifest, file| {
            let mut entries = manifest.files.iter();
            entries.find(|entry| entry.file_name() == Some(file)).unwrap().clone()
        };
        let last = entry_of(&manifest(&scene.store).await, name(5, 5));
        compact(&scene).await;
        let merged = entry_of(&manifest(&scene.store).await, name(2, 5));
        assert_eq!(
            (merged.created, merged.post, merged.commit),
            (last.created, last.post, last.commit)
        );
        let files = [name(1, 1), name(2, 5), name(6, 6)];
        assert_eq!(file_names(&scene.store).await, files);
    });
}

#[test]
fn c10_a_state_inside_a_merged_file_is_not_taken_for_another() {
    runtime().block_on(async {
        let scene = incrementals(5).await;
        let created = |manifest: &Manifest, file| {
            let mut entries = manifest.files.iter();
            let entry = entries.find(|entry| entry.file_name() == Some(file)).unwrap();
            entry.created.parse::<jiff::Timestamp>().unwrap()
        };
        let before = manifest(&scene.store).await;
        let (first, inside) = (created(&before, name(1, 1)), created(&before, name(3, 3)));
        compact(&scene).await;
        let planned = PlannedRestore::plan_at(&scene.store, NAME, first).await.unwrap();
        assert_eq!(planned.plan.head, txid(1));
        let hidden = PlannedRestore::plan_at(&scene.store, NAME, inside).await;
        assert!(matches!(hidden, Err(HistoryError::Unavailable { .. })), "{hidden:?}");
        let inside = plan_restore(&tree(&scene.store).await, RestoreTarget::Txid(txid(3)));
        let message = inside.unwrap_err().to_string();
        let (before, after) = (txid(1).to_string(), txid(5).to_string());
        assert!(message.contains(&before) && message.contains(&after), "{message}");
    });
}

/// Replaces bytes in the middle of an object; the metadata goes, as if it had never been there.
async fn damage(scene: &Scene, key: &str) {
    let bytes = scene.store.get(key).await.unwrap().bytes().await.unwrap();
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    let metadata = Metadata::new();
    scene.store.put(key, Bytes::from(bytes), &metadata, &Condition::None).await.unwrap();
}

#[test]
fn c08_one_damaged_file_stays_and_those_around_it_are_merged() {
    runtime().block_on(async {
        let scene = incrementals(200).await;
        damage(&scene, &key(100, 100)).await;
        let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let now_ms = || at(scene.now_ms);
        let report = retention.execute(&scene.store, Duration::ZERO, &now_ms).await.unwrap();
        let keys: Vec<&str> = report.problems.iter().map(RetentionProblem::key).collect();
        assert_eq!(keys, [key(100, 100)]);
        let left = [name(1, 1), name(2, 99), name(100, 100), name(101, 200), name(201, 201)];
        assert_eq!(file_names(&scene.store).await, left);
        assert_indexed(&scene.store).await;
        // The next run meets it again, and does no harm.
        let again = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let report = again.execute(&scene.store, Duration::ZERO, &now_ms).await.unwrap();
        assert_eq!((report.problems.len(), report.deleted), (1, Vec::new()));
        assert_eq!(restore(&scene.store, txid(99)).await, scene.states[&99]);
    });
}

#[test]
fn c08_a_second_chain_under_the_same_txids_stays_as_it_is() {
    runtime().block_on(async {
        let mut scene = Scene::begin("2026-12-31T22:00:00Z").await;
        for commits in [6, 2] {
            scene.commit(commits, true).await;
        }
        scene.go_back(1);
        for commits in [4, 4, 1, 1] {
            scene.commit(commits, true).await;
        }
        scene.snapshot(true).await;
        scene.write_manifest().await;
        let second_chain = [name(2, 7), name(8, 9)];
        for _ in 0..3 {
            let report = compact(&scene).await;
            let left = file_names(&scene.store).await;
            assert!(second_chain.iter().all(|file| left.contains(file)), "{report:?}");
        }
        let left = file_names(&scene.store).await;
        let chain = [name(1, 1), name(1, 11), name(2, 7), name(2, 10), name(8, 9), name(11, 11)];
        assert_eq!(left, chain);
    });
}

#[test]
fn c05_a_whole_file_that_is_not_the_one_that_was_stored_is_not_merged() {
    runtime().block_on(async {
        let scene = incrementals(5).await;
        let object = scene.store.get(&key(3, 3)).await.unwrap();
        let metadata = object.meta.metadata.clone();
        let bytes = object.bytes().await.unwrap();
        // The same pages with another time: every checksum in the file is right.
        let mut decoder = Decoder::new(bytes.as_ref(), Mode::Strict).unwrap();
        let header = Header { timestamp_ms: 7, ..decoder.header().clone() };
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        let mut page = vec![0; 512];
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            encoder.page(pgno, &page).unwrap();
        }
        let (forged, _) = encoder.finish(decoder.finish().unwrap().post_apply).unwrap();
        let body = Bytes::from(forged);
        scene.store.put(&key(3, 3), body, &metadata, &Condition::None).await.unwrap();
        let report = compact(&scene).await;
        let problem = &report.problems[0];
        assert!(matches!(problem, RetentionProblem::WrongSha256 { .. }), "{problem}");
        let left = [name(1, 1), name(2, 2), name(3, 3), name(4, 5), name(6, 6)];
        assert_eq!(file_names(&scene.store).await, left);
    });
}

#[test]
fn a_key_that_is_taken_by_another_object_keeps_its_parts() {
    runtime().block_on(async {
        let scene = incrementals(5).await;
        let planned_before = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let (body, metadata) = (Bytes::from_static(b"not an LTX file"), Metadata::new());
        scene.store.put(&key(2, 5), body, &metadata, &Condition::None).await.unwrap();
        let now_ms = || at(scene.now_ms);
        let execute = async |retention: Retention| {
            retention.execute(&scene.store, Duration::ZERO, &now_ms).await.unwrap()
        };
        let report = execute(planned_before).await;
        let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
        assert!(matches!(problem, RetentionProblem::OtherObject { .. }), "{problem}");
        assert_eq!(report.deleted, []);
        // Whoever knows of it before does not even fetch the parts.
        scene.store.take_fetched();
        let report = execute(plan(&scene.store, &MERGE_ALL, scene.now_ms).await).await;
        let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
        assert!(matches!(problem, RetentionProblem::NotLtx { .. }), "{problem}");
        assert_eq!(
            (report.deleted, scene.store.take_fetched().contains(&key(2, 2))),
            (vec![], false)
        );
    });
}

/// How often each LTX file was fetched that was fetched at all.
fn fetches(scene: &Scene) -> BTreeMap<String, usize> {
    let mut fetches = BTreeMap::new();
    for key in scene.store.take_fetched().into_iter().filter(|key| key.ends_with(".ltx")) {
        *fetches.entry(key).or_default() += 1;
    }
    fetches
}

#[test]
fn c08_odd_files_are_fetched_once_and_not_again_while_they_are_the_same() {
    runtime().block_on(async {
        let mut scene = incrementals(200).await;
        scene.go_back(201);
        // In the middle of a batch, at its end, and two in a row.
        for txid in [20, 65, 100, 101, 180] {
            damage(&scene, &key(txid, txid)).await;
        }
        let now = at(scene.now_ms);
        scene.store.take_fetched();
        let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let report = retention.execute(&scene.store, Duration::ZERO, &|| now).await.unwrap();
        let keys: Vec<&str> = report.problems.iter().map(RetentionProblem::key).collect();
        assert_eq!(keys, [20, 65, 100, 101, 180].map(|txid| key(txid, txid)));
        let fetched = fetches(&scene);
        assert!(fetched.values().all(|count| *count == 1), "{fetched:?}");
        assert!(fetched.len() >= 199, "each source once, and each merged file");

        // More comes, and some of it is merged: what is odd and what is beside it is not fetched.
        let merged = file_names(&scene.store).await;
        for _ in 0..5 {
            scene.commit(1, true).await;
        }
        let writer = manifest(&scene.store).await.writer;
        let new = scene.entries_after(201);
        let add = |manifest: &mut Manifest| manifest.add(new.clone());
        walrust_history::edit_manifest(&scene.store, NAME, &writer, add).await.unwrap();
        let plan_again = async |odd| {
            Retention::plan_without(&scene.store, NAME, &MERGE_ALL, now, odd).await.unwrap()
        };
        let again = plan_again(&report.odd).await;
        assert!(
            again.problems.is_empty() && again.plan.merges.len() == 1,
            "{:?}",
            again.plan.merges
        );
        let second = again.execute(&scene.store, Duration::ZERO, &|| now).await.unwrap();
        let fetched = fetches(&scene);
        let odd = [20, 65, 100, 101, 180].map(|txid| key(txid, txid));
        assert!(odd.iter().all(|key| !fetched.contains_key(key)), "{fetched:?}");
        assert!(fetched.len() < merged.len(), "{fetched:?}");
        assert_eq!((second.problems.len(), &second.odd), (0, &report.odd));

        // One that somebody has repaired is looked at again.
        let good = scene.bytes[&name(100, 100)].clone();
        let metadata = Metadata::new();
        scene.store.put(&key(100, 100), good.into(), &metadata, &Condition::None).await.unwrap();
        let repaired = plan_again(&report.odd).await;
        let sources: Vec<_> =
            repaired.plan.merges.iter().flat_map(|it| it.sources.clone()).collect();
        assert!(sources.contains(&name(100, 100)), "{sources:?}");
    });
}

#[test]
fn c08_a_chain_that_breaks_is_merged_on_both_sides() {
    runtime().block_on(async {
        let mut scene = Scene::begin("2026-12-31T22:00:00Z").await;
        for _ in 0..70 {
            scene.commit(1, true).await;
        }
        // Its file continues a state of which nothing is stored.
        scene.commit_unseen();
        for _ in 0..70 {
            scene.commit(1, true).await;
        }
        scene.write_manifest().await;
        let now = at(scene.now_ms);
        let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let report = retention.execute(&scene.store, Duration::ZERO, &|| now).await.unwrap();
        let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
        assert!(matches!(problem, RetentionProblem::BrokenChain { .. }), "{problem}");
        assert_eq!(problem.key(), key(72, 72));
        let left = [name(1, 1), name(2, 71), name(72, 140), name(141, 141)];
        assert_eq!(file_names(&scene.store).await, left);
        let again = Retention::plan_without(&scene.store, NAME, &MERGE_ALL, now, &report.odd).await;
        assert_eq!(again.unwrap().plan.merges, [], "they do not fit now either");
    });
}

#[test]
fn a_merge_that_fails_keeps_the_error_that_it_came_from() {
    use std::error::Error;
    runtime().block_on(async {
        let scene = incrementals(5).await;
        damage(&scene, &key(3, 3)).await;
        let writer = manifest(&scene.store).await.writer;
        let forget_hash = |manifest: &mut Manifest| manifest.files[2].sha256.clear();
        walrust_history::edit_manifest(&scene.store, NAME, &writer, forget_hash).await.unwrap();
        let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let now = at(scene.now_ms);
        let report = retention.execute(&scene.store, Duration::ZERO, &|| now).await.unwrap();
        let source = report.problems[0].source();
        let source = source.unwrap_or_else(|| panic!("{:?} has no source", report.problems));
        assert!(source.downcast_ref::<std::sync::Arc<walrust_ltx::Error>>().is_some(), "{source}");
    });
}

#[test]
fn c06_a_merged_file_that_nobody_indexed_is_verified_before_it_replaces_its_parts() {
    runtime().block_on(async {
        let scene = incrementals(5).await;
        // The process dies right after it has stored the merged file.
        scene.store.crash_after(1);
        let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let now = scene.now_ms;
        let now_ms = || at(now);
        let died = retention.execute(&scene.store, Duration::ZERO, &now_ms).await;
        assert!(died.is_err());
        scene.store.recover();
        assert!(file_names(&scene.store).await.contains(&name(2, 5)));
        let damaged = scene.store.copied().await;

        let report = compact(&scene).await;
        assert!(report.merged.is_empty() && report.problems.is_empty(), "{report:?}");
        let left = [name(1, 1), name(2, 5), name(6, 6)];
        assert_eq!(file_names(&scene.store).await, left);

        let mut scene = scene;
        scene.store = damaged;
        damage(&scene, &key(2, 5)).await;
        let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let report = retention.execute(&scene.store, Duration::ZERO, &|| at(0)).await.unwrap();
        assert_eq!((report.problems.len(), report.deleted), (1, Vec::new()));
    });
}
