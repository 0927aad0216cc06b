//! Follows a machine that ends: its events as long as it answers, then its next boot.

use std::time::Duration;

use client::Client;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use wire::machine as api;
use wire::storage::storage_service_client::StorageServiceClient;

use super::progress::Progress;
use super::trial::{self, Trial};
use crate::command_error::CommandError;
use crate::output::Output;

/// Another value after each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const LONGEST_BOOT_ID: usize = 4096;
/// Pause between attempts to reach a machine.
const RETRY: Duration = Duration::from_secs(1);
/// How long one attempt to read from a machine may take: one that is off does not refuse connections.
const ATTEMPT: Duration = Duration::from_secs(10);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// It stops its services for the last time.
    ServicesStopped,
    /// It has booted again, or is in maintenance mode after that.
    BootedAgain,
    /// It has booted again, runs and is ready.
    RunningAgain,
    /// That, and the version that it runs has kept its slot.
    Upgraded,
}

/// One machine and what is known of it.
pub(super) struct Follow<'a> {
    pub(super) client: Client,
    pub(super) node: &'a str,
    pub(super) out: &'a Output,
    /// Of the sequence.
    pub(super) actor: String,
    /// The boot id before it.
    pub(super) boot: String,
    /// What it told of its last trial before it.
    pub(super) trial: Option<Value>,
    pub(super) until: Until,
    pub(super) debug: bool,
}

/// The boot id of a machine.
pub(super) async fn boot_id(client: &Client) -> Result<String, CommandError> {
    let mut stream = client.read(BOOT_ID).await?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        let data = part?.result.map_err(|error| CommandError::nodes(format!("reading {BOOT_ID}: {error}")))?;
        bytes.extend_from_slice(&data.bytes);
        if bytes.len() > LONGEST_BOOT_ID {
            return Err(CommandError::nodes(format!("{BOOT_ID} has more than {LONGEST_BOOT_ID} bytes")));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

impl Follow<'_> {
    /// Waits until it has happened, for `at_most` this long.
    pub(super) async fn run(&self, at_most: Duration) -> Result<(), CommandError> {
        let deadline = Instant::now() + at_most;
        let mut progress = Progress::default();
        let work = async {
            // Cancel-safe: both only print.
            tokio::select! {
                result = self.follow(&mut progress) => result,
                never = self.kernel_log() => match never {},
            }
        };
        match timeout_at(deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(CommandError::nodes(format!("not done after {at_most:?}: waiting for {}", self.waits_for()))),
        }
    }

    fn waits_for(&self) -> &'static str {
        match self.until {
            Until::ServicesStopped => "services to stop",
            Until::BootedAgain => "the next boot",
            Until::RunningAgain | Until::Upgraded => "the machine to run and be ready after its next boot",
        }
    }

    async fn follow(&self, progress: &mut Progress) -> Result<(), CommandError> {
        self.say("waiting for events");
        loop {
            self.events(progress, true).await;
            if let Some(failed) = progress.failed.take() {
                return Err(CommandError::nodes(failed));
            }
            if self.until == Until::ServicesStopped && progress.services_stopped {
                self.say("services stop; the machine ends");
                return Ok(());
            }
            // The stream ended: the machine has rebooted, or the connection broke.
            if self.until != Until::ServicesStopped && self.has_booted_again().await {
                break;
            }
            sleep(RETRY).await;
        }
        self.say("booted again");
        // Its status from before the reboot says nothing.
        progress.ready = false;
        let until_ready = matches!(self.until, Until::RunningAgain | Until::Upgraded);
        while until_ready && !progress.ready {
            self.events(progress, false).await;
            sleep(RETRY).await;
        }
        if self.until == Until::Upgraded { self.trial().await } else { Ok(()) }
    }

    /// Waits for the end of the trial of a version, through further boots.
    async fn trial(&self) -> Result<(), CommandError> {
        loop {
            match timeout(ATTEMPT, trial::of(&self.client.to_node(self.node), self.trial.as_ref())).await {
                Ok(Ok(Trial::Passed(line))) => {
                    self.say(&line);
                    return Ok(());
                }
                Ok(Ok(Trial::Failed(reason))) => return Err(CommandError::nodes(reason)),
                Ok(Ok(Trial::Open(waits_for))) => self.say(&waits_for),
                // It boots.
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(RETRY).await;
        }
    }

    /// Reads events until the stream ends or says enough; those of the actor alone while the sequence runs.
    async fn events(&self, progress: &mut Progress, of_actor: bool) {
        let with_actor_id = if of_actor { self.actor.clone() } else { String::new() };
        let request = api::EventsRequest { tail_events: -1, with_actor_id, ..api::EventsRequest::default() };
        let Ok(Ok(mut stream)) = timeout(ATTEMPT, self.client.events(request)).await else { return };
        loop {
            let item = if of_actor && self.until != Until::ServicesStopped {
                // A machine that loses its power closes no connection: its boot id is looked at now and then.
                match timeout(ATTEMPT, stream.next()).await {
                    Ok(item) => item,
                    Err(_) => return,
                }
            } else {
                stream.next().await
            };
            let Some(Ok(reply)) = item else { return };
            let Ok(event) = reply.result else { return };
            if let Some(line) = progress.take(&event) {
                self.say(&line);
            }
            let enough = self.until == Until::ServicesStopped && progress.services_stopped;
            if enough || progress.failed.is_some() || (!of_actor && progress.ready) {
                return;
            }
        }
    }

    /// Whether it answers with another boot id, or in maintenance mode, where the certificates of its cluster count no more.
    async fn has_booted_again(&self) -> bool {
        match timeout(ATTEMPT, boot_id(&self.client)).await {
            Ok(Ok(id)) => id != self.boot,
            _ => self.until == Until::BootedAgain && self.is_in_maintenance().await,
        }
    }

    async fn is_in_maintenance(&self) -> bool {
        let Ok(endpoint) = self.node.parse() else { return false };
        let options = client::ConnectOptions::insecure(vec![endpoint], Vec::new(), None);
        let answer = async {
            let client = Client::connect(options).await.ok()?;
            let disks = StorageServiceClient::new(client.channel()).disks(()).await;
            // Only a machine that trusts everybody tells a stranger about its disks.
            disks.ok()
        };
        matches!(timeout(ATTEMPT, answer).await, Ok(Some(_)))
    }

    /// Shows the kernel log if that is wanted; never ends.
    async fn kernel_log(&self) -> std::convert::Infallible {
        if !self.debug {
            std::future::pending::<()>().await;
        }
        loop {
            let request = api::DmesgRequest { follow: true, tail: true };
            if let Ok(Ok(mut stream)) = timeout(ATTEMPT, self.client.dmesg(request)).await {
                while let Some(Ok(reply)) = stream.next().await {
                    let Ok(data) = reply.result else { break };
                    self.say(String::from_utf8_lossy(&data.bytes).trim_end());
                }
            }
            sleep(RETRY).await;
        }
    }

    fn say(&self, line: &str) {
        self.out.note(format!("{}: {line}", self.node));
    }
}
