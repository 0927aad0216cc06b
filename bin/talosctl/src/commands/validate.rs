//! `validate`: validates a machine configuration locally.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use config::Documents;

use crate::command_error::CommandError;
use crate::local_file;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// File with the configuration
    #[arg(short, long, value_name = "string")]
    config: PathBuf,
    /// Platform mode of the machine
    #[arg(short, long, value_enum)]
    mode: Mode,
    /// Treats warnings as errors
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Metal,
    Cloud,
    Container,
}

pub(crate) fn run(args: ValidateArgs, session: &Session) -> Result<(), CommandError> {
    let name = args.config.display();
    let mode = match args.mode {
        Mode::Metal => config::Mode::Metal,
        Mode::Cloud => config::Mode::Cloud,
        Mode::Container => config::Mode::Container,
    };
    let text = local_file::read(&args.config)?;
    let invalid = |errors| {
        CommandError::usage(format!("{name} is not valid for {mode} mode")).caused_by(Box::new(errors) as Box<_>)
    };
    let documents = Documents::unjudged(text.as_bytes()).map_err(invalid)?;
    let report = config::validate(&documents, mode);
    let report = if args.strict { report.strict() } else { report };
    for warning in report.into_result().map_err(invalid)? {
        session.out.warning(warning.to_string());
    }
    Ok(session.out.line(format!("{name} is valid for {mode} mode"))?)
}
