//! `k8s.KubeletIdentityController`: the kubelet's certificates and kubeconfig, before the kubelet starts.
//!
//! A kubelet that is started without a certificate asks for one itself, and each of its parts that is refused meanwhile pauses
//! for up to twenty seconds. So the certificate is there first. A control plane holds the cluster's authority and issues it.
//! A worker asks the API server with the bootstrap token, as the kubelet would. A certificate that is kept is used while it
//! is good; the kubelet renews it. After [`PATIENCE`] without an answer the kubelet is let start nevertheless: static pods
//! need no API server, and it goes on asking.

mod kept;
mod serving;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::{Connect, Signing, SigningRequest};
use kubernetes::{kubeconfig, paths};
use pki::{Algorithm, Authority, CertificateRequest, PemPair, PrivateKey, Sans, Subject, Template, Usage, Validity};
use resources::k8s::{KubeletIdentityStatus, Nodename};
use resources::runtime::MountStatus;
use resources::secrets::{KubeletSecrets, KubernetesRootSecret};
use resources::time::TimeStatus;
use resources::values::Pem;
use stdx::Backoff;
use sys::files::{self, Access};
use tokio::time::Instant;

use crate::Root;
use crate::kube_clients::Client;

/// The directory of the kubelet's certificates, below the volume EPHEMERAL.
const PKI_DIR: &str = "lib/kubelet/pki";
/// The certificate and its key as the kubelet keeps them: a link to the pair in use.
const CURRENT: &str = "kubelet-client-current.pem";
/// The certificate and the key that the kubelet serves with, unless it is configured with others.
const SERVING: [&str; 2] = ["kubelet.crt", "kubelet.key"];
/// The initial pair. Later pairs of the kubelet are in files with the date in their name.
const FIRST: &str = "kubelet-client-first.pem";

/// As kube-controller-manager issues them.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Key usages that the approver of kube-controller-manager requires for a signing key.
const USAGES: [&str; 2] = ["digital signature", "client auth"];

/// Between two looks at a request: the controller manager signs it within a second of being there.
const SIGNING_POLL: Duration = Duration::from_millis(200);
/// An undecided request of this age is replaced.
const REQUEST_LIFETIME: Duration = Duration::from_secs(600);
/// How long the kubelet waits for its certificate.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct KubeletIdentityController {
    root: Root,
    pair: Pair,
    client: Client,
    backoff: Backoff,
    request: Option<Request>,
    waits_since: Option<Instant>,
    /// The serving certificate was removed, and the next one was not seen yet.
    serving_removed: bool,
    revision: u64,
}

/// The files of the pair, as absolute paths of the node.
#[derive(Debug, Default)]
struct Pair {
    current: String,
    first: String,
    serving: [String; 2],
}

impl Pair {
    fn below(volume: &str) -> Self {
        let path = |name| format!("{}/{PKI_DIR}/{name}", volume.trim_end_matches('/'));
        Self { current: path(CURRENT), first: path(FIRST), serving: SERVING.map(path) }
    }
}

/// The pending request.
#[derive(Debug)]
struct Request {
    name: String,
    nodename: String,
    key: PrivateKey,
    since: Instant,
}

/// The kubelet's name and cluster.
struct Wanted {
    nodename: String,
    server: String,
    ca: String,
    bootstrap: String,
    issuer: Option<Authority>,
}

/// Result of an attempt: the PEM of certificate and key, or the unmet condition.
enum Answer {
    Issued(String),
    Waiting(String),
}

impl KubeletIdentityController {
    #[must_use]
    pub fn new(root: Root, connect: Arc<dyn Connect>) -> Self {
        Self {
            root,
            pair: Pair::default(),
            client: Client::new(connect),
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
            request: None,
            waits_since: None,
            serving_removed: false,
            revision: 0,
        }
    }
}

#[async_trait]
impl Controller for KubeletIdentityController {
    fn name(&self) -> &'static str {
        "k8s.KubeletIdentityController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            // The kubelet keeps its certificates there.
            Input::strong::<MountStatus>().id(MountStatus::EPHEMERAL),
            Input::weak::<Nodename>().id(Nodename::ID),
            Input::weak::<KubeletSecrets>().id(KubeletSecrets::ID),
            Input::weak::<KubernetesRootSecret>().id(KubernetesRootSecret::ID),
            // Certificates are judged and made by the clock.
            Input::weak::<TimeStatus>().id(TimeStatus::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubeletIdentityStatus>()]
    }

    fn resync(&self) -> Option<Duration> {
        // Restores removed files.
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let volume = ctx.hold_while_running::<MountStatus>(MountStatus::EPHEMERAL)?;
        let (Some(volume), Some(nodename), Some(secrets)) =
            (volume, ctx.get::<Nodename>(Nodename::ID)?, ctx.get::<KubeletSecrets>(KubeletSecrets::ID)?)
        else {
            return Ok(());
        };
        self.pair = Pair::below(&volume.target);
        let nodename = &*nodename;
        let has_time = ctx.get::<TimeStatus>(TimeStatus::ID)?.is_some_and(|time| time.synced);
        self.remove_unfit_serving_certificate(&nodename.nodename, has_time.then(|| ctx.clock().now()))?;
        if nodename.skip_node_registration {
            return self.publish(ctx, &nodename.nodename, None);
        }
        if !has_time {
            return self.publish(ctx, &nodename.nodename, Some("time sync".to_owned()));
        }
        let root = ctx.get::<KubernetesRootSecret>(KubernetesRootSecret::ID)?;
        let wanted = wanted(&nodename.nodename, &secrets, root.as_deref())?;
        if self.keeps_good_pair(ctx, &wanted)? {
            self.write_kubeconfig(&wanted)?;
            return self.publish(ctx, &nodename.nodename, None);
        }
        let answer = match &wanted.issuer {
            Some(issuer) => Answer::Issued(issue(ctx, issuer, &wanted.nodename)?),
            None if self.waits_since.is_some_and(|since| since.elapsed() >= PATIENCE) => {
                // The kubelet asks by itself from now on.
                return self.publish(ctx, &nodename.nodename, None);
            }
            None => self.ask(ctx, &wanted).await,
        };
        match answer {
            Answer::Issued(pair) => {
                files::write_atomic(&self.root.at(&self.pair.first), pair.as_bytes(), Access::SECRET)?;
                files::link_atomic(&self.root.at(&self.pair.current), std::path::Path::new(FIRST))?;
                self.revision += 1;
                self.write_kubeconfig(&wanted)?;
                tracing::info!(nodename = wanted.nodename, "kubelet has its client certificate");
                self.publish(ctx, &nodename.nodename, None)
            }
            Answer::Waiting(reason) => {
                let since = *self.waits_since.get_or_insert_with(Instant::now);
                if since.elapsed() < PATIENCE {
                    return self.publish(ctx, &nodename.nodename, Some(reason));
                }
                tracing::warn!(
                    waits_for = reason,
                    "kubelet starts without a client certificate and asks for one itself"
                );
                self.publish(ctx, &nodename.nodename, None)
            }
        }
    }
}

impl KubeletIdentityController {
    fn publish(&mut self, ctx: &mut Ctx, nodename: &str, waits_for: Option<String>) -> Result<(), ReconcileError> {
        if waits_for.is_none() {
            self.request = None;
            self.backoff.reset();
        }
        let status = KubeletIdentityStatus {
            nodename: nodename.to_owned(),
            ready: waits_for.is_none(),
            revision: self.revision,
            waits_for: waits_for.unwrap_or_default(),
        };
        ctx.put(KubeletIdentityStatus::ID, status)?;
        Ok(())
    }

    /// Once for each that was seen to be good: a kubelet that makes an unfit one again is not started for ever.
    fn remove_unfit_serving_certificate(
        &mut self,
        nodename: &str,
        now: Option<SystemTime>,
    ) -> Result<(), ReconcileError> {
        let [certificate, key] = self.pair.serving.each_ref().map(|path| self.root.at(path));
        let Some(pem) = files::read_current(&certificate)? else { return Ok(()) };
        match serving::check(&String::from_utf8_lossy(&pem), nodename, now) {
            Ok(()) => self.serving_removed = false,
            Err(_) if self.serving_removed => {}
            Err(flaw) => {
                tracing::info!(nodename, %flaw, "kubelet makes a new serving certificate");
                files::remove(&certificate)?;
                files::remove(&key)?;
                self.serving_removed = true;
                self.revision += 1;
            }
        }
        Ok(())
    }

    /// Whether the pair on disk is this node's in this cluster; one that is not is removed.
    fn keeps_good_pair(&mut self, ctx: &Ctx, wanted: &Wanted) -> Result<bool, ReconcileError> {
        let current = self.root.at(&self.pair.current);
        let Some(pair) = files::read_current(&current)? else { return Ok(false) };
        let pair = String::from_utf8_lossy(&pair);
        match kept::check(&pair, &wanted.nodename, &wanted.ca, ctx.clock().now()) {
            Ok(()) => {
                self.waits_since = None;
                Ok(true)
            }
            Err(flaw) => {
                tracing::info!(nodename = wanted.nodename, %flaw, "kubelet's client certificate is dropped");
                for file in [current, self.root.at(&self.pair.first), self.root.at(paths::KUBELET_KUBECONFIG)] {
                    files::remove(&file)?;
                }
                Ok(false)
            }
        }
    }

    fn write_kubeconfig(&mut self, wanted: &Wanted) -> Result<(), ReconcileError> {
        let text = kubeconfig::kubelet(&wanted.server, &wanted.ca, &self.pair.current)?;
        let file = self.root.at(paths::KUBELET_KUBECONFIG);
        if files::write_atomic(&file, text.as_bytes(), Access::SECRET)? {
            self.revision += 1;
        }
        Ok(())
    }

    /// Creates the request at the API server, or polls it.
    async fn ask(&mut self, ctx: &mut Ctx, wanted: &Wanted) -> Answer {
        if self
            .request
            .as_ref()
            .is_some_and(|request| request.nodename != wanted.nodename || request.since.elapsed() > REQUEST_LIFETIME)
        {
            self.request = None;
        }
        match self.progress(wanted).await {
            Ok(Some(pair)) => Answer::Issued(pair),
            Ok(None) => {
                ctx.requeue_after(SIGNING_POLL);
                Answer::Waiting("the cluster to sign the kubelet's certificate".to_owned())
            }
            Err(error) => {
                ctx.requeue_after(self.backoff.next_delay(stdx::backoff::random_jitter()));
                let error = stdx::error_chain(error.source());
                tracing::debug!(error, "no client certificate for the kubelet yet");
                Answer::Waiting(format!("the API server to take the kubelet's certificate request: {error}"))
            }
        }
    }

    /// One step: makes the request or looks at it. The certificate with its key once it is issued.
    async fn progress(&mut self, wanted: &Wanted) -> Result<Option<String>, ReconcileError> {
        let api = self.client.with_kubeconfig(&wanted.bootstrap).await?.api;
        let Some(request) = &self.request else {
            let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
            let csr = CertificateRequest::create(&key, &subject(&wanted.nodename), &Sans::default())?;
            let request = SigningRequest {
                name_prefix: "csr-".to_owned(),
                request: csr.to_pem(),
                signer: SIGNER.to_owned(),
                usages: USAGES.map(str::to_owned).to_vec(),
            };
            let name = api.request_certificate(&request).await?;
            tracing::info!(request = name, "asked for the kubelet's client certificate");
            let nodename = wanted.nodename.clone();
            self.request = Some(Request { name, nodename, key, since: Instant::now() });
            self.backoff.reset();
            return Ok(None);
        };
        match api.signing(&request.name).await? {
            Signing::Pending => Ok(None),
            Signing::Issued(certificate) => Ok(Some(format!("{certificate}{}", request.key.to_pem()))),
            Signing::Refused { reason } => {
                self.request = None;
                Err(SigningError::Refused { reason }.into())
            }
            Signing::Unknown => {
                self.request = None;
                Err(SigningError::Gone.into())
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SigningError {
    #[error("the cluster refused the kubelet's certificate request ({reason})")]
    Refused { reason: String },
    #[error("the kubelet's certificate request no longer exists")]
    Gone,
}

fn wanted(
    nodename: &str,
    secrets: &KubeletSecrets,
    root: Option<&KubernetesRootSecret>,
) -> Result<Wanted, ReconcileError> {
    let server = secrets.endpoint.0.trim_end_matches('/').to_owned();
    let ca: String = secrets.accepted_cas.iter().map(|ca| text(&ca.crt)).collect();
    let token = secrets.bootstrap_token();
    let bootstrap = kubeconfig::kubelet_bootstrap(&server, &ca, &token)?;
    let issuing = root.and_then(|root| root.issuing_ca.as_ref()).filter(|ca| !ca.key.as_bytes().is_empty());
    let issuer = match issuing {
        Some(pair) => Some(Authority::from_pair(&PemPair::new(text(&pair.crt), text(&pair.key)))?),
        None => None,
    };
    Ok(Wanted { nodename: nodename.to_owned(), server, ca, bootstrap, issuer })
}

fn text(pem: &Pem) -> String {
    String::from_utf8_lossy(pem.as_bytes()).into_owned()
}

fn subject(nodename: &str) -> Subject {
    Subject::common_name(format!("{}{nodename}", kept::NAME_PREFIX)).with_organization(kept::GROUP)
}

fn issue(ctx: &Ctx, issuer: &Authority, nodename: &str) -> Result<String, ReconcileError> {
    let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let template = Template {
        subject: subject(nodename),
        sans: Sans::default(),
        usage: Usage::Client,
        validity: Validity::starting(ctx.clock().now(), LIFETIME),
    };
    let certificate = issuer.issue(&key, &template)?;
    Ok(format!("{}{}", certificate.to_pem(), key.to_pem()))
}
