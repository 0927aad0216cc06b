//! The machine itself: its name, architecture and end.

use std::io;

/// The node name of this UTS namespace.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Sets the node name of this UTS namespace.
///
/// # Errors
/// The kernel's.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Kernel release, such as `6.12.0`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The architecture in the spelling of container images (`amd64`, `arm64`).
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Raises the limit of open files to `wanted`, or to the hard limit if lower. Returns the effective limit.
///
/// # Errors
/// The kernel's.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let current = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: Some(wanted), maximum: Some(wanted.max(current.maximum.unwrap_or(wanted))) };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(wanted);
    }
    let most = current.maximum.unwrap_or(wanted).min(wanted);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: current.maximum })?;
    Ok(most)
}

/// Makes this process the reaper of all its descendants. For tests and tools; PID 1 is that already.
///
/// # Errors
/// The kernel's.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?)
}

/// A random UUID (version 4) of the kernel's.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn random_uuid() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// Time since the kernel started, with times of sleep.
#[must_use]
pub fn since_boot() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    std::time::Duration::new(seconds, nanos)
}
