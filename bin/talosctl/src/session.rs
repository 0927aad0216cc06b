//! The context of every command: global flags, environment and output, and from these the talosconfig, the nodes and a
//! connection.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use client::talosconfig::Lookup;
use client::{Client, ConfigContext, ConnectOptions, Endpoint, Fingerprint, TalosConfig};

use crate::command_error::{CommandError, Kind};
use crate::environment::Environment;
use crate::output::Output;

/// Section in the help.
const GLOBAL_FLAGS: &str = "Global Flags";

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GlobalFlags {
    /// Cluster to connect to if a proxy endpoint is used
    #[arg(long, global = true, help_heading = GLOBAL_FLAGS, value_name = "string")]
    pub(crate) cluster: Option<String>,
    /// Context of the talosconfig to use
    #[arg(long, global = true, help_heading = GLOBAL_FLAGS, value_name = "string")]
    pub(crate) context: Option<String>,
    /// Endpoints to connect to, instead of those of the context
    #[arg(short, long, global = true, help_heading = GLOBAL_FLAGS, value_name = "strings", value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
    /// Nodes to act on, instead of those of the context
    #[arg(short, long, global = true, help_heading = GLOBAL_FLAGS, value_name = "strings", value_delimiter = ',')]
    pub(crate) nodes: Vec<String>,
    /// Path of the talosconfig; else TALOSCONFIG, $XDG_CONFIG_HOME/talos/config.yaml, $HOME/.talos/config and
    /// /var/run/secrets/talos.dev/config are tried in this order
    #[arg(long, global = true, help_heading = GLOBAL_FLAGS, value_name = "string",
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) talosconfig: Option<PathBuf>,
}

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) globals: GlobalFlags,
    pub(crate) environment: Environment,
    pub(crate) out: Output,
}

impl Session {
    /// A flag with an empty value, as scripts pass it, counts as absent.
    pub(crate) fn new(globals: GlobalFlags, environment: Environment, out: Output) -> Self {
        let globals = GlobalFlags {
            cluster: globals.cluster.filter(|name| !name.is_empty()),
            context: globals.context.filter(|name| !name.is_empty()),
            talosconfig: globals.talosconfig.filter(|path| !path.as_os_str().is_empty()),
            ..globals
        };
        Self { globals, environment, out }
    }

    /// Path of the talosconfig, for reading and writing.
    pub(crate) fn talosconfig_path(&self) -> Result<PathBuf, CommandError> {
        let lookup = Lookup {
            flag: self.globals.talosconfig.clone(),
            variable: self.environment.talosconfig.clone(),
            config_home: self.environment.config_home.clone(),
            home: self.environment.home.clone(),
        };
        Ok(lookup.path()?)
    }

    pub(crate) fn talosconfig(&self) -> Result<TalosConfig, CommandError> {
        Ok(TalosConfig::load(&self.talosconfig_path()?)?)
    }

    /// The context in use, with endpoints overridden by the command line.
    pub(crate) fn context(&self) -> Result<ConfigContext, CommandError> {
        if self.globals.cluster.is_some() {
            return Err(CommandError::not_available("connecting through a proxy endpoint (--cluster)"));
        }
        let path = self.talosconfig_path()?;
        let config = TalosConfig::load(&path)?;
        let selected = config.select(self.globals.context.as_deref());
        let mut context = selected.map_err(|error| CommandError::no_context(error, &path))?.1.clone();
        if !self.globals.endpoints.is_empty() {
            context.endpoints.clone_from(&self.globals.endpoints);
        }
        Ok(context)
    }

    /// The nodes to act on, without duplicates; at least one.
    pub(crate) fn nodes(&self) -> Result<Vec<String>, CommandError> {
        let mut nodes: Vec<String> = Vec::new();
        for node in self.given_nodes()? {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        Ok(nodes)
    }

    /// The nodes as they were given; at least one.
    fn given_nodes(&self) -> Result<Vec<String>, CommandError> {
        let given = if self.globals.nodes.is_empty() { self.context()?.nodes } else { self.globals.nodes.clone() };
        let nodes: Vec<String> = given.iter().map(|node| node.trim().to_owned()).collect();
        // An empty variable in a script must not select other nodes than intended.
        if nodes.iter().any(String::is_empty) {
            return Err(CommandError::usage(format!("empty node name in {given:?}")));
        }
        if nodes.is_empty() {
            return Err(CommandError::no_nodes());
        }
        Ok(nodes)
    }

    /// The nodes in maintenance mode, for which nobody needs a talosconfig.
    pub(crate) fn insecure_nodes(&self) -> Result<Vec<String>, CommandError> {
        if self.globals.nodes.is_empty() && !self.talosconfig_path().is_ok_and(|path| path.exists()) {
            return Err(CommandError::no_nodes());
        }
        self.nodes()
    }

    /// The only node, for commands that take exactly one; the same node twice is two.
    pub(crate) fn one_node(&self, command: &str) -> Result<String, CommandError> {
        let mut nodes = self.given_nodes()?;
        match nodes.pop() {
            Some(node) if nodes.is_empty() => Ok(node),
            _ => Err(CommandError::usage(format!("`talosctl {command}` takes exactly one node"))),
        }
    }

    /// A connection without routing to nodes.
    pub(crate) async fn connect(&self) -> Result<Client, CommandError> {
        Ok(Client::connect(ConnectOptions::from_context(&self.context()?)?).await?)
    }

    /// A connection routed to all nodes.
    pub(crate) async fn client(&self) -> Result<Client, CommandError> {
        let nodes = self.nodes()?;
        Ok(self.connect().await?.to_nodes(nodes.iter().map(String::as_str)))
    }

    /// A direct connection to a node in maintenance mode.
    pub(crate) async fn insecure(&self, node: &str, fingerprints: &[String]) -> Result<Client, CommandError> {
        let endpoint: Endpoint = node
            .parse()
            .map_err(|error| CommandError::usage("reading --nodes").caused_by(Box::new(error) as Box<_>))?;
        let fingerprints: Result<Vec<Fingerprint>, _> = fingerprints.iter().map(|text| text.parse()).collect();
        let fingerprints = fingerprints
            .map_err(|error| CommandError::usage("reading --cert-fingerprint").caused_by(Box::new(error) as Box<_>))?;
        // Most nodes in maintenance mode belong to no cluster, and there may be no talosconfig yet.
        let credentials = self.context().ok().and_then(|context| context.credentials().ok());
        let options = |credentials| ConnectOptions::insecure(vec![endpoint.clone()], fingerprints.clone(), credentials);
        let refused = match Client::connect(options(None)).await {
            Ok(client) => return Ok(client),
            Err(error) => CommandError::without_certificate(error),
        };
        // One that belongs to a cluster asks for a certificate.
        let Some(credentials) = credentials else { return Err(refused) };
        Client::connect(options(Some(credentials))).await.map_err(|_| refused)
    }

    /// Runs `work` on each node in maintenance mode; a failing node does not stop the others.
    pub(crate) async fn on_insecure_nodes(
        &self,
        fingerprints: &[String],
        work: impl AsyncFn(Client) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let nodes = self.insecure_nodes()?;
        self.one_by_one(&nodes, async |node| work(self.insecure(node, fingerprints).await?).await).await
    }

    /// Runs `work` on each node with a client that is not routed yet; a failing node does not stop the others.
    pub(crate) async fn on_each_node(
        &self,
        work: impl AsyncFn(Client, &str) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let client = self.connect().await?;
        self.one_by_one(&self.nodes()?, async |node| work(client.clone(), node).await).await
    }

    async fn one_by_one(
        &self,
        nodes: &[String],
        work: impl AsyncFn(&str) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut failed = 0;
        let mut hints: Vec<String> = Vec::new();
        for node in nodes {
            match work(node).await {
                Ok(()) => {}
                Err(error) if nodes.len() == 1 || error.kind == Kind::OutputClosed => return Err(error),
                Err(error) => {
                    failed += 1;
                    self.out.node_error(node, &stdx::error_chain(error.error.as_ref()));
                    hints.extend(error.hints.into_iter().filter(|hint| !hints.contains(hint)).collect::<Vec<_>>());
                }
            }
        }
        if failed == 0 {
            return Ok(());
        }
        let error = CommandError::nodes(format!("{failed} of {} nodes failed", nodes.len()));
        Err(hints.into_iter().fold(error, CommandError::hint))
    }
}
