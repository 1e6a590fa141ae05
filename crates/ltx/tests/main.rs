//! Tests of the codec through its public interface.

#![allow(clippy::unwrap_used, reason = "a failure in a test is a panic")]

mod anything;
mod bad_files;
mod encoder_rules;
mod fixtures;
mod hostile;
mod index;
mod merging;
mod properties;
mod replicas;
mod support;
mod texts;
