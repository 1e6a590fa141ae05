//! Faults of uploads by their numbers, as in the integration tests, where those cannot wait as long
//! as the program does.

use std::time::{Duration, Instant};

use walrust_engine::ErrorClass;

use crate::fault_store::Fault;
use crate::scene::{Scene, shut_down, wait_for_status};

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
    let (taken, some_more) = (begun.elapsed(), Duration::from_secs(2));
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
    let replicator = scene.start().await;
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
    wait_for_status(&replicator, "a", |status| status.last_error.is_some()).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date && status.last_error.is_none())
        .await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}
