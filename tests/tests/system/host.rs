//! A cluster's traces on the host, found without the programs under test.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use tests::support::run;

/// Search terms; recorded while the cluster exists, as only its state knows the names of its links.
#[derive(Debug)]
pub(crate) struct Traces {
    folder: PathBuf,
    name: String,
    links: Vec<String>,
}

impl Traces {
    pub(crate) fn of(state: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = state.join(name);
        let path = folder.join("state.json");
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let state: Value = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
        let nodes = state.pointer("/plan/nodes").and_then(Value::as_array).cloned().unwrap_or_default();
        let links = nodes.iter().filter_map(|node| node.get("link")).chain(state.pointer("/plan/bridge"));
        let links = links.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self { folder, name: name.to_owned(), links })
    }

    /// Everything that exists now, as kind and name.
    pub(crate) fn found(&self) -> anyhow::Result<Vec<String>> {
        let Self { folder, name, links } = self;
        let mut found = Vec::new();
        if folder.exists() {
            found.push(format!("folder {}", folder.display()));
        }
        let own_links = names("/sys/class/net")?.into_iter().filter(|link| links.contains(link));
        found.extend(own_links.map(|link| format!("link {link}")));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let path = folder.to_string_lossy();
        found.extend(mounts.lines().filter(|line| line.contains(&*path)).map(|line| format!("mount {line}")));
        let tables = run(Path::new("nft"), &["list", "tables"])?.ok().context("listing tables of nftables")?;
        let own_tables = tables.lines().filter(|line| line.ends_with(&format!(" talos_{name}")));
        found.extend(own_tables.map(|line| format!("nftables {line}")));
        let cgroup = format!("talos-{name}");
        let hierarchies = names("/sys/fs/cgroup")?.into_iter();
        let of_cluster =
            |name: &String| *name == cgroup || Path::new("/sys/fs/cgroup").join(name).join(&cgroup).exists();
        found.extend(hierarchies.filter(of_cluster).map(|hierarchy| format!("cgroup {hierarchy}")));
        for process in processes()? {
            let of_agent = format!("{} ", process.command).contains(&format!(" --name {name} "));
            if process.cgroups.contains(&format!("/{cgroup}/")) || process.command.contains(&*path) || of_agent {
                found.push(format!("process {} ({})", process.pid, process.command));
            }
        }
        Ok(found)
    }
}

/// A process of the host.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The arguments with blanks between them.
    pub(crate) command: String,
    /// One line for each hierarchy.
    pub(crate) cgroups: String,
}

/// All processes of the host; those that end meanwhile are left out.
pub(crate) fn processes() -> anyhow::Result<Vec<Process>> {
    let pids = names("/proc")?.into_iter().filter_map(|name| name.parse::<u32>().ok());
    let read = |pid: u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).ok();
        let command = String::from_utf8_lossy(&read("cmdline")?).replace('\0', " ").trim().to_owned();
        let cgroups = String::from_utf8_lossy(&read("cgroup")?).into_owned();
        Some(Process { pid, command, cgroups })
    };
    Ok(pids.filter_map(read).collect())
}

fn names(folder: &str) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {folder}"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}
