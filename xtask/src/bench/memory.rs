//! Memory of our processes on the nodes of one cluster. Other clusters of the machine do not count: a process belongs to
//! the node whose directory it has mounted.

use std::path::Path;

use super::{Row, row};

/// Our processes on a node: display name and program path inside the node.
pub(super) const PROCESSES: &[(&str, &str)] =
    &[("machined", "sbin/init"), ("apid", "bin/apid"), ("trustd", "bin/trustd")];

const BUDGET: &str = "25 MiB on a control plane";

/// Memory of one process, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    /// Resident, with each page shared with others counted by its part.
    pub(super) proportional: u64,
}

/// A row for each node of the cluster: each process, and their sum beside the budget.
pub(super) fn rows(cluster: &str) -> Vec<Row> {
    let mut found: Vec<(String, usize, Memory)> = processes(cluster).collect();
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    if found.is_empty() {
        return vec![row("memory of our processes", BUDGET, Err(anyhow::anyhow!("no such process")))];
    }
    found.chunk_by(|a, b| a.0 == b.0).map(|node| row(&title(&node[0].0), budget(&node[0].0), Ok(sum(node)))).collect()
}

fn title(node: &str) -> String {
    let role = if node.contains("controlplane") { "control plane" } else { "worker" };
    format!("resident on the {role} after 2 minutes idle (proportional share)")
}

fn budget(node: &str) -> &'static str {
    if node.contains("controlplane") { BUDGET } else { "" }
}

/// The sum, and each process by its place in [`PROCESSES`].
pub(super) fn sum(node: &[(String, usize, Memory)]) -> String {
    let total = node.iter().fold(Memory::default(), |sum, (_, _, one)| Memory {
        resident: sum.resident + one.resident,
        proportional: sum.proportional + one.proportional,
    });
    let each: Vec<String> =
        node.iter().map(|(_, kind, one)| format!("{} {}", PROCESSES[*kind].0, show(*one))).collect();
    format!("{}: {}", show(total), each.join(", "))
}

pub(super) fn show(memory: Memory) -> String {
    let tenths = |kib: u64| format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024);
    format!("{} ({}) MiB", tenths(memory.resident), tenths(memory.proportional))
}

/// Node, kind and memory of all our processes of a cluster.
fn processes(cluster: &str) -> impl Iterator<Item = (String, usize, Memory)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let directory = entry.path();
        let exe = std::fs::read_link(directory.join("exe")).ok()?;
        let kind = PROCESSES.iter().position(|(_, program)| exe.ends_with(program))?;
        let mounts = std::fs::read_to_string(directory.join("mountinfo")).ok()?;
        Some((node(&mounts, cluster)?.to_owned(), kind, memory(&directory)?))
    })
}

/// The node of the cluster whose directory is mounted.
fn node<'a>(mounts: &'a str, cluster: &str) -> Option<&'a str> {
    let (_, rest) = mounts.split_once(&format!("/clusters/{cluster}/nodes/"))?;
    rest.split(['/', ' ']).next()
}

fn memory(process: &Path) -> Option<Memory> {
    parse(&std::fs::read_to_string(process.join("smaps_rollup")).ok()?)
}

/// Of the file `smaps_rollup` of a process, as the kernel writes it.
pub(super) fn parse(rollup: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Memory { resident: field("Rss:")?, proportional: field("Pss:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_a_rollup() {
        let text = "5-7 ---p 0 00:00 0 [rollup]\nRss:     1234 kB\nPss:      234 kB\nPss_Dirty:    5 kB\n";
        assert_eq!(parse(text), Some(Memory { resident: 1234, proportional: 234 }));
        assert_eq!(parse(""), None);
        assert!(memory(Path::new("/proc/self")).is_some_and(|memory| memory.resident > 0));
    }

    #[test]
    fn a_process_belongs_to_the_cluster_that_it_has_mounted() {
        let mounts = "1 2 8:1 /root/.talos/clusters/bench/nodes/bench-worker-1/var /var rw - ext4 /dev/vda rw\n";
        assert_eq!(node(mounts, "bench"), Some("bench-worker-1"));
        assert_eq!(node(mounts, "other"), None);
    }

    #[test]
    fn processes_of_a_node_are_summed() {
        let one = |kind, resident, proportional| ("n".to_owned(), kind, Memory { resident, proportional });
        let text = sum(&[one(0, 2048, 1024), one(1, 1024, 512)]);
        assert_eq!(text, "3.0 (1.5) MiB: machined 2.0 (1.0) MiB, apid 1.0 (0.5) MiB");
    }
}
