//! What all calls to the API server have in common.

use std::future::Future;
use std::time::Duration;

use crate::error::KubeError;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Who changed an object, as the API server notes it.
pub(crate) const FIELD_MANAGER: &str = "talos";

/// Gives a call its deadline and its error a subject.
pub(crate) async fn within<T>(
    operation: &'static str,
    subject: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(KubeError::from_kube(operation, subject, error)),
        Err(_) => Err(KubeError::Timeout { operation, subject: subject.to_owned(), seconds: DEADLINE.as_secs() }),
    }
}
