//! What the tests, the chaos suite and the benchmarks of walrust share: databases with a workload,
//! writers in other processes, and the oracle that compares a restored database with its source.
//!
//! For development only. Invariant: everything random comes from a seed, so a failure can be
//! replayed; and nothing here touches the files of a database in a way that its user or a
//! replicator could notice. What goes wrong panics with a message that says what to do about it.

mod application;
mod binary;
mod environment;
mod fixture;
mod image;
mod prng;
mod sql_process;
mod test_database;
mod wait;
mod webhook_receiver;
mod workload;
mod writer_process;

pub use application::Application;
pub use environment::{S3Server, litestream_binary};
pub use fixture::Fixture;
pub use image::{
    assert_same_content, assert_same_database, check_integrity, dump, dump_connection, image,
};
pub use prng::Prng;
pub use sql_process::{SqlProcess, SqliteLibrary};
pub use test_database::{TestDatabase, connect, sidecar};
pub use wait::wait_for;
pub use webhook_receiver::{ReceivedWebhook, ReceiverAnswer, WebhookReceiver};
pub use workload::{Step, Workload};
pub use writer_process::{WriterOptions, WriterProcess, writer_binary};
