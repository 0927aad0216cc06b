//! `k8s.ControlPlaneStaticPodController`: the pods of the control plane, once etcd and their files are there.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::static_pods::{
    self, ApiServerInput, ControllerManagerInput, Customization, ExtraVolume, Resources, Revisions, SchedulerInput,
};
use resources::k8s::{
    self, ApiServerConfig, ConfigStatus, ControllerManagerConfig, SchedulerConfig, SecretStatus, StaticPod,
};
use resources::v1alpha1::Service;
use serde_json::Value;

const ETCD: &str = "etcd";

#[derive(Debug, Default)]
pub struct ControlPlaneStaticPodController;

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
