//! Storage URLs as users write them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where objects are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StorageUrl {
    /// `s3://bucket/prefix`, or `bucket/prefix`.
    S3 {
        /// Name of the bucket, or ARN of an access point.
        bucket: String,
        /// Prefix of all keys without slashes at its ends; may be empty.
        prefix: String,
    },
    /// `file:///abs/dir`.
    File {
        /// Absolute path of the directory.
        directory: PathBuf,
    },
}

/// A string is not a storage URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is not a storage URL: {why}; use s3://bucket/prefix or file:///absolute/directory"
)]
pub struct StorageUrlError {
    url: String,
    why: &'static str,
}

impl FromStr for StorageUrl {
    type Err = StorageUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let parsed = match url.split_once("://") {
            Some(("s3", rest)) => parse_s3(rest),
            Some(("file", path)) => parse_file(path),
            Some(_) => Err("only s3:// and file:// are supported"),
            None if url.starts_with(['/', '.', '~']) => Err("this looks like a path"),
            None => parse_s3(url),
        };
        // What stands before an @ may be a password: it is not repeated.
        parsed.map_err(|why| StorageUrlError {
            url: url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned(),
            why,
        })
    }
}

fn parse_s3(rest: &str) -> Result<StorageUrl, &'static str> {
    if rest.contains('@') {
        return Err("credentials do not belong into it, they come from the environment");
    }
    if rest.contains(['?', '#']) || rest.contains(|each: char| each.is_control()) {
        return Err("it may not contain ?, # or control characters");
    }
    // The bucket of arn:aws:s3:region:account:accesspoint/name has a slash in it.
    let arn = rest.starts_with("arn:");
    let end = rest.match_indices('/').nth(usize::from(arn)).map_or(rest.len(), |(at, _)| at);
    let (bucket, prefix) = rest.split_at(end);
    if bucket.is_empty() {
        return Err("it names no bucket");
    }
    let allowed = |each: char| each.is_ascii_alphanumeric() || matches!(each, '.' | '-' | '_');
    if !arn && !bucket.chars().all(allowed) {
        return Err("the name of a bucket has only letters, digits, dots, hyphens and underscores");
    }
    let prefix = prefix.trim_matches('/');
    if !prefix.is_empty() && prefix.split('/').any(|each| matches!(each, "" | "." | "..")) {
        return Err("the prefix may not contain empty segments, \".\" or \"..\"");
    }
    Ok(StorageUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn parse_file(path: &str) -> Result<StorageUrl, &'static str> {
    if !path.starts_with('/') {
        return Err("a file:// URL has three slashes and an absolute path");
    }
    let directory = PathBuf::from(path);
    if directory.components().any(|each| each == std::path::Component::ParentDir) {
        return Err("the path may not contain \"..\"");
    }
    Ok(StorageUrl::File { directory })
}

impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::File { directory } => write!(f, "file://{}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_the_contract_parse() {
        for (url, shown) in [
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("bucket/prefix", "s3://bucket/prefix"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("file:///abs/dir", "file:///abs/dir"),
        ] {
            assert_eq!(url.parse::<StorageUrl>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_access_point_keeps_its_slash() {
        let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine";
        for (rest, prefix) in [("", ""), ("/", ""), ("/a/b", "a/b")] {
            let url: StorageUrl = format!("s3://{arn}{rest}").parse().unwrap();
            assert_eq!(url, StorageUrl::S3 { bucket: arn.into(), prefix: prefix.into() });
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_forms_that_can() {
        for url in [
            "",
            "s3://",
            "s3:///prefix",
            "/data/backups",
            "./backups",
            "file://relative",
            "gs://bucket",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "file:///a/../b",
            "s3://b?x=1",
            "s3://bu cket",
        ] {
            let error = url.parse::<StorageUrl>().unwrap_err().to_string();
            assert!(error.contains("s3://bucket/prefix or file:///"), "{error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let error = "s3://AKIA:hunter2@bucket/x".parse::<StorageUrl>().unwrap_err().to_string();
        assert!(error.contains("credentials"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
