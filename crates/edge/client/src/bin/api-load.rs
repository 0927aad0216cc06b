//! Puts load on a node's API and prints how long calls took, for `cargo xtask bench`: each client has its own connection
//! and sends its next call when the last one was answered, or at a given rate. Not part of the node and not for operators.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output is its result")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use client::{Channel, Client, ConnectOptions, TalosConfig};
use serde_json::json;
use tokio::time::Instant;
use wire::cosi::resource::ListRequest;
use wire::cosi::resource::state_client::StateClient;

type Failure = Box<dyn Error + Send + Sync>;

/// Of how many clients, and at which rate of all of them together; none is as fast as answers come.
const LOADS: &[(usize, Option<u32>)] = &[(1, None), (16, None), (64, None), (16, Some(1000))];

/// What is listed: the node's services, a handful of resources.
const NAMESPACE: &str = "runtime";
const TYPE: &str = "Services.v1alpha1.talos.dev";

/// Connections and caches are warm after this long; what was measured until then is dropped.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Call {
    Version,
    List,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [talosconfig, seconds] = arguments.as_slice() else {
        eprintln!("usage: api-load TALOSCONFIG SECONDS");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(measure(talosconfig, seconds)));
    match result {
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
    for call in [Call::Version, Call::List] {
        for &(clients, rate) in LOADS {
            let mut times = load(ConnectOptions::from_context(context)?, call, clients, rate, duration).await?;
            times.sort_unstable();
            let name = match call {
                Call::Version => "Version",
                Call::List => "COSI List",
            };
            let line = json!({
                "call": name,
                "clients": clients,
                "rate": rate,
                "calls": times.len(),
                "perSecond": times.len() as f64 / duration.as_secs_f64(),
                "p50": percentile(&times, 50).as_secs_f64() * 1e3,
                "p99": percentile(&times, 99).as_secs_f64() * 1e3,
            });
            println!("{line}");
        }
    }
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
        // Clients with a rate take turns instead of calling all at once.
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
            wire::machine::machine_service_client::MachineServiceClient::new(channel.clone()).version(()).await?;
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
