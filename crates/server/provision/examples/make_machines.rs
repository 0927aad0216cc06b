//! Makes a cluster of virtual machines and starts all of them: `make_machines AGENT DIR NAME CIDR SETTINGS`. The tests run it to
//! kill it.

use std::path::Path;

use provision::agent::{self, AgentProgram};
use provision::{Cluster, ClusterSpec, DriverSettings, Limits, NodeSpec, Plan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, program, root, name, cidr, settings] = arguments.as_slice() else {
        return Err("usage: make_machines AGENT DIR NAME CIDR SETTINGS".into());
    };
    let (root, program) = (Path::new(root), AgentProgram { program: program.into(), arguments: vec![] });
    let mut plan = Plan::new(name, cidr, 1500, &NodeSpec { controlplanes: 1, workers: 1 })?;
    plan.add_network("10.235.0.0/24")?;
    let nodes: Vec<String> = plan.nodes.iter().map(|node| node.name.clone()).collect();
    let driver = DriverSettings::Qemu(serde_json::from_str(settings)?);
    let spec =
        ClusterSpec { plan, driver, bundle: None, discoveryd: None, kmsd: None, reachable: vec![], exposed: vec![] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut cluster = Cluster::create(root, &spec, &program).await?;
        agent::start(root, name, &program)?;
        let limits = Limits { milli_cpus: Some(1000), memory: Some(512 << 20) };
        for node in nodes {
            cluster.start_node(&node, Some(b"machine: {}"), limits).await?;
        }
        Ok(())
    })
}
