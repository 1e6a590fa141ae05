//! Planners and state machines of walrust.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and randomness are
//! arguments, so that a plan printed by a dry run, a property test and the running daemon all go
//! through the same code.

mod error_class;

pub use error_class::ErrorClass;
