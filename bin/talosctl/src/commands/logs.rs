//! `logs` and `dmesg`: what services, containers and the kernel say.

use clap::Args;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Service, or container with --kubernetes
    #[arg(value_name = "service name")]
    service: String,
    /// Stays and shows what is added
    #[arg(short, long)]
    follow: bool,
    /// Shows the log of a container of Kubernetes (namespace k8s.io)
    #[arg(short, long)]
    kubernetes: bool,
    /// Lines to show from the end (default: all)
    #[arg(long, value_name = "int32", default_value_t = -1, hide_default_value = true, allow_negative_numbers = true)]
    tail: i32,
}

#[derive(Debug, Args)]
pub(crate) struct DmesgArgs {
    /// Stays and shows what is added
    #[arg(short, long)]
    follow: bool,
    /// Shows only what is added from now on (with --follow)
    #[arg(long)]
    tail: bool,
}

pub(crate) async fn run(_args: LogsArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl logs`"))
}

pub(crate) async fn dmesg(_args: DmesgArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl dmesg`"))
}
