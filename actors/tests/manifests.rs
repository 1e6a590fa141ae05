//! A manifest is an index: nothing of a history depends on it.

use std::time::{Duration, Instant};

use walrust_actors::{Replicator, Settings};
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::resting::{self, count_rests, wait_for_rests};
use crate::scene::{
    PATIENCE, Scene, shut_down, status_of, wait_for_status, wait_for_uploads, wait_until,
};

/// Something that is no manifest takes the place of one.
async fn damage(scene: &Scene) {
    let junk = b"{ no manifest".as_slice().into();
    let key = "a/manifest.json";
    scene.store.put(key, junk, &Metadata::new(), &Condition::None).await.unwrap();
}

/// Waits until there is a manifest that can be read and lists every file.
async fn wait_for_whole_manifest(scene: &Scene) {
    let began = Instant::now();
    loop {
        let problem = match scene.try_manifest("a").await {
            Ok(manifest) => {
                let has = |name| manifest.files.iter().any(|file| file.file_name() == Some(name));
                let missing = scene.tree("a").await.files.into_iter().find(|it| !has(it.name));
                let Some(missing) = missing else { return };
                format!("{} is not in {manifest:?}", missing.key)
            }
            Err(problem) => problem,
        };
        assert!(began.elapsed() < PATIENCE, "{problem}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn commit_and_wait(scene: &Scene, replicator: &Replicator) {
    let before = status_of(replicator, "a").await.txid;
    scene.commit(0);
    wait_for_status(replicator, "a", |status| status.txid > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_shipped_while_the_manifest_cannot_be_written() {
    let scene = Scene::new(1);
    let quick = Duration::from_millis(20);
    let settings = Settings { manifest_interval: quick, ..scene.settings() };
    let replicator = scene.start_with(settings).await;
    commit_and_wait(&scene, &replicator).await;
    scene.store.refuse_manifests(usize::MAX / 2);
    for _ in 0..3 {
        // Each of them wants a manifest at once.
        replicator.snapshot("a").await.unwrap();
        commit_and_wait(&scene, &replicator).await;
    }
    scene.store.refuse_manifests(0);
    wait_for_whole_manifest(&scene).await;
    shut_down(replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_damaged_beside_the_daemon_is_made_anew() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    commit_and_wait(&scene, &replicator).await;
    scene.manifest("a").await;
    damage(&scene).await;
    commit_and_wait(&scene, &replicator).await;
    replicator.snapshot("a").await.unwrap();
    wait_for_whole_manifest(&scene).await;
    commit_and_wait(&scene, &replicator).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_was_damaged_before_the_start_is_made_anew() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    commit_and_wait(&scene, &replicator).await;
    shut_down(replicator).await;
    damage(&scene).await;
    let replicator = scene.start().await;
    commit_and_wait(&scene, &replicator).await;
    replicator.snapshot("a").await.unwrap();
    wait_for_whole_manifest(&scene).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_manifest_had_before_it_was_confirmed_holds_up_no_later_one() {
    let rests = count_rests();
    let scene = Scene::new(1);
    let replicator = scene.start_with(resting::settings(&scene)).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.manifest("a").await;
    // Until everything is in place there is no other one.
    scene.store.refuse_manifests(usize::MAX / 2);
    commit_and_wait(&scene, &replicator).await;
    let stored = scene.store.uploads("a").len();
    scene.store.hold(["a/".to_owned()]);
    scene.commit(0);
    wait_until("the upload", || scene.store.holding() == 1).await;
    fail::cfg("database::short_job", "pause").unwrap();
    scene.store.hold([]);
    // The file is in storage, and in the manifest, while the job that confirms it stands still.
    wait_until("the file", || scene.store.uploads("a").len() > stored).await;
    // The database has heard of it before it answers.
    wait_for_uploads(&replicator, |status| status.bytes_queued + status.bytes_under_way == 0).await;
    status_of(&replicator, "a").await;
    scene.store.refuse_manifests(0);
    wait_for_whole_manifest(&scene).await;
    let before = rests.of("a");
    fail::remove("database::short_job");
    // Nothing is to be done for it any more.
    wait_for_rests(&rests, "a", before + 1).await;
    commit_and_wait(&scene, &replicator).await;
    wait_for_whole_manifest(&scene).await;
    shut_down(replicator).await;
}
