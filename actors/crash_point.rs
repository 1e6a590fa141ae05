//! Where tests make an actor crash, at the beginning of each message, or work outside of actors panic or stand still.

use ractor::ActorProcessingErr;

/// Fails if a test wants the actor to crash at this message: `fail::cfg("actor::message", ..)`.
/// Without the feature `failpoints` of the crate `fail` this is nothing.
pub(crate) fn crash_point(_actor: &str, _message: &str) -> Result<(), ActorProcessingErr> {
    fail::fail_point!(&format!("{_actor}::{_message}"), |_| Err("a test wanted it".into()));
    Ok(())
}

/// Panics or stands still if a test wants it of this piece of work: `fail::cfg("job", ..)`.
pub(crate) fn job_point(_job: &str) {
    fail::fail_point!(_job);
}
