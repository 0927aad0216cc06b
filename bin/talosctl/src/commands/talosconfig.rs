//! `config`: the talosconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use client::talosconfig::{Rename, SecretText, TalosConfigError};
use client::{ConfigContext, TalosConfig};

use crate::command_error::CommandError;
use crate::local_file::{self, Overwrite};
use crate::output::table::Table;
use crate::session::Session;

mod info;

#[cfg(test)]
mod tests;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Adds a context
    Add(AddArgs),
    /// Makes a context the current one
    #[command(visible_alias = "use-context")]
    Context {
        /// Name of the context
        context: String,
    },
    /// Lists the contexts
    #[command(visible_alias = "get-contexts")]
    Contexts,
    /// Sets the endpoints of the current context
    #[command(visible_alias = "endpoints")]
    Endpoint {
        /// Addresses to connect to; none clears the list
        #[arg(value_name = "endpoint")]
        endpoints: Vec<String>,
    },
    /// Shows the current context
    Info(InfoArgs),
    /// Merges another talosconfig into this one
    Merge {
        /// File to merge from
        from: PathBuf,
    },
    /// Creates a talosconfig with other roles, signed by a node
    New(NewArgs),
    /// Sets the nodes of the current context
    #[command(visible_alias = "nodes")]
    Node {
        /// Nodes to act on; none clears the list
        #[arg(value_name = "endpoint")]
        nodes: Vec<String>,
    },
    /// Removes contexts
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Name of the context
    context: String,
    /// File with the CA certificate
    #[arg(long, value_name = "string")]
    ca: Option<PathBuf>,
    /// File with the client certificate
    #[arg(long, value_name = "string")]
    crt: Option<PathBuf>,
    /// File with the client key
    #[arg(long, value_name = "string")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Form of the output: text, yaml or json
    #[arg(short, long, value_name = "string", default_value = "text")]
    output: String,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// File to write to (default: talosconfig)
    path: Option<PathBuf>,
    /// Lifetime of the certificate
    #[arg(long, value_name = "duration", default_value = "8760h0m0s", value_parser = crate::arguments::duration)]
    crt_ttl: Duration,
    /// Roles of the certificate
    #[arg(long, value_name = "strings", value_delimiter = ',', default_value = "os:admin")]
    roles: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Name of the context; `*` matches any characters
    context: String,
    /// Shows the contexts without removing them
    #[arg(long)]
    dry_run: bool,
    /// Skips the confirmation
    #[arg(short = 'y', long)]
    noconfirm: bool,
}

pub(crate) async fn run(command: ConfigCommand, session: &Session) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Add(args) => add(&args, session),
        ConfigCommand::Context { context } => change(session, |config| {
            config.select(Some(&context))?;
            config.context.clone_from(&context);
            Ok(())
        }),
        ConfigCommand::Contexts => contexts(session),
        ConfigCommand::Endpoint { endpoints } => change(session, |config| {
            let endpoints = trimmed(&endpoints);
            for endpoint in &endpoints {
                endpoint.parse::<client::Endpoint>().map_err(CommandError::wrap("reading the endpoints"))?;
            }
            config.select_mut(session.globals.context.as_deref())?.endpoints = endpoints;
            Ok(())
        }),
        ConfigCommand::Info(args) => info::run(&args.output, session),
        ConfigCommand::Merge { from } => merge(&from, session),
        ConfigCommand::New(args) => new(&args, session).await,
        ConfigCommand::Node { nodes } => change(session, |config| {
            config.select_mut(session.globals.context.as_deref())?.nodes = trimmed(&nodes);
            Ok(())
        }),
        ConfigCommand::Remove(args) => remove(&args, session),
    }
}

/// Without white space around them, which a shell may leave there.
fn trimmed(addresses: &[String]) -> Vec<String> {
    addresses.iter().map(|address| address.trim().to_owned()).collect()
}

/// Reads, changes and writes the talosconfig.
fn change(
    session: &Session,
    edit: impl FnOnce(&mut TalosConfig) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let path = session.talosconfig_path()?;
    let mut config = TalosConfig::load(&path)?;
    edit(&mut config)?;
    Ok(config.save(&path)?)
}

fn add(args: &AddArgs, session: &Session) -> Result<(), CommandError> {
    if args.context.is_empty() {
        return Err(CommandError::usage("the name of the context is empty"));
    }
    if args.crt.is_some() != args.key.is_some() {
        return Err(CommandError::usage("--crt and --key belong together: give both or neither"));
    }
    let file = |path: &Option<PathBuf>| match path {
        Some(path) => Ok::<_, CommandError>(STANDARD.encode(local_file::read_bytes(path)?)),
        None => Ok(String::new()),
    };
    let context = ConfigContext {
        ca: file(&args.ca)?,
        crt: file(&args.crt)?,
        key: SecretText(file(&args.key)?),
        ..ConfigContext::default()
    };
    if !context.ca.is_empty() {
        context.credentials().map_err(CommandError::wrap(format!("adding context {:?}", args.context)))?;
    }
    change(session, |config| {
        if config.contexts.insert(args.context.clone(), context).is_some() {
            session.out.note(format!("replaced context {:?}", args.context));
        }
        if config.context.is_empty() {
            config.context.clone_from(&args.context);
        }
        Ok(())
    })
}

fn contexts(session: &Session) -> Result<(), CommandError> {
    let config = session.talosconfig()?;
    let mut table = Table::new(["CURRENT", "NAME", "ENDPOINTS", "NODES"]);
    let mut names: Vec<_> = config.contexts.keys().collect();
    names.sort();
    for name in names {
        let context = &config.contexts[name];
        let current = if *name == config.context { "*" } else { "" };
        table.row([current, name, &context.endpoints.join(","), &context.nodes.join(",")]);
    }
    Ok(session.out.line(table.take())?)
}

fn merge(from: &Path, session: &Session) -> Result<(), CommandError> {
    if !from.exists() {
        return Err(CommandError::usage(format!("there is no talosconfig {}", from.display())));
    }
    let other = TalosConfig::load(from)?;
    if other.contexts.is_empty() {
        session.out.note(format!("{} has no contexts: nothing is merged", from.display()));
        return Ok(());
    }
    let path = session.talosconfig_path()?;
    let mut config = TalosConfig::load(&path)?;
    let renames = config.merge(&other);
    config.save(&path)?;
    for Rename { from, to } in renames {
        session.out.line(format!("renamed talosconfig context {from:?} -> {to:?}"))?;
    }
    Ok(())
}

async fn new(args: &NewArgs, session: &Session) -> Result<(), CommandError> {
    let path = args.path.clone().unwrap_or_else(|| PathBuf::from("talosconfig"));
    local_file::check_absent([path.as_path()], Overwrite::Never)?;
    let node = session.one_node("config new")?;
    let crt_ttl = prost_types::Duration::try_from(args.crt_ttl)
        .map_err(|error| CommandError::usage("--crt-ttl").caused_by(Box::new(error) as Box<_>))?;
    let request =
        wire::machine::GenerateClientConfigurationRequest { roles: args.roles.clone(), crt_ttl: Some(crt_ttl) };
    let replies = session.connect().await?.to_nodes([node.as_str()]).generate_client_configuration(request).await?;
    let reply = replies.into_iter().next().ok_or_else(|| CommandError::failed("the node sent no talosconfig"))?;
    let made = reply.result.map_err(CommandError::wrap(format!("asking {node} for a talosconfig")))?;
    let text = String::from_utf8(made.talosconfig.to_vec())
        .map_err(CommandError::wrap("reading the talosconfig of the node"))?;
    let mut config =
        TalosConfig::from_yaml(&text).map_err(CommandError::wrap("reading the talosconfig of the node"))?;
    // The node does not know the address that clients reach it by.
    let own = session.context()?;
    let context = config.select_mut(None)?;
    context.endpoints = own.endpoints;
    context.nodes = own.nodes;
    Ok(config.save(&path)?)
}

fn remove(args: &RemoveArgs, session: &Session) -> Result<(), CommandError> {
    let path = session.talosconfig_path()?;
    let mut config = TalosConfig::load(&path)?;
    let matching: Vec<String> = config.contexts.keys().filter(|name| glob(&args.context, name)).cloned().collect();
    if matching.is_empty() {
        return Err(TalosConfigError::UnknownContext(args.context.clone()).into());
    }
    let (current, removable): (Vec<String>, Vec<String>) =
        matching.into_iter().partition(|name| *name == config.context);
    for name in current {
        session.out.note(format!(
            "skipping the current context {name:?}: make another one current first, with `talosctl config context NAME`"
        ));
    }
    if removable.is_empty() {
        return Ok(());
    }
    if args.dry_run {
        return Ok(session.out.line(format!("would remove: {}", removable.join(", ")))?);
    }
    if !args.noconfirm && !session.out.confirm(&format!("remove contexts {}?", removable.join(", ")))? {
        return Err(CommandError::usage("nothing was removed").hint("confirm with y, or give --noconfirm"));
    }
    for name in &removable {
        session.out.note(format!("removing context {name:?}"));
        config.contexts.shift_remove(name);
    }
    Ok(config.save(&path)?)
}

/// Matches a name against a pattern: `*` matches any characters, `?` exactly one.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Behind the last `*`, and where it stops matching: only that one is tried with more characters.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some('*') => {
                at += 1;
                star = Some((at, read));
            }
            Some(wanted) if *wanted == '?' || *wanted == name[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((behind, end)) = &mut star else { return false };
                *end += 1;
                (at, read) = (*behind, *end);
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}
