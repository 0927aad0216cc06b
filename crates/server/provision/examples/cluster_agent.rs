//! The agent of a cluster as a program of its own: `cluster_agent --state DIR --name NAME [--guard | --monitor NODE]`. The tests run it.

use std::path::Path;

use provision::agent::{self, AgentProgram};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().collect();
    let [program, _, state, _, name, role @ ..] = arguments.as_slice() else {
        return Err("usage: cluster_agent --state DIR --name NAME [--guard | --monitor NODE]".into());
    };
    let (state, program) = (Path::new(state), AgentProgram { program: program.into(), arguments: vec![] });
    match role {
        [] => {}
        [_, node] => return Ok(provision::monitor(state, name, node)?),
        _ => return Ok(agent::guard(state, name, program)?),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(state, name, program))?;
    Ok(())
}
