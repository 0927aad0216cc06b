//! `k8s.RenderConfigsStaticPodController`: configuration files of the control plane's pods.

use std::path::Path;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::component_files::{self, AdmissionPlugin};
use kubernetes::{paths, static_pods, yaml};
use resources::k8s::{AdmissionControlConfig, AuditPolicyConfig, ConfigStatus, SchedulerConfig};
use resources::runtime::MountStatus;
use serde_json::Value;
use sys::files::{self, Access};

use crate::Root;
use crate::render_secrets::fingerprint;

#[derive(Debug)]
pub struct RenderConfigsStaticPodController {
    root: Root,
}

impl RenderConfigsStaticPodController {
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root }
    }
}

#[async_trait]
impl Controller for RenderConfigsStaticPodController {
    fn name(&self) -> &'static str {
        "k8s.RenderConfigsStaticPodController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<AdmissionControlConfig>().id(AdmissionControlConfig::ID),
            Input::weak::<AuditPolicyConfig>().id(AuditPolicyConfig::ID),
            Input::weak::<SchedulerConfig>().id(SchedulerConfig::ID),
            // The API server's audit log is there.
            Input::strong::<MountStatus>().id(MountStatus::EPHEMERAL),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<ConfigStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(admission), Some(audit), Some(scheduler)) = (
            ctx.get::<AdmissionControlConfig>(AdmissionControlConfig::ID)?,
            ctx.get::<AuditPolicyConfig>(AuditPolicyConfig::ID)?,
            ctx.get::<SchedulerConfig>(SchedulerConfig::ID)?,
        ) else {
            return ctx.keep_touched::<ConfigStatus>();
        };
        let plugins: Vec<AdmissionPlugin> = admission
            .config
            .iter()
            .map(|plugin| AdmissionPlugin { name: plugin.name.clone(), configuration: plugin.configuration.clone() })
            .collect();
        let rendered = [
            (static_pods::API_SERVER, component_files::ADMISSION_CONFIG_FILE, component_files::admission(&plugins)),
            (static_pods::API_SERVER, component_files::AUDIT_POLICY_FILE, Value::Object(audit.config.clone())),
            (
                static_pods::SCHEDULER,
                component_files::SCHEDULER_CONFIG_FILE,
                component_files::scheduler(&scheduler.config),
            ),
        ];
        if ctx.hold_while_running::<MountStatus>(MountStatus::EPHEMERAL)?.is_none() {
            // The announced status stays; before the first one there is none.
            return Ok(());
        }
        let mut texts = Vec::new();
        for (component, file, document) in rendered {
            let text = yaml::to_string(&document)?;
            let path = self.root.at(paths::CONFIG_DIR).join(component).join(file);
            files::write_atomic(&path, text.as_bytes(), Access::PUBLIC)?;
            texts.push(text);
        }
        make_audit_log_dir(&self.root.at(paths::AUDIT_LOG_DIR))?;
        let version = fingerprint(texts.iter().map(String::as_bytes));
        ctx.put(ConfigStatus::ID, ConfigStatus { ready: true, version })?;
        Ok(())
    }
}

/// kube-apiserver writes there as its own user.
fn make_audit_log_dir(dir: &Path) -> Result<(), ReconcileError> {
    files::make_directory(dir, Access::directory_of(static_pods::API_SERVER_UID))?;
    Ok(())
}
