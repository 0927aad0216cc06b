//! Converges the supervisor to the service specs, with the environment that the configuration has for every service.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Held, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::lifecycle::{SequenceStatus, ServiceOverride, ServiceSpec};
use resources::runtime::MountStatus;
use services::ServiceFactory;
use supervisor::{Stopped, Supervisor, SupervisorError};

/// `runtime.ServiceRunController`: starts services with a spec, replaces changed ones, stops those without one and those stopped by an
/// operator. Touches nothing while the machine stops its services.
///
/// No pass waits for a service: one that is told to end changes the supervisor's revision when it has, and the next pass
/// starts its replacement.
pub struct ServiceRunController {
    supervisor: Supervisor,
    factory: Arc<dyn ServiceFactory>,
    /// Variables of the kernel's arguments (`talos.environment`): those of the configuration replace them.
    arguments: Vec<(String, String)>,
    /// Running services as started; none for stopped ones.
    started: BTreeMap<String, Option<Started>>,
    /// Images that were fetched ahead, by service.
    prefetched: BTreeMap<String, String>,
}

/// Identity of a service for replacement.
#[derive(Debug, Clone, PartialEq)]
struct Started {
    spec: ServiceSpec,
    restarts: u64,
}

impl Started {
    fn new(spec: &ServiceSpec, restarts: u64) -> Self {
        // Neither affects a running service.
        let spec = ServiceSpec { required: false, waits_for: String::new(), ..spec.clone() };
        Self { spec, restarts }
    }
}

/// The service that gets nothing of the configuration's environment.
const UDEVD: &str = "udevd";

/// A service's own variables, and those of the configuration in place of them.
fn environment<'c>(own: &[String], configured: impl Iterator<Item = (&'c String, &'c String)> + Clone) -> Vec<String> {
    let is_replaced = |variable: &str| {
        let name = variable.split_once('=').map_or(variable, |(name, _)| name);
        configured.clone().any(|(configured, _)| configured == name)
    };
    let kept = own.iter().filter(|variable| !is_replaced(variable)).cloned();
    kept.chain(configured.clone().map(|(name, value)| format!("{name}={value}"))).collect()
}

impl std::fmt::Debug for ServiceRunController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceRunController").field("started", &self.started).finish_non_exhaustive()
    }
}

impl ServiceRunController {
    pub fn new(supervisor: Supervisor, factory: Arc<dyn ServiceFactory>) -> Self {
        Self { supervisor, factory, arguments: Vec::new(), started: BTreeMap::new(), prefetched: BTreeMap::new() }
    }

    /// With variables for every service beside those of the configuration, which replace them.
    #[must_use]
    pub fn with_environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.arguments.extend(variables);
        self
    }

    /// Whether nothing of that name runs any more; tells it to end if it does.
    fn ended(&mut self, id: &str) -> bool {
        let ended = match self.supervisor.request_stop(id) {
            Ok(Stopped::Ended) | Err(SupervisorError::Unknown(_) | SupervisorError::StillRunning(_)) => true,
            Ok(Stopped::Ending) => false,
        };
        if ended {
            self.started.remove(id);
        } else {
            self.started.insert(id.to_owned(), None);
        }
        ended
    }

    /// Uses the time that a service waits.
    fn prefetch(&mut self, ctx: &mut Ctx, id: &str, spec: &ServiceSpec) {
        let waits = !spec.waits_for.is_empty() && !self.started.contains_key(id);
        if !waits || self.prefetched.get(id) == Some(&spec.image) {
            return;
        }
        if let Some(prefetch) = self.factory.prefetch(spec) {
            ctx.spawn("image fetched ahead", prefetch);
        }
        self.prefetched.insert(id.to_owned(), spec.image.clone());
    }

    fn converge(&mut self, id: &str, spec: &ServiceSpec, wish: Option<&ServiceOverride>) -> Result<(), ReconcileError> {
        let (stopped, restarts) = wish.map_or((false, 0), |wish| (wish.stopped, wish.restarts));
        if stopped || spec.ends {
            self.ended(id);
            return Ok(());
        }
        let wanted = Started::new(spec, restarts);
        // Conditions delay the start of a service; a running one is unaffected.
        if self.started.get(id) == Some(&Some(wanted.clone())) || !spec.waits_for.is_empty() {
            return Ok(());
        }
        let service = self.factory.service(id, spec)?;
        if self.started.contains_key(id) && !self.ended(id) {
            return Ok(());
        }
        self.supervisor.ensure(service);
        self.started.insert(id.to_owned(), Some(wanted));
        Ok(())
    }
}

#[async_trait]
impl Controller for ServiceRunController {
    fn name(&self) -> &'static str {
        "runtime.ServiceRunController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<ServiceSpec>(),
            Input::weak::<ServiceOverride>(),
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<SequenceStatus>().id(SequenceStatus::ID),
            Input::strong::<MountStatus>().id(MountStatus::EPHEMERAL),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("ends of services", &self.supervisor.revision());
        // Services write there: it is unmounted when the last one has ended.
        if let Held::TearingDown(_) = ctx.hold::<MountStatus>(MountStatus::EPHEMERAL)? {
            if self.supervisor.alive().is_empty() {
                ctx.remove_finalizer::<MountStatus>(MountStatus::EPHEMERAL)?;
            }
            return Ok(());
        }
        if ctx.get::<SequenceStatus>(SequenceStatus::ID)?.is_some_and(|status| status.stops_services()) {
            return Ok(());
        }
        let specs = ctx.list::<ServiceSpec>()?;
        let gone: Vec<String> =
            self.started.keys().filter(|id| specs.iter().all(|spec| spec.id() != id.as_str())).cloned().collect();
        for id in gone {
            self.ended(&id);
        }
        let mut failure = None;
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let root = MachineConfig::root_of(active.as_deref())?;
        for spec in &specs {
            // udevd is there before a configuration can be, and asks nobody elsewhere.
            let is_udevd = spec.id() == UDEVD;
            let configured = root.filter(|_| !is_udevd).map(|config| &config.machine().env);
            let arguments = self.arguments.iter().filter(|_| !is_udevd).map(|(name, value)| (name, value));
            let environment = environment(&spec.environment, arguments);
            let environment = self::environment(&environment, configured.into_iter().flatten());
            let wanted = ServiceSpec { environment, ..ServiceSpec::clone(spec) };
            let wish = ctx.get::<ServiceOverride>(spec.id())?;
            self.prefetch(ctx, spec.id(), spec);
            if let Err(error) = self.converge(spec.id(), &wanted, wish.as_deref()) {
                // One that cannot be made keeps no other from running.
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use controller::testing::Harness;
    use parking_lot::Mutex;
    use resources::lifecycle::{SequenceName, SequenceState};
    use services::FactoryError;
    use stdx::SystemClock;
    use supervisor::{RunContext, Service, ServiceError, ServiceState};

    use super::*;

    type Journal = Arc<Mutex<Vec<String>>>;

    /// Writes down each start and end; takes a while to end.
    struct Fake {
        id: String,
        args: String,
        journal: Journal,
    }

    #[async_trait]
    impl Service for Fake {
        fn id(&self) -> &str {
            &self.id
        }

        async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
            self.journal.lock().push(format!("{} {} starts", self.id, self.args));
            run.running("up");
            run.cancel.cancelled().await;
            tokio::time::sleep(Duration::from_secs(30)).await;
            self.journal.lock().push(format!("{} {} ends", self.id, self.args));
            Ok(())
        }
    }

    struct Fakes(Journal);

    impl ServiceFactory for Fakes {
        fn service(&self, id: &str, spec: &ServiceSpec) -> Result<Arc<dyn Service>, FactoryError> {
            if spec.image == "broken" {
                return Err(FactoryError::Unknown(id.to_owned()));
            }
            let args: Vec<String> = spec.args.iter().chain(&spec.environment).cloned().collect();
            let (id, args, journal) = (id.to_owned(), args.join(" "), Arc::clone(&self.0));
            Ok(Arc::new(Fake { id, args, journal }))
        }

        fn prefetch(&self, spec: &ServiceSpec) -> Option<services::Prefetch> {
            let (journal, image) = (Arc::clone(&self.0), spec.image.clone());
            (!image.is_empty()).then(|| Box::pin(async move { journal.lock().push(format!("fetch {image}")) }) as _)
        }
    }

    struct World {
        harness: Harness,
        supervisor: Supervisor,
        journal: Journal,
    }

    fn world() -> World {
        world_with(|controller| controller)
    }

    fn world_with(change: impl FnOnce(ServiceRunController) -> ServiceRunController) -> World {
        let supervisor = Supervisor::new(Arc::new(SystemClock));
        let journal = Journal::default();
        let factory = Arc::new(Fakes(Arc::clone(&journal)));
        let harness = Harness::with(change(ServiceRunController::new(supervisor.clone(), factory)));
        World { harness, supervisor, journal }
    }

    impl World {
        async fn put(&self, id: &str, args: &str, waits_for: &str) {
            let spec = ServiceSpec { args: vec![args.into()], waits_for: waits_for.into(), ..ServiceSpec::default() };
            self.harness.put(id, spec);
            self.settle().await;
        }

        async fn wish(&self, id: &str, stopped: bool, restarts: u64) {
            self.harness.put(id, ServiceOverride { stopped, restarts });
            self.settle().await;
        }

        /// Long enough for a service to end.
        async fn settle(&self) {
            self.harness.settle().await;
            let passes = self.harness.status("runtime.ServiceRunController").passes;
            assert!(passes > 0);
            self.harness.advance(Duration::from_secs(40)).await;
        }

        fn journal(&self) -> Vec<String> {
            std::mem::take(&mut *self.journal.lock())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_starts_with_its_spec_is_replaced_with_it_and_ends_with_it() {
        let world = world();
        world.put("a", "1", "a file").await;
        assert_eq!(world.journal(), [""; 0], "it waits");
        world.put("a", "1", "").await;
        assert_eq!(world.journal(), ["a 1 starts"]);
        world.put("a", "1", "a file").await;
        world.put("a", "2", "a file").await;
        assert_eq!(world.journal(), [""; 0], "a running service continues without its file");
        world.put("a", "2", "").await;
        assert_eq!(world.journal(), ["a 1 ends", "a 2 starts"]);
        world.harness.destroy::<ServiceSpec>("a");
        world.settle().await;
        assert_eq!(world.journal(), ["a 2 ends"]);
        assert_eq!(world.supervisor.get("a").unwrap().state, ServiceState::Finished);
    }

    #[tokio::test(start_paused = true)]
    async fn no_pass_waits_for_a_service_that_ends() {
        let world = world();
        world.put("a", "1", "").await;
        world.harness.put("a", ServiceSpec { args: vec!["2".into()], ..ServiceSpec::default() });
        world.harness.put("b", ServiceSpec { args: vec!["1".into()], ..ServiceSpec::default() });
        // `a` takes half a minute to end.
        world.harness.settle().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.journal(), ["a 1 starts", "b 1 starts"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_stops_starts_and_restarts() {
        let world = world();
        world.put("a", "1", "").await;
        world.wish("a", true, 0).await;
        assert_eq!(world.journal(), ["a 1 starts", "a 1 ends"]);
        world.put("a", "2", "").await;
        assert_eq!(world.journal(), [""; 0], "it stays stopped");
        world.wish("a", false, 0).await;
        assert_eq!(world.journal(), ["a 2 starts"]);
        world.wish("a", false, 1).await;
        assert_eq!(world.journal(), ["a 2 ends", "a 2 starts"]);
        world.wish("a", false, 1).await;
        assert_eq!(world.journal(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_wanted_again_while_it_ends_starts_when_it_has() {
        let world = world();
        world.put("a", "1", "").await;
        world.harness.put("a", ServiceOverride { stopped: true, restarts: 0 });
        world.harness.settle().await;
        world.harness.put("a", ServiceOverride { stopped: false, restarts: 0 });
        world.settle().await;
        assert_eq!(world.journal(), ["a 1 starts", "a 1 ends", "a 1 starts"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_cannot_be_made_keeps_no_other_from_running() {
        let world = world();
        world.harness.put("a", ServiceSpec { image: "broken".into(), ..ServiceSpec::default() });
        world.put("b", "1", "").await;
        assert_eq!(world.journal(), ["b 1 starts"]);
        assert!(world.harness.status("runtime.ServiceRunController").failures > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_volume_is_held_until_the_last_service_has_ended() {
        let world = world();
        world.harness.put(MountStatus::EPHEMERAL, MountStatus::default());
        world.put("a", "1", "").await;
        assert!(!world.harness.teardown::<MountStatus>(MountStatus::EPHEMERAL), "it is held");
        world.put("b", "1", "").await;
        assert_eq!(world.journal(), ["a 1 starts"], "nothing starts on a volume that goes");
        let stopped = world.supervisor.clone();
        let stop = stdx::tasks::spawn("stop", async move { stopped.stop("a").await });
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!world.harness.teardown::<MountStatus>(MountStatus::EPHEMERAL), "it is ending");
        stop.join().await.unwrap().unwrap();
        world.harness.settle().await;
        world.harness.destroy::<MountStatus>(MountStatus::EPHEMERAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sequence_that_stops_services_is_not_undone() {
        let world = world();
        world.put("a", "1", "").await;
        let (sequence, state) = (SequenceName::Shutdown, SequenceState::Running);
        world.harness.put(SequenceStatus::ID, SequenceStatus { sequence, state, ..SequenceStatus::default() });
        world.harness.settle().await;
        world.supervisor.stop("a").await.unwrap();
        world.put("a", "2", "").await;
        world.put("b", "1", "").await;
        assert_eq!(world.journal(), ["a 1 starts", "a 1 ends"]);
    }

    #[tokio::test(start_paused = true)]
    async fn every_service_but_udevd_has_the_environment_of_the_configuration() {
        let world = world();
        let text = "version: v1alpha1\nmachine:\n  env:\n    PATH: /opt\n    http_proxy: http://p:3128\n";
        world.harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        let environment = || vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        for id in ["a", "udevd"] {
            world.harness.put(id, ServiceSpec { environment: environment(), ..ServiceSpec::default() });
        }
        world.settle().await;
        let expected = ["a A=1 PATH=/opt http_proxy=http://p:3128 starts", "udevd PATH=/bin A=1 starts"];
        assert_eq!(world.journal(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn services_have_the_environment_of_the_kernels_arguments_unless_the_configuration_has_another() {
        let variables = [("http_proxy", "http://k"), ("PATH", "/kernel")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let world = world_with(|controller| controller.with_environment(variables));
        let environment = || vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        for id in ["a", "udevd"] {
            world.harness.put(id, ServiceSpec { environment: environment(), ..ServiceSpec::default() });
        }
        world.settle().await;
        assert_eq!(world.journal(), ["a A=1 http_proxy=http://k PATH=/kernel starts", "udevd PATH=/bin A=1 starts"]);
        let text = "version: v1alpha1\nmachine:\n  env:\n    http_proxy: http://p\n";
        world.harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        world.settle().await;
        let expected = ["a A=1 http_proxy=http://k PATH=/kernel ends", "a A=1 PATH=/kernel http_proxy=http://p starts"];
        assert_eq!(world.journal(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_is_fetched_while_its_service_waits() {
        let world = world();
        let spec = |image: &str, waits_for: &str| ServiceSpec {
            image: image.into(),
            waits_for: waits_for.into(),
            ..ServiceSpec::default()
        };
        for (image, waits_for) in [("one", "a file"), ("one", "another file"), ("two", "a file"), ("two", "")] {
            world.harness.put("a", spec(image, waits_for));
            world.settle().await;
        }
        assert_eq!(world.journal(), ["fetch one", "fetch two", "a  starts"]);
        world.harness.put("a", spec("three", "a file"));
        world.settle().await;
        assert_eq!(world.journal(), [""; 0], "what runs is not replaced before it has to be");
    }
}
