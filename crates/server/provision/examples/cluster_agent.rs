//! The agent of a cluster as a program of its own: `cluster_agent --state DIR --name NAME`. The tests run it.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, _, state, _, name] = arguments.as_slice() else {
        return Err("usage: cluster_agent --state DIR --name NAME".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(provision::agent::run(Path::new(state), name))?;
    Ok(())
}
