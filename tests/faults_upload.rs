//! Position, restart and upload: each fault that replicators of this kind have had, by its number.
//!
//! `b01` ... `b20` are the items of one list, so that `cargo nextest run b07` runs what concerns
//! one of them; those that only show below the program are in `actors/tests` and
//! `crates/storage/tests`. The program runs against the S3 server, through a proxy where storage
//! has to fail.

use std::path::Path;

use walrust_ltx::{Decoder, FileName, Mode};

use crate::daemon::Daemon;
use crate::fault_proxy::FaultProxy;
use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

mod crashes;
mod hosts;
mod late_uploads;
mod outages;
mod parts;
mod staging;
mod start;
mod storage_faults;

/// Failures are tried again at the pace of a test.
const QUICK_RETRIES: &str = "[retry]\nbase_delay_ms = 10\nmax_delay_ms = 200\n\
                             circuit_breaker_cooldown_ms = 200\n";

/// A writer that never pauses is stopped for a checkpoint soon: files are staged behind others.
const SMALL_WAL: [&str; 4] = ["--wal-truncate-threshold", "40", "--min-checkpoint-pages", "10"];

/// A user whose requests go through a proxy.
fn behind(proxy: &FaultProxy, storage: &Storage) -> Walrust {
    let mut walrust = Walrust::on(storage);
    walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    walrust.configure(QUICK_RETRIES);
    walrust
}

/// Watches one database with further arguments.
fn watch_with(walrust: &Walrust, database: &Path, more: &[&str]) -> Daemon {
    let path = database.display().to_string();
    walrust.watch_with([&[path.as_str()], &QUICK[..], more].concat())
}

/// Asserts that the files of a database are one unbroken history behind one snapshot of TXID 1,
/// and that none of them is torn.
#[track_caller]
fn assert_one_history(storage: &Storage, name: &str) {
    let files = storage.ltx_files(name);
    let snapshots = files.iter().filter(|file| file.is_snapshot()).count();
    assert_eq!(snapshots, 1, "one snapshot: {files:?}");
    for pair in files.windows(2) {
        assert_eq!(pair[1].min, pair[0].max.next(), "no gap and no overlap: {files:?}");
    }
    for file in files {
        assert_whole(storage, name, file);
    }
}

/// Asserts that a stored file decodes to its end.
#[track_caller]
fn assert_whole(storage: &Storage, name: &str, file: FileName) {
    let bytes = storage.read(&format!("{name}/{file}"));
    let decode = || {
        let mut decoder = Decoder::new(bytes.as_slice(), Mode::Strict)?;
        let mut page = vec![0; decoder.header().page_size.bytes()];
        while decoder.next_page(&mut page)?.is_some() {}
        decoder.finish()
    };
    if let Err(error) = decode() {
        panic!("{name}/{file} is torn: {error}");
    }
}

/// Another commit in a database with the schema of the workload.
const INSERT: &str = "INSERT INTO accounts (name, balance) VALUES ('one more', 1)";
