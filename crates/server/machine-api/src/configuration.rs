//! ApplyConfiguration: hands a configuration to the controller that owns it, and tells the caller how that ended.
//!
//! What a mode means, and whether a configuration is valid, is decided there; here are the shapes of the API.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resources::revision::{
    ApplyMode, ConfigCaller, ConfigOutcome, ConfigText, MachineConfigRequest, MachineConfigResult,
};
use resources::values::Nanoseconds;
use state::{Key, Kind, StateError, Store, WatchOptions};
use tonic::{Code, Status};
use wire::machine as api;
use wire::machine::apply_configuration_request::Mode;

use crate::machine::Machine;

/// Owner of the requests.
const OWNER: &str = "machine-api";

/// How long a configuration may take to be judged and written to disk.
const ANSWER: Duration = Duration::from_secs(30);

/// Default duration of a trial (Talos 1.7).
const TRIAL: Duration = Duration::from_secs(60);

/// How much of a refusal is told: it travels in a header, of which clients take 16 KiB with everything in it that is not a
/// letter at three times its size.
const QUOTED: usize = 3 << 10;

/// Applies a configuration. The work continues if the client disconnects.
pub(crate) async fn apply(
    machine: &Machine,
    caller: ConfigCaller,
    request: api::ApplyConfigurationRequest,
) -> Result<api::ApplyConfiguration, Status> {
    let is_dry = request.dry_run;
    let request = to_resource(caller, request)?;
    let store = machine.store.clone();
    let work = stdx::tasks::spawn("apply configuration", async move { answer(&store, request).await });
    let result = work.join().await.map_err(|_| Status::internal("applying the configuration was interrupted"))??;
    let mode = match result.mode {
        ApplyMode::Auto => Mode::Auto,
        ApplyMode::NoReboot => Mode::NoReboot,
        ApplyMode::Reboot => Mode::Reboot,
        ApplyMode::Staged => Mode::Staged,
        ApplyMode::Try => Mode::Try,
    };
    if result.outcome == ConfigOutcome::Applied && mode == Mode::Reboot && !is_dry {
        machine.reboot_for_configuration()?;
    }
    to_answer(result, mode)
}

fn to_resource(caller: ConfigCaller, request: api::ApplyConfigurationRequest) -> Result<MachineConfigRequest, Status> {
    let mode = match Mode::try_from(request.mode).map_err(|_| Status::invalid_argument("unknown mode"))? {
        Mode::Auto => ApplyMode::Auto,
        Mode::NoReboot => ApplyMode::NoReboot,
        Mode::Reboot => ApplyMode::Reboot,
        Mode::Staged => ApplyMode::Staged,
        Mode::Try => ApplyMode::Try,
    };
    let lasting = match request.try_mode_timeout {
        Some(timeout) => Duration::try_from(timeout)
            .map_err(|_| Status::invalid_argument("try_mode_timeout must not be negative"))?,
        None => TRIAL,
    };
    let text = String::from_utf8(request.data.to_vec())
        .map_err(|_| Status::invalid_argument("the configuration is not UTF-8 text"))?;
    let lasting = Nanoseconds::from(lasting);
    Ok(MachineConfigRequest { config: ConfigText(text), mode, lasting, caller, dry_run: request.dry_run })
}

fn to_answer(result: MachineConfigResult, mode: Mode) -> Result<api::ApplyConfiguration, Status> {
    let code = match result.outcome {
        ConfigOutcome::Applied => {
            let (warnings, mode_details) = (result.warnings, result.details.0);
            return Ok(api::ApplyConfiguration { mode: mode.into(), mode_details, warnings, metadata: None });
        }
        ConfigOutcome::NotValid => Code::InvalidArgument,
        ConfigOutcome::NotAllowed => Code::PermissionDenied,
        ConfigOutcome::NotSupported => Code::Unimplemented,
        ConfigOutcome::NotPossible => Code::FailedPrecondition,
        ConfigOutcome::Failed => Code::Internal,
    };
    Err(Status::new(code, quoted(&result.details.0)))
}

/// As many whole lines as a header holds.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for line in text.split_inclusive('\n') {
        if quoted.len() + line.len() > QUOTED {
            quoted.push_str("...\n");
            break;
        }
        quoted.push_str(line);
    }
    quoted
}

/// Puts the request into the store and waits for its result; neither stays there.
async fn answer(store: &Store, request: MachineConfigRequest) -> Result<MachineConfigResult, Status> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    let internal = |error: StateError| Status::internal(stdx::error_chain(&error));
    let mut watch = store.watch_kind(&Kind::of::<MachineConfigResult>(), WatchOptions::default()).map_err(internal)?;
    store.put(&id, request, OWNER).map_err(internal)?;
    let found = async {
        loop {
            if let Some(result) = store.get_as::<MachineConfigResult>(&id)? {
                return Ok(MachineConfigResult::clone(&result));
            }
            watch.next().await?;
        }
    };
    let found = tokio::time::timeout(ANSWER, found).await;
    // It has no other holder, so it is destroyed immediately; its result follows.
    store.destroy(&Key::of::<MachineConfigRequest>(&id), OWNER).map_err(internal)?;
    let late = |_| {
        let why = format!("no answer within {} s; whether the configuration is applied is not known", ANSWER.as_secs());
        Status::deadline_exceeded(why)
    };
    found.map_err(late)?.map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_quotes_no_more_than_a_header_holds() {
        let lines: String = (0..10_000).map(|n| format!("# {n} {n} {n}\n")).collect();
        let details = format!("this config change can't be applied in immediate mode\ndiff: --- a\n{lines}").into();
        let result = MachineConfigResult { outcome: ConfigOutcome::NotValid, details, ..Default::default() };
        let status = to_answer(result, Mode::NoReboot).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("this config change can't be applied in immediate mode\ndiff: --- a\n"));
        assert!(status.message().ends_with("...\n") && status.message().len() < 2 * QUOTED, "{status:?}");
    }

    #[test]
    fn a_trial_lasts_as_long_as_the_client_says() {
        let of = |try_mode_timeout| {
            let mode = Mode::Try.into();
            let request = api::ApplyConfigurationRequest { mode, try_mode_timeout, ..Default::default() };
            to_resource(ConfigCaller::Administrator, request).map(|request| Duration::from(request.lasting))
        };
        assert_eq!(of(None).unwrap(), TRIAL);
        assert_eq!(of(Some(prost_types::Duration { seconds: 5, nanos: 0 })).unwrap(), Duration::from_secs(5));
        assert_eq!(
            of(Some(prost_types::Duration { seconds: -5, nanos: 0 })).unwrap_err().code(),
            Code::InvalidArgument
        );
    }
}
