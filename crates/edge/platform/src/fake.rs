//! A platform for tests: every answer is set by the test.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use machine::config_url::Variable;
use parking_lot::Mutex;
use resources::machine::{PlatformCapabilities, PlatformMode};
use resources::runtime::PlatformMetadata;
use tokio::sync::watch;

use crate::{Filesystem, HostMount, Inventory, Platform, PlatformError, PlatformNetwork};

/// A machine of which some is known, and the rest never will be.
#[derive(Debug, Default)]
pub struct FakeInventory {
    variables: BTreeMap<&'static str, String>,
    /// The answer for every label.
    pub filesystem: Option<Filesystem>,
}

impl FakeInventory {
    /// With the value of a variable.
    #[must_use]
    pub fn with(mut self, variable: Variable, value: &str) -> Self {
        self.variables.insert(variable.name(), value.to_owned());
        self
    }
}

#[async_trait]
impl Inventory for FakeInventory {
    async fn variable(&self, variable: Variable) -> String {
        match self.variables.get(variable.name()) {
            Some(value) => value.clone(),
            None => std::future::pending().await,
        }
    }

    async fn filesystem(&self, _: &str) -> Option<Filesystem> {
        self.filesystem.clone()
    }
}

/// Answers with the configurations that were queued, one a call; then there is none.
#[derive(Debug)]
pub struct FakePlatform {
    capabilities: PlatformCapabilities,
    mounts: Vec<HostMount>,
    configurations: Mutex<VecDeque<Result<Option<String>, PlatformError>>>,
    /// Sender of [`Platform::network`].
    pub network: watch::Sender<PlatformNetwork>,
    /// Sender of [`Platform::metadata`].
    pub metadata: watch::Sender<Option<PlatformMetadata>>,
}

impl FakePlatform {
    /// A platform with these capabilities, no volumes, no settings and no metadata yet.
    #[must_use]
    pub fn new(capabilities: PlatformCapabilities) -> Self {
        Self {
            capabilities,
            mounts: Vec::new(),
            configurations: Mutex::default(),
            network: watch::Sender::default(),
            metadata: watch::Sender::default(),
        }
    }

    /// With volumes of its host.
    #[must_use]
    pub fn with_mounts(self, mounts: Vec<HostMount>) -> Self {
        Self { mounts, ..self }
    }

    /// The answer to the next call that has none yet.
    #[must_use]
    pub fn answering(self, configuration: Result<Option<String>, PlatformError>) -> Self {
        self.configurations.lock().push_back(configuration);
        self
    }

    /// The answer to the next call that has none yet, of a platform that is in use.
    pub fn answer_next(&self, configuration: Result<Option<String>, PlatformError>) {
        self.configurations.lock().push_back(configuration);
    }

    /// Number of unused answers.
    #[must_use]
    pub fn unasked(&self) -> usize {
        self.configurations.lock().len()
    }
}

#[async_trait]
impl Platform for FakePlatform {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn mode(&self) -> config::Mode {
        match self.capabilities.mode {
            PlatformMode::Container => config::Mode::Container,
            PlatformMode::Metal => config::Mode::Metal,
            PlatformMode::Cloud => config::Mode::Cloud,
        }
    }

    fn capabilities(&self) -> PlatformCapabilities {
        self.capabilities.clone()
    }

    fn host_mounts(&self) -> Vec<HostMount> {
        self.mounts.clone()
    }

    async fn configuration(&self, _: &dyn Inventory) -> Result<Option<String>, PlatformError> {
        self.configurations.lock().pop_front().unwrap_or(Ok(None))
    }

    fn network(&self) -> watch::Receiver<PlatformNetwork> {
        self.network.subscribe()
    }

    fn metadata(&self) -> watch::Receiver<Option<PlatformMetadata>> {
        self.metadata.subscribe()
    }
}
