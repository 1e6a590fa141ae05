//! Name look-ups that hold no blocking thread of the runtime.
//!
//! The runtime has one such thread for name look-ups and streaming of the storage client, and a look
//! up may hang for half a minute: the host of a receiver must not hold up the uploads.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;

/// Asks the system, on a thread for each look-up. There is one at a time for each receiver, and
/// what hangs ends by itself.
#[derive(Debug)]
pub(super) struct ThreadResolver;

impl Resolve for ThreadResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = on_thread(move || {
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok::<_, io::Error>(found.collect::<Vec<SocketAddr>>())
            });
            let addresses: Addrs = Box::new(addresses.await??.into_iter());
            Ok(addresses)
        })
    }
}

/// Runs what blocks on a thread of its own.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = oneshot::channel();
    let run = move || {
        // Whoever asked may have given up.
        drop(sender.send(work()));
    };
    thread::Builder::new().name("webhook".to_owned()).spawn(run)?;
    result.await.map_err(|_| io::Error::other("it panicked"))
}
