//! A history that is read without its manifest.

use walrust_engine::{RestoreTarget, RetentionPolicy, manifest_key};
use walrust_history::{History, PlannedRestore};
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::retention::{GRACE, runtime};
use crate::scene::{NAME, Scene, apply, at, key, manifest, plan, txid};

const MERGE_ALL: RetentionPolicy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

/// Nobody knows any more which files retention has given up, nor that some of them are deleted.
#[test]
fn every_state_that_is_planned_is_the_one_that_it_was() {
    runtime().block_on(async {
        let mut scene = Scene::begin("2026-12-31T20:00:00Z").await;
        for step in 0..12 {
            scene.wait_hours(0.3);
            scene.commit(1 + step % 3, true).await;
            if step % 5 == 2 {
                scene.snapshot(true).await;
            }
        }
        scene.write_manifest().await;
        scene.wait_hours(3.0);
        let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
        let now = || at(scene.now_ms);
        retention.execute(&scene.store, GRACE, &now).await.unwrap();
        let retired = manifest(&scene.store).await.retired;
        assert!(retired.len() > 5, "{retired:?}");
        let (index, none) = (manifest_key(NAME), Metadata::new());
        scene.store.put(&index, "{".into(), &none, &Condition::None).await.unwrap();
        for file in std::iter::once(None).chain(retired.iter().step_by(2).map(Some)) {
            if let Some(name) = file.and_then(|file| file.entry.file_name()) {
                let key = key(name.min.get(), name.max.get());
                scene.store.delete(&[key]).await.unwrap();
            }
            let newest = PlannedRestore::plan(&scene.store, NAME, RestoreTarget::Latest).await;
            assert_eq!(newest.unwrap().plan.head, txid(scene.head));
            let history = History::read(&scene.store, NAME).await.unwrap();
            assert!(history.manifest.is_none());
            for txid in walrust_engine::restorable_txids(&history.tree) {
                let target = RestoreTarget::Txid(txid);
                let planned = PlannedRestore::plan(&scene.store, NAME, target).await.unwrap();
                let restored = apply(&scene.store, &planned.plan).await;
                assert!(restored == scene.states[&txid.get()], "TXID {txid} is another state");
            }
        }
        let report = walrust_history::Retention::plan(&scene.store, NAME, &MERGE_ALL, now()).await;
        assert!(report.unwrap_err().is_damaged_manifest(), "retention needs to know all");
    });
}
