//! The project's own commands, `cargo xtask image` and so on. Each is a list of steps that shows progress and skips
//! finished work.

mod bench;
mod bundle;
mod check;
#[cfg(test)]
mod circles;
mod cluster;
mod deny;
#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod docs;
mod go_client;
mod host;
#[cfg(test)]
mod layers;
mod lints;
mod metadata;
mod paths;
mod programs;
mod step;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bundle::Kubernetes;
use crate::check::PowerCuts;
use crate::cluster::{ClusterArguments, UpArguments};
use crate::paths::Paths;
use crate::step::Steps;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build our programs and the root file system of a node
    Image,
    /// Build the offline bundle: Kubernetes and all images of a cluster, once per machine
    Bundle {
        /// Version of Kubernetes to build
        #[arg(long, value_enum, default_value_t)]
        kubernetes: Kubernetes,
    },
    /// Create a cluster on this machine, with all prerequisites
    Up(UpArguments),
    /// Remove the cluster and all its parts on this machine
    Down(ClusterArguments),
    /// Run everything that CI runs
    Test,
    /// Cut the power of a machine while it is installed or upgraded, at random points, and see what comes up
    PowerCuts(PowerCuts),
    /// Check dependencies for known vulnerabilities; needs the database of RustSec
    Advisories,
    /// Measure everything with a budget, and write docs/benchmarks.md
    Bench,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            step::error_line(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    let paths = Paths::find()?;
    let mut steps = Steps::new(&paths)?;
    match command {
        Command::Image => {
            let programs = programs::build(&mut steps, &paths)?;
            programs::image(&mut steps, &paths, &programs)?;
        }
        Command::Bundle { kubernetes } => {
            let programs = programs::build(&mut steps, &paths)?;
            let bundle = bundle::build(&mut steps, &paths, &programs, *kubernetes)?;
            step::say(&format!("bundle:  {}", bundle.directory.display()));
            step::say(&format!("kubectl: {}", bundle.kubectl.display()));
        }
        Command::Up(arguments) => cluster::up(&mut steps, &paths, arguments)?,
        Command::Down(arguments) => cluster::down(&mut steps, &paths, arguments)?,
        Command::Test => check::test(&mut steps, &paths)?,
        Command::PowerCuts(cuts) => check::power_cuts(&mut steps, &paths, *cuts)?,
        Command::Advisories => deny::advisories(&mut steps, &paths)?,
        Command::Bench => bench::bench(&mut steps, &paths)?,
    }
    Ok(())
}
