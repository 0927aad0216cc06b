//! The real view: other nodes through their `apid`, as this node; Kubernetes with a certificate for health checks.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube_edge::KubeApi;
use parking_lot::Mutex;
use resources::runtime::MachineStatus;
use resources::secrets::ApiCertificate;
use resources::{Spec, values::CertificateAndKey};
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use transport::{Identity, Roots, Slot};
use wire::cosi::resource::GetRequest;
use wire::cosi::resource::state_client::StateClient;
use wire::machine as api;
use wire::machine::machine_service_client::MachineServiceClient;

use super::checks::ClusterView;
use crate::kubeconfig;
use crate::machine::Machine;

/// The port of `apid`.
const APID: u16 = 50_000;
/// A node that does not answer within this time counts as down for this try.
const CALL: Duration = Duration::from_secs(5);

pub(super) struct ApidView {
    machine: Machine,
    /// Of Kubernetes, instead of the cluster's own.
    endpoint: Option<String>,
    /// On whose behalf the other nodes are asked.
    caller: Option<MetadataValue<Ascii>>,
    channels: Mutex<HashMap<IpAddr, Channel>>,
    kubernetes: Mutex<Option<(Instant, Arc<dyn KubeApi>)>>,
}

impl ApidView {
    pub(super) fn new(machine: Machine, endpoint: Option<String>, caller: Option<MetadataValue<Ascii>>) -> Self {
        Self { machine, endpoint, caller, channels: Mutex::default(), kubernetes: Mutex::default() }
    }

    /// A call in the name of a reader: this node's certificate is that of a node, which speaks for somebody.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("talos-role", MetadataValue::from_static("os:reader"));
        metadata.insert("proxyfrom", MetadataValue::from_static("health"));
        if let Some(caller) = &self.caller {
            metadata.insert(transport::audit::CALLER, caller.clone());
        }
        request.set_timeout(CALL);
        request
    }

    fn channel(&self, node: IpAddr) -> Result<Channel, String> {
        if let Some(channel) = self.channels.lock().get(&node) {
            return Ok(channel.clone());
        }
        let certificates = self.machine.store.get_as::<ApiCertificate>(ApiCertificate::ID);
        let certificates = certificates.map_err(|error| stdx::error_chain(&error))?;
        let certificates = certificates.ok_or("this node has no certificates of the API yet")?;
        let own = certificates.client.as_ref().ok_or("this node has no client certificate")?;
        let config = config(own, &certificates).map_err(|error| stdx::error_chain(&error))?;
        let channel = transport::dial::channel(SocketAddr::new(node, APID), Slot::new(config));
        self.channels.lock().insert(node, channel.clone());
        Ok(channel)
    }
}

fn text(pem: &[u8]) -> String {
    String::from_utf8_lossy(pem).into_owned()
}

fn config(
    own: &CertificateAndKey,
    certificates: &ApiCertificate,
) -> Result<rustls::ClientConfig, transport::IdentityError> {
    let roots = Roots::from_pem(certificates.accepted_cas.iter().map(|ca| text(&ca.crt.0)))?;
    let identity = Identity::from_pem(&text(&own.crt.0), &text(&own.key.0))?;
    transport::client_config(Some(identity), &roots)
}

async fn in_time<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, String> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|status| status.message().to_owned()),
        Err(_) => Err(format!("no answer within {} s", CALL.as_secs())),
    }
}

#[async_trait]
impl ClusterView for ApidView {
    async fn services(&self, node: IpAddr) -> Result<Vec<api::ServiceInfo>, String> {
        let mut client = MachineServiceClient::new(self.channel(node)?);
        let answer = in_time(client.service_list(self.request(()))).await?.into_inner();
        Ok(answer.messages.into_iter().flat_map(|message| message.services).collect())
    }

    async fn members(&self, node: IpAddr) -> Result<Vec<api::EtcdMember>, String> {
        let mut client = MachineServiceClient::new(self.channel(node)?);
        let asked = api::EtcdMemberListRequest { query_local: true };
        let answer = in_time(client.etcd_member_list(self.request(asked))).await?.into_inner();
        Ok(answer.messages.into_iter().flat_map(|message| message.members).collect())
    }

    async fn unfinished(&self, node: IpAddr) -> Result<Option<String>, String> {
        let mut client = StateClient::new(self.channel(node)?);
        let asked = GetRequest {
            namespace: MachineStatus::DEFINITION.namespace.to_owned(),
            r#type: MachineStatus::DEFINITION.type_name.to_owned(),
            id: MachineStatus::ID.to_owned(),
            options: None,
        };
        let answer = in_time(client.get(self.request(asked))).await?.into_inner();
        let spec = answer.resource.and_then(|resource| resource.spec).unwrap_or_default();
        Ok(unfinished(&spec.proto_spec))
    }

    async fn kubernetes(&self) -> Result<Arc<dyn KubeApi>, String> {
        if let Some((since, kubernetes)) = &*self.kubernetes.lock()
            && since.elapsed() < kubeconfig::HEALTH_LIFETIME / 2
        {
            return Ok(kubernetes.clone());
        }
        let kubeconfig = kubeconfig::health(&self.machine, self.endpoint.as_deref());
        let kubeconfig = kubeconfig.map_err(|status| status.message().to_owned())?;
        let connected = self.machine.kubernetes.connect(&kubeconfig).await;
        let connected = connected.map_err(|error| stdx::error_chain(&error))?;
        *self.kubernetes.lock() = Some((Instant::now(), connected.clone()));
        Ok(connected)
    }
}

/// Why a machine that says this about itself has not finished its boot.
pub(super) fn unfinished(status: &[u8]) -> Option<String> {
    use prost::Message;
    use wire::talos::resource::definitions::enums::RuntimeMachineStage as Stage;
    use wire::talos::resource::definitions::runtime::MachineStatusSpec;
    let Ok(spec) = MachineStatusSpec::decode(status) else { return Some("its machine status is not readable".into()) };
    if spec.stage() != Stage::MachineStageRunning {
        let name = spec.stage().as_str_name().trim_start_matches("MACHINE_STAGE_").to_lowercase();
        return Some(format!("stage is {name}, not running"));
    }
    let status = spec.status.unwrap_or_default();
    let unmet: Vec<_> = status.unmet_conditions.iter().map(|c| format!("{}: {}", c.name, c.reason)).collect();
    (!status.ready).then(|| format!("not ready ({})", unmet.join("; ")))
}
