//! Logs for receivers elsewhere: those of services, and the kernel's.
//!
//! The lines and the connections are the work of the crate `log-delivery`; here are the receivers.

use async_trait::async_trait;
use config::v1alpha1::LoggingDestination;
use config::{Document, Documents};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use log_delivery::{Console, Endpoint, EndpointError, ServiceLogs};
use resources::config::MachineConfig;
use resources::runtime::KmsgLogConfig;
use resources::values::Url;
use supervisor::LogStore;

use crate::deliveries::Deliveries;

/// Receivers that can be used, and the reasons why others cannot.
fn usable<T>(all: impl IntoIterator<Item = Result<T, EndpointError>>) -> (Vec<T>, Result<(), ReconcileError>) {
    let (mut usable, mut failures) = (Vec::new(), Vec::new());
    for receiver in all {
        match receiver {
            Ok(receiver) => usable.push(receiver),
            Err(error) => failures.push(error.to_string()),
        }
    }
    (usable, if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) })
}

/// `runtime.ServiceLogDeliveryController`: sends the logs of services to `machine.logging.destinations`.
#[derive(Debug)]
pub struct ServiceLogDeliveryController {
    logs: LogStore,
    deliveries: Deliveries<ServiceLogs>,
}

impl ServiceLogDeliveryController {
    #[must_use]
    pub fn new(logs: LogStore) -> Self {
        Self { logs, deliveries: Deliveries::default() }
    }
}

#[async_trait]
impl Controller for ServiceLogDeliveryController {
    fn name(&self) -> &'static str {
        "runtime.ServiceLogDeliveryController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let config = MachineConfig::root_of(active.as_deref())?;
        let logging = config.and_then(|config| config.machine().logging.as_ref());
        let destinations = logging.map(|logging| logging.destinations.as_slice()).unwrap_or_default();
        let (receivers, outcome) = usable(destinations.iter().map(service_logs));
        let logs = &self.logs;
        self.deliveries.converge(receivers, |to| {
            let logs = logs.clone();
            ctx.keep("delivery of service logs", move || log_delivery::deliver_service_logs(logs.clone(), to.clone()))
        });
        outcome
    }
}

fn service_logs(destination: &LoggingDestination) -> Result<ServiceLogs, EndpointError> {
    let tags = destination.extra_tags.iter().map(|(tag, value)| (tag.clone(), value.clone())).collect();
    Ok(ServiceLogs { endpoint: destination.endpoint.parse()?, tags })
}

/// Lines of machined are on the console whatever the configuration says.
const ON_THE_CONSOLE: [&str; 2] = ["machined", "controller-runtime"];

/// `runtime.ServiceLogConsoleController`: shows the logs of services on the console while the configuration has `debug`.
#[derive(Debug)]
pub struct ServiceLogConsoleController {
    logs: LogStore,
    console: Console,
    showing: Deliveries<()>,
}

impl ServiceLogConsoleController {
    #[must_use]
    pub fn new(logs: LogStore, console: Console) -> Self {
        Self { logs, console, showing: Deliveries::default() }
    }
}

#[async_trait]
impl Controller for ServiceLogConsoleController {
    fn name(&self) -> &'static str {
        "runtime.ServiceLogConsoleController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let config = MachineConfig::root_of(active.as_deref())?;
        let is_wanted = config.is_some_and(|config| config.debug == Some(true));
        let (logs, console) = (&self.logs, &self.console);
        self.showing.converge(is_wanted.then_some(()), |()| {
            let (logs, console) = (logs.clone(), console.clone());
            let show =
                move || log_delivery::show_service_logs(logs.clone(), console.clone(), ON_THE_CONSOLE.as_slice());
            ctx.keep("logs on the console", show)
        });
        Ok(())
    }
}

/// `runtime.KmsgLogConfigController`: the receivers of the kernel log, from the kernel's arguments and from the documents of kind
/// `KmsgLogConfig`. Those of the arguments are there before a configuration is.
#[derive(Debug, Default)]
pub struct KmsgLogConfigController {
    /// Values of `talos.logging.kernel`.
    pub arguments: Vec<String>,
}

#[async_trait]
impl Controller for KmsgLogConfigController {
    fn name(&self) -> &'static str {
        "runtime.KmsgLogConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KmsgLogConfig>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let documents = active.as_deref().map(MachineConfig::documents).transpose()?;
        let configured = documents.map(kernel_receivers).unwrap_or_default();
        let mut destinations: Vec<Url> = self.arguments.iter().map(|url| Url::from(url.as_str())).collect();
        // A receiver that both name gets each line once.
        destinations.extend(configured.into_iter().filter(|url| !self.arguments.contains(&url.0)));
        if !destinations.is_empty() {
            ctx.put(KmsgLogConfig::ID, KmsgLogConfig { destinations })?;
        }
        ctx.keep_touched::<KmsgLogConfig>()
    }
}

fn kernel_receivers(documents: &Documents) -> Vec<Url> {
    let urls = documents.documents().iter().filter_map(|document| match document {
        Document::KmsgLog(log) => Some(Url::from(log.url.as_str())),
        _ => None,
    });
    urls.collect()
}

/// `runtime.KmsgLogDeliveryController`: sends the kernel log.
#[derive(Debug, Default)]
pub struct KmsgLogDeliveryController {
    deliveries: Deliveries<Endpoint>,
}

#[async_trait]
impl Controller for KmsgLogDeliveryController {
    fn name(&self) -> &'static str {
        "runtime.KmsgLogDeliveryController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<KmsgLogConfig>().id(KmsgLogConfig::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let config = ctx.get::<KmsgLogConfig>(KmsgLogConfig::ID)?;
        let urls = config.as_ref().map(|config| config.destinations.as_slice()).unwrap_or_default();
        let (receivers, outcome) = usable(urls.iter().map(|url| url.0.parse::<Endpoint>()));
        self.deliveries.converge(receivers, |to| {
            ctx.keep("delivery of the kernel log", move || log_delivery::deliver_kernel_log(to.clone()))
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use controller::testing::Harness;
    use tokio::net::UdpSocket;

    use super::*;

    fn configure(harness: &Harness, destinations: &str, documents: &str) {
        let logging = format!("machine:\n  logging:\n    destinations: {destinations}\n");
        let text = format!("version: v1alpha1\n{logging}{documents}");
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
    }

    /// The next packet; none within a second.
    async fn packet(socket: &UdpSocket) -> Option<String> {
        let mut packet = vec![0; 64 << 10];
        let length = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut packet)).await.ok()?.unwrap();
        Some(String::from_utf8(packet[..length].to_vec()).unwrap())
    }

    async fn has(condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it does not come");
    }

    #[tokio::test]
    async fn service_logs_go_where_the_configuration_says_and_no_longer() {
        let logs = LogStore::default();
        let sink = logs.sink("etcd");
        let harness = Harness::with(ServiceLogDeliveryController::new(logs));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("udp://{}/", socket.local_addr().unwrap());
        configure(&harness, &format!("[{{endpoint: '{endpoint}', format: json_lines, extraTags: {{rack: '7'}}}}]"), "");
        sink(b"one\n");
        let first = packet(&socket).await.unwrap();
        assert!(
            first.starts_with(r#"{"msg":"one","rack":"7","talos-level":"info","talos-service":"etcd","#),
            "{first}"
        );
        let passes = || harness.status("runtime.ServiceLogDeliveryController").passes;
        let before = passes();
        configure(&harness, "[]", "");
        has(|| passes() > before).await;
        sink(b"two\n");
        assert_eq!(packet(&socket).await, None, "the receiver is not configured any more");
    }

    #[tokio::test(start_paused = true)]
    async fn logs_are_on_the_console_while_the_configuration_says_so() {
        let logs = LogStore::default();
        let (sender, mut shown) = tokio::sync::mpsc::unbounded_channel();
        let console = Console::new(move |line| drop(sender.send(line.to_owned())));
        let harness = Harness::with(ServiceLogConsoleController::new(logs.clone(), console));
        let mut written = async |debug: bool, line: &str| {
            let text = format!("version: v1alpha1\ndebug: {debug}\nmachine:\n  type: worker\n");
            harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
            harness.settle().await;
            for service in ["etcd", "machined"] {
                logs.sink(service)(line.as_bytes());
            }
            harness.settle().await;
            std::iter::from_fn(|| shown.try_recv().ok()).collect::<Vec<_>>()
        };
        assert!(written(false, "one\n").await.is_empty());
        assert_eq!(written(true, "two\n").await, ["[etcd] two"]);
        assert_eq!(written(true, "three\n").await, ["[etcd] three"]);
        assert!(written(false, "four\n").await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_of_the_kernel_log_are_those_of_all_documents() {
        let harness = Harness::new();
        harness.runtime.register(KmsgLogConfigController::default()).unwrap();
        harness.runtime.start();
        let document = |name: &str, url: &str| {
            format!("---\napiVersion: v1alpha1\nkind: KmsgLogConfig\nname: {name}\nurl: {url}\n")
        };
        let documents = document("a", "udp://10.7.0.1:5516/") + &document("b", "tcp://10.7.0.1:1/");
        configure(&harness, "[]", &documents);
        harness.settle().await;
        let config = harness.get::<KmsgLogConfig>(KmsgLogConfig::ID).unwrap();
        assert_eq!(config.destinations, ["udp://10.7.0.1:5516/", "tcp://10.7.0.1:1/"].map(Url::from));
        configure(&harness, "[]", "");
        harness.settle().await;
        assert!(harness.ids::<KmsgLogConfig>().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_of_the_kernels_arguments_are_there_without_a_configuration_and_once_with_it() {
        let arguments = vec!["udp://10.7.0.1:5516/".to_owned()];
        let harness = Harness::with(KmsgLogConfigController { arguments });
        harness.settle().await;
        let destinations = || harness.get::<KmsgLogConfig>(KmsgLogConfig::ID).map(|config| config.destinations.clone());
        assert_eq!(destinations(), Some(vec![Url::from("udp://10.7.0.1:5516/")]));
        let documents = ["udp://10.7.0.1:5516/", "tcp://10.7.0.1:1/"].map(|url| {
            let name = &url[..3];
            format!("---\napiVersion: v1alpha1\nkind: KmsgLogConfig\nname: {name}\nurl: {url}\n")
        });
        configure(&harness, "[]", &documents.concat());
        harness.settle().await;
        assert_eq!(destinations(), Some(["udp://10.7.0.1:5516/", "tcp://10.7.0.1:1/"].map(Url::from).to_vec()));
    }

    /// Needs a kernel log with something in it.
    #[tokio::test]
    async fn the_kernel_log_arrives() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let harness = Harness::with(KmsgLogDeliveryController::default());
        let destinations = vec![Url::from(format!("udp://{}", socket.local_addr().unwrap()))];
        harness.put(KmsgLogConfig::ID, KmsgLogConfig { destinations });
        let record = packet(&socket).await.unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        for key in ["clock", "facility", "msg", "priority", "seq", "talos-level", "talos-time"] {
            assert!(record.get(key).is_some(), "no {key} in {record}");
        }
    }
}
