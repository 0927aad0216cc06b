//! `get`: resources of nodes.

use clap::Args;
use client::{CallError, Client, Definition, Resource, WatchEvent, WatchEventKind};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::{BoxStream, select_all};

use crate::command_error::CommandError;
use crate::session::Session;

mod format;
pub(super) mod resolve;

use format::{Change, Format, Printer};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Type of the resources, or an alias of it; `rd` lists the types
    #[arg(value_name = "type")]
    resource_type: String,
    /// One resource (default: all of the type)
    id: Option<String>,
    /// Reads from a node in maintenance mode, without a client certificate
    #[arg(short, long)]
    insecure: bool,
    /// Namespace of the resources (default: that of the type)
    #[arg(long, value_name = "string")]
    namespace: Option<String>,
    /// Form of the output: table, yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "string", default_value = "table")]
    output: String,
    /// Watches for changes
    #[arg(short, long)]
    watch: bool,
}

/// Most changes printed in one batch.
const BATCH: usize = 1024;

/// A node and its client.
struct Target {
    node: String,
    client: Client,
}

/// The requested resources, with the type resolved.
struct Query {
    namespace: String,
    resource_type: String,
    id: Option<String>,
}

pub(crate) async fn run(args: GetArgs, session: &Session) -> Result<(), CommandError> {
    let format: Format = args.output.parse()?;
    let (targets, unreachable) = targets(&args, session).await?;
    let (definition, reachable) = definition(&targets, &args.resource_type, session).await?;
    let query = Query {
        namespace: args
            .namespace
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| definition.default_namespace.clone()),
        resource_type: definition.resource_type.clone(),
        id: args.id,
    };
    let change = if args.watch { Change::Shown } else { Change::Hidden };
    let printer = Printer::new(format, &definition, change)?;
    let failed = if args.watch {
        watch(&reachable, &query, printer, session).await?
    } else {
        list(&reachable, &query, printer, session).await?
    };
    let failed = failed + targets.len() - reachable.len() + unreachable;
    if failed == 0 {
        Ok(())
    } else {
        let all = targets.len() + unreachable;
        Err(CommandError::nodes(format!("{failed} of {all} nodes returned an error")))
    }
}

/// The nodes with their clients, and the number of unreachable ones.
async fn targets(args: &GetArgs, session: &Session) -> Result<(Vec<Target>, usize), CommandError> {
    let nodes = if args.insecure { session.insecure_nodes()? } else { session.nodes()? };
    let count = nodes.len();
    let mut targets = Vec::new();
    if args.insecure {
        for node in nodes {
            match session.insecure(&node, &[]).await {
                Ok(client) => targets.push(Target { client, node }),
                Err(error) if count == 1 => return Err(error),
                Err(error) => session.out.node_error(&node, &stdx::error_chain(error.error.as_ref())),
            }
        }
    } else {
        let client = session.connect().await?;
        targets.extend(nodes.into_iter().map(|node| Target { client: client.to_node(&node), node }));
    }
    let unreachable = count - targets.len();
    Ok((targets, unreachable))
}

/// The definition from the first node that answers, and the nodes that answered. When all nodes fail, the command fails
/// with the first node's error.
async fn definition<'a>(
    targets: &'a [Target],
    wanted: &str,
    session: &Session,
) -> Result<(Definition, Vec<&'a Target>), CommandError> {
    let mut first_error = None;
    let mut found = None;
    let mut reachable = Vec::new();
    for target in targets {
        // One node's definitions serve for all; the other nodes are asked for resources only.
        if found.is_some() {
            reachable.push(target);
            continue;
        }
        match target.client.state().definitions().await {
            Ok(definitions) => {
                found = Some(resolve::resolve(&definitions, wanted)?);
                reachable.push(target);
            }
            Err(error) if targets.len() == 1 => return Err(error.into()),
            Err(error) => {
                session.out.node_error(&target.node, &error);
                first_error.get_or_insert(error);
            }
        }
    }
    match (found, first_error) {
        (Some(definition), _) => Ok((definition, reachable)),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(CommandError::nodes("no node answered")),
    }
}

async fn list(
    targets: &[&Target],
    query: &Query,
    mut printer: Printer,
    session: &Session,
) -> Result<usize, CommandError> {
    let answers = join_all(targets.iter().map(|target| fetch(&target.client, query))).await;
    let nobody_answered = answers.iter().all(Result::is_err);
    let mut failed = 0;
    for (target, answer) in targets.iter().zip(answers) {
        match answer {
            Ok(resources) => {
                for resource in resources {
                    printer.add(&target.node, &resource, None)?;
                }
            }
            Err(error) => {
                failed += 1;
                session.out.node_error(&target.node, &error);
            }
        }
    }
    if !nobody_answered {
        show(&mut printer, session)?;
    }
    Ok(failed)
}

fn show(printer: &mut Printer, session: &Session) -> Result<(), CommandError> {
    let text = printer.take();
    if text.is_empty() { Ok(()) } else { Ok(session.out.line(text)?) }
}

async fn fetch(client: &Client, query: &Query) -> Result<Vec<Resource>, CallError> {
    let state = client.state();
    match &query.id {
        Some(id) => Ok(vec![state.get(&query.namespace, &query.resource_type, id).await?]),
        None => state.list(&query.namespace, &query.resource_type).await,
    }
}

async fn watch(
    targets: &[&Target],
    query: &Query,
    mut printer: Printer,
    session: &Session,
) -> Result<usize, CommandError> {
    let mut failed = 0;
    let mut streams: Vec<BoxStream<'_, (&str, Result<WatchEvent, CallError>)>> = Vec::new();
    for target in targets {
        match target.client.state().watch(&query.namespace, &query.resource_type, query.id.as_deref()).await {
            Ok(stream) => streams.push(stream.map(|event| (target.node.as_str(), event)).boxed()),
            Err(error) => {
                failed += 1;
                session.out.node_error(&target.node, &error);
            }
        }
    }
    // Resources that already exist are printed as one table, so that their columns align.
    let mut events = select_all(streams).ready_chunks(BATCH);
    while let Some(batch) = events.next().await {
        let mut changes = 0;
        for (node, event) in batch {
            match event {
                Ok(WatchEvent { kind: WatchEventKind::Errored(reason), .. }) => {
                    failed += 1;
                    session.out.node_error(node, &reason);
                }
                Ok(WatchEvent { kind, resource: Some(resource), .. }) => {
                    printer.add(node, &resource, Some(&kind))?;
                    changes += 1;
                }
                Ok(_) => {}
                Err(error) => {
                    failed += 1;
                    session.out.node_error(node, &error);
                }
            }
        }
        if changes > 0 {
            show(&mut printer, session)?;
        }
    }
    Ok(failed)
}
