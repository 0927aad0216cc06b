//! The error type of all commands: its kind decides the exit code, its cause chain explains the failure, its hints give
//! advice. Every library error that reaches the user is classified here.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use client::talosconfig::TalosConfigError;
use client::{CallError, ConnectError, Failure};

/// Kind of failure; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command line, or a file named on it, is invalid.
    Usage,
    /// The command failed.
    Failed,
    /// Some nodes failed and have been reported.
    Nodes,
    /// A known command that is not implemented.
    NotAvailable,
    /// The reader of the output closed it.
    OutputClosed,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) kind: Kind,
    pub(crate) error: Box<dyn Error + Send + Sync>,
    pub(crate) hints: Vec<String>,
}

/// A message with an optional cause.
#[derive(Debug)]
struct Message {
    text: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl CommandError {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::message(Kind::Usage, text)
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::message(Kind::Failed, text)
    }

    pub(crate) fn nodes(text: impl Into<String>) -> Self {
        Self::message(Kind::Nodes, text)
    }

    pub(crate) fn not_available(what: &str) -> Self {
        Self::message(Kind::NotAvailable, format!("{what} is not available yet"))
    }

    fn message(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, error: Box::new(Message { text: text.into(), cause: None }), hints: Vec::new() }
    }

    /// The same message with its cause.
    pub(crate) fn caused_by(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let message = Message { text: self.error.to_string(), cause: Some(cause.into()) };
        Self { error: Box::new(message), ..self }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The talosconfig has no usable context; a missing file is the likelier mistake.
    pub(crate) fn no_context(error: TalosConfigError, path: &Path) -> Self {
        let base = Self::from(error);
        let text = format!("using talosconfig {}", path.display());
        if path.exists() {
            return Self { error: Box::new(Message { text, cause: Some(base.error) }), ..base };
        }
        Self::usage(format!("there is no talosconfig {}", path.display())).hint(
            "`talosctl gen config` and `talosctl cluster create` make one, `talosctl config merge FILE` takes one over; \
             --talosconfig or TALOSCONFIG names another",
        )
    }

    pub(crate) fn no_nodes() -> Self {
        Self::usage("no nodes given")
            .hint("pass --nodes, or set them in the context with `talosctl config node ADDRESS`")
    }

    /// A failure to connect to a node that was expected to be in maintenance mode.
    pub(crate) fn without_certificate(error: ConnectError) -> Self {
        let failure = Failure::of_connect(&error);
        let base = Self::from(error);
        let hint = match failure {
            Failure::ClientRefused => {
                "the node has its configuration already: leave --insecure out, and use the talosconfig of its cluster; or it \
                 lost its configuration, and takes one only with the certificate of an administrator in that talosconfig"
            }
            Failure::ServerNotTrusted => "the node prints its fingerprint on its console and into its log",
            _ => return base,
        };
        Self { hints: vec![hint.to_owned()], ..base }
    }

    /// Wraps a library error that needs no classification.
    pub(crate) fn wrap<E: Into<Box<dyn Error + Send + Sync>>>(text: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::failed(text).caused_by(error)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Usage | Kind::Failed | Kind::Nodes => ExitCode::FAILURE,
            Kind::NotAvailable => ExitCode::from(2),
            Kind::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Message {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl From<std::io::Error> for CommandError {
    /// Errors from writing output; file errors carry their path and come through [`CommandError::wrap`].
    fn from(error: std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::BrokenPipe { Kind::OutputClosed } else { Kind::Failed };
        Self { kind, ..Self::failed("writing output").caused_by(error) }
    }
}

impl From<TalosConfigError> for CommandError {
    fn from(error: TalosConfigError) -> Self {
        let hint = match &error {
            TalosConfigError::NoPath => Some("give a file with --talosconfig"),
            TalosConfigError::NoCurrentContext => {
                Some("choose one with `talosctl config context NAME`, or give --context NAME or --talosconfig FILE")
            }
            TalosConfigError::UnknownContext(_) => Some("`talosctl config contexts` lists the contexts"),
            _ => None,
        };
        let base = Self { kind: Kind::Usage, error: Box::new(error), hints: Vec::new() };
        match hint {
            Some(hint) => base.hint(hint),
            None => base,
        }
    }
}

impl From<ConnectError> for CommandError {
    fn from(error: ConnectError) -> Self {
        let kind = match &error {
            ConnectError::Dial(_) | ConnectError::Transport(_) => Kind::Failed,
            _ => Kind::Usage,
        };
        let hints = advice(Failure::of_connect(&error));
        let hints = if matches!(error, ConnectError::NoEndpoints) {
            vec!["set them with `talosctl config endpoint ADDRESS` or give --endpoints".to_owned()]
        } else {
            hints
        };
        Self { kind, error: Box::new(error), hints }
    }
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        let hints = match error.failure() {
            Failure::PermissionDenied => {
                advice_for_node(error.code(), error.status.message()).map(str::to_owned).into_iter().collect()
            }
            failure => advice(failure),
        };
        Self { kind: Kind::Failed, error: Box::new(error), hints }
    }
}

/// Advice for an error returned by a node, dialled directly or through an endpoint.
pub(crate) fn advice_for_node(code: tonic::Code, message: &str) -> Option<&'static str> {
    match code {
        tonic::Code::PermissionDenied if message.contains("no request forwarding") => Some(
            "only control planes reach other nodes: make them the endpoints, with `talosctl config endpoint ADDRESS` or \
             --endpoints",
        ),
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
            Some("`talosctl config info` shows the roles of this context")
        }
        _ => None,
    }
}

fn advice(failure: Failure) -> Vec<String> {
    let text = match failure {
        Failure::Unreachable => "is the node up, and are the endpoints right? `talosctl config info` shows them",
        Failure::ServerNotTrusted => {
            "the server's certificate is not of this context's cluster: another --context, or --insecure for a node in \
             maintenance mode"
        }
        Failure::ServerMisnamed => {
            "the node's certificate is for other names: use one of its addresses as the endpoint, or add this name to \
             machine.certSANs of its configuration"
        }
        Failure::ClientRefused => {
            "the node refused this context's certificate: another --context, or a new one with `talosctl config new`"
        }
        Failure::Expired => "a certificate is out of date: check the clocks, or make a new talosconfig",
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}
