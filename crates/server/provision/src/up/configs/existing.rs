//! Configurations that the operator made before, such as those of `gen config`.

use client::TalosConfig;
use config::v1alpha1::Config;
use config::{Documents, images};

use super::{Foundation, generated, generating, subject};
use crate::plan::{Plan, Role};
use crate::up::failure::UpError;
use crate::up::offline::Offline;

/// Files of `gen config`, decoded.
#[derive(Debug, Clone)]
pub struct Existing {
    pub control_plane: Documents,
    /// None where the cluster has no workers.
    pub worker: Option<Documents>,
    /// Without one, credentials are issued by the authority in the control plane's configuration.
    pub talosconfig: Option<TalosConfig>,
}

pub(super) fn foundation(existing: &Existing, plan: &Plan, offline: Option<&Offline>) -> Result<Foundation, UpError> {
    let control_plane = root(&existing.control_plane, Role::ControlPlane)?;
    let worker = match &existing.worker {
        Some(documents) => {
            root(documents, Role::Worker)?;
            documents
        }
        None if plan.nodes.iter().any(|node| node.role == Role::Worker) => {
            return Err(UpError::Input { subject: subject(Role::Worker), reason: "it is missing" });
        }
        None => &existing.control_plane,
    };
    let kubelet = control_plane.machine().kubelet.as_ref().map(|kubelet| kubelet.image.as_str());
    let version = kubelet.and_then(images::version_of).unwrap_or(images::DEFAULT_KUBERNETES_VERSION);
    offline.map_or(Ok(()), |offline| offline.check_version(Some(version)))?;
    let endpoint = control_plane.cluster().control_plane.as_ref().map(|part| part.endpoint.clone());
    let (context, credentials) = match &existing.talosconfig {
        Some(talosconfig) => {
            let (name, context) = talosconfig.select(None)?;
            (name.to_owned(), context.clone())
        }
        None => {
            let secrets = config::generate::secrets_from_config(control_plane).map_err(generating("talosconfig"))?;
            (plan.name.clone(), generated::credentials(&plan.name, &secrets)?)
        }
    };
    Ok(Foundation {
        kubernetes_version: version.to_owned(),
        endpoint: endpoint.unwrap_or_default(),
        context,
        credentials,
        control_plane: existing.control_plane.clone(),
        worker: worker.clone(),
    })
}

/// The root document of a role's configuration, which must be for that role.
fn root(documents: &Documents, role: Role) -> Result<&Config, UpError> {
    let wrong = |reason| UpError::Input { subject: subject(role), reason };
    let config = documents.v1alpha1().ok_or_else(|| wrong("it has no document v1alpha1"))?;
    if config.is_control_plane() == (role == Role::ControlPlane) {
        Ok(config)
    } else {
        Err(wrong("it is for machines of another type"))
    }
}
