//! How answers of S3-compatible stores become errors.

use std::time::Duration;

use bytes::Bytes;
use walrust_engine::ErrorClass;
use walrust_storage::{Condition, Metadata, ObjectStore, S3Options, S3Store, StorageError};

use crate::fake_server::{FakeServer, Reply};

async fn put(store: &S3Store) -> Result<(), StorageError> {
    let body = Bytes::from_static(b"x");
    store.put("app/1", body, &Metadata::new(), &Condition::IfAbsent).await.map(drop)
}

/// The error of a put that is answered like this.
async fn answered(status: u16, code: &'static str) -> StorageError {
    let server = FakeServer::start(move |_| Reply::error(status, code)).await;
    let error = put(&server.store().await).await.unwrap_err();
    assert_eq!(server.requests().len(), 1, "{error}: it was tried again");
    assert_eq!((error.status(), error.code()), (Some(status), Some(code)), "{error}");
    assert!(error.to_string().starts_with("put s3://bucket/prefix/app/1: "), "{error}");
    error
}

#[tokio::test]
async fn b09_codes_and_statuses_have_classes() {
    use ErrorClass::{Auth, NotFound, Permanent, Precondition, Throttled, Transient};

    for (status, code, class) in [
        (403, "AccessDenied", Auth),
        (403, "InvalidAccessKeyId", Auth),
        (403, "SignatureDoesNotMatch", Auth),
        (403, "RequestTimeTooSkewed", Auth),
        (400, "ExpiredToken", Auth),
        (401, "Unauthorized", Auth),
        (404, "NoSuchBucket", NotFound),
        (412, "PreconditionFailed", Precondition),
        (409, "ConditionalRequestConflict", Transient),
        (400, "RequestTimeout", Transient),
        (408, "RequestTimeout", Transient),
        (500, "InternalError", Transient),
        (502, "BadGateway", Transient),
        (504, "GatewayTimeout", Transient),
        (503, "SlowDown", Throttled),
        (429, "TooManyRequests", Throttled),
        (400, "AuthorizationHeaderMalformed", Permanent),
        (400, "EntityTooLarge", Permanent),
        (400, "InvalidBucketName", Permanent),
    ] {
        let error = answered(status, code).await;
        assert_eq!(error.class(), class, "{error}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_told_from_a_missing_object() {
    let server = FakeServer::start(|request| match request.target.contains("list-type") {
        true => Reply::error(404, "NoSuchBucket"),
        false => Reply::error(404, "NoSuchKey"),
    })
    .await;
    let store = server.store().await;
    let object = store.get("app/1").await.unwrap_err();
    assert_eq!((object.class(), object.is_missing_bucket()), (ErrorClass::NotFound, false));
    let bucket = store.list("", None).await.unwrap_err();
    assert_eq!((bucket.class(), bucket.is_missing_bucket()), (ErrorClass::NotFound, true));
    assert!(bucket.to_string().contains("bucket"), "{bucket}");
}

#[tokio::test]
async fn a_head_is_classed_by_its_status_alone() {
    for (status, class) in [
        (404, ErrorClass::NotFound),
        (403, ErrorClass::Auth),
        (500, ErrorClass::Transient),
        (429, ErrorClass::Throttled),
    ] {
        let server = FakeServer::start(move |_| Reply::Answer {
            status,
            headers: Vec::new(),
            body: String::new(),
        })
        .await;
        let error = server.store().await.head("app/1").await.unwrap_err();
        assert_eq!((error.class(), error.status()), (class, Some(status)), "{error}");
    }
}

#[tokio::test]
async fn b09_another_region_is_named() {
    let server = FakeServer::start(|_| {
        Reply::error(301, "PermanentRedirect").with("x-amz-bucket-region", "eu-central-1")
    })
    .await;
    let error = put(&server.store().await).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    let text = error.to_string();
    assert!(text.contains("eu-central-1") && text.contains("AWS_REGION"), "{text}");
}

#[tokio::test]
async fn a_page_of_a_proxy_is_classed_by_its_status() {
    let html = "<html><body>Bad Gateway</body></html>";
    let server = FakeServer::start(move |_| Reply::Answer {
        status: 502,
        headers: vec![("content-type", "text/html".to_owned())],
        body: html.to_owned(),
    })
    .await;
    let error = put(&server.store().await).await.unwrap_err();
    assert_eq!((error.class(), error.status()), (ErrorClass::Transient, Some(502)), "{error}");
    assert!(!error.to_string().contains("<html>"), "{error}");
}

#[tokio::test]
async fn a_reset_is_transient() {
    let server = FakeServer::start(|_| Reply::Reset).await;
    let error = put(&server.store().await).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert_eq!(server.requests().len(), 1, "it was tried again");
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_names_the_endpoint() {
    let server = FakeServer::start(|_| Reply::Reset).await;
    // A port that nobody else gets, and nobody listens at.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    let options = S3Options { endpoint: Some(endpoint.clone()), ..server.options() };
    let store = S3Store::open("bucket", "prefix", &options).await.unwrap();
    let error = put(&store).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    let text = error.to_string();
    assert!(text.contains("connection refused") && text.contains(&endpoint), "{text}");
}

#[tokio::test(start_paused = true)]
async fn b09_a_server_that_never_answers_is_a_transient_error() {
    let server = FakeServer::start(|_| Reply::Silence).await;
    let store = server.store().await;
    let answer = tokio::time::timeout(Duration::from_secs(600), put(&store)).await;
    let error = answer.expect("it must not wait for ever").unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn no_text_has_a_secret_in_it() {
    let server = FakeServer::start(|request| {
        // Some stores repeat the request in their answers.
        let authorization = request.header("authorization").unwrap_or_default();
        let body = format!(
            "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message>\
             <StringToSign>{authorization}</StringToSign></Error>"
        );
        Reply::Answer { status: 403, headers: Vec::new(), body }
    })
    .await;
    let store = server.store().await;
    let error = put(&store).await.unwrap_err();
    for text in [
        error.to_string(),
        format!("{error:?}"),
        format!("{store:?}"),
        format!("{:?}", server.options()),
    ] {
        for secret in ["the-secret-of-the-tests", "Signature="] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn b16_an_endpoint_needs_a_scheme_and_no_password() {
    let server = FakeServer::start(|_| Reply::Reset).await;
    for (endpoint, help) in [
        ("localhost:8333", "http://localhost:8333"),
        ("minio.local", "http"),
        ("ftp://host", "http"),
        ("http://user:pass-word@host", "AWS_ACCESS_KEY_ID"),
    ] {
        let options = S3Options { endpoint: Some(endpoint.to_owned()), ..server.options() };
        let error = S3Store::open("bucket", "", &options).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        let text = error.to_string();
        assert!(text.contains(help) && !text.contains("pass-word"), "{text}");
    }
}

#[tokio::test]
async fn replacing_what_is_gone_is_a_condition_that_does_not_hold() {
    for (code, class) in
        [("NoSuchKey", ErrorClass::Precondition), ("NoSuchBucket", ErrorClass::NotFound)]
    {
        let server = FakeServer::start(move |_| Reply::error(404, code)).await;
        let condition = Condition::IfMatch("\"1\"".to_owned());
        let store = server.store().await;
        let put = store.put("k", Bytes::from_static(b"x"), &Metadata::new(), &condition).await;
        assert_eq!(put.unwrap_err().class(), class, "{code}");
    }
}
