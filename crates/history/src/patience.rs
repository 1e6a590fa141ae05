//! Asks again what storage cannot answer at the moment.

use walrust_engine::{RetryDecision, RetryPolicy};
use walrust_storage::StorageError;

/// Sends a request again that the store cannot serve at the moment, a few times.
///
/// # Errors
/// The last answer, or at once one that another attempt cannot change.
pub async fn patiently<T, F>(mut request: impl FnMut() -> F) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let policy = RetryPolicy::default();
    for attempt in 1..=policy.max_retries {
        match request().await {
            Err(error) if error.class().is_retryable() => {
                let decision = policy.after_failure(error.class(), attempt, fastrand::f64());
                let RetryDecision::After { delay, .. } = decision else { return Err(error) };
                tokio::time::sleep(delay).await;
            }
            result => return result,
        }
    }
    request().await
}
