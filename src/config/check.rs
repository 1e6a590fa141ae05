//! Values that are well formed and cannot work.
//!
//! What can be said of a file without looking at databases or storage is said when it is read, so
//! that no part of an invalid file is ever applied.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use walrust_actors::WebhookUrl;
use walrust_engine::{EventKind, is_valid_name};
use walrust_storage::{StorageUrl, check_endpoint};

use super::{Config, Interval, line_of, nearest};
use crate::pattern::{is_pattern, pattern_error};

/// By then a daemon has let go of a database that is gone.
const SHORTEST_KEEP: Duration = Duration::from_secs(60);

/// Everything that is wrong, each with its line.
pub(super) fn problems(config: &Config, text: &str) -> Vec<String> {
    let mut problems = Problems { text, found: Vec::new() };
    problems.storage(config);
    problems.numbers(config);
    problems.webhooks(config);
    problems.databases(config);
    problems.found
}

struct Problems<'a> {
    text: &'a str,
    found: Vec<String>,
}

impl Problems<'_> {
    fn add(&mut self, key: &str, problem: impl Display) {
        let line = self.line(key).map_or(String::new(), |line| format!("line {line}: "));
        self.found.push(format!("{line}`{key}`: {problem}"));
    }

    fn line(&self, key: &str) -> Option<usize> {
        line_of(self.text, &key.split('.').map(str::to_owned).collect::<Vec<_>>())
    }

    fn storage(&mut self, config: &Config) {
        if let Some(Err(error)) = config.s3.bucket.as_ref().map(|url| url.parse::<StorageUrl>()) {
            self.add("s3.bucket", error);
        }
        if let Some(Err(error)) = config.s3.endpoint.as_deref().map(check_endpoint) {
            self.add("s3.endpoint", error);
        }
    }

    fn numbers(&mut self, config: &Config) {
        let least_one = "must be at least 1";
        for (key, milliseconds) in [
            ("retry.base_delay_ms", config.retry.base_delay_ms),
            ("retry.max_delay_ms", config.retry.max_delay_ms),
            ("retry.circuit_breaker_cooldown_ms", config.retry.circuit_breaker_cooldown_ms),
        ] {
            if milliseconds.is_some_and(|it| Duration::from_millis(it) > Interval::LONGEST) {
                self.add(key, "must be at most 100 years");
            }
        }
        if config.limits.upload_concurrency == Some(0) {
            self.add("limits.upload_concurrency", least_one);
        }
        if config.state.keep_deleted().is_some_and(|keep| keep < SHORTEST_KEEP) {
            self.add("state.keep_deleted", "must be 0 (for ever) or at least 1m");
        }
        if config.limits.snapshots_at_once == Some(0) {
            self.add("limits.snapshots_at_once", least_one);
        }
        if config.retry.circuit_breaker_threshold == Some(0) {
            let problem = format!(
                "{least_one}; use circuit_breaker_enabled = false to disable the circuit breaker"
            );
            self.add("retry.circuit_breaker_threshold", problem);
        }
    }

    fn webhooks(&mut self, config: &Config) {
        for (index, webhook) in config.webhooks.iter().enumerate() {
            if let Err(problem) = WebhookUrl::parse(&webhook.url) {
                self.add(&format!("webhooks.{index}.url"), problem);
            }
            for event in &webhook.events {
                if let Err(error) = event.parse::<EventKind>() {
                    let known = EventKind::ALL.map(EventKind::as_str);
                    let hint = match nearest(event, &known) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("known events: {}", known.join(", ")),
                    };
                    self.add(&format!("webhooks.{index}.events"), format!("{error}; {hint}"));
                }
            }
        }
    }

    fn databases(&mut self, config: &Config) {
        let mut first = HashMap::new();
        for (index, section) in config.databases.iter().enumerate() {
            let key = format!("databases.{index}.path");
            let path: &Path = &section.path;
            if path.as_os_str().is_empty() {
                self.add(&key, "must not be empty: give a file or a pattern");
                continue;
            }
            if let Some(problem) = pattern_error(path) {
                self.add(&key, problem);
            }
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            if let Some(before) = first.insert(absolute, key.clone()) {
                let line = self.line(&before).unwrap_or_default();
                self.add(&key, format!("{} is already configured in line {line}", path.display()));
            }
            let Some(prefix) = section.prefix.as_deref().map(|it| it.trim_matches('/')) else {
                continue;
            };
            if !(is_valid_name(prefix) || prefix.is_empty() && is_pattern(path)) {
                let problem = "must consist of non-empty segments other than \".\" and \"..\", separated by slashes";
                self.add(&format!("databases.{index}.prefix"), problem);
            }
        }
    }
}
