//! What a machine tells others: its logs and its events; and the watchdog that resets it when it hangs.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use tests::support::run;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use wire::events::event_sink_service_server::{EventSinkService, EventSinkServiceServer};
use wire::events::{EventRequest, EventResponse};

use crate::assets::Assets;
use crate::vm::{ADDRESS, BOOT, HOST, Setup, Vm};

/// From what a machine does to what others see of it.
const SEEN: Duration = Duration::from_secs(120);
const WATCHDOG: &str = "---\napiVersion: v1alpha1\nkind: WatchdogTimerConfig\ndevice: /dev/watchdog0\ntimeout: 10s\n";

/// Lines that came by TCP.
struct Lines {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Lines {
    fn receive() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| kept.lock().push(line));
                });
            }
        });
        Ok(Self { port, lines })
    }

    /// The first line with all these texts.
    fn with(&self, texts: &[&str]) -> anyhow::Result<String> {
        let lines = self.lines.lock();
        let found = lines.iter().find(|line| texts.iter().all(|text| line.contains(text)));
        found.cloned().with_context(|| format!("no line with {texts:?} among {}", lines.len()))
    }
}

/// Types of events that came by gRPC.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<BTreeSet<String>>>);

#[tonic::async_trait]
impl EventSinkService for Events {
    async fn publish(&self, request: Request<EventRequest>) -> Result<Response<EventResponse>, Status> {
        let kind = request.into_inner().data.map(|data| data.type_url).unwrap_or_default();
        self.0.lock().insert(kind);
        Ok(Response::new(EventResponse {}))
    }
}

impl Events {
    fn receive(&self) -> anyhow::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let service = EventSinkServiceServer::new(self.clone());
        std::thread::spawn(move || {
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
                anyhow::Ok(())
            })
        });
        Ok(port)
    }
}

/// By arguments of the kernel before it has a configuration, and by its configuration. It has no disk, so that it keeps waiting
/// with its installation.
pub(crate) fn a_machine_tells_others_and_is_reset_when_it_hangs(assets: &Assets) -> anyhow::Result<()> {
    let (kernel_log, service_log, events) = (Lines::receive()?, Lines::receive()?, Events::default());
    let arguments =
        format!("talos.logging.kernel=tcp://{HOST}:{} talos.events.sink={HOST}:{}", kernel_log.port, events.receive()?);
    let setup = Setup { devices: vec!["i6300esb"], ..Setup::kernel("machine", &arguments) };
    let mut machine = Vm::start(assets, &setup)?;
    machine.is_in_maintenance()?;
    machine.until("records of the kernel log", SEEN, |_| {
        let record = kernel_log.with(&["Linux version", r#""facility":"kern""#, r#""seq":0"#])?;
        ensure!(record.contains(r#""talos-level":"#), "{record}");
        Ok(())
    })?;
    machine.until("events of the boot", SEEN, |_| {
        let kinds = events.0.lock();
        let missing = ["Sequence", "Phase", "Task", "ServiceState", "MachineStatus"]
            .map(|kind| format!("type.googleapis.com/machine.{kind}Event"))
            .into_iter()
            .find(|kind| !kinds.contains(kind));
        ensure!(missing.is_none(), "no {missing:?} among {kinds:?}");
        Ok(())
    })?;

    let folder = assets.file("config")?.display().to_string();
    let patch = format!(
        r#"{{"machine": {{"certSANs": ["127.0.0.1"], "time": {{"disabled": true}},
           "sysctls": {{"kernel.panic": "0", "kernel.unknown_nmi_panic": "1"}},
           "logging": {{"destinations": [{{"endpoint": "tcp://{HOST}:{}/", "format": "json_lines", "extraTags": {{"rack": "7"}}}}]}}}}}}"#,
        service_log.port
    );
    let endpoint = format!("https://{ADDRESS}:6443");
    let arguments = ["gen", "config", "test", &endpoint, "--output-dir", &folder, "--config-patch", &patch];
    run(&assets.talosctl(), &arguments)?.ok().context("generating configurations")?;
    let (configuration, talosconfig) = (assets.file("config/controlplane.yaml")?, assets.file("config/talosconfig")?);
    let text = std::fs::read_to_string(&configuration)?;
    std::fs::write(&configuration, format!("{}\n{WATCHDOG}", text.trim_end()))?;
    machine.talosctl_insecure(&["apply-config", "--file", &configuration.display().to_string()])?.ok()?;
    machine.is_up(&talosconfig, BOOT)?;
    machine.until("lines of services with the tag", SEEN, |_| {
        service_log.with(&[r#""rack":"7""#, r#""talos-service":"machined""#, r#""talos-time":"#]).map(drop)
    })?;
    machine.until("a watchdog that is fed", SEEN, |machine| {
        let status = machine.talosctl(&talosconfig, &["get", "watchdogtimerstatus", "--output", "yaml"])?.ok()?;
        let has = ["device: /dev/watchdog0", "timeout: 10s", "feedInterval: 3.333333333s"];
        ensure!(has.iter().all(|line| status.contains(line)), "{status}");
        Ok(())
    })?;
    machine.until("syslogd", SEEN, |machine| {
        let services = machine.talosctl(&talosconfig, &["services"])?.ok()?;
        let syslogd = services.lines().find(|line| line.contains("syslogd")).context("no syslogd")?;
        ensure!(syslogd.contains("Running") && syslogd.contains("OK"), "{syslogd}");
        machine.talosctl(&talosconfig, &["logs", "syslogd"])?.ok().map(drop)
    })?;
    let starts = |machine: &Vm| machine.console().matches("machined starts").count();
    // Longer than its timeout: it is fed.
    pause(Duration::from_secs(15));
    ensure!(starts(&machine) == 1, "it was reset though it does not hang");

    // The kernel panics, and stays so.
    machine.interrupt()?;
    machine.says("Kernel panic", SEEN)?;
    machine.until("another start", BOOT, |machine| {
        ensure!(starts(machine) == 2, "the watchdog has not bitten");
        Ok(())
    })
}

#[expect(clippy::disallowed_methods, reason = "no runtime runs in this thread")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
