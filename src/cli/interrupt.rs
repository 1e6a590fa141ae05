//! Ends a command early when SIGINT or SIGTERM asks for it.
//!
//! Invariant: dropping the future of a command gives its work up, and work on other threads ends then
//! as it ends with any failure: it removes what it has begun. It gets some seconds for that; a second
//! signal ends the process at once.

use std::pin::pin;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use walrust_sqlite::Cancellation;

use super::signals::Signals;
use crate::{Error, ExitCode};

/// How long threads may take to give their work up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a command, or for a signal, upon which it is dropped unless `cancellation` says that it
/// is too late.
pub(super) async fn or_signal(
    command: impl Future<Output = Result<(), Error>>,
    cancellation: &Cancellation,
) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let mut command = pin!(command);
    tokio::select! {
        biased;
        result = &mut command => result,
        () = signals.next() => match cancellation.cancel() {
            true => Err(Error::Interrupted),
            false => command.await,
        }
    }
}

/// Waits until the threads of a command that was dropped have given their work up.
pub(super) fn wind_up(runtime: Runtime) {
    std::thread::spawn(|| {
        // The runtime of the command listens to no signal any more.
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            if let Ok(mut signals) = Signals::new() {
                signals.next().await;
                std::process::exit(ExitCode::General as i32);
            }
        });
    });
    runtime.shutdown_timeout(PATIENCE);
}
