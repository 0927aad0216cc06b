//! Errors of connecting and calling, and their classification.

use std::error::Error as StdError;

use crate::credentials::CredentialsError;
use crate::dial::DialError;
use crate::endpoint::ParseEndpointError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no endpoints to connect to")]
    NoEndpoints,
    #[error("reading the endpoints")]
    Endpoint(#[source] ParseEndpointError),
    #[error("reading credentials of the context")]
    Credentials(#[source] CredentialsError),
    #[error("the CA certificate cannot be used")]
    Authority(#[source] rustls::Error),
    #[error("the client certificate and key cannot be used")]
    Identity(#[source] rustls::Error),
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    #[error("setting up the connection")]
    Transport(#[source] tonic::transport::Error),
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("calling {method}: {}", message(.status))]
pub struct CallError {
    pub method: &'static str,
    pub status: Box<tonic::Status>,
}

/// The kinds of failure that need different advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No endpoint could be reached.
    Unreachable,
    /// The server's certificate is not of the expected authority.
    ServerNotTrusted,
    /// The server's certificate is of the expected authority, but not for the name that was dialled.
    ServerMisnamed,
    /// The server refused the client's certificate, or requires one.
    ClientRefused,
    /// A certificate is out of date.
    Expired,
    /// The certificate's role does not allow the call.
    PermissionDenied,
    /// The server does not offer the call.
    Unimplemented,
    /// The deadline passed.
    DeadlineExceeded,
    NotFound,
    /// The request is invalid.
    Invalid,
    Other,
}

impl CallError {
    pub(crate) fn new(method: &'static str, status: tonic::Status) -> Self {
        Self { method, status: Box::new(status) }
    }

    pub fn code(&self) -> tonic::Code {
        self.status.code()
    }

    pub fn failure(&self) -> Failure {
        Failure::of_status(&self.status)
    }

    /// Whether the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.failure(), Failure::Unreachable | Failure::DeadlineExceeded)
    }
}

impl Failure {
    pub fn of_status(status: &tonic::Status) -> Self {
        if let Some(failure) = status.source().and_then(of_chain) {
            return failure;
        }
        match status.code() {
            tonic::Code::Unavailable => Self::Unreachable,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Self::PermissionDenied,
            tonic::Code::Unimplemented => Self::Unimplemented,
            tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => Self::DeadlineExceeded,
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition | tonic::Code::AlreadyExists => {
                Self::Invalid
            }
            _ => Self::Other,
        }
    }

    pub fn of_connect(error: &ConnectError) -> Self {
        match error {
            ConnectError::Dial(dial) => {
                dial.attempts.iter().find_map(|one| of_io(&one.error)).unwrap_or(Self::Unreachable)
            }
            ConnectError::Transport(_) => Self::Unreachable,
            _ => Self::Invalid,
        }
    }
}

/// The innermost meaningful message: transport layers wrap it in "transport error".
fn message(status: &tonic::Status) -> String {
    let mut best = status.message().to_owned();
    let mut next = status.source();
    while let Some(error) = next {
        best = error.to_string();
        if error.downcast_ref::<DialError>().is_some() {
            break;
        }
        next = error.source();
    }
    best
}

fn of_chain(error: &(dyn StdError + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return Some(dial.attempts.iter().find_map(|one| of_io(&one.error)).unwrap_or(Failure::Unreachable));
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(failure) = of_io(io)
        {
            return Some(failure);
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return of_tls(tls);
        }
        next = error.source();
    }
    None
}

fn of_io(error: &std::io::Error) -> Option<Failure> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(of_tls)
}

fn of_tls(error: &rustls::Error) -> Option<Failure> {
    use rustls::{AlertDescription as Alert, CertificateError, Error};
    match error {
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )
        | Error::AlertReceived(Alert::CertificateExpired) => Some(Failure::Expired),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some(Failure::ServerMisnamed),
        Error::InvalidCertificate(_) => Some(Failure::ServerNotTrusted),
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => Some(Failure::ClientRefused),
        _ => None,
    }
}
