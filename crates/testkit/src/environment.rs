//! What the test run provides from outside: an S3 server and the Litestream binary.

use std::env;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The S3 server of the test run.
#[derive(Clone, Debug)]
pub struct S3Server {
    endpoint: String,
    access_key: String,
    secret_key: String,
}

impl S3Server {
    /// The server that `make test` started.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            endpoint: required(&lookup, "WALRUST_TEST_S3_ENDPOINT"),
            access_key: required(&lookup, "WALRUST_TEST_S3_ACCESS_KEY"),
            secret_key: required(&lookup, "WALRUST_TEST_S3_SECRET_KEY"),
        }
    }

    /// Base URL of the server.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Access key ID of a user who may do anything.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// Secret key of that user.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// A bucket name that no other test uses; the bucket does not exist yet.
    #[must_use]
    pub fn unique_bucket(&self, name: &str) -> String {
        // A bucket name has at most 63 characters, all lower case.
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(24)
            .collect();
        format!("t-{}-{}", name.trim_matches('-'), unique())
    }

    /// A key prefix that no other test uses, without a slash at either end.
    #[must_use]
    pub fn unique_prefix(&self, name: &str) -> String {
        format!("{name}/{}", unique())
    }
}

/// The Litestream binary that `make test` provides.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn litestream_binary() -> PathBuf {
    let path = PathBuf::from(required(|name| env::var(name).ok(), "WALRUST_TEST_LITESTREAM"));
    assert!(path.is_file(), "WALRUST_TEST_LITESTREAM names {}: no such file", path.display());
    path
}

fn required(lookup: impl Fn(&str) -> Option<String>, name: &str) -> String {
    lookup(name).unwrap_or_else(|| panic!("{name} is not set: run the tests through `make test`"))
}

/// Differs between calls, between processes, and between runs that meet the same server.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{count:x}", elapsed.as_micros(), process::id())
}

#[cfg(test)]
mod tests {
    use super::S3Server;

    fn server() -> S3Server {
        S3Server::from_variables(|name| Some(format!("value of {name}")))
    }

    #[test]
    fn the_variables_go_where_they_belong() {
        let server = server();
        assert_eq!(server.endpoint(), "value of WALRUST_TEST_S3_ENDPOINT");
        assert_eq!(server.access_key(), "value of WALRUST_TEST_S3_ACCESS_KEY");
        assert_eq!(server.secret_key(), "value of WALRUST_TEST_S3_SECRET_KEY");
    }

    #[test]
    #[should_panic(expected = "WALRUST_TEST_S3_SECRET_KEY is not set: run the tests through `make")]
    fn a_missing_variable_says_how_to_run_the_tests() {
        let _ = S3Server::from_variables(|name| (!name.ends_with("SECRET_KEY")).then(String::new));
    }

    #[test]
    fn names_are_unique_and_valid() {
        let server = server();
        let long = "Tests::of_a Very Long module::and a very long test name indeed";
        let bucket = server.unique_bucket(long);
        assert_ne!(bucket, server.unique_bucket(long));
        assert_ne!(server.unique_prefix("a"), server.unique_prefix("a"));
        assert!((3..=63).contains(&bucket.len()), "{bucket}");
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(bucket.chars().all(valid), "{bucket}");
    }
}
