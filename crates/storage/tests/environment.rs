//! What the variables of the environment do. They belong to a whole process, so each case runs in a
//! process of its own: this test binary, started again.

use std::process::{Command, Output};

use bytes::Bytes;
use walrust_storage::{Condition, Metadata, S3Options, StorageUrl};

use crate::fake_server::{FakeServer, Reply};

/// Set in the process that is under test.
const UNDER_TEST: &str = "WALRUST_TEST_UNDER_TEST";

/// What the process under test does: one put with default options. Prints class and error.
#[tokio::test]
async fn put_with_default_options() {
    if std::env::var_os(UNDER_TEST).is_none() {
        return;
    }
    let url: StorageUrl = "s3://bucket/prefix".parse().unwrap();
    let put = async {
        let store = walrust_storage::open(&url, &S3Options::default()).await?;
        store.put("k", Bytes::from("x"), &Metadata::new(), &Condition::None).await
    };
    match put.await {
        Ok(receipt) => println!("stored: {}", receipt.etag),
        Err(error) => println!("{:?}: {error}", error.class()),
    }
}

/// The output of a put in a process with these variables and no others that matter.
async fn put_with(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::put_with_default_options", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") || name == "SSL_CERT_FILE" {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true");
    command.env(UNDER_TEST, "1").envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Output { status, stdout, .. } = output.unwrap();
    assert!(status.success());
    String::from_utf8(stdout).unwrap()
}

#[tokio::test]
async fn without_credentials_the_variables_are_named() {
    let text = put_with(&[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")]).await;
    assert!(text.contains("Auth: put s3://bucket/prefix/k: "), "{text}");
    assert!(text.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{text}");
}

#[tokio::test]
async fn endpoint_region_and_credentials_come_from_variables() {
    let server = FakeServer::start(|_| Reply::ok("").with("etag", "\"7\"")).await;
    for region in [None, Some("eu-west-1")] {
        let mut variables = vec![
            ("AWS_ENDPOINT_URL_S3", server.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "AKIDENV"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
        ];
        variables.extend(region.map(|region| ("AWS_REGION", region)));
        let text = put_with(&variables).await;
        assert!(text.contains("stored: \"7\""), "{text}");
        let request = server.requests().pop().unwrap();
        assert!(request.target.starts_with("/bucket/prefix/k"), "{}", request.target);
        let scope = format!("/{}/s3/aws4_request", region.unwrap_or("us-east-1"));
        let signed = request.header("authorization").unwrap();
        assert!(signed.contains("Credential=AKIDENV/") && signed.contains(&scope), "{signed}");
        assert_eq!(request.header("x-amz-security-token"), Some("token"));
    }
}

#[tokio::test]
async fn an_endpoint_without_a_scheme_is_refused() {
    let text = put_with(&[("AWS_ENDPOINT_URL_S3", "localhost:9000")]).await;
    assert!(text.contains("Permanent: ") && text.contains("http://localhost:9000"), "{text}");
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_an_error_at_once() {
    for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let text = put_with(&[(variable, "/nonexistent/ca.pem")]).await;
        let named = text.contains(variable) && text.contains("/nonexistent/ca.pem");
        assert!(text.contains("Permanent: ") && named, "{text}");
    }
}
