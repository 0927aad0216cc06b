//! `kubeconfig`: administrator access to the cluster's Kubernetes API.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use provision::WrittenContext;

use crate::command_error::CommandError;
use crate::local_file::{self, Access, Overwrite};
use crate::session::Session;

mod merge;

use merge::{Conflict, KubeconfigFile};

#[derive(Debug, Args)]
pub(crate) struct KubeconfigArgs {
    /// File or directory to write to (default: the first file of KUBECONFIG, else ~/.kube/config); `-` prints
    #[arg(value_name = "local-path")]
    local_path: Option<PathBuf>,
    /// Overwrites an existing file or context
    #[arg(short, long)]
    force: bool,
    /// Name of the context (default: the one of the cluster)
    #[arg(long, value_name = "string")]
    force_context_name: Option<String>,
    /// Merges into an existing file
    #[arg(short, long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    merge: bool,
}

pub(crate) async fn run(args: KubeconfigArgs, session: &Session) -> Result<(), CommandError> {
    let target = target(&args, session)?;
    if let Target::File(path) = &target
        && !args.merge
    {
        local_file::check_absent([path.as_path()], Overwrite::forced(args.force))?;
    }
    let node = session.one_node("kubeconfig")?;
    let text = session.connect().await?.to_nodes([node.as_str()]).kubeconfig().await?;
    let mut fetched = KubeconfigFile::parse(&text).map_err(CommandError::wrap("reading the kubeconfig of the node"))?;
    if let Some(name) = &args.force_context_name {
        fetched.rename_context(name);
    }
    match target {
        Target::Stdout => Ok(session.out.raw(fetched.to_yaml().as_bytes())?),
        Target::File(path) if args.merge && path.exists() => {
            merge_into(&path, &fetched, Conflict::forced(args.force), session).map(drop)
        }
        Target::File(path) => {
            local_file::write(&path, fetched.to_yaml().as_bytes(), Access::Owner, Overwrite::forced(args.force))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Stdout,
    File(PathBuf),
}

/// Merges go to the default file of Kubernetes tools. For a directory, the file `kubeconfig` in it.
fn target(args: &KubeconfigArgs, session: &Session) -> Result<Target, CommandError> {
    let environment = &session.environment;
    let path = match &args.local_path {
        Some(path) if path == Path::new("-") => return Ok(Target::Stdout),
        Some(path) => path.clone(),
        None if !args.merge => PathBuf::from("."),
        None => environment
            .kubeconfig
            .clone()
            .or_else(|| environment.home.as_ref().map(|home| home.join(".kube/config")))
            .ok_or_else(|| CommandError::usage("no path for the kubeconfig: neither KUBECONFIG nor HOME is set"))?,
    };
    Ok(Target::File(if path.is_dir() { path.join("kubeconfig") } else { path }))
}

/// Merges a cluster's kubeconfig into the default file, as the command does without arguments; returns the written
/// context.
pub(crate) fn merge_usual(text: &str, session: &Session) -> Result<Option<WrittenContext>, CommandError> {
    let args = KubeconfigArgs { local_path: None, force: false, force_context_name: None, merge: true };
    let fetched = KubeconfigFile::parse(text).map_err(CommandError::wrap("reading the kubeconfig of the node"))?;
    let Target::File(path) = target(&args, session)? else { return Ok(None) };
    let path = std::path::absolute(path).map_err(CommandError::wrap("finding the kubeconfig"))?;
    let previous = if path.exists() { parse_file(&path)?.current().to_owned() } else { String::new() };
    let merged = if path.exists() {
        merge_into(&path, &fetched, Conflict::forced(false), session)?
    } else {
        local_file::write(&path, fetched.to_yaml().as_bytes(), Access::Owner, Overwrite::Never)?;
        fetched
    };
    let (name, authority) =
        (merged.current().to_owned(), merged.authority(merged.current()).unwrap_or_default().to_owned());
    Ok(Some(WrittenContext { file: path, name, authority, previous }))
}

/// Whether a context was there to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    Context,
    Nothing,
}

/// Takes a context out of its file that [`merge_usual`] wrote, with the cluster and the user that only it has.
pub(crate) fn remove_written(written: &WrittenContext) -> Result<Removed, CommandError> {
    if !written.file.exists() {
        return Ok(Removed::Nothing);
    }
    let mut file = parse_file(&written.file)?;
    let removed = file.remove(&written.name, &written.authority, &written.previous);
    if removed == Removed::Context {
        local_file::write(&written.file, file.to_yaml().as_bytes(), Access::Owner, Overwrite::Allow)?;
    }
    Ok(removed)
}

fn parse_file(path: &Path) -> Result<KubeconfigFile, CommandError> {
    let text = local_file::read(path)?;
    KubeconfigFile::parse(&text).map_err(CommandError::wrap(format!("reading kubeconfig {}", path.display())))
}

fn merge_into(
    path: &Path,
    fetched: &KubeconfigFile,
    conflict: Conflict,
    session: &Session,
) -> Result<KubeconfigFile, CommandError> {
    let mut existing = parse_file(path)?;
    let renames = existing.merge(fetched, conflict);
    local_file::write(path, existing.to_yaml().as_bytes(), Access::Owner, Overwrite::Allow)?;
    for (what, from, to) in renames {
        session.out.line(format!("renamed {what} {from:?} -> {to:?}"))?;
    }
    Ok(existing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::output::Output;
    use crate::session::GlobalFlags;

    fn target_of(path: Option<&str>, merge: bool, environment: Environment) -> Result<Target, CommandError> {
        let args = KubeconfigArgs { local_path: path.map(Into::into), force: false, force_context_name: None, merge };
        target(&args, &Session::new(GlobalFlags::default(), environment, Output::plain()))
    }

    #[test]
    fn the_file_is_the_given_one_or_the_usual_one() {
        let home = || Environment { home: Some("/h".into()), ..Environment::default() };
        let both = || Environment { kubeconfig: Some("/k".into()), ..home() };
        assert_eq!(target_of(Some("-"), true, home()).unwrap(), Target::Stdout);
        assert_eq!(target_of(Some("/x/y"), true, both()).unwrap(), Target::File("/x/y".into()));
        assert_eq!(target_of(Some("/"), true, both()).unwrap(), Target::File("/kubeconfig".into()));
        assert_eq!(target_of(None, true, both()).unwrap(), Target::File("/k".into()));
        assert_eq!(target_of(None, true, home()).unwrap(), Target::File("/h/.kube/config".into()));
        assert_eq!(target_of(None, false, both()).unwrap(), Target::File("./kubeconfig".into()));
        let error = target_of(None, true, Environment::default()).unwrap_err();
        assert_eq!(error.kind, crate::command_error::Kind::Usage);
    }
}
