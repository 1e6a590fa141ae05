//! How to reach an S3-compatible store: what the caller says, what the environment says, and the
//! defaults, in this order.

use std::fmt;
use std::path::PathBuf;

use super::trust;

const MIB: u64 = 1024 * 1024;
/// AWS refuses smaller parts, except the last one.
const SMALLEST_PART: u64 = 5 * MIB;

/// The variables of the environment that name the endpoint where nothing else does; the first counts.
pub const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
/// The same for the region.
pub const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// How to reach an S3-compatible store.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// URL of the server, with scheme. Default: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the
    /// profile, else AWS.
    pub endpoint: Option<String>,
    /// Region. Default: `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of requests instead of the host name. Default: if
    /// there is an endpoint.
    pub path_style: Option<bool>,
    /// Credentials. Default: the usual chain of AWS SDKs (environment, profile, web identity,
    /// container, instance).
    pub credentials: Option<S3Credentials>,
    /// Whether the store can check conditions of uploads. If not, they are checked by a request
    /// before the upload, which is weaker: another writer may come between. Default: true.
    pub conditional_writes: bool,
    /// Files of at least this many bytes are uploaded in parts. Default: 32 MiB.
    pub multipart_threshold: u64,
    /// Bytes of one part, at least 5 MiB; more if a file would need over 10,000 parts. Default:
    /// 16 MiB.
    pub part_size: u64,
    /// Parts of one file that are uploaded at the same time; each takes a connection and a few
    /// buffers of 64 KiB. Default: 4.
    pub part_concurrency: usize,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: None,
            credentials: None,
            conditional_writes: true,
            multipart_threshold: 32 * MIB,
            part_size: 16 * MIB,
            part_concurrency: 4,
        }
    }
}

/// An access key and its secret.
#[derive(Clone)]
pub struct S3Credentials {
    /// Identifies the key; not a secret.
    pub access_key: String,
    /// Signs requests; never sent, never shown.
    pub secret_key: String,
    /// Belongs to temporary keys; a secret.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// Options together with the environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Endpoint, if the options or a variable name one.
    pub(super) endpoint: Option<String>,
    /// Region, if the options or a variable name one.
    pub(super) region: Option<String>,
    /// File with the only certificates to trust, and the variable that names it.
    pub(super) certificates: Option<(&'static str, PathBuf)>,
}

impl Settings {
    /// Looks up what the options leave open. Empty variables count as unset.
    pub(super) fn resolve(
        options: &S3Options,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let value = |names: &[&str]| {
            names.iter().find_map(|name| environment(name).filter(|value| !value.is_empty()))
        };
        if options.part_size < SMALLEST_PART {
            return Err(format!("part_size is {}, but S3 takes 5 MiB at least", options.part_size));
        }
        let endpoint = options.endpoint.clone().or_else(|| value(&ENDPOINT_VARIABLES));
        let region = options.region.clone().or_else(|| value(&REGION_VARIABLES));
        let certificates = trust::named_bundle(&environment);
        Ok(Self { endpoint, region, certificates })
    }
}

/// Refuses endpoints that the SDK would misread, and secrets in them.
///
/// # Errors
/// What is wrong, without a secret.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    if endpoint.contains('@') {
        return Err("the endpoint may not contain credentials; they come from \
                    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            .to_owned());
    }
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return Err(format!(
            "the endpoint {endpoint:?} has no scheme; write https://{endpoint} or http://{endpoint}"
        ));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("the endpoint {endpoint:?} is neither http:// nor https://"));
    }
    if rest.is_empty() || rest.starts_with(['/', ':']) {
        return Err(format!("the endpoint {endpoint:?} has no host"));
    }
    if rest.contains(['?', '#', ' ']) {
        return Err(format!("the endpoint {endpoint:?} may not contain ?, # or spaces"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: &S3Options, variables: &[(&str, &str)]) -> Settings {
        let lookup = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::resolve(options, lookup).unwrap()
    }

    #[test]
    fn options_win_over_variables_and_specific_variables_over_general_ones() {
        let variables = [
            ("AWS_ENDPOINT_URL_S3", "https://s3"),
            ("AWS_ENDPOINT_URL", "https://all"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "eu-north-1"),
            ("AWS_CA_BUNDLE", "/ca/aws.pem"),
            ("SSL_CERT_FILE", "/ca/ssl.pem"),
        ];
        let found = resolve(&S3Options::default(), &variables);
        assert_eq!(found.endpoint.as_deref(), Some("https://s3"));
        assert_eq!(found.region.as_deref(), Some("eu-west-1"));
        assert_eq!(found.certificates, Some(("AWS_CA_BUNDLE", "/ca/aws.pem".into())));

        let options = S3Options {
            endpoint: Some("http://mine".into()),
            region: Some("auto".into()),
            ..S3Options::default()
        };
        let found = resolve(&options, &variables);
        assert_eq!(found.endpoint.as_deref(), Some("http://mine"));
        assert_eq!(found.region.as_deref(), Some("auto"));
    }

    #[test]
    fn empty_variables_are_unset() {
        let variables = [
            ("AWS_ENDPOINT_URL_S3", ""),
            ("AWS_REGION", ""),
            ("AWS_CA_BUNDLE", ""),
            ("SSL_CERT_FILE", "/ca/ssl.pem"),
        ];
        let found = resolve(&S3Options::default(), &variables);
        assert_eq!((found.endpoint, found.region), (None, None));
        assert_eq!(found.certificates, Some(("SSL_CERT_FILE", "/ca/ssl.pem".into())));
    }

    #[test]
    fn parts_that_aws_would_refuse_are_refused_here() {
        let options = S3Options { part_size: MIB, ..S3Options::default() };
        assert!(Settings::resolve(&options, |_| None).unwrap_err().contains("5 MiB"));
    }

    #[test]
    fn an_endpoint_needs_a_scheme_and_no_credentials() {
        for good in ["https://s3.example.com", "http://127.0.0.1:9000", "https://host/base"] {
            assert_eq!(check_endpoint(good), Ok(()));
        }
        let error = check_endpoint("localhost:9000").unwrap_err();
        assert!(error.contains("write https://localhost:9000 or http://"), "{error}");
        for bad in ["ftp://host", "https://", "https:///x", "http://host?x", "http://ho st"] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
        let error = check_endpoint("https://key:hunter2@host").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let credentials = S3Credentials {
            access_key: "AKIA".into(),
            secret_key: "hunter2".into(),
            session_token: Some("hunter3".into()),
        };
        let options = S3Options { credentials: Some(credentials), ..S3Options::default() };
        let shown = format!("{options:?}");
        assert!(shown.contains("AKIA") && !shown.contains("hunter"), "{shown}");
    }
}
