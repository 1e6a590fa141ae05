//! The tools of the tests, tested: a workload that replays, an oracle that notices, a writer that
//! is another process.

mod fixtures;
mod oracle;
mod sql;
mod workload;
mod writer;
