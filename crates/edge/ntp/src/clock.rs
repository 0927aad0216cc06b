//! The kernel's clock: read, slewed, stepped; and clocks that are devices.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::client::Adjustment;
use crate::offset::Offset;
use crate::packet::{Leap, Sample};

/// The kernel refused to touch its clock.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct TimeError {
    operation: &'static str,
    #[source]
    cause: io::Error,
}

/// What the kernel's clock discipline is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdjtimeState {
    /// What is still to be slewed.
    pub offset: Offset,
    /// Correction of the frequency, as a ratio around 1.
    pub frequency: f64,
    /// The largest possible error.
    pub max_error: Duration,
    /// The estimated error.
    pub estimated_error: Duration,
    /// Status bits by their names in the kernel.
    pub status: String,
    /// The constant of its loop.
    pub constant: i64,
    /// Whether the kernel takes its clock for right.
    pub is_synchronized: bool,
    /// State by its name in the kernel.
    pub state: &'static str,
}

/// The clock of this machine.
pub trait SystemTime: std::fmt::Debug + Send + Sync + 'static {
    /// Slews or steps it.
    fn adjust(&self, adjustment: Adjustment) -> Result<(), TimeError>;
    /// Sets it forward. Nobody takes it for right by that.
    fn advance(&self, by: Duration) -> Result<(), TimeError>;
    /// What it is doing.
    fn state(&self) -> Result<AdjtimeState, TimeError>;
}

/// The kernel's.
#[derive(Debug, Default)]
pub struct KernelTime;

impl SystemTime for KernelTime {
    fn adjust(&self, adjustment: Adjustment) -> Result<(), TimeError> {
        let failed = |operation| move |cause| TimeError { operation, cause };
        match adjustment {
            Adjustment::Slew { offset, constant, leap } => {
                slew(offset, constant, leap).map_err(failed("slewing the clock"))?;
            }
            Adjustment::Step { offset, .. } => {
                step(offset).map_err(failed("setting the clock"))?;
                // The loop starts without a rest of the old time; the kernel copies the clock into that of the board now
                // and then while it is synchronized.
                slew(Offset::default(), MIN_CONSTANT, Leap::None).map_err(failed("synchronizing the clock"))?;
            }
        }
        Ok(())
    }

    fn advance(&self, by: Duration) -> Result<(), TimeError> {
        let offset = Offset::from_nanos(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX));
        step(offset).map_err(|cause| TimeError { operation: "setting the clock forward", cause })
    }

    fn state(&self) -> Result<AdjtimeState, TimeError> {
        let mut timex = timex();
        let state =
            adjtimex(&mut timex).map_err(|cause| TimeError { operation: "reading the clock's state", cause })?;
        let micros = |value: libc::c_long| Duration::from_micros(u64::try_from(value).unwrap_or_default());
        let scale = if timex.status & libc::STA_NANO == 0 { 1000 } else { 1 };
        Ok(AdjtimeState {
            offset: Offset::from_nanos(timex.offset.saturating_mul(scale)),
            #[expect(clippy::cast_precision_loss, reason = "the kernel's values are below 2^26")]
            frequency: 1.0 + timex.freq as f64 / 65536.0 / 1e6,
            max_error: micros(timex.maxerror),
            estimated_error: micros(timex.esterror),
            status: status_text(timex.status),
            constant: timex.constant,
            is_synchronized: timex.status & libc::STA_UNSYNC == 0,
            state: usize::try_from(state).ok().and_then(|state| STATES.get(state).copied()).unwrap_or("TIME_ERROR"),
        })
    }
}

/// The constant of the shortest poll.
const MIN_CONSTANT: i64 = 1;

const STATES: [&str; 6] = ["TIME_OK", "TIME_INS", "TIME_DEL", "TIME_OOP", "TIME_WAIT", "TIME_ERROR"];

const STATUS: [(i32, &str); 16] = [
    (libc::STA_PLL, "STA_PLL"),
    (libc::STA_PPSFREQ, "STA_PPSFREQ"),
    (libc::STA_PPSTIME, "STA_PPSTIME"),
    (libc::STA_FLL, "STA_FLL"),
    (libc::STA_INS, "STA_INS"),
    (libc::STA_DEL, "STA_DEL"),
    (libc::STA_UNSYNC, "STA_UNSYNC"),
    (libc::STA_FREQHOLD, "STA_FREQHOLD"),
    (libc::STA_PPSSIGNAL, "STA_PPSSIGNAL"),
    (libc::STA_PPSJITTER, "STA_PPSJITTER"),
    (libc::STA_PPSWANDER, "STA_PPSWANDER"),
    (libc::STA_PPSERROR, "STA_PPSERROR"),
    (libc::STA_CLOCKERR, "STA_CLOCKERR"),
    (libc::STA_NANO, "STA_NANO"),
    (libc::STA_MODE, "STA_MODE"),
    (libc::STA_CLK, "STA_CLK"),
];

fn status_text(status: i32) -> String {
    let names: Vec<&str> = STATUS.iter().filter(|(bit, _)| status & bit != 0).map(|(_, name)| *name).collect();
    names.join(" | ")
}

fn slew(offset: Offset, constant: i64, leap: Leap) -> io::Result<()> {
    let mut timex = timex();
    timex.modes = libc::ADJ_OFFSET
        | libc::ADJ_NANO
        | libc::ADJ_STATUS
        | libc::ADJ_TIMECONST
        | libc::ADJ_MAXERROR
        | libc::ADJ_ESTERROR;
    timex.offset = offset.nanos();
    timex.constant = constant;
    timex.status = libc::STA_PLL
        | match leap {
            Leap::None => 0,
            Leap::Insert => libc::STA_INS,
            Leap::Delete => libc::STA_DEL,
        };
    adjtimex(&mut timex).map(drop)
}

fn step(offset: Offset) -> io::Result<()> {
    let mut timex = timex();
    timex.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    // The fraction is never negative.
    timex.time.tv_sec = offset.nanos().div_euclid(1_000_000_000);
    timex.time.tv_usec = offset.nanos().rem_euclid(1_000_000_000);
    adjtimex(&mut timex).map(drop)
}

fn timex() -> libc::timex {
    // SAFETY: the structure consists of numbers, for which zeros are valid; without modes it changes nothing.
    #[expect(unsafe_code, reason = "the structure has no constructor")]
    unsafe {
        std::mem::zeroed()
    }
}

fn adjtimex(timex: &mut libc::timex) -> io::Result<i32> {
    // SAFETY: the structure is valid for reading and writing, and the kernel keeps no reference.
    #[expect(unsafe_code, reason = "rustix does not have it")]
    let state = unsafe { libc::adjtimex(timex) };
    if state < 0 { Err(io::Error::last_os_error()) } else { Ok(state) }
}

/// How far the system's clock is behind that of a device, such as `/dev/ptp0`.
pub(crate) fn device_sample(path: &str) -> io::Result<Sample> {
    let device = File::open(path)?;
    // Clocks of devices are named by their descriptors (clock_getres(2), "Dynamic clocks").
    let clock = (!device.as_raw_fd() << 3) | 3;
    let before = read_clock(libc::CLOCK_REALTIME)?;
    let told = read_clock(clock)?;
    let after = read_clock(libc::CLOCK_REALTIME)?;
    let round_trip = after.saturating_sub(before);
    Ok(Sample {
        offset: Offset::from_nanos(told.saturating_sub(before).saturating_sub(round_trip / 2)),
        round_trip: Duration::from_nanos(u64::try_from(round_trip).unwrap_or_default()),
        leap: Leap::None,
        is_local: true,
    })
}

/// In nanoseconds.
fn read_clock(clock: libc::clockid_t) -> io::Result<i64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is valid for writing.
    #[expect(unsafe_code, reason = "rustix does not read clocks of devices by this number")]
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_the_clock_can_be_read_without_privileges() {
        let state = KernelTime.state().unwrap();
        assert!((0.99..1.01).contains(&state.frequency), "{state:?}");
        assert!(STATES.contains(&state.state));
        assert_eq!(state.is_synchronized, !state.status.contains("STA_UNSYNC"));
    }

    #[test]
    fn status_bits_have_their_names() {
        assert_eq!(status_text(libc::STA_PLL | libc::STA_NANO), "STA_PLL | STA_NANO");
        assert_eq!(status_text(0), "");
    }

    #[test]
    fn a_file_that_is_no_clock_is_an_error() {
        let error = device_sample("/dev/null").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
