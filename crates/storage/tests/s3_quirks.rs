//! Dialects and misbehaviour of S3-compatible stores: what is sent to them, and what their answers
//! may not make of our data.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use walrust_engine::ErrorClass;
use walrust_storage::{Condition, Metadata, ObjectStore, S3Options, S3Store, StorageError};

use crate::fake_server::{FakeServer, Reply, Request};

const MIB: u64 = 1024 * 1024;

fn stored() -> Reply {
    Reply::ok("").with("etag", "\"1\"")
}

/// A file of 11 MiB, which goes in three parts of at most 5 MiB.
fn large_file(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("large");
    std::fs::write(&path, vec![7; (11 * MIB) as usize]).unwrap();
    path
}

async fn store_with_small_parts(server: &FakeServer) -> S3Store {
    let options =
        S3Options { multipart_threshold: 6 * MIB, part_size: 5 * MIB, ..server.options() };
    S3Store::open("bucket", "prefix", &options).await.unwrap()
}

fn assert_plain(request: &Request) {
    let encoding = request.header("content-encoding").unwrap_or_default();
    assert!(!encoding.contains("aws-chunked"), "{request:?}");
    for name in request.headers.keys() {
        let checksum = name.starts_with("x-amz-checksum-")
            || name == "x-amz-sdk-checksum-algorithm"
            || name == "x-amz-trailer"
            || name == "transfer-encoding"
            || name == "x-amz-decoded-content-length";
        assert!(!checksum, "{name} in {} {}", request.method, request.target);
    }
    // Some stores refuse a payload that is not signed.
    let payload = request.header("x-amz-content-sha256").unwrap_or_default();
    let is_hash = payload.len() == 64 && payload.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hash, "{payload} in {} {}", request.method, request.target);
    let signed = request.header("authorization").unwrap_or_default();
    assert!(!signed.contains("accept-encoding"), "proxies rewrite it: {signed}");
}

#[tokio::test]
async fn b16_uploads_have_no_chunks_trailers_or_checksums() {
    let server = FakeServer::start(|_| stored()).await;
    let store = server.store().await;
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("f");
    std::fs::write(&path, vec![1; 200_000]).unwrap();
    let metadata = Metadata::from([("sha256".to_owned(), "00ff".to_owned())]);
    store.put("a", Bytes::from("xyz"), &metadata, &Condition::IfAbsent).await.unwrap();
    store.put_file("b", &path, &metadata, &Condition::IfMatch("\"9\"".to_owned())).await.unwrap();
    let [a, b] = &server.requests()[..] else { panic!("two puts") };
    for request in [a, b] {
        assert_plain(request);
        assert_eq!(request.header("x-amz-meta-sha256"), Some("00ff"));
    }
    assert!(a.target.starts_with("/bucket/prefix/a"), "path style: {}", a.target);
    assert_eq!((a.header("if-none-match"), a.header("if-match")), (Some("*"), None));
    assert_eq!((b.header("if-none-match"), b.header("if-match")), (None, Some("\"9\"")));
    assert_eq!((a.text().as_str(), b.body.len()), ("xyz", 200_000));
}

#[tokio::test]
async fn b16_batch_deletes_carry_the_md5_of_their_body() {
    let server = FakeServer::start(|_| Reply::ok("<DeleteResult/>")).await;
    let keys = ["app/1".to_owned(), "app/2".to_owned()];
    assert!(server.store().await.delete(&keys).await.unwrap().is_empty());
    let [request] = &server.requests()[..] else { panic!("one batch") };
    assert_plain(request);
    use md5::{Digest, Md5};
    let md5 = Md5::digest(&request.body);
    assert_eq!(request.header("content-md5"), Some(base64(&md5).as_str()));
    assert!(request.text().contains("<Key>prefix/app/2</Key>"), "{}", request.text());
}

/// Sixteen bytes in the alphabet of RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for place in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[tokio::test]
async fn b16_stores_without_batches_get_single_deletes() {
    for (status, code) in [(501, "NotImplemented"), (400, "MalformedXML")] {
        let server = FakeServer::start(move |request| match request.method.as_str() {
            "POST" => Reply::error(status, code),
            _ => Reply::Answer { status: 204, headers: Vec::new(), body: String::new() },
        })
        .await;
        let store = server.store().await;
        let keys = ["app/1".to_owned(), "app/2".to_owned()];
        assert!(store.delete(&keys).await.unwrap().is_empty());
        let singles = |requests: Vec<Request>| {
            let deletes = requests.into_iter().filter(|request| request.method == "DELETE");
            let mut targets: Vec<String> = deletes
                .map(|request| request.target.split('?').next().unwrap_or_default().to_owned())
                .collect();
            targets.sort();
            targets
        };
        let both = ["/bucket/prefix/app/1", "/bucket/prefix/app/2"];
        assert_eq!(singles(server.requests()), both, "{code}");
    }
}

#[tokio::test]
async fn b15_keys_that_a_batch_could_not_delete_are_reported() {
    let server = FakeServer::start(|_| {
        Reply::ok(
            "<DeleteResult>\
             <Error><Key>prefix/app/2</Key><Code>AccessDenied</Code><Message>no</Message></Error>\
             <Error><Key>prefix/app/3</Key><Code>InternalError</Code><Message>no</Message></Error>\
             <Error><Key>prefix/app/4</Key><Code>NoSuchKey</Code><Message>no</Message></Error>\
             </DeleteResult>",
        )
    })
    .await;
    let keys = ["app/1", "app/2", "app/3", "app/4"].map(str::to_owned);
    let failures = server.store().await.delete(&keys).await.unwrap();
    let failures: Vec<_> =
        failures.iter().map(|failure| (failure.key.as_str(), failure.error.class())).collect();
    assert_eq!(failures, [("app/2", ErrorClass::Auth), ("app/3", ErrorClass::Transient)]);
}

#[tokio::test]
async fn batches_have_at_most_a_thousand_keys() {
    let server = FakeServer::start(|_| Reply::ok("<DeleteResult/>")).await;
    let keys: Vec<String> = (0..2001).map(|number| format!("{number}")).collect();
    assert!(server.store().await.delete(&keys).await.unwrap().is_empty());
    let sent = |request: &Request| request.text().matches("<Key>").count();
    let batches: Vec<usize> =
        server.requests().iter().filter(|request| request.method == "POST").map(sent).collect();
    assert_eq!(&batches[..2], [1000, 1000]);
}

#[tokio::test]
async fn b09_a_body_that_ends_early_is_an_error() {
    let server = FakeServer::start(|_| Reply::Truncated { announced: 100, body: "short" }).await;
    let store = server.store().await;
    let error = store.get("app/1").await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(error.to_string().starts_with("get s3://bucket/prefix/app/1: "), "{error}");
    let error = store.get_range("app/1", 0..100).await.unwrap_err();
    assert!(!matches!(error.class(), ErrorClass::NotFound), "{error}");
}

#[tokio::test]
async fn a_store_that_ignores_ranges_is_noticed() {
    let server = FakeServer::start(|_| Reply::ok("0123456789").with("etag", "\"1\"")).await;
    let store = server.store().await;
    match store.get_range("app/1", 3..7).await {
        Ok(bytes) => assert_eq!(bytes, "3456"),
        Err(error) => assert_eq!(error.class(), ErrorClass::Permanent, "{error}"),
    }
}

#[tokio::test]
async fn c16_an_answer_without_an_etag_is_an_error_and_no_other_object_is_taken() {
    let part = |etag: Option<&'static str>| {
        move |_: &Request| {
            let reply = Reply::Answer { status: 206, headers: Vec::new(), body: "3456".to_owned() };
            let reply = reply.with("content-range", "bytes 3-6/10");
            if let Some(etag) = etag { reply.with("etag", etag) } else { reply }
        }
    };
    for etag in [None, Some("")] {
        let server = FakeServer::start(part(etag)).await;
        let store = server.store().await;
        for error in [
            store.get("app/1").await.unwrap_err(),
            store.head("app/1").await.unwrap_err(),
            store.get_part("app/1", 3..7, "\"1\"").await.unwrap_err(),
        ] {
            assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
            assert!(error.to_string().contains("no ETag"), "{error}");
        }
        assert_eq!(server.requests().last().unwrap().header("if-match"), Some("\"1\""));
        assert_eq!(store.get_range("app/1", 3..7).await.unwrap(), "3456", "of whatever is there");
    }
    // A store that ignores the condition.
    let store = FakeServer::start(part(Some("\"2\""))).await.store().await;
    let error = store.get_part("app/1", 3..7, "\"1\"").await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Precondition, "{error}");
    assert_eq!(store.get_part("app/1", 3..7, "\"2\"").await.unwrap().concat(), b"3456");
}

fn page(keys: &[&str], next: Option<&str>) -> Reply {
    let contents: String = keys
        .iter()
        .map(|key| {
            format!("<Contents><Key>prefix/{key}</Key><Size>1</Size><ETag>\"1\"</ETag></Contents>")
        })
        .collect();
    let more = match next {
        Some(token) => format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        ),
        None => "<IsTruncated>false</IsTruncated>".to_owned(),
    };
    Reply::ok(format!("<ListBucketResult>{more}{contents}</ListBucketResult>"))
}

#[tokio::test]
async fn b15_pages_are_put_together_and_sorted() {
    let server = FakeServer::start(|request| match request.target.contains("continuation-token") {
        false => page(&["b", "c"], Some("two")),
        true => page(&["a", "d"], None),
    })
    .await;
    let listing = server.store().await.list("", None).await.unwrap();
    let keys: Vec<_> = listing.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn b15_a_failing_page_fails_the_listing() {
    let server = FakeServer::start(|request| match request.target.contains("continuation-token") {
        false => page(&["a"], Some("two")),
        true => Reply::error(500, "InternalError"),
    })
    .await;
    let error = server.store().await.list("", None).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn b15_a_listing_that_does_not_advance_is_an_error() {
    let server = FakeServer::start(|_| page(&["a"], Some("same"))).await;
    let store = server.store().await;
    let listing = tokio::time::timeout(Duration::from_secs(10), store.list("", None)).await;
    let error = listing.expect("it must not be asked for ever").unwrap_err();
    assert!(error.to_string().starts_with("list s3://bucket/prefix"), "{error}");
    let server = FakeServer::start(|_| {
        Reply::ok("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>")
    })
    .await;
    server.store().await.list("", None).await.unwrap_err();
}

#[tokio::test]
async fn a_store_that_ignores_start_after_is_filtered() {
    let server = FakeServer::start(|_| page(&["app/1", "app/2", "app/3"], None)).await;
    let listing = server.store().await.list("app/", Some("app/2")).await.unwrap();
    let keys: Vec<_> = listing.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["app/3"]);
}

/// Answers a multipart upload; `complete` answers its end.
fn multipart(request: &Request, complete: impl Fn() -> Reply) -> Reply {
    match (request.method.as_str(), request.target.contains("uploads")) {
        ("POST", true) => Reply::ok(
            "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
        ),
        ("POST", false) => complete(),
        // Nothing is there yet.
        ("HEAD", _) => Reply::error(404, "NoSuchKey"),
        ("DELETE", _) => Reply::Answer { status: 204, headers: Vec::new(), body: String::new() },
        _ => stored(),
    }
}

fn completed() -> Reply {
    Reply::ok("<CompleteMultipartUploadResult><ETag>\"3-3\"</ETag></CompleteMultipartUploadResult>")
}

fn aborts(server: &FakeServer) -> usize {
    server.requests().iter().filter(|request| request.method == "DELETE").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_parts_and_the_condition_is_on_the_end() {
    let server = FakeServer::start(|request| multipart(request, completed)).await;
    let store = store_with_small_parts(&server).await;
    let scratch = TempDir::new().unwrap();
    let metadata = Metadata::from([("sha256".to_owned(), "00ff".to_owned())]);
    let receipt = store
        .put_file("app/1", &large_file(&scratch), &metadata, &Condition::IfAbsent)
        .await
        .unwrap();
    assert_eq!(receipt.etag, "\"3-3\"");
    let requests = server.requests();
    requests.iter().for_each(assert_plain);
    let begin = requests.iter().find(|request| request.target.contains("uploads")).unwrap();
    assert_eq!(begin.header("x-amz-meta-sha256"), Some("00ff"));
    let mut parts: Vec<u64> = requests
        .iter()
        .filter(|request| request.method == "PUT")
        .map(|request| request.body.len() as u64)
        .collect();
    parts.sort_unstable();
    assert_eq!(parts, [MIB, 5 * MIB, 5 * MIB]);
    let end = requests.last().unwrap();
    assert_eq!(end.header("if-none-match"), Some("*"));
    let (first, third) = (end.text().find("<PartNumber>1<"), end.text().find("<PartNumber>3<"));
    assert!(first.is_some() && first < third, "{}", end.text());
    assert_eq!(aborts(&server), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_an_upload_whose_part_fails_is_aborted() {
    let parts = AtomicUsize::new(0);
    let server = FakeServer::start(move |request| {
        if request.method == "PUT" && parts.fetch_add(1, Ordering::Relaxed) == 1 {
            return Reply::error(500, "InternalError");
        }
        multipart(request, completed)
    })
    .await;
    let store = store_with_small_parts(&server).await;
    let scratch = TempDir::new().unwrap();
    let answer = store
        .put_file("app/1", &large_file(&scratch), &Metadata::new(), &Condition::IfAbsent)
        .await;
    let error = answer.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(error.to_string().contains("s3://bucket/prefix/app/1"), "{error}");
    assert_eq!(aborts(&server), 1);
    let ends = server
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST" && !request.target.contains("uploads"));
    assert_eq!(ends.count(), 0, "it must not be completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_an_upload_whose_condition_fails_is_aborted() {
    let server =
        FakeServer::start(|request| multipart(request, || Reply::error(412, "PreconditionFailed")))
            .await;
    let store = store_with_small_parts(&server).await;
    let scratch = TempDir::new().unwrap();
    let answer = store
        .put_file("app/1", &large_file(&scratch), &Metadata::new(), &Condition::IfAbsent)
        .await;
    assert_eq!(answer.unwrap_err().class(), ErrorClass::Precondition);
    assert_eq!(aborts(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_an_answer_of_status_200_is_an_error() {
    let server = FakeServer::start(|request| {
        multipart(request, || {
            Reply::ok("<Error><Code>InternalError</Code><Message>try again</Message></Error>")
        })
    })
    .await;
    let store = store_with_small_parts(&server).await;
    let scratch = TempDir::new().unwrap();
    let answer = store
        .put_file("app/1", &large_file(&scratch), &Metadata::new(), &Condition::IfAbsent)
        .await;
    assert_eq!(answer.unwrap_err().class(), ErrorClass::Transient);
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_an_upload_that_nobody_waits_for_is_aborted() {
    let server = FakeServer::start(|request| match request.method.as_str() {
        "PUT" => Reply::Silence,
        _ => multipart(request, completed),
    })
    .await;
    let store = store_with_small_parts(&server).await;
    let scratch = TempDir::new().unwrap();
    let (path, metadata) = (large_file(&scratch), Metadata::new());
    let mut put = store.put_file("app/1", &path, &metadata, &Condition::IfAbsent);
    let parts = || server.requests().iter().any(|request| request.method == "PUT");
    while !parts() {
        let step = tokio::time::timeout(Duration::from_millis(20), &mut put).await;
        assert!(step.is_err(), "it cannot end without an answer");
    }
    let settled = tokio::time::timeout(Duration::from_millis(20), store.settle()).await;
    assert!(settled.is_err(), "it has begun and not ended");
    drop(put);
    tokio::time::timeout(Duration::from_secs(20), store.settle()).await.expect("the parts stay");
    assert_eq!(aborts(&server), 1);
}

#[tokio::test]
async fn without_conditional_writes_a_head_comes_first() {
    let exists = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&exists);
    let server = FakeServer::start(move |request| match request.method.as_str() {
        "HEAD" if shown.load(Ordering::Relaxed) => stored(),
        "HEAD" => Reply::error(404, "NoSuchKey"),
        _ => stored(),
    })
    .await;
    let options = S3Options { conditional_writes: false, ..server.options() };
    let store = S3Store::open("bucket", "prefix", &options).await.unwrap();
    let put = |condition| {
        let store = store.clone();
        async move { store.put("k", Bytes::from("x"), &Metadata::new(), &condition).await }
    };
    let refused = |answer: Result<_, StorageError>| {
        assert_eq!(answer.unwrap_err().class(), ErrorClass::Precondition);
    };
    put(Condition::IfAbsent).await.unwrap();
    refused(put(Condition::IfMatch("\"1\"".to_owned())).await);
    exists.store(true, Ordering::Relaxed);
    refused(put(Condition::IfAbsent).await);
    refused(put(Condition::IfMatch("\"2\"".to_owned())).await);
    put(Condition::IfMatch("\"1\"".to_owned())).await.unwrap();
    put(Condition::None).await.unwrap();

    let requests = server.requests();
    let methods: Vec<_> = requests.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["HEAD", "PUT", "HEAD", "HEAD", "HEAD", "HEAD", "PUT", "PUT"]);
    for request in requests {
        assert!(request.header("if-match").is_none() && request.header("if-none-match").is_none());
    }
}
