//! Which servers are trusted, over real TLS connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::CertifiedKey;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use walrust_engine::ErrorClass;

use super::*;
use crate::StorageError;
use crate::s3::classify::About;

/// A server with a certificate of its own, which has no object; returns the endpoint.
async fn server(certificate: &Path) -> String {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(certificate, cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 16 * 1024];
            if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let answer = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    endpoint
}

/// The error of a HEAD request to a server, with trust in a bundle.
async fn head(endpoint: &str, bundle: PathBuf) -> StorageError {
    let (client, endpoint) = connected(endpoint, bundle).await;
    head_with(client, endpoint).await
}

/// A client of a server, with trust in a bundle, which has not connected yet.
async fn connected(endpoint: &str, bundle: PathBuf) -> (Client, Option<String>) {
    let credentials = S3Credentials {
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        session_token: None,
    };
    let options = S3Options { credentials: Some(credentials), ..S3Options::default() };
    let settings = Settings {
        endpoint: Some(endpoint.to_owned()),
        region: Some("us-east-1".to_owned()),
        certificates: Some(("AWS_CA_BUNDLE", bundle)),
    };
    connect_with(&options, settings).await.unwrap()
}

async fn head_with(client: Client, endpoint: Option<String>) -> StorageError {
    let endpoint = endpoint.map(Arc::from);
    let about = About { operation: "head", url: "s3://b".into(), key: "k".into(), endpoint };
    about.request(&client.head_object().bucket("b").key("k").send().await.unwrap_err())
}

#[tokio::test]
async fn a_bundle_is_trusted_and_nobody_else() {
    let scratch = TempDir::new().unwrap();
    let [ours, theirs] = ["ours.pem", "theirs.pem"].map(|name| scratch.path().join(name));
    let endpoint = server(&ours).await;
    let other = server(&theirs).await;

    let error = head(&endpoint, ours.clone()).await;
    assert_eq!((error.class(), error.status()), (ErrorClass::NotFound, Some(404)), "{error}");
    let error = head(&other, ours).await;
    assert_eq!((error.class(), error.status()), (ErrorClass::Transient, None), "{error}");
    assert!(error.to_string().contains("AWS_CA_BUNDLE"), "{error}");
}

#[tokio::test]
async fn nobody_is_trusted_when_the_bundle_is_gone() {
    let scratch = TempDir::new().unwrap();
    let bundle = scratch.path().join("bundle.pem");
    let endpoint = server(&bundle).await;
    let (client, endpoint) = connected(&endpoint, bundle.clone()).await;
    std::fs::remove_file(bundle).unwrap();
    let error = head_with(client, endpoint).await;
    assert_eq!((error.class(), error.status()), (ErrorClass::Transient, None), "{error}");
}

#[tokio::test]
async fn odd_certificates_in_a_bundle_do_no_harm() {
    let scratch = TempDir::new().unwrap();
    let bundle = scratch.path().join("bundle.pem");
    let endpoint = server(&bundle).await;
    let mut pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    pem.push_str(&std::fs::read_to_string(&bundle).unwrap());
    std::fs::write(&bundle, pem).unwrap();
    let error = head(&endpoint, bundle).await;
    assert_eq!(error.status(), Some(404), "{error}");
}

#[tokio::test]
async fn a_bundle_that_cannot_be_used_is_named() {
    let scratch = TempDir::new().unwrap();
    let missing = scratch.path().join("missing.pem");
    let text = scratch.path().join("text.pem");
    std::fs::write(&text, "no certificates here").unwrap();
    for path in [missing, text] {
        let settings = Settings {
            endpoint: None,
            region: None,
            certificates: Some(("SSL_CERT_FILE", path.clone())),
        };
        let error = connect_with(&S3Options::default(), settings).await.unwrap_err();
        let names = error.contains("SSL_CERT_FILE") && error.contains(path.to_str().unwrap());
        assert!(names, "{error}");
    }
}
