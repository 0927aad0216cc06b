//! Controllers that project the machine configuration onto resources, and shared accessors.

use async_trait::async_trait;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, OutputMode, ReconcileError};
use resources::Spec;
use resources::config::MachineConfig;

/// Ids and specs that follow from a configuration.
type Project<S> = fn(&Config) -> Vec<(String, S)>;

/// A controller whose outputs follow from the configuration alone.
pub(crate) struct Projection<S> {
    name: &'static str,
    mode: OutputMode,
    project: Project<S>,
}

impl<S: Spec> Projection<S> {
    pub(crate) fn boxed(name: &'static str, project: Project<S>) -> Box<dyn Controller> {
        Box::new(Self { name, mode: OutputMode::Exclusive, project })
    }

    /// For types that others write too.
    pub(crate) fn shared(name: &'static str, project: Project<S>) -> Box<dyn Controller> {
        Box::new(Self { name, mode: OutputMode::Shared, project })
    }
}

#[async_trait]
impl<S: Spec> Controller for Projection<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![match self.mode {
            OutputMode::Exclusive => Output::exclusive::<S>(),
            OutputMode::Shared => Output::shared::<S>(),
        }]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())? {
            for (id, spec) in (self.project)(config) {
                ctx.put(&id, spec)?;
            }
        }
        ctx.keep_touched::<S>()
    }
}

/// The URL through which components on the host network reach the API servers: the local balancer where it is on.
pub(crate) fn api_server_url(config: &Config) -> Option<String> {
    match config.machine().kubeprism_port() {
        Some(port) => Some(format!("https://127.0.0.1:{port}")),
        None => endpoint(config),
    }
}

/// The cluster's endpoint as written, without a slash at its end.
pub(crate) fn endpoint(config: &Config) -> Option<String> {
    config.cluster().endpoint().map(|url| url.as_str().trim_end_matches('/').to_owned())
}
