//! Loading of the kernel modules that have a spec, which [`crate::document_config`] makes of the configuration. Modules are never unloaded: what took one out of the
//! configuration may still use it until the next boot.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::machine::{Ownership, PlatformCapabilities};
use resources::runtime::KernelModuleSpec;
use sys::modules::{ModuleError, Modules};

/// Loads modules into the kernel.
pub trait LoadModules: Debug + Send + Sync + 'static {
    /// Loads a module and what it needs; one that is loaded already stays as it is.
    ///
    /// # Errors
    /// The image has no such module, or the kernel refuses it.
    fn load(&self, name: &str, parameters: &str) -> Result<(), ModuleError>;
}

/// Modules of the running kernel, as the image has them.
#[derive(Debug, Default)]
pub struct ImageModules;

impl LoadModules for ImageModules {
    fn load(&self, name: &str, parameters: &str) -> Result<(), ModuleError> {
        Modules::of_running_kernel()?.load(name, parameters)
    }
}

/// `runtime.KernelModuleSpecController`: loads the modules that have a spec, on a kernel of the machine's own.
#[derive(Debug)]
pub struct KernelModuleSpecController {
    modules: Arc<dyn LoadModules>,
    /// With the parameters that they were loaded with.
    loaded: BTreeMap<String, Vec<String>>,
}

impl KernelModuleSpecController {
    #[must_use]
    pub fn new(modules: Arc<dyn LoadModules>) -> Self {
        Self { modules, loaded: BTreeMap::new() }
    }

    async fn load(&mut self, spec: &KernelModuleSpec) -> Result<(), String> {
        let KernelModuleSpec { name, parameters } = spec;
        match self.loaded.get(name) {
            Some(known) if known == parameters => return Ok(()),
            Some(_) => {
                tracing::warn!(module = name, "module keeps its parameters: other ones apply after the next boot");
                self.loaded.insert(name.clone(), parameters.clone());
                return Ok(());
            }
            None => {}
        }
        let (modules, module, text) = (Arc::clone(&self.modules), name.clone(), parameters.join(" "));
        // A driver may probe its hardware while it is loaded.
        let loading = tokio::task::spawn_blocking(move || modules.load(&module, &text)).await;
        loading.map_err(|error| error.to_string())?.map_err(|error| stdx::error_chain(&error))?;
        tracing::info!(module = name, parameters = parameters.join(" "), "kernel module loaded");
        self.loaded.insert(name.clone(), parameters.clone());
        Ok(())
    }
}

#[async_trait]
impl Controller for KernelModuleSpecController {
    fn name(&self) -> &'static str {
        "runtime.KernelModuleSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID), Input::weak::<KernelModuleSpec>()]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let capabilities = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?;
        if capabilities.is_none_or(|capabilities| capabilities.kernel != Ownership::Machine) {
            return Ok(());
        }
        let mut failures = Vec::new();
        for spec in ctx.list::<KernelModuleSpec>()? {
            if let Err(error) = self.load(&spec).await {
                failures.push(error);
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use parking_lot::Mutex;
    use resources::machine::PlatformMode;

    use super::*;

    /// Has modules of these names, and notes what is loaded.
    #[derive(Debug)]
    struct FakeModules {
        has: Vec<&'static str>,
        loaded: Mutex<Vec<String>>,
    }

    impl LoadModules for FakeModules {
        fn load(&self, name: &str, parameters: &str) -> Result<(), ModuleError> {
            if !self.has.contains(&name) {
                return Err(ModuleError::Unknown(name.to_owned()));
            }
            self.loaded.lock().push(format!("{name} {parameters}").trim().to_owned());
            Ok(())
        }
    }

    fn start(has: &[&'static str]) -> (Harness, Arc<FakeModules>) {
        let modules = Arc::new(FakeModules { has: has.to_vec(), loaded: Mutex::default() });
        let harness = Harness::with(KernelModuleSpecController::new(Arc::clone(&modules) as _));
        (harness, modules)
    }

    fn put(harness: &Harness, name: &str, parameters: &[&str]) {
        let parameters = parameters.iter().map(|text| (*text).to_owned()).collect();
        harness.put(name, KernelModuleSpec { name: name.to_owned(), parameters });
    }

    #[tokio::test(start_paused = true)]
    async fn modules_are_loaded_once_with_their_parameters_and_one_that_is_missing_keeps_no_other_back() {
        let (harness, modules) = start(&["btrfs", "dummy"]);
        put(&harness, "nosuch", &[]);
        put(&harness, "btrfs", &[]);
        put(&harness, "dummy", &["a=1", "b=2"]);
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        let mut loaded = modules.loaded.lock().clone();
        loaded.sort();
        assert_eq!(loaded, ["btrfs", "dummy a=1 b=2"]);
        let said = harness.status("runtime.KernelModuleSpecController").last_error.unwrap();
        assert!(said.contains("nosuch"), "{said}");
        put(&harness, "dummy", &["a=3"]);
        harness.settle().await;
        assert_eq!(modules.loaded.lock().len(), 2, "a module is not loaded twice");
    }

    #[tokio::test(start_paused = true)]
    async fn the_kernel_of_a_host_gets_no_modules() {
        let (harness, modules) = start(&["btrfs"]);
        put(&harness, "btrfs", &[]);
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        assert_eq!(modules.loaded.lock().len(), 0);
    }
}
