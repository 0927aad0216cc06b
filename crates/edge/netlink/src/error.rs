//! What fails here: one error that names the operation and its subject.

use std::io;

use rustix::io::Errno;

/// An operation on the network that the kernel refused, or that could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct NetlinkError {
    /// What was tried, such as `adding 10.5.0.2/24 to eth0`.
    pub operation: String,
    /// Why it failed.
    #[source]
    pub cause: io::Error,
}

impl NetlinkError {
    /// An error of the operation that `operation` describes.
    pub fn new(operation: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        Self { operation: operation.into(), cause: cause.into() }
    }

    /// Whether the thing is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.cause.raw_os_error() == Some(Errno::EXIST.raw_os_error())
    }

    /// Whether this kernel cannot do that at all.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT]
            .iter()
            .any(|errno| self.cause.raw_os_error() == Some(errno.raw_os_error()))
    }

    /// Whether there is no such link, address or route.
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

/// For `map_err`: the operation is described only when it failed.
pub(crate) fn failed<O: Into<String>>(operation: impl FnOnce() -> O) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |error| NetlinkError::new(operation(), cause(error))
}
