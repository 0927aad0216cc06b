//! `list` and `read`: files of nodes.

use clap::{Args, ValueEnum};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Directory or file to list
    #[arg(default_value = "/")]
    path: String,
    /// How deep to descend with --recurse
    #[arg(short, long, value_name = "int32", default_value_t = 1)]
    depth: i32,
    /// Shows sizes and times in the way people write them
    #[arg(short = 'H', long)]
    humanize: bool,
    /// Shows details of the files
    #[arg(short, long)]
    long: bool,
    /// Descends into directories
    #[arg(short, long)]
    recurse: bool,
    /// Shows only these types: f (files), d (directories), l or L (symbolic links)
    #[arg(short = 't', long = "type", value_name = "strings", value_delimiter = ',', value_enum)]
    types: Vec<FileType>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileType {
    #[value(name = "f", alias = "file")]
    File,
    #[value(name = "d", aliases = ["dir", "directory"])]
    Directory,
    #[value(name = "l", aliases = ["L", "link"])]
    Link,
}

#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// File to read
    path: String,
}

pub(crate) async fn list(_args: ListArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl list`"))
}

pub(crate) async fn read(_args: ReadArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl read`"))
}
