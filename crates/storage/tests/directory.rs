//! What a directory does that no other store can: permissions, leftovers, other people's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;
use walrust_engine::ErrorClass;
use walrust_storage::{Condition, DirectoryStore, Metadata, ObjectStore};

async fn put(store: &DirectoryStore, key: &str) {
    store.put(key, Bytes::from("x"), &Metadata::new(), &Condition::IfAbsent).await.unwrap();
}

async fn keys(store: &DirectoryStore) -> Vec<String> {
    store.list("", None).await.unwrap().into_iter().map(|entry| entry.key).collect()
}

#[tokio::test]
async fn a_directory_that_does_not_exist_is_empty() {
    let scratch = TempDir::new().unwrap();
    let store = DirectoryStore::new(scratch.path().join("none"));
    assert_eq!(keys(&store).await, [""; 0]);
    assert!(!scratch.path().join("none").exists());
}

#[tokio::test]
async fn leftovers_are_hidden_and_old_ones_removed() {
    let scratch = TempDir::new().unwrap();
    let store = DirectoryStore::new(scratch.path());
    put(&store, "app/1").await;
    let [fresh, old] = ["fresh", "old"]
        .map(|name| scratch.path().join("app").join(format!(".walrust-tmp-{name}")));
    fs::write(&fresh, "half").unwrap();
    fs::write(&old, "half").unwrap();
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    fs::File::options().write(true).open(&old).unwrap().set_modified(two_days_ago).unwrap();
    assert_eq!(keys(&store).await, ["app/1"]);
    assert!(fresh.exists(), "somebody may still write to it");
    assert!(!old.exists());
}

#[tokio::test]
async fn a_failed_put_leaves_nothing() {
    let scratch = TempDir::new().unwrap();
    let store = DirectoryStore::new(scratch.path());
    put(&store, "app/1").await;
    let again = store.put("app/1", Bytes::from("y"), &Metadata::new(), &Condition::IfAbsent).await;
    assert_eq!(again.unwrap_err().class(), ErrorClass::Precondition);
    let stale = Condition::IfMatch("other".to_owned());
    let again = store.put("app/1", Bytes::from("y"), &Metadata::new(), &stale).await;
    assert_eq!(again.unwrap_err().class(), ErrorClass::Precondition);
    let names = fs::read_dir(scratch.path().join("app")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name != ".walrust-lock");
    assert_eq!(names, ["1"]);
}

#[tokio::test]
async fn a_file_in_place_of_a_directory_is_a_permanent_error() {
    let scratch = TempDir::new().unwrap();
    let store = DirectoryStore::new(scratch.path());
    put(&store, "app").await;
    let below = store.put("app/1", Bytes::from("x"), &Metadata::new(), &Condition::IfAbsent).await;
    assert_eq!(below.unwrap_err().class(), ErrorClass::Permanent);
    assert_eq!(keys(&store).await, ["app"]);
}

#[tokio::test]
async fn objects_can_be_read_by_others_as_the_umask_says() {
    let scratch = TempDir::new().unwrap();
    let store = DirectoryStore::new(scratch.path());
    put(&store, "app/1").await;
    fs::write(scratch.path().join("plain"), "x").unwrap();
    let mode = |path: &str| fs::metadata(scratch.path().join(path)).unwrap().permissions().mode();
    assert_eq!(mode("app/1"), mode("plain"));
}

#[tokio::test]
async fn an_unreadable_directory_is_an_error_and_not_empty() {
    let scratch = TempDir::new().unwrap();
    let root = scratch.path().join("file");
    fs::write(&root, "not a directory").unwrap();
    let error = DirectoryStore::new(&root).list("", None).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    assert!(error.to_string().starts_with("list file:///"), "{error}");

    let store = DirectoryStore::new(scratch.path());
    put(&store, "app/1").await;
    let app = scratch.path().join("app");
    fs::set_permissions(&app, fs::Permissions::from_mode(0o000)).unwrap();
    // The administrator may read everything.
    let forbidden = fs::read_dir(&app).is_err();
    let listing = store.list("app/", None).await;
    fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).unwrap();
    if forbidden {
        assert_eq!(listing.unwrap_err().class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn a_replaced_object_never_has_an_earlier_etag() {
    let scratch = TempDir::new().unwrap();
    let store = DirectoryStore::new(scratch.path());
    let mut seen = std::collections::HashSet::new();
    // Of one size and within one tick of the kernel's clock, so that inodes are used again.
    for _ in 0..200 {
        let put = store.put("k", Bytes::from("x"), &Metadata::new(), &Condition::None).await;
        let etag = put.unwrap().etag;
        assert_eq!(store.head("k").await.unwrap().etag, etag);
        assert!(seen.insert(etag));
    }
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let scratch = TempDir::new().unwrap();
    let store = DirectoryStore::new(scratch.path());
    put(&store, "k").await;
    let object = store.get("k").await.unwrap();
    fs::File::options().write(true).open(scratch.path().join("k")).unwrap().set_len(0).unwrap();
    let error = object.bytes().await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("get {}/k: ", store.url())), "{error}");
}
