//! From answers of S3 and failures of the network to classes and sentences.
//!
//! Invariant: the class follows from the error code, else from the HTTP status, else from the kind
//! of the failure; words of messages are shown and never read. HEAD requests have no codes.

use std::error::Error;
use std::io;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use walrust_engine::ErrorClass;

use crate::StorageError;
use crate::error::one_line;

/// What a request was about.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) operation: &'static str,
    /// URL of the store.
    pub(super) url: String,
    /// Relative to the URL; empty if the whole store is concerned.
    pub(super) key: String,
    /// The server, if it is not AWS.
    pub(super) endpoint: Option<Arc<str>>,
}

impl About {
    pub(super) fn error(&self, class: ErrorClass, reason: impl std::fmt::Display) -> StorageError {
        StorageError::new(self.operation, self.url.clone(), &self.key, class, reason)
    }

    /// The error of a request that failed.
    pub(super) fn request<E>(&self, error: &SdkError<E, HttpResponse>) -> StorageError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let meta = answer.err().meta();
                self.answer(meta.code(), meta.message(), answer.raw())
            }
            SdkError::ResponseError(answer) => self.answer(None, None, answer.raw()),
            SdkError::TimeoutError(_) => {
                self.error(ErrorClass::Transient, "the store did not answer in time")
            }
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                self.error(ErrorClass::Transient, "the store did not answer in time")
            }
            SdkError::ConstructionFailure(_) => {
                self.not_sent(error, ErrorClass::Permanent, "the request cannot be made")
            }
            other => self.not_sent(other, ErrorClass::Transient, "the connection failed"),
        }
    }

    fn answer(
        &self,
        code: Option<&str>,
        message: Option<&str>,
        response: &HttpResponse,
    ) -> StorageError {
        let status = response.status().as_u16();
        let region = response.headers().get("x-amz-bucket-region").map(one_line);
        self.refused(code, message, Some(status), region)
    }

    /// The error of one key in a batch that succeeded as such.
    pub(super) fn in_batch(&self, code: Option<&str>, message: Option<&str>) -> StorageError {
        self.refused(code, message, None, None)
    }

    fn refused(
        &self,
        code: Option<&str>,
        message: Option<&str>,
        status: Option<u16>,
        region: Option<String>,
    ) -> StorageError {
        let class = class_of(status, code);
        let reason = reason_of(status, code)
            .map(str::to_owned)
            .or_else(|| message.filter(|text| !text.is_empty()).map(one_line))
            .unwrap_or_else(|| "the store refused the request".to_owned());
        let mut error = self.error(class, reason).with_status(status).with_code(code);
        if code == Some("NoSuchBucket") {
            error = error.with_missing_bucket();
        }
        match hint_of(status, code, region) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// The request did not reach the store, or its answer did not reach us.
    fn not_sent(
        &self,
        error: &(dyn Error + 'static),
        class: ErrorClass,
        reason: &str,
    ) -> StorageError {
        for cause in chain(error) {
            if let Some(error) = cause.downcast_ref::<CredentialsError>() {
                return self.without_credentials(error);
            }
        }
        let cause = innermost(error);
        if let Some(tls) = chain(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            let hint = match tls {
                rustls::Error::InvalidMessage(_) => "does it speak TLS? Else its URL is http://",
                _ => "the certificates of its authority can be named in AWS_CA_BUNDLE",
            };
            return self.error(class, format!("no trusted connection: {cause}")).with_hint(hint);
        }
        // The inner ones say more.
        let io = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            let by = self.endpoint.as_deref().map(|url| format!(" by {url}"));
            return self
                .error(class, format!("connection refused{}", by.unwrap_or_default()))
                .with_hint("is the endpoint right, and the store up?");
        }
        self.error(class, format!("{reason}: {cause}"))
    }

    fn without_credentials(&self, error: &CredentialsError) -> StorageError {
        match error {
            CredentialsError::CredentialsNotLoaded(_) => self
                .error(ErrorClass::Auth, "there are no credentials")
                .with_hint(
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile that has them in \
                     AWS_PROFILE",
                ),
            CredentialsError::ProviderTimedOut(_) => self
                .error(ErrorClass::Transient, "the provider of credentials did not answer in time"),
            other => self
                .error(ErrorClass::Auth, format!("no credentials: {}", innermost(other)))
                .with_hint("check AWS_PROFILE, the profile, and the role"),
        }
    }
}

/// An error and its causes, the outermost first.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause_of(*error))
}

fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // An `io::Error` gives the source of what it wraps as its own, and so hides that.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// What the last of all causes says: the others say that something has failed.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, |cause| one_line(&cause.to_string()))
}

/// Codes mean the same in all stores where they are used; statuses decide about the rest.
fn class_of(status: Option<u16>, code: Option<&str>) -> ErrorClass {
    if let Some(class) = code.and_then(class_of_code) {
        return class;
    }
    match status {
        Some(404) => ErrorClass::NotFound,
        Some(401 | 403) => ErrorClass::Auth,
        Some(412) => ErrorClass::Precondition,
        Some(429) => ErrorClass::Throttled,
        Some(501 | 505) => ErrorClass::Permanent,
        // 2xx: the answer could not be read. 409: something else is going on with the object.
        Some(200..=299 | 307 | 408 | 409 | 425 | 500..) => ErrorClass::Transient,
        Some(_) => ErrorClass::Permanent,
        // One key of a batch, with a code that we do not know.
        None => ErrorClass::Transient,
    }
}

fn class_of_code(code: &str) -> Option<ErrorClass> {
    Some(match code {
        "NoSuchKey" | "NoSuchBucket" | "NotFound" => ErrorClass::NotFound,
        "PreconditionFailed" => ErrorClass::Precondition,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "Forbidden"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "NotSignedUp"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "Unauthorized"
        | "UnrecognizedClientException" => ErrorClass::Auth,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "BandwidthLimitExceeded"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequests"
        | "TooManyRequestsException" => ErrorClass::Throttled,
        // "If the upload fails with 409, retry it": another write to the key was under way.
        "ConditionalRequestConflict"
        | "OperationAborted"
        | "InternalError"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "ServiceUnavailable"
        | "IncompleteBody"
        | "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "NoSuchUpload"
        | "TemporaryRedirect" => ErrorClass::Transient,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "NotImplemented" => {
            ErrorClass::Permanent
        }
        _ => return None,
    })
}

/// Our own words for what happens often; otherwise those of the store are shown.
fn reason_of(status: Option<u16>, code: Option<&str>) -> Option<&'static str> {
    Some(match code {
        Some("NoSuchBucket") => "the bucket does not exist",
        Some("NoSuchKey" | "NotFound") => "there is no such object",
        Some("AccessDenied" | "Forbidden") => "access denied",
        Some("InvalidAccessKeyId") => "the store does not know the access key",
        Some("SignatureDoesNotMatch") => "the secret key is wrong",
        Some("ExpiredToken" | "TokenRefreshRequired") => "the credentials have expired",
        Some("RequestTimeTooSkewed" | "RequestExpired") => "the clocks of host and store disagree",
        Some("PreconditionFailed") => "the condition of the request does not hold",
        Some("ConditionalRequestConflict" | "OperationAborted") => {
            "another write to the object is under way"
        }
        Some("SlowDown") => "the store asks for fewer requests",
        Some("PermanentRedirect" | "AuthorizationHeaderMalformed") => {
            "the bucket is in another region"
        }
        Some("XAmzContentSHA256Mismatch" | "BadDigest") => {
            "the store received other bytes than were announced"
        }
        Some(_) => return None,
        None => match status? {
            200..=299 => "the answer of the store cannot be read",
            301 => "the bucket is in another region",
            401 | 403 => "access denied",
            404 => "there is no such object",
            412 => "the condition of the request does not hold",
            429 => "the store asks for fewer requests",
            500.. => "the store has failed",
            _ => return None,
        },
    })
}

fn hint_of(status: Option<u16>, code: Option<&str>, region: Option<String>) -> Option<String> {
    let hint = match code {
        Some("NoSuchBucket") => "create it, or correct the URL",
        Some("AccessDenied" | "Forbidden") => "the credentials lack a permission on the bucket",
        Some("InvalidAccessKeyId") => "check AWS_ACCESS_KEY_ID, the profile, and the endpoint",
        Some("SignatureDoesNotMatch") => "check AWS_SECRET_ACCESS_KEY, or the profile",
        Some("ExpiredToken" | "TokenRefreshRequired") => {
            "get new ones: AWS_SESSION_TOKEN and its keys, the profile, or the role"
        }
        Some("RequestTimeTooSkewed" | "RequestExpired") => "set the clock of this host",
        Some("PermanentRedirect" | "AuthorizationHeaderMalformed") => {
            return Some(region_hint(region));
        }
        None if status == Some(301) => return Some(region_hint(region)),
        Some("NotImplemented") => "the store lacks a feature that this request uses",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn region_hint(region: Option<String>) -> String {
    match region {
        Some(region) => format!("set AWS_REGION={region}"),
        None => "set AWS_REGION to the region of the bucket".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ConnectorError;
    use aws_sdk_s3::operation::get_object::GetObjectError;

    use super::*;

    fn dispatch(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StorageError {
        let failure = ConnectorError::other(cause.into(), None);
        let error = SdkError::<GetObjectError, HttpResponse>::dispatch_failure(failure);
        let about = About {
            operation: "get",
            url: "s3://bucket".into(),
            key: "k".into(),
            endpoint: Some("http://host:1".into()),
        };
        about.request(&error)
    }

    #[test]
    fn missing_credentials_name_the_variables() {
        let error = dispatch(CredentialsError::not_loaded_no_source());
        assert_eq!(error.class(), ErrorClass::Auth);
        let text = error.to_string();
        assert!(text.contains("AWS_ACCESS_KEY_ID") && text.contains("AWS_PROFILE"), "{text}");
    }

    #[test]
    fn a_broken_profile_is_for_a_person_and_a_slow_provider_is_not() {
        let error = dispatch(CredentialsError::invalid_configuration("profile loops"));
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(error.to_string().contains("profile loops"), "{error}");
        let slow = CredentialsError::provider_timed_out(std::time::Duration::from_secs(5));
        assert_eq!(dispatch(slow).class(), ErrorClass::Transient);
    }

    #[test]
    fn the_kind_of_a_broken_connection_is_found_below_others() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = dispatch(io::Error::other(refused));
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains("connection refused by http://host:1"), "{error}");
    }
}
