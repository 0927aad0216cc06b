//! `processes` and `memory`.

use std::time::Duration;

use clap::Args;
use wire::machine::{MemInfo, ProcessInfo};

use crate::command_error::CommandError;
use crate::output::bytes;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

/// Interval of --watch.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct ProcessesArgs {
    /// Column to sort by: rss or cpu
    #[arg(short, long, value_name = "string", default_value = "rss")]
    sort: String,
    /// Refreshes continuously
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    /// Shows all counters
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn run(args: ProcessesArgs, session: &Session) -> Result<(), CommandError> {
    let order = match args.sort.as_str() {
        "rss" => Order::ResidentMemory,
        "cpu" => Order::CpuTime,
        other => return Err(CommandError::usage(format!("--sort {other:?} is not rss or cpu"))),
    };
    let client = session.client().await?;
    loop {
        let mut nodes = Replies::new(&session.out, &client);
        let replies = nodes.take_all(client.processes().await?);
        let mut table = process_table(replies.into_iter().map(|(node, reply)| (node, reply.processes)), order);
        if !args.watch {
            nodes.print(&mut table)?;
            return nodes.finish();
        }
        session.out.screen(&table.take())?;
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum Order {
    ResidentMemory,
    CpuTime,
}

fn process_table(nodes: impl Iterator<Item = (String, Vec<ProcessInfo>)>, order: Order) -> Table {
    let mut table = Table::new(["NODE", "PID", "STATE", "THREADS", "CPU-TIME", "VIRTMEM", "RESMEM", "COMMAND"]);
    for (node, mut processes) in nodes {
        match order {
            Order::ResidentMemory => processes.sort_by_key(|one| std::cmp::Reverse(one.resident_memory)),
            Order::CpuTime => processes.sort_by(|a, b| b.cpu_time.total_cmp(&a.cpu_time)),
        }
        for process in processes {
            table.row([
                node.clone(),
                process.pid.to_string(),
                process.state.clone(),
                process.threads.to_string(),
                format!("{:.2}", process.cpu_time),
                bytes(process.virtual_memory),
                bytes(process.resident_memory),
                command_line(&process),
            ]);
        }
    }
    table
}

/// The command line or, for a kernel thread, its name.
fn command_line(process: &ProcessInfo) -> String {
    let candidates = [&process.args, &process.executable, &process.command];
    candidates.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default()
}

pub(crate) async fn memory(args: MemoryArgs, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let replies = nodes.take_all(client.memory().await?);
    if args.verbose {
        for (at, (node, reply)) in replies.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            session.out.line(format!("{gap}{}", counters(node, &reply.meminfo.unwrap_or_default())))?;
        }
    } else {
        let mut table = Table::new(["NODE", "TOTAL", "USED", "FREE", "SHARED", "BUFFERS", "CACHE", "AVAILABLE"]);
        for (node, reply) in replies {
            table.row(summary(&node, &reply.meminfo.unwrap_or_default()));
        }
        nodes.print(&mut table)?;
    }
    nodes.finish()
}

/// In MiB; nodes send KiB.
fn summary(node: &str, memory: &MemInfo) -> [String; 8] {
    let mib = |kib: u64| (kib / 1024).to_string();
    let unused = memory.memfree + memory.cached + memory.buffers;
    [
        node.to_owned(),
        mib(memory.memtotal),
        mib(memory.memtotal.saturating_sub(unused)),
        mib(memory.memfree),
        mib(memory.shmem),
        mib(memory.buffers),
        mib(memory.cached),
        mib(memory.memavailable),
    ]
}

fn counters(node: &str, memory: &MemInfo) -> String {
    let kib = [
        ("MemTotal", memory.memtotal),
        ("MemFree", memory.memfree),
        ("MemAvailable", memory.memavailable),
        ("Buffers", memory.buffers),
        ("Cached", memory.cached),
        ("SwapCached", memory.swapcached),
        ("Active", memory.active),
        ("Inactive", memory.inactive),
        ("ActiveAnon", memory.activeanon),
        ("InactiveAnon", memory.inactiveanon),
        ("ActiveFile", memory.activefile),
        ("InactiveFile", memory.inactivefile),
        ("Unevictable", memory.unevictable),
        ("Mlocked", memory.mlocked),
        ("SwapTotal", memory.swaptotal),
        ("SwapFree", memory.swapfree),
        ("Dirty", memory.dirty),
        ("Writeback", memory.writeback),
        ("AnonPages", memory.anonpages),
        ("Mapped", memory.mapped),
        ("Shmem", memory.shmem),
        ("Slab", memory.slab),
        ("SReclaimable", memory.sreclaimable),
        ("SUnreclaim", memory.sunreclaim),
        ("KernelStack", memory.kernelstack),
        ("PageTables", memory.pagetables),
        ("NFSUnstable", memory.nfsunstable),
        ("Bounce", memory.bounce),
        ("WritebackTmp", memory.writebacktmp),
        ("CommitLimit", memory.commitlimit),
        ("CommittedAS", memory.committedas),
        ("VmallocTotal", memory.vmalloctotal),
        ("VmallocUsed", memory.vmallocused),
        ("VmallocChunk", memory.vmallocchunk),
        ("HardwareCorrupted", memory.hardwarecorrupted),
        ("AnonHugePages", memory.anonhugepages),
        ("ShmemHugePages", memory.shmemhugepages),
        ("ShmemPmdMapped", memory.shmempmdmapped),
        ("CmaTotal", memory.cmatotal),
        ("CmaFree", memory.cmafree),
        ("HugePagesTotal", memory.hugepagestotal),
        ("HugePagesFree", memory.hugepagesfree),
        ("HugePagesRsvd", memory.hugepagesrsvd),
        ("HugePagesSurp", memory.hugepagessurp),
        ("Hugepagesize", memory.hugepagesize),
        ("DirectMap4k", memory.directmap4k),
        ("DirectMap2M", memory.directmap2m),
        ("DirectMap1G", memory.directmap1g),
    ];
    let mut lines = vec![format!("NODE: {node}")];
    lines.extend(kib.iter().map(|(name, value)| {
        let unit = if name.starts_with("HugePages") { "" } else { " kB" };
        format!("{name}: {value}{unit}")
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_sorted_by_the_chosen_column() {
        let process = |pid, cpu_time, resident_memory| ProcessInfo {
            pid,
            cpu_time,
            resident_memory,
            state: "S".to_owned(),
            args: format!("p{pid}"),
            ..Default::default()
        };
        let processes = vec![process(1, 2.5, 10), process(2, 0.25, 2_000_000)];
        let pids = |order| {
            let text = process_table([("n".to_owned(), processes.clone())].into_iter(), order).take();
            text.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(pids(Order::ResidentMemory), ["2", "1"]);
        assert_eq!(pids(Order::CpuTime), ["1", "2"]);
    }

    #[test]
    fn memory_is_shown_in_mebibytes_and_used_is_what_is_not_free_or_cache() {
        let memory = MemInfo {
            memtotal: 8192 * 1024,
            memfree: 1024 * 1024,
            cached: 512 * 1024,
            buffers: 256 * 1024,
            memavailable: 2048 * 1024,
            ..Default::default()
        };
        assert_eq!(summary("n", &memory), ["n", "8192", "6400", "1024", "0", "256", "512", "2048"]);
        assert!(counters("n", &memory).contains("\nMemAvailable: 2097152 kB\n"));
    }
}
