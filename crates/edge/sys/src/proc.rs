//! What `/proc` says of the machine and its processes. Each record that cannot be read is left out: processes end
//! while they are being listed.

use std::io;

/// One process.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessInfo {
    pub pid: i32,
    pub ppid: i32,
    /// One letter, as in `/proc/PID/stat`.
    pub state: char,
    pub threads: i64,
    /// Seconds of user and system time.
    pub cpu_time: f64,
    /// Bytes.
    pub virtual_memory: u64,
    /// Bytes.
    pub resident_memory: u64,
    pub command: String,
    pub executable: String,
    /// The argument vector, joined by spaces.
    pub args: String,
}

/// All processes of this PID namespace.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn processes() -> io::Result<Vec<ProcessInfo>> {
    let all = procfs::process::all_processes().map_err(io::Error::other)?;
    Ok(all.flatten().filter_map(|p| info(&p)).collect())
}

fn info(process: &procfs::process::Process) -> Option<ProcessInfo> {
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second().max(1);
    #[expect(clippy::cast_precision_loss, reason = "clock ticks of a process stay far below 2^52")]
    let cpu_time = (stat.utime + stat.stime) as f64 / ticks as f64;
    Some(ProcessInfo {
        pid: stat.pid,
        ppid: stat.ppid,
        state: stat.state,
        threads: stat.num_threads,
        cpu_time,
        virtual_memory: stat.vsize,
        resident_memory: stat.rss * procfs::page_size(),
        command: stat.comm,
        executable: process.exe().map(|p| p.display().to_string()).unwrap_or_default(),
        args: process.cmdline().map(|args| args.join(" ")).unwrap_or_default(),
    })
}

/// The lines of `/proc/meminfo`: name and value in KiB (or a plain number where the kernel gives no unit).
///
/// # Errors
/// When it cannot be read.
pub fn meminfo() -> io::Result<std::collections::BTreeMap<String, u64>> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
        })
        .collect())
}

/// Load averages over 1, 5 and 15 minutes.
///
/// # Errors
/// When it cannot be read.
pub fn load_average() -> io::Result<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let mut values = text.split_whitespace().filter_map(|v| v.parse().ok());
    match (values.next(), values.next(), values.next()) {
        (Some(one), Some(five), Some(fifteen)) => Ok([one, five, fifteen]),
        _ => Err(io::Error::other("unexpected form of /proc/loadavg")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_listed_with_its_arguments() {
        let me = i32::try_from(std::process::id()).unwrap();
        let found = processes().unwrap().into_iter().find(|p| p.pid == me).unwrap();
        assert!(found.resident_memory > 0 && found.threads > 0);
        assert!(!found.args.is_empty());
    }

    #[test]
    fn memory_and_load_are_there() {
        assert!(meminfo().unwrap()["MemTotal"] > 0);
        assert!(load_average().unwrap()[0] >= 0.0);
    }
}
