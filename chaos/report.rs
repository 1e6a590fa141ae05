//! What a run came to, for people and for scripts.
//!
//! Invariant: text and JSON say the same.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fault::{Fault, Faults};
use crate::iteration::Tally;

/// An iteration that went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) iteration: u64,
    pub(crate) reason: String,
    /// Where everything about it is kept.
    pub(crate) kept: String,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) elapsed: Duration,
    pub(crate) iterations: u64,
    pub(crate) tally: Tally,
    pub(crate) faults: Vec<(Fault, u64)>,
    pub(crate) failures: Vec<Failure>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            elapsed: Duration::ZERO,
            iterations: 0,
            tally: Tally::default(),
            faults: Faults::default().by_kind(),
            failures: Vec::new(),
        }
    }

    /// How long it takes until something goes wrong; `None` as long as nothing has.
    fn mean_time_between_failures(&self) -> Option<f64> {
        let count = self.failures.len();
        (count > 0).then(|| self.elapsed.as_secs_f64() / count as f64)
    }

    fn total(&self) -> u64 {
        self.faults.iter().map(|(_, count)| count).sum()
    }

    /// The report as one JSON document.
    pub(crate) fn json(&self) -> Value {
        let faults = self.faults.iter().map(|(fault, count)| (fault.name(), json!(count)));
        let failures = self.failures.iter().map(|failure| {
            json!({
                "iteration": failure.iteration,
                "reason": failure.reason,
                "kept": failure.kept,
            })
        });
        json!({
            "seed": self.seed,
            "seconds": self.elapsed.as_secs_f64(),
            "iterations": self.iterations,
            "commits": self.tally.commits,
            "restores_checked": self.tally.restores,
            "warnings": self.tally.warnings,
            "faults": faults.collect::<serde_json::Map<_, _>>(),
            "faults_total": self.total(),
            "failures": failures.collect::<Vec<_>>(),
            "mean_seconds_between_failures": self.mean_time_between_failures(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "seed {}, {:.1} s", self.seed, self.elapsed.as_secs_f64())?;
        let rows = self.faults.iter().map(|(fault, count)| (fault.name(), *count));
        for (name, count) in rows.chain([("all_faults".to_owned(), self.total())]) {
            writeln!(out, "  {name:24}{count:8}")?;
        }
        writeln!(out, "what daemons warned of:")?;
        for (warning, count) in &self.tally.warnings {
            writeln!(out, "  {count:6} x {warning}")?;
        }
        let Tally { commits, restores, .. } = self.tally;
        writeln!(
            out,
            "{} iterations, {commits} commits, {restores} restored databases checked",
            self.iterations
        )?;
        for Failure { iteration, reason, kept } in &self.failures {
            writeln!(out, "FAILED iteration {iteration}: {reason}\n  kept in {kept}")?;
        }
        match self.mean_time_between_failures() {
            Some(seconds) => writeln!(
                out,
                "{} failures, mean time between failures {seconds:.1} s",
                self.failures.len()
            ),
            None => writeln!(
                out,
                "0 failures, mean time between failures over {:.1} s",
                self.elapsed.as_secs_f64()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Failure, Report};
    use crate::fault::{Fault, Faults};

    #[test]
    fn text_and_json_say_the_same() {
        let faults = Faults::default();
        faults.count(Fault::DaemonKilled);
        faults.count(Fault::DaemonKilled);
        let mut report = Report::new(7);
        report.faults = faults.by_kind();
        report.elapsed = Duration::from_secs(90);
        assert!(report.json()["mean_seconds_between_failures"].is_null());
        assert!(report.to_string().contains("0 failures, mean time between failures over 90.0 s"));

        for iteration in [3, 8] {
            let (reason, kept) = ("it broke".to_owned(), "here".to_owned());
            report.failures.push(Failure { iteration, reason, kept });
        }
        let (json, text) = (report.json(), report.to_string());
        assert_eq!(json["faults"]["daemon_killed"], 2);
        assert_eq!(json["faults"]["lost_reply"], 0);
        assert_eq!(json["faults_total"], 2);
        assert_eq!(json["mean_seconds_between_failures"], 45.0);
        assert_eq!(json["failures"][1]["iteration"], 8);
        assert!(text.contains("FAILED iteration 8: it broke"), "{text}");
        assert!(text.contains("2 failures, mean time between failures 45.0 s"), "{text}");
    }
}
