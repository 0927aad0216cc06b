//! The operator's command line. Reads arguments and environment, runs one command, exits with its code.

mod applying;
mod arguments;
mod cli;
mod cluster;
mod command_error;
mod commands;
mod editor;
mod environment;
mod jsonpath;
mod local_file;
mod output;
mod patches;
mod replies;
mod session;

use std::process::ExitCode;

use crate::command_error::CommandError;
use crate::environment::Environment;
use crate::output::Output;
use crate::session::Session;

fn main() -> ExitCode {
    let environment = Environment::from_process();
    let output = Output::standard();
    environment.start_logging();
    let invocation = match cli::parse(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(invocation) => invocation,
        Err(stop) => return output.finish_parsing(&stop),
    };
    let session = Session::new(invocation.globals, environment, output);
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(commands::run(invocation.command, cli::command, &session));
            // A hanging name lookup in the resolver would keep the process alive.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(CommandError::failed("starting the runtime").caused_by(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => session.out.finish_with_error(&error),
    }
}
