//! Arguments and steps that `patch` and `edit` have in common: finding and reading the configuration of a node.

use std::time::Duration;

use clap::Args;
use client::Client;
use wire::machine::ApplyConfigurationRequest;

use super::get::resolve::resolve;
use crate::applying::{self, DryRun, Mode};
use crate::command_error::CommandError;

/// The only type that clients may change.
const TYPE: &str = "MachineConfigs.config.talos.dev";
/// The configuration in force.
const ACTIVE: &str = "v1alpha1";

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Type of the resource: machineconfig, or an alias of it
    #[arg(value_name = "type")]
    resource_type: String,
    /// One resource (default: the configuration in force)
    id: Option<String>,
    /// Shows the changes only
    #[arg(long)]
    dry_run: bool,
    /// How the change takes effect
    #[arg(short, long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Namespace of the resource (default: that of the type)
    #[arg(long, value_name = "string")]
    namespace: Option<String>,
    /// Time until --mode=try is rolled back
    #[arg(long, value_name = "duration", default_value = "1m0s", value_parser = crate::arguments::duration)]
    timeout: Duration,
}

/// A configuration of a node.
#[derive(Debug)]
pub(super) struct Found {
    /// `TYPE/ID`.
    pub(super) name: String,
    pub(super) text: String,
}

impl ChangeArgs {
    /// Reads the configuration from the node that the client is routed to.
    pub(super) async fn read(&self, client: &Client) -> Result<Found, CommandError> {
        let state = client.state();
        let definition = resolve(&state.definitions().await?, &self.resource_type)?;
        if definition.resource_type != TYPE {
            let other = definition.resource_type;
            return Err(CommandError::usage(format!("{other} cannot be changed: only machine configurations can")));
        }
        let id = self.id.as_deref().unwrap_or(ACTIVE);
        let namespace = self.namespace.as_deref().filter(|name| !name.is_empty());
        let text = state.machine_config(namespace.unwrap_or(&definition.default_namespace), id).await?;
        Ok(Found { name: format!("{TYPE}/{id}"), text })
    }

    pub(super) fn dry_run(&self) -> DryRun {
        if self.dry_run { DryRun::Yes } else { DryRun::No }
    }

    pub(super) fn request(&self, text: String) -> ApplyConfigurationRequest {
        applying::request(text, self.mode.into(), self.dry_run(), self.timeout)
    }
}
