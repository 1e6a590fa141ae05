//! The formats, tested on files that SQLite wrote and against what SQLite makes of them.
//!
//! The judge is SQLite: the committed pages of a WAL, laid over the database file, must give byte
//! for byte the file that SQLite leaves when it checkpoints a copy of the two.

mod big_endian;
mod commits;
mod database_header;
mod faults;
mod hostile_bytes;
mod live_database;
mod lock_bytes;
mod random_transactions;
mod resume;
mod snapshot;
mod torn_tails;
mod wal_index;
mod wal_restart;
mod writing;
