//! `list` and `read`: files of nodes.

use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use stdx::{Clock as _, SystemClock};
use wire::machine::{FileInfo, ListRequest, list_request};

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::output::{bytes, relative};
use crate::replies::Replies;
use crate::session::Session;

mod mode;

/// Files older than this are listed with the year instead of the time.
const HALF_A_YEAR: Duration = Duration::from_secs(182 * 24 * 3600);

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Directory or file to list
    #[arg(default_value = "/")]
    path: String,
    /// Maximum depth with --recurse
    #[arg(short, long, value_name = "int32", default_value_t = 1)]
    depth: i32,
    /// Shows human-readable sizes and times
    #[arg(short = 'H', long)]
    humanize: bool,
    /// Shows details of the files
    #[arg(short, long)]
    long: bool,
    /// Recurses into directories
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

pub(crate) async fn list(args: ListArgs, session: &Session) -> Result<(), CommandError> {
    let (recurse, recursion_depth) = recursion(args.recurse, args.depth);
    let request = ListRequest {
        root: args.path.clone(),
        recurse,
        recursion_depth,
        types: args.types.iter().map(|one| request_type(*one).into()).collect(),
    };
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let mut stream = client.list(request).await?;
    let mut table = if args.long {
        let size = if args.humanize { "SIZE" } else { "SIZE(B)" };
        Table::new(["NODE", "MODE", "UID", "GID", size, "LASTMOD", "NAME"])
    } else {
        Table::new(["NODE", "NAME"])
    };
    let now = SystemClock.now();
    while let Some(part) = stream.next().await {
        let Some((node, file)) = nodes.take(part?) else { continue };
        if !file.error.is_empty() {
            nodes.fail(&node, &format!("{}: {}", file.name, file.error));
        } else if args.long {
            table.row(details(&node, &file, args.humanize, now));
        } else {
            table.row([node, shown_name(&file)]);
        }
    }
    nodes.print(&mut table)?;
    nodes.finish()
}

/// The request's fields for the flags. A depth alone recurses, if it is more than one level; --recurse alone has no limit
/// (0 on the wire).
fn recursion(recurse: bool, depth: i32) -> (bool, i32) {
    (recurse || depth > 1, if recurse && depth == 1 { 0 } else { depth })
}

fn request_type(file_type: FileType) -> list_request::Type {
    match file_type {
        FileType::File => list_request::Type::Regular,
        FileType::Directory => list_request::Type::Directory,
        FileType::Link => list_request::Type::Symlink,
    }
}

fn details(node: &str, file: &FileInfo, humanize: bool, now: SystemTime) -> [String; 7] {
    let size = u64::try_from(file.size).unwrap_or_default();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(file.modified).unwrap_or_default());
    let age = now.duration_since(modified).unwrap_or_default();
    let changed = match (humanize, jiff::Timestamp::try_from(modified)) {
        (true, _) => relative(modified, now),
        (false, Ok(at)) if age < HALF_A_YEAR => at.strftime("%b %e %H:%M:%S").to_string(),
        (false, Ok(at)) => at.strftime("%b %e %Y %H:%M").to_string(),
        (false, Err(_)) => String::new(),
    };
    let shown_size = if humanize { bytes(size) } else { size.to_string() };
    let mut name = shown_name(file);
    if !file.link.is_empty() {
        name = format!("{name} -> {}", file.link);
    }
    let mode = mode::text(file.mode);
    [node.to_owned(), mode, file.uid.to_string(), file.gid.to_string(), shown_size, changed, name]
}

fn shown_name(file: &FileInfo) -> String {
    if file.relative_name.is_empty() { file.name.clone() } else { file.relative_name.clone() }
}

pub(crate) async fn read(args: ReadArgs, session: &Session) -> Result<(), CommandError> {
    let node = session.one_node("read")?;
    let client = session.connect().await?.to_nodes([node.as_str()]);
    let mut nodes = Replies::new(&session.out, &client);
    let mut stream = client.read(&args.path).await?;
    while let Some(part) = stream.next().await {
        if let Some((_, data)) = nodes.take(part?) {
            session.out.raw(&data.bytes)?;
        }
    }
    nodes.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A depth of 0 or -1 listed the whole file system.
    #[test]
    fn a_depth_recurses_if_it_is_more_than_one_level() {
        for (recurse, depth, sent) in [
            (false, 1, (false, 1)),
            (false, 0, (false, 0)),
            (false, -1, (false, -1)),
            (false, 2, (true, 2)),
            (true, 1, (true, 0)),
            (true, 3, (true, 3)),
        ] {
            assert_eq!(recursion(recurse, depth), sent, "--recurse={recurse} --depth={depth}");
        }
    }

    #[test]
    fn old_files_show_the_year_and_links_their_target() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let file = FileInfo {
            name: "/etc/os-release".to_owned(),
            relative_name: "os-release".to_owned(),
            size: 2048,
            mode: 0o777 | 1 << 27,
            modified: 1_600_000_000,
            link: "../usr/lib/os-release".to_owned(),
            ..Default::default()
        };
        let expected =
            ["n", "Lrwxrwxrwx", "0", "0", "2048", "Sep 13 2020 12:26", "os-release -> ../usr/lib/os-release"];
        assert_eq!(details("n", &file, false, now), expected);
        let recent = FileInfo { modified: 1_699_999_000, ..file };
        assert_eq!(details("n", &recent, false, now)[5], "Nov 14 21:56:40");
        assert_eq!(details("n", &recent, true, now)[4..6], ["2.0 kB", "16 minutes ago"]);
    }
}
