//! Puts load on a node's API and prints how long calls took, for `cargo xtask bench`: each client has its own connection
//! and sends its next call when the last one was answered, or at a given rate. Last it measures how long the event of a
//! written resource takes to a watching client, for which the node must have the clock of this machine: a local cluster.
//! The same loads on a bare echo server come first: the reference.
//! Not part of the node and not for operators.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output is its result")]

mod echo;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use client::{Channel, Client, ConnectOptions, TalosConfig, WatchEvent};
use futures::StreamExt;
use serde_json::json;
use stdx::{Clock, SystemClock};
use tokio::time::Instant;
use wire::cosi::resource::ListRequest;
use wire::cosi::resource::state_client::StateClient;
use wire::machine::apply_configuration_request::Mode;
use wire::machine::machine_service_client::MachineServiceClient;
use wire::machine::{ApplyConfigurationRequest, ReadRequest};

type Failure = Box<dyn Error + Send + Sync>;

/// Of how many clients, and at which rate of all of them together; none is as fast as answers come.
const LOADS: &[(usize, Option<u32>)] = &[(1, None), (16, None), (64, None), (16, Some(1000))];

/// The resources to list: the node's services, a handful.
const NAMESPACE: &str = "runtime";
const TYPE: &str = "Services.v1alpha1.talos.dev";

/// The resource to write and watch: the active configuration, changed by a comment without effect.
const CONFIG: (&str, &str, &str) = ("config", "MachineConfigs.config.talos.dev", "v1alpha1");
const CONFIG_FILE: &str = "/system/state/config.yaml";

/// Warm-up of connections and caches; measurements before it are discarded.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Call {
    Version,
    List,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let work = async {
        match arguments.as_slice() {
            [echo::FLAG] => echo::serve().await,
            [talosconfig, seconds] => measure(talosconfig, seconds).await,
            _ => Err("usage: api-load TALOSCONFIG SECONDS".into()),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one line of JSON for each call and load.
async fn measure(talosconfig: &str, seconds: &str) -> Result<(), Failure> {
    let duration = Duration::from_secs(seconds.parse()?);
    let config = TalosConfig::load(Path::new(talosconfig))?;
    let (_, context) = config.select(None)?;
    {
        let echo = echo::Echo::start()?;
        for &(clients, rate) in LOADS {
            let mut times = load(echo.options()?, Call::Version, clients, rate, duration).await?;
            times.sort_unstable();
            report("Echo", clients, rate, &times, duration);
        }
    }
    for call in [Call::Version, Call::List] {
        for &(clients, rate) in LOADS {
            let mut times = load(ConnectOptions::from_context(context)?, call, clients, rate, duration).await?;
            times.sort_unstable();
            let name = match call {
                Call::Version => "Version",
                Call::List => "COSI List",
            };
            report(name, clients, rate, &times, duration);
        }
    }
    let client = Client::connect(ConnectOptions::from_context(context)?).await?;
    let mut times = watch(&client, duration).await?;
    times.sort_unstable();
    report("Watch event from write to client", 1, None, &times, duration);
    Ok(())
}

fn report(call: &str, clients: usize, rate: Option<u32>, sorted: &[Duration], duration: Duration) {
    let line = json!({
        "call": call,
        "clients": clients,
        "rate": rate,
        "calls": sorted.len(),
        "perSecond": sorted.len() as f64 / duration.as_secs_f64(),
        "p50": percentile(sorted, 50).as_secs_f64() * 1e3,
        "p99": percentile(sorted, 99).as_secs_f64() * 1e3,
    });
    println!("{line}");
}

/// Changes the configuration again and again, and says how long after each change its event was here. The configuration
/// is as it was afterwards.
async fn watch(client: &Client, duration: Duration) -> Result<Vec<Duration>, Failure> {
    let mut file = MachineServiceClient::new(client.channel()).read(ReadRequest { path: CONFIG_FILE.into() }).await?;
    let mut text = Vec::new();
    while let Some(data) = file.get_mut().message().await? {
        text.extend_from_slice(&data.bytes);
    }
    let text = String::from_utf8(text)?;
    let measured = watch_changes(client, &text, duration).await;
    apply(client, text).await?;
    measured
}

async fn watch_changes(client: &Client, text: &str, duration: Duration) -> Result<Vec<Duration>, Failure> {
    let (namespace, kind, id) = CONFIG;
    let mut events = client.state().watch(namespace, kind, Some(id)).await?;
    // Existing resources.
    events.next().await.ok_or("the watch ended")??;
    let mut times = Vec::new();
    let start = Instant::now();
    for number in 0.. {
        let changed = format!("{text}\n# {number}\n");
        let arrival = async {
            let event = events.next().await;
            (event, SystemClock.now())
        };
        let (applied, (event, arrived)) = tokio::join!(apply(client, changed), arrival);
        applied?;
        let written = written(&event.ok_or("the watch ended")??).ok_or("an event without a time")?;
        if start.elapsed() >= WARM_UP + duration {
            break;
        }
        if start.elapsed() >= WARM_UP {
            times.push(arrived.duration_since(written).unwrap_or_default());
        }
    }
    Ok(times)
}

fn written(event: &WatchEvent) -> Option<SystemTime> {
    let (seconds, nanoseconds) = event.resource.as_ref()?.metadata.updated?;
    let since_epoch = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

async fn apply(client: &Client, text: String) -> Result<(), Failure> {
    let mode = Mode::NoReboot.into();
    let request = ApplyConfigurationRequest { data: text.into(), mode, dry_run: false, try_mode_timeout: None };
    MachineServiceClient::new(client.channel()).apply_configuration(request).await?;
    Ok(())
}

/// How long each call took that ended within `duration` after warming up.
async fn load(
    options: ConnectOptions,
    call: Call,
    clients: usize,
    rate: Option<u32>,
    duration: Duration,
) -> Result<Vec<Duration>, Failure> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Client::connect(options.clone()).await?.channel());
    }
    let pause = rate.map(|rate| Duration::from_secs(1) * u32::try_from(clients).unwrap_or(u32::MAX) / rate.max(1));
    let start = Instant::now();
    let one = |(index, channel): (usize, Channel)| {
        // Clients with a rate are staggered instead of calling simultaneously.
        let offset = pause.map_or(Duration::ZERO, |pause| {
            pause * u32::try_from(index).unwrap_or(0) / u32::try_from(clients).unwrap_or(1)
        });
        worker(channel, call, pause, start, start + offset, duration)
    };
    let done = futures::future::try_join_all(connections.into_iter().enumerate().map(one)).await?;
    Ok(done.into_iter().flatten().collect())
}

async fn worker(
    channel: Channel,
    call: Call,
    pause: Option<Duration>,
    start: Instant,
    first: Instant,
    duration: Duration,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    let mut due = first;
    loop {
        let from = match pause {
            None => Instant::now(),
            Some(pause) => {
                // When the last answer was late, the call is late as well, and its time counts from when it was due. The
                // timer itself is up to a millisecond late, which is no part of the answer's time.
                let late = Instant::now() > due;
                tokio::time::sleep_until(due).await;
                let from = if late { due } else { Instant::now() };
                due += pause;
                from
            }
        };
        send(&channel, call).await?;
        if start.elapsed() >= WARM_UP + duration {
            return Ok(times);
        }
        if start.elapsed() >= WARM_UP {
            times.push(from.elapsed());
        }
    }
}

async fn send(channel: &Channel, call: Call) -> Result<(), Failure> {
    match call {
        Call::Version => {
            MachineServiceClient::new(channel.clone()).version(()).await?;
        }
        Call::List => {
            let request = ListRequest { namespace: NAMESPACE.to_owned(), r#type: TYPE.to_owned(), options: None };
            let mut stream = StateClient::new(channel.clone()).list(request).await?.into_inner();
            let mut found = false;
            while stream.message().await?.is_some() {
                found = true;
            }
            if !found {
                return Err(format!("the node lists no {TYPE}").into());
            }
        }
    }
    Ok(())
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_time_that_so_many_calls_stay_within() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
