//! Faults of uploads by their numbers, as in the integration tests, where those cannot wait as long
//! as the program does.

use std::time::{Duration, Instant};

use walrust_actors::DatabasePhase;
use walrust_engine::ErrorClass;

use crate::fault_store::Fault;
use crate::scene::{
    PATIENCE, Scene, shut_down, status_of, wait_for_phase, wait_for_status, wait_until,
};

#[tokio::test(flavor = "multi_thread")]
async fn b12_one_deadline_is_for_all_databases() {
    let scene = Scene::new(10);
    let replicator = scene.start().await;
    for (name, _, _) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    // Four are sent at a time and hang; the others wait behind them.
    scene.store.fail_next([Fault::Silence; 10]);
    for index in 0..10 {
        scene.commit(index);
    }
    let deadline = Duration::from_secs(1);
    let begun = Instant::now();
    let not_shipped = replicator.shut_down(deadline).await.unwrap();
    let (taken, some_more) = (begun.elapsed(), Duration::from_secs(5));
    assert!(deadline <= taken && taken < deadline + some_more, "{taken:?}");
    let names: Vec<_> = not_shipped.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
    for database in &not_shipped {
        assert!(database.reason.contains("deadline"), "{}", database.reason);
    }
    scene.store.heal();
    shut_down(scene.start().await).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b17_no_number_of_failures_is_the_last() {
    let scene = Scene::new(1);
    let mut settings = scene.settings();
    // The number is what counts.
    settings.retry.max_delay = Duration::from_millis(10);
    let replicator = scene.start_with(settings).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    let classes = [
        ErrorClass::Transient,
        ErrorClass::Throttled,
        ErrorClass::Auth,
        ErrorClass::NotFound,
        ErrorClass::Permanent,
    ];
    scene.store.fail_next(classes.into_iter().cycle().take(200).map(Fault::Refused));
    scene.commit(0);
    wait_until("all failures", || scene.store.faults_left() == 0).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date && status.last_error.is_none())
        .await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_a_writer_that_is_superseded_stops_in_the_middle_of_its_work() {
    let mut scene = Scene::new(2);
    let replicator = scene.start().await;
    for name in ["a", "b"] {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    // Without one the other has nobody to take the name over from.
    scene.manifest("a").await;
    let mut other = scene.copied();
    other.databases.truncate(1);
    shut_down(other.start().await).await;
    // Writes do not pause, so that a file is being made when the manifest tells of the other.
    let mut snapshot = Box::pin(async {
        let _ = replicator.snapshot("a").await;
        std::future::pending::<()>().await;
    });
    let began = Instant::now();
    loop {
        let document = "INSERT INTO documents (body) VALUES (randomblob(2000000))";
        scene.databases[0].1.run(document);
        let _ = tokio::time::timeout(Duration::from_millis(5), &mut snapshot).await;
        let status = status_of(&replicator, "a").await;
        if status.phase == DatabasePhase::WriterConflict {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "nobody has told it: {status:?}");
    }
    drop(snapshot);
    let stored = scene.store.uploads("a").len();
    // It has every chance to go on: the other database does.
    for _ in 0..5 {
        let before = status_of(&replicator, "b").await.txid;
        scene.write(1);
        wait_for_status(&replicator, "b", |status| status.txid > before).await;
    }
    assert_eq!(scene.store.uploads("a").len(), stored, "it has been told to stop");
    wait_for_phase(&replicator, "a", DatabasePhase::WriterConflict).await;
    let not_shipped = replicator.shut_down(PATIENCE).await.unwrap();
    assert!(not_shipped[0].reason.contains("has taken the name over"), "{not_shipped:?}");
}
