//! The error type of this crate: an operation and its subject.

use std::io;

use rustix::io::Errno;

/// A network operation that the kernel refused, or that failed before reaching it.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct NetlinkError {
    /// The operation, such as `adding 10.5.0.2/24 to eth0`.
    pub operation: String,
    /// The cause.
    #[source]
    pub cause: io::Error,
}

impl NetlinkError {
    /// An error of the operation that `operation` describes.
    pub fn new(operation: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        Self { operation: operation.into(), cause: cause.into() }
    }

    /// Whether the object already exists.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.cause.raw_os_error() == Some(Errno::EXIST.raw_os_error())
    }

    /// Whether the kernel does not support the operation.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT]
            .iter()
            .any(|errno| self.cause.raw_os_error() == Some(errno.raw_os_error()))
    }

    /// Whether the link, address or route does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        [Errno::NODEV, Errno::SRCH, Errno::ADDRNOTAVAIL, Errno::NOENT]
            .iter()
            .any(|errno| self.cause.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// The cause in an error of the netlink library.
pub(crate) fn cause(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// For `map_err`: the operation is formatted only on failure.
pub(crate) fn failed<O: Into<String>>(operation: impl FnOnce() -> O) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |error| NetlinkError::new(operation(), cause(error))
}
