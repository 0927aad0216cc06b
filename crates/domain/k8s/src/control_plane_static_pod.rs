//! `k8s.ControlPlaneStaticPodController`: the control plane's pods, once etcd and their files are ready.
//!
//! The controller manager and the scheduler use this node's API server and nothing else. They come when it has made the roles
//! that they are granted by: started before, they are refused, and pause for longer than it takes to start.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::Connect;
use kubernetes::static_pods::{
    self, ApiServerInput, ControllerManagerInput, Customization, ExtraVolume, Resources, Revisions, SchedulerInput,
};
use resources::k8s::{
    self, ApiServerConfig, ConfigStatus, ControllerManagerConfig, SchedulerConfig, SecretStatus, StaticPod,
};
use resources::secrets::KubernetesSecrets;
use resources::v1alpha1::Service;
use serde_json::Value;
use tokio::time::Instant;

use crate::kube_clients::Client;

const ETCD: &str = "etcd";
/// Between two looks at an API server that is starting. It accepts connections before it answers, so that most looks end when
/// it does.
const READY_POLL: Duration = Duration::from_millis(200);
/// How long the others wait for the API server. Then they come, so that they are seen and say themselves what is wrong.
const READY_PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug)]
pub struct ControlPlaneStaticPodController {
    client: Client,
    waits_since: Option<Instant>,
}

impl ControlPlaneStaticPodController {
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>) -> Self {
        Self { client: Client::new(connect), waits_since: None }
    }

    /// Whether the API server of this node is ready; also true when it was waited for long enough.
    async fn api_server_is_ready(&mut self, secrets: &KubernetesSecrets) -> Result<bool, ReconcileError> {
        let api = self.client.with_kubeconfig(&secrets.localhost_admin_kubeconfig).await?.api;
        match api.is_ready().await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => tracing::debug!(error = %stdx::error_chain(&error), "API server does not answer yet"),
        }
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let patient = since.elapsed() < READY_PATIENCE;
        if !patient {
            tracing::warn!("API server is not ready: the controller manager and the scheduler start without it");
        }
        Ok(!patient)
    }
}

#[async_trait]
impl Controller for ControlPlaneStaticPodController {
    fn name(&self) -> &'static str {
        "k8s.ControlPlaneStaticPodController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<ApiServerConfig>().id(ApiServerConfig::ID),
            Input::weak::<ControllerManagerConfig>().id(ControllerManagerConfig::ID),
            Input::weak::<SchedulerConfig>().id(SchedulerConfig::ID),
            Input::weak::<SecretStatus>().id(SecretStatus::ID),
            Input::weak::<ConfigStatus>().id(ConfigStatus::ID),
            Input::weak::<Service>().id(ETCD),
            Input::weak::<KubernetesSecrets>().id(KubernetesSecrets::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<StaticPod>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let secrets = ctx.get::<SecretStatus>(SecretStatus::ID)?.filter(|status| status.ready);
        let files = ctx.get::<ConfigStatus>(ConfigStatus::ID)?.filter(|status| status.ready);
        let (Some(secrets), Some(files)) = (secrets, files) else {
            return ctx.keep_touched::<StaticPod>();
        };
        // An API server without etcd only exits. One that runs rides out etcd's restarts.
        let etcd_healthy = ctx.get::<Service>(ETCD)?.is_some_and(|etcd| etcd.running && etcd.healthy);
        let runs_already = ctx.get::<StaticPod>(static_pods::API_SERVER)?.is_some();
        if !etcd_healthy && !runs_already {
            return Ok(());
        }
        let revisions = |config: u64| Revisions {
            secrets: secrets.version.clone(),
            config_files: files.version.clone(),
            config: config.to_string(),
        };
        if let Some(config) = ctx.get::<ApiServerConfig>(ApiServerConfig::ID)? {
            let pod = static_pods::api_server(&api_server(&config, revisions(config.metadata.version)))?;
            ctx.put(static_pods::API_SERVER, static_pod(&pod))?;
        }
        // Those that are there stay, also while the API server is away.
        let others = [static_pods::CONTROLLER_MANAGER, static_pods::SCHEDULER];
        let mut start = false;
        for other in others {
            start |= ctx.get::<StaticPod>(other)?.is_some();
        }
        if !start {
            let Some(secrets) = ctx.get::<KubernetesSecrets>(KubernetesSecrets::ID)? else { return Ok(()) };
            if !self.api_server_is_ready(&secrets).await? {
                ctx.requeue_after(READY_POLL);
                return ctx.keep_touched::<StaticPod>();
            }
        }
        let manager = ctx.get::<ControllerManagerConfig>(ControllerManagerConfig::ID)?;
        if let Some(config) = manager.filter(|config| config.enabled) {
            let input = controller_manager(&config, revisions(config.metadata.version));
            ctx.put(static_pods::CONTROLLER_MANAGER, static_pod(&static_pods::controller_manager(&input)?))?;
        }
        let scheduler_config = ctx.get::<SchedulerConfig>(SchedulerConfig::ID)?;
        if let Some(config) = scheduler_config.filter(|config| config.enabled) {
            let input = scheduler(&config, revisions(config.metadata.version));
            ctx.put(static_pods::SCHEDULER, static_pod(&static_pods::scheduler(&input)?))?;
        }
        ctx.keep_touched::<StaticPod>()
    }
}

fn static_pod(pod: &Value) -> StaticPod {
    StaticPod { pod: pod.as_object().cloned().unwrap_or_default() }
}

fn api_server(config: &ApiServerConfig, revisions: Revisions) -> ApiServerInput {
    ApiServerInput {
        image: config.image.clone(),
        cloud_provider: config.cloud_provider.clone(),
        endpoint: config.control_plane_endpoint.clone(),
        etcd_servers: config.etcd_servers.clone(),
        local_port: u16::try_from(config.local_port).unwrap_or_default(),
        service_cidrs: config.service_cidr.clone(),
        advertised_address: config.advertised_address.clone(),
        custom: customization(
            &config.extra_args,
            &config.extra_volumes,
            &config.environment_variables,
            &config.resources,
        ),
        revisions,
    }
}

fn controller_manager(config: &ControllerManagerConfig, revisions: Revisions) -> ControllerManagerInput {
    ControllerManagerInput {
        image: config.image.clone(),
        cloud_provider: config.cloud_provider.clone(),
        pod_cidrs: config.pod_cidrs.clone(),
        service_cidrs: config.service_cidrs.clone(),
        custom: customization(
            &config.extra_args,
            &config.extra_volumes,
            &config.environment_variables,
            &config.resources,
        ),
        revisions,
    }
}

fn scheduler(config: &SchedulerConfig, revisions: Revisions) -> SchedulerInput {
    SchedulerInput {
        image: config.image.clone(),
        custom: customization(
            &config.extra_args,
            &config.extra_volumes,
            &config.environment_variables,
            &config.resources,
        ),
        revisions,
    }
}

fn customization(
    args: &resources::StringMap,
    volumes: &[k8s::ExtraVolume],
    environment: &resources::StringMap,
    resources: &k8s::Resources,
) -> Customization {
    let volume = |volume: &k8s::ExtraVolume| ExtraVolume {
        name: volume.name.clone(),
        host_path: volume.host_path.clone(),
        mount_path: volume.mount_path.clone(),
        read_only: volume.readonly,
    };
    Customization {
        extra_args: args.clone(),
        extra_volumes: volumes.iter().map(volume).collect(),
        environment: environment.clone(),
        resources: Resources { requests: resources.requests.clone(), limits: resources.limits.clone() },
    }
}
