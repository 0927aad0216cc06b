//! Controllers whose outputs follow from the machine configuration alone.

use async_trait::async_trait;
use config::Documents;
use config::v1alpha1::Config;
use resources::Spec;
use resources::config::MachineConfig;

use crate::{Controller, Ctx, Input, Output, OutputMode, ReconcileError};

/// Ids and specs that follow from a configuration.
enum Project<S> {
    Root(fn(&Config) -> Vec<(String, S)>),
    Documents(fn(&Documents) -> Vec<(String, S)>),
}

/// A controller that projects the configuration in force onto resources of one type.
pub struct Projection<S> {
    name: &'static str,
    mode: OutputMode,
    project: Project<S>,
}

impl<S> std::fmt::Debug for Projection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Projection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: Spec> Projection<S> {
    /// Of the root document; no outputs without one.
    pub fn boxed(name: &'static str, project: fn(&Config) -> Vec<(String, S)>) -> Box<dyn Controller> {
        Box::new(Self { name, mode: OutputMode::Exclusive, project: Project::Root(project) })
    }

    /// Of the root document, for types that others write too.
    pub fn shared(name: &'static str, project: fn(&Config) -> Vec<(String, S)>) -> Box<dyn Controller> {
        Box::new(Self { name, mode: OutputMode::Shared, project: Project::Root(project) })
    }

    /// Of all documents.
    pub fn of_documents(name: &'static str, project: fn(&Documents) -> Vec<(String, S)>) -> Box<dyn Controller> {
        Box::new(Self { name, mode: OutputMode::Exclusive, project: Project::Documents(project) })
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
        let documents = active.as_deref().map(MachineConfig::documents).transpose()?;
        let projected = documents.map(|documents| match self.project {
            Project::Root(project) => documents.v1alpha1().map(project).unwrap_or_default(),
            Project::Documents(project) => project(documents),
        });
        for (id, spec) in projected.unwrap_or_default() {
            ctx.put(&id, spec)?;
        }
        ctx.keep_touched::<S>()
    }
}
