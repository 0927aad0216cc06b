//! The machine's configuration as controllers read it, and controllers that only project it onto resources.

use async_trait::async_trait;
use config::Documents;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, OutputMode, ReconcileError};
use resources::Spec;
use resources::config::MachineConfig;

/// The input that [`ConfigCache::read`] needs.
pub(crate) fn input() -> Input {
    Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)
}

/// Decodes the configuration once a change.
#[derive(Debug, Default)]
pub(crate) struct ConfigCache(Option<(u64, Documents)>);

impl ConfigCache {
    /// The active configuration; nothing until there is one.
    pub(crate) fn read(&mut self, ctx: &Ctx) -> Result<Option<Documents>, ReconcileError> {
        let Some(resource) = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)? else {
            self.0 = None;
            return Ok(None);
        };
        let version = resource.metadata.version;
        if let Some((known, documents)) = &self.0
            && *known == version
        {
            return Ok(Some(documents.clone()));
        }
        let documents = Documents::from_yaml(resource.text.as_bytes())?;
        self.0 = Some((version, documents.clone()));
        Ok(Some(documents))
    }
}

/// Ids and specs that follow from a configuration.
type Project<S> = fn(&Config) -> Vec<(String, S)>;

/// A controller whose outputs follow from the configuration alone.
pub(crate) struct Projection<S> {
    name: &'static str,
    mode: OutputMode,
    project: Project<S>,
    cache: ConfigCache,
}

impl<S: Spec> Projection<S> {
    pub(crate) fn boxed(name: &'static str, project: Project<S>) -> Box<dyn Controller> {
        Box::new(Self { name, mode: OutputMode::Exclusive, project, cache: ConfigCache::default() })
    }

    /// For types that others write too.
    pub(crate) fn shared(name: &'static str, project: Project<S>) -> Box<dyn Controller> {
        Box::new(Self { name, mode: OutputMode::Shared, project, cache: ConfigCache::default() })
    }
}

#[async_trait]
impl<S: Spec> Controller for Projection<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> Vec<Input> {
        vec![input()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![match self.mode {
            OutputMode::Exclusive => Output::exclusive::<S>(),
            OutputMode::Shared => Output::shared::<S>(),
        }]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if let Some(documents) = self.cache.read(ctx)?
            && let Some(config) = documents.v1alpha1()
        {
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
