//! `walrust replicate`: a read replica that follows a database in storage.
//!
//! It prints one line for each state that the replica gets into. Failures are logged and tried
//! again, later and later; the replica serves its last state meanwhile.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use walrust_engine::{ErrorClass, RetryDecision, RetryPolicy};
use walrust_history::{FollowError, ReplicaFollower};
use walrust_sqlite::{ChangeKind, ReplicaChange, ReplicaState};

use super::signals::Signals;
use super::{print, rfc3339};
use crate::Error;
use crate::config::{Config, Interval, parse_interval};
use crate::storage_source::open_url;

/// The longest pause between attempts that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct ReplicateArgs {
    /// Database in storage: s3://bucket/prefix/name or file:///directory/name
    #[arg(value_name = "SOURCE")]
    source: String,
    /// File of the replica; created if missing, to be opened read-only by applications
    #[arg(long, value_name = "FILE")]
    local: PathBuf,
    /// How often to look for newer states in storage
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_interval)]
    interval: Interval,
    /// Catch up with the newest state, then exit
    #[arg(long)]
    once: bool,
    /// Endpoint of an S3-compatible store, starting with http:// or https://
    #[arg(long, value_name = "URL", env = "WALRUST_ENDPOINT")]
    endpoint: Option<String>,
    /// Print each state as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ReplicateArgs, config: &Config) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let (url, name) = split_source(&args.source)?;
    let Interval(interval) = args.interval;
    if interval.is_zero() {
        return Err(Error::Usage("--interval must be greater than 0".into()));
    }
    let store = open_url(url, args.endpoint.as_deref(), config).await?;
    let mut follower = ReplicaFollower::open(store, name, &args.local).await?;
    let (mut attempt, mut told) = (0, false);
    loop {
        let step = tokio::select! {
            step = follower.step() => step,
            () = signals.next() => return Ok(()),
        };
        let pause = match step {
            Ok(Some(change)) => {
                (attempt, told) = (0, true);
                print_change(&change, args.json)?;
                continue;
            }
            Ok(None) => {
                if let Some(state) = follower.state().filter(|_| args.once && !told) {
                    print_state("current", &state, 0, args.json)?;
                }
                if args.once {
                    return Ok(());
                }
                attempt = 0;
                interval
            }
            Err(error) => {
                // Before there is a replica, nobody is served by waiting.
                if args.once || error.is_final() || follower.state().is_none() {
                    return Err(error.into());
                }
                attempt += 1;
                pause_after(&error, attempt, interval)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.next() => return Ok(()),
        }
    }
}

/// Splits a source into the URL of the storage and the name of the database.
fn split_source(source: &str) -> Result<(&str, &str), Error> {
    let split = source.trim_end_matches('/').rsplit_once('/');
    let named =
        split.filter(|(url, name)| !url.is_empty() && !url.ends_with('/') && !name.is_empty());
    named.ok_or_else(|| {
        Error::Usage(format!(
            "{source:?} does not name a database in storage; use s3://bucket/prefix/name or \
             file:///directory/name"
        ))
    })
}

/// How long to wait after a failure: later and later, and never less than the interval.
fn pause_after(error: &FollowError, attempt: u32, interval: Duration) -> Duration {
    let longest = LONGEST_PAUSE.max(interval);
    let policy = RetryPolicy { base_delay: interval, max_delay: longest, ..RetryPolicy::default() };
    // Whatever is wrong with the history may be mended by the next file.
    let class = if error.class().is_retryable() { error.class() } else { ErrorClass::Transient };
    let decision = policy.after_failure(class, attempt, fastrand::f64());
    let RetryDecision::After { delay, .. } = decision else {
        unreachable!("a transient failure is tried again");
    };
    let pause = delay.max(interval);
    tracing::warn!(%error, attempt, pause_ms = pause.as_millis() as u64, "the replica cannot be updated; trying again");
    pause
}

fn print_change(change: &ReplicaChange, as_json: bool) -> Result<(), Error> {
    let event = match change.kind {
        ChangeKind::Created => "created",
        ChangeKind::Applied => "applied",
        ChangeKind::Rebuilt => "rebuilt",
    };
    print_state(event, &change.state, change.pages, as_json)
}

fn print_state(event: &str, state: &ReplicaState, pages: u32, as_json: bool) -> Result<(), Error> {
    let lag = lag_seconds(state.timestamp_ms);
    let time = rfc3339(state.timestamp_ms);
    if as_json {
        let line = json!({
            "event": event,
            "source": state.source,
            "txid": state.txid.to_string(),
            "timestamp": time,
            "lag_seconds": lag,
            "pages": pages,
            "page_count": state.page_count,
            "checksum": state.checksum.to_string(),
        });
        return print(&format!("{line}\n"));
    }
    print(&format!("{event}: TXID {} of {time}, lag {lag:.1} s, {pages} pages\n", state.txid))
}

/// Seconds from the commit of a state to now.
fn lag_seconds(timestamp_ms: i64) -> f64 {
    let lag_ms = jiff::Timestamp::now().as_millisecond().saturating_sub(timestamp_ms);
    // A clock that is behind that of the writer shows no negative lag.
    lag_ms.max(0) as f64 / 1000.0
}
