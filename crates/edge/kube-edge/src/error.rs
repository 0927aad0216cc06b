//! Errors between the node and the Kubernetes API.

use crate::object::ObjectRef;

type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    #[error("reading a kubeconfig")]
    Kubeconfig(#[source] Cause),

    #[error("making a Kubernetes client")]
    Client(#[source] Cause),

    /// An unexpected response.
    #[error("{operation} {subject}: the Kubernetes API answered {code} {reason}: {message}")]
    Status { operation: &'static str, subject: String, code: u16, reason: String, message: String },

    /// No answer, or one that could not be read.
    #[error("{operation} {subject}: no answer from the Kubernetes API")]
    Transport {
        operation: &'static str,
        subject: String,
        #[source]
        cause: Cause,
    },

    #[error("{operation} {subject}: no answer from the Kubernetes API within {seconds} s")]
    Timeout { operation: &'static str, subject: String, seconds: u64 },

    #[error("the Kubernetes API has no kind {kind} in {api_version}")]
    UnknownKind { api_version: String, kind: String },

    #[error("manifest {object} is incomplete: it needs apiVersion, kind and metadata.name")]
    IncompleteManifest { object: ObjectRef },

    #[error("manifest {object} is not a Kubernetes object")]
    MalformedManifest {
        object: ObjectRef,
        #[source]
        cause: Cause,
    },
}

impl KubeError {
    /// Whether the same call may succeed later without anything being changed by hand.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Timeout { .. } | Self::UnknownKind { .. } => true,
            // `Forbidden` is transient until the server has created its roles, `NotFound` until the namespace exists.
            Self::Status { code, .. } => matches!(code, 403 | 404 | 409 | 429 | 500..),
            Self::Kubeconfig(_)
            | Self::Client(_)
            | Self::IncompleteManifest { .. }
            | Self::MalformedManifest { .. } => false,
        }
    }

    /// The HTTP code of the answer, if there was one.
    #[must_use]
    pub const fn code(&self) -> Option<u16> {
        if let Self::Status { code, .. } = self { Some(*code) } else { None }
    }

    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self.code(), Some(404))
    }

    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self.code(), Some(409))
    }

    /// The credentials are not accepted (any more).
    #[must_use]
    pub const fn is_unauthorized(&self) -> bool {
        matches!(self.code(), Some(401))
    }

    pub(crate) fn from_kube(operation: &'static str, subject: impl Into<String>, error: kube::Error) -> Self {
        let subject = subject.into();
        match error {
            kube::Error::Api(status) => {
                let kube::core::Status { code, reason, message, .. } = *status;
                Self::Status { operation, subject, code, reason, message }
            }
            error => Self::Transport { operation, subject, cause: Box::new(error) },
        }
    }
}
