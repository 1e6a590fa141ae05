//! Any bytes as an LTX file: no panic, no more memory than declared, and what is accepted can be
//! written again. `crates/ltx/tests/hostile.rs` runs the same function in every test run.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run ltx_decode fuzz/corpus/ltx_decode tests/fixtures/ltx` in the
//! root of the repository starts from the fixtures.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/ltx/tests/anything.rs"]
mod anything;

fuzz_target!(|bytes: &[u8]| anything::read_anything(bytes));
