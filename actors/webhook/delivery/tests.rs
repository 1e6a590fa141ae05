//! Single attempts, over real connections.

use std::sync::mpsc;

use rcgen::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use walrust_testkit::WebhookReceiver;

use super::*;
use crate::settings::WebhookSettings;

fn parcel(url: String) -> Parcel {
    let settings = WebhookSettings {
        url,
        events: Vec::new(),
        secret: None,
        heartbeat_interval: Duration::ZERO,
    };
    let target = Arc::new(Target::new(&settings).unwrap());
    Parcel { target, kind: EventKind::SyncFailed, body: "{}".to_owned() }
}

/// A receiver with a certificate of its own; its URL and the certificate.
async fn tls_receiver() -> (String, Vec<u8>) {
    let names = vec!["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 16 * 1024];
            if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    (url, cert.der().to_vec())
}

#[tokio::test]
async fn certificates_that_are_named_are_trusted_and_nobody_else() {
    let (url, certificate) = tls_receiver().await;
    let (other, _) = tls_receiver().await;
    let client = build_client(Some(vec![certificate])).unwrap();
    let courier = Courier { client: Arc::new(OnceCell::new_with(Some(client))), tls: true };
    courier.deliver(&parcel(url.clone())).await.unwrap();
    for (courier, url) in [(courier, other), (Courier::new(true), url)] {
        let error = courier.deliver(&parcel(url)).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[test]
fn a_delivery_needs_no_blocking_thread_of_the_runtime() {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    let runtime = runtime.unwrap();
    let receiver = WebhookReceiver::that_accepts();
    let url = receiver.url("/").replace("127.0.0.1", "localhost");
    let (release, released) = mpsc::channel::<()>();
    runtime.spawn_blocking(move || released.recv());
    let courier = Courier::new(false);
    let delivery = runtime.block_on(async { courier.deliver(&parcel(url)).await });
    drop(release);
    delivery.unwrap();
}
