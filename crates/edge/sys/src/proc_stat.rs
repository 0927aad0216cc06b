//! `/proc/stat`: what the processors did since the kernel started.

use std::io;

/// Seconds that a processor, or all of them together, spent in each state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuTimes {
    pub user: f64,
    pub nice: f64,
    pub system: f64,
    pub idle: f64,
    pub iowait: f64,
    pub irq: f64,
    pub soft_irq: f64,
    pub steal: f64,
    pub guest: f64,
    pub guest_nice: f64,
}

/// The counters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KernelStat {
    /// Seconds since 1970.
    pub boot_time: u64,
    pub cpu_total: CpuTimes,
    pub cpus: Vec<CpuTimes>,
    pub context_switches: u64,
    pub processes_created: u64,
    pub processes_running: u64,
    pub processes_blocked: u64,
    pub irq_total: u64,
    /// By number of the interrupt.
    pub irqs: Vec<u64>,
    pub soft_irq_total: u64,
    /// In the kernel's order: hi, timer, net_tx, net_rx, block, irq_poll, tasklet, sched, hrtimer, rcu.
    pub soft_irqs: Vec<u64>,
}

/// The counters of this kernel.
///
/// # Errors
/// When they cannot be read.
pub fn kernel_stat() -> io::Result<KernelStat> {
    Ok(parse(&std::fs::read_to_string("/proc/stat")?))
}

/// Unknown lines are skipped.
fn parse(text: &str) -> KernelStat {
    let mut stat = KernelStat::default();
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(' ') else { continue };
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let first = numbers.first().copied().unwrap_or_default();
        let others = || numbers.get(1..).unwrap_or_default().to_vec();
        match key {
            "cpu" => stat.cpu_total = times(&numbers),
            _ if key.starts_with("cpu") => stat.cpus.push(times(&numbers)),
            "btime" => stat.boot_time = first,
            "ctxt" => stat.context_switches = first,
            "processes" => stat.processes_created = first,
            "procs_running" => stat.processes_running = first,
            "procs_blocked" => stat.processes_blocked = first,
            "intr" => (stat.irq_total, stat.irqs) = (first, others()),
            "softirq" => (stat.soft_irq_total, stat.soft_irqs) = (first, others()),
            _ => {}
        }
    }
    stat
}

/// The kernel counts in hundredths of a second.
#[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^53")]
fn times(ticks: &[u64]) -> CpuTimes {
    let of = |at: usize| ticks.get(at).copied().unwrap_or_default() as f64 / 100.0;
    CpuTimes {
        user: of(0),
        nice: of(1),
        system: of(2),
        idle: of(3),
        iowait: of(4),
        irq: of(5),
        soft_irq: of(6),
        steal: of(7),
        guest: of(8),
        guest_nice: of(9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_seconds() {
        let stat = parse(
            "cpu  100 0 50 1000 0 0 0 0 0 0\ncpu0 100 0 50 1000\nbtime 1700000000\nintr 7 1 2\nsoftirq 9 4\nctxt 5\nx\n",
        );
        assert_eq!((stat.cpu_total.user, stat.cpus.len(), stat.boot_time), (1.0, 1, 1_700_000_000));
        assert_eq!((stat.irq_total, stat.irqs.as_slice()), (7, &[1, 2][..]));
        assert_eq!((stat.soft_irq_total, stat.soft_irqs.as_slice(), stat.context_switches), (9, &[4][..], 5));
    }

    #[test]
    fn this_kernel_can_be_read() {
        let stat = kernel_stat().unwrap();
        assert!(stat.boot_time > 0 && !stat.cpus.is_empty(), "{stat:?}");
    }
}
