//! What each lock of the detached pin prevents, and what happens without it.
//!
//! The facts are about SQLite, not about walrust: the tests take the locks themselves and spell out
//! the bytes, and applications are other processes, one test with the SQLite that is built in and
//! one with the SQLite of the machine. If a new version of SQLite behaves in another way, the pin
//! has lost its ground, and these tests say where.
#![cfg(target_os = "linux")]

mod database_lock;
mod dead_mans_switch;
mod descriptors;
mod read_lock_zero;
mod read_slot;
mod recovery;
mod support;
mod transactions;

/// Proves each fact with both libraries.
macro_rules! with_both_libraries {
    ($($fact:ident),* $(,)?) => {
        mod bundled_sqlite {
            $(#[test] fn $fact() { super::$fact(walrust_testkit::SqliteLibrary::Bundled); })*
        }
        mod system_sqlite {
            $(#[test] fn $fact() { super::$fact(walrust_testkit::SqliteLibrary::System); })*
        }
    };
}
use with_both_libraries;
