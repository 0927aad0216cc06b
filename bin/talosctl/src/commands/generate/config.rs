//! `gen config`: machine configurations and a talosconfig for a cluster.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use client::talosconfig::SecretText;
use client::{ConfigContext, TalosConfig};
use config::generate::{self, CommentStyle, GenerateError, Input};
use config::{Documents, MachineType};
use pki::{Role, RoleSet, SecretsBundle, SecretsOptions};
use stdx::{Clock as _, SystemClock};

use super::secrets;
use crate::arguments;
use crate::command_error::CommandError;
use crate::local_file::{self, Access, Overwrite};
use crate::patches;
use crate::session::Session;

#[cfg(test)]
mod tests;

#[derive(Debug, Args)]
pub(crate) struct GenConfigArgs {
    /// Name of the cluster
    #[arg(value_name = "cluster name")]
    cluster_name: String,
    /// URL of the Kubernetes API: https://HOST[:PORT]
    #[arg(value_name = "cluster endpoint")]
    cluster_endpoint: String,
    /// Additional names and addresses in the API server's certificate
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    additional_sans: Vec<String>,
    /// Patch for all machine configurations; JSON, YAML, or @file; may be repeated
    #[arg(long, value_name = "stringArray")]
    config_patch: Vec<String>,
    /// Patch for the control plane's configuration
    #[arg(long, value_name = "stringArray")]
    config_patch_control_plane: Vec<String>,
    /// Patch for the workers' configuration
    #[arg(long, value_name = "stringArray")]
    config_patch_worker: Vec<String>,
    /// DNS domain of the cluster
    #[arg(long, value_name = "string", default_value = "cluster.local")]
    dns_domain: String,
    /// Disk to install to
    #[arg(long, value_name = "string", default_value = "/dev/sda")]
    install_disk: String,
    /// Image to install from
    #[arg(long, value_name = "string", default_value_t = config::images::installer())]
    install_image: String,
    /// Version of Kubernetes
    #[arg(long, value_name = "string", default_value = "1.30.0")]
    kubernetes_version: String,
    /// Directory to write to, or file when there is one output type; `-` prints (default: the current directory)
    #[arg(short, long, value_name = "string")]
    output: Option<PathBuf>,
    /// Directory to write to
    #[arg(long, value_name = "string", hide = true)]
    output_dir: Option<PathBuf>,
    /// Files to generate
    #[arg(short = 't', long, value_name = "strings", value_delimiter = ',',
          default_values = ["controlplane", "worker", "talosconfig"])]
    output_types: Vec<String>,
    /// Value of machine.persist
    #[arg(short, long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    persist: bool,
    /// Mirror of a registry: HOST=URL
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    registry_mirror: Vec<String>,
    /// System version to generate for (default: this version)
    #[arg(long, value_name = "string")]
    talos_version: Option<String>,
    /// Version of the configuration format
    #[arg(long, value_name = "string", default_value = "v1alpha1")]
    version: String,
    /// Enables discovery of the cluster's members
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_cluster_discovery: bool,
    /// Explains the fields in comments
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_docs: bool,
    /// Shows examples in comments
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_examples: bool,
    /// Enables KubeSpan
    #[arg(long)]
    with_kubespan: bool,
    /// Uses the secrets of this file (see `gen secrets`)
    #[arg(long, value_name = "string")]
    with_secrets: Option<PathBuf>,
}

/// One of the files that are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputType {
    ControlPlane,
    Worker,
    Talosconfig,
}

impl OutputType {
    fn parse(text: &str) -> Result<Self, CommandError> {
        match text {
            "controlplane" => Ok(Self::ControlPlane),
            "worker" => Ok(Self::Worker),
            "talosconfig" => Ok(Self::Talosconfig),
            // Scripts match these words.
            _ => Err(CommandError::usage(format!("invalid output type: {text:?}"))
                .hint("the types are controlplane, worker and talosconfig")),
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane.yaml",
            Self::Worker => "worker.yaml",
            Self::Talosconfig => "talosconfig",
        }
    }
}

pub(crate) fn run(args: &GenConfigArgs, overwrite: Overwrite, session: &Session) -> Result<(), CommandError> {
    let mut types: Vec<OutputType> = Vec::new();
    for wanted in args.output_types.iter().filter(|text| !text.is_empty()) {
        let wanted = OutputType::parse(wanted)?;
        if !types.contains(&wanted) {
            types.push(wanted);
        }
    }
    if args.version != "v1alpha1" {
        return Err(CommandError::usage(format!("--version {:?}: the only version is v1alpha1", args.version)));
    }
    // All input is validated before a key is generated or a file written.
    check_endpoint(&args.cluster_endpoint)?;
    let targets = match &args.output_dir {
        Some(_) if args.output.is_some() => {
            return Err(CommandError::usage("--output-dir cannot be used together with --output"));
        }
        Some(directory) => {
            session.out.note("flag --output-dir is deprecated, use --output instead");
            targets(Some(&directory.join("")), &types)?
        }
        None => targets(args.output.as_deref(), &types)?,
    };
    if let Targets::Files(paths) = &targets {
        local_file::check_absent(paths.iter().map(PathBuf::as_path), overwrite)?;
    }
    let patches = Patches::read(args)?;
    let contract = arguments::contract(args.talos_version.as_deref())?;
    let mirrors = mirrors(&args.registry_mirror)?;
    let secrets = match &args.with_secrets {
        Some(path) => SecretsBundle::from_yaml(&local_file::read(path)?)
            .map_err(|error| CommandError::usage(format!("reading {}", path.display())).caused_by(error))?,
        None => make_secrets(secrets::options_for(contract), session)?,
    };
    let input = Input {
        kubernetes_version: args.kubernetes_version.clone(),
        contract,
        additional_sans: args.additional_sans.clone(),
        install_disk: args.install_disk.clone(),
        install_image: args.install_image.clone(),
        dns_domain: args.dns_domain.clone(),
        registry_mirrors: mirrors,
        persist: args.persist,
        discovery: args.with_cluster_discovery,
        kubespan: args.with_kubespan,
        ..Input::new(&args.cluster_name, &args.cluster_endpoint, secrets)
    };
    let comments = CommentStyle { docs: args.with_docs, examples: args.with_examples };
    let texts: Vec<String> =
        types.iter().map(|one| make(*one, &input, comments, &patches, session)).collect::<Result<_, _>>()?;
    write(&targets, &texts, overwrite, session)
}

fn make_secrets(options: SecretsOptions, session: &Session) -> Result<SecretsBundle, CommandError> {
    session.out.note("generating PKI and tokens");
    SecretsBundle::generate(SystemClock.now(), options).map_err(CommandError::wrap("generating secrets"))
}

/// Patches by target.
#[derive(Debug)]
struct Patches {
    all: Vec<config::Patch>,
    control_plane: Vec<config::Patch>,
    worker: Vec<config::Patch>,
}

impl Patches {
    fn read(args: &GenConfigArgs) -> Result<Self, CommandError> {
        Ok(Self {
            all: patches::read(&args.config_patch)?,
            control_plane: patches::read(&args.config_patch_control_plane)?,
            worker: patches::read(&args.config_patch_worker)?,
        })
    }

    /// A configuration that no machine would take is written nonetheless, with a warning: another patch may complete it.
    fn apply(
        &self,
        text: String,
        kind: OutputType,
        comments: CommentStyle,
        session: &Session,
    ) -> Result<String, CommandError> {
        let generated = Documents::unjudged(text.as_bytes())
            .map_err(|errors| CommandError::failed("reading the generated configuration").caused_by(errors))?;
        let own = if kind == OutputType::ControlPlane { &self.control_plane } else { &self.worker };
        let is_patched = !self.all.is_empty() || !own.is_empty();
        let complete = patches::apply(&patches::apply(&generated, &self.all)?, own)?;
        for wrong in config::validate(&complete, config::Mode::Metal).errors {
            session.out.warning(format!("{}: {wrong}", kind.file_name()));
        }
        Ok(if is_patched { generate::write_with_comments(&complete, comments) } else { text })
    }
}

fn make(
    output: OutputType,
    input: &Input,
    comments: CommentStyle,
    patches: &Patches,
    session: &Session,
) -> Result<String, CommandError> {
    let kind = match output {
        OutputType::ControlPlane => MachineType::ControlPlane,
        OutputType::Worker => MachineType::Worker,
        OutputType::Talosconfig => return talosconfig(input),
    };
    let text = generate::generate(input, kind, comments).map_err(generate_error)?;
    patches.apply(text, output, comments, session)
}

/// The administrator's talosconfig, without endpoints: the node addresses are not known yet.
fn talosconfig(input: &Input) -> Result<String, CommandError> {
    let roles: RoleSet = [Role::Admin].into_iter().collect();
    let now = SystemClock.now();
    let made = generate::client_context(
        &input.cluster_name,
        Vec::new(),
        &input.secrets,
        &roles,
        now,
        generate::CLIENT_LIFETIME,
    )
    .map_err(generate_error)?;
    let context = ConfigContext { ca: made.ca, crt: made.crt, key: SecretText(made.key), ..ConfigContext::default() };
    let contexts = [(made.context.clone(), context)].into_iter().collect();
    Ok(TalosConfig { context: made.context, contexts }.to_yaml()?)
}

fn generate_error(error: GenerateError) -> CommandError {
    CommandError::usage("generating the configuration").caused_by(error)
}

fn check_endpoint(endpoint: &str) -> Result<(), CommandError> {
    generate::check_endpoint(endpoint).map_err(|error| {
        CommandError::usage("reading the command line")
            .caused_by(error)
            .hint("the endpoint is a full URL, such as https://10.5.0.2:6443")
    })
}

/// The URLs of each host, which are tried in turn.
fn mirrors(flags: &[String]) -> Result<Vec<(String, Vec<String>)>, CommandError> {
    let mut mirrors: Vec<(String, Vec<String>)> = Vec::new();
    for (host, url) in arguments::mirrors(flags)? {
        match mirrors.iter_mut().find(|(known, _)| *known == host) {
            Some((_, urls)) => urls.push(url),
            None => mirrors.push((host, vec![url])),
        }
    }
    Ok(mirrors)
}

#[derive(Debug, PartialEq, Eq)]
enum Targets {
    Stdout,
    Files(Vec<PathBuf>),
}

/// A directory for several files; a single one may be given a path, or go to standard output.
fn targets(output: Option<&Path>, types: &[OutputType]) -> Result<Targets, CommandError> {
    let in_directory = |directory: &Path| types.iter().map(|one| directory.join(one.file_name())).collect();
    match (output, types) {
        (_, []) => Err(CommandError::usage("at least one output type must be specified")),
        (None, _) => Ok(Targets::Files(in_directory(Path::new("")))),
        (Some(path), [_]) if path == Path::new("-") => Ok(Targets::Stdout),
        (Some(path), _) if path == Path::new("-") => {
            Err(CommandError::usage("can't use multiple output types with stdout")
                .hint("choose one with --output-types"))
        }
        (Some(path), [_]) if !path.is_dir() && !path.to_string_lossy().ends_with('/') => {
            Ok(Targets::Files(vec![path.to_owned()]))
        }
        (Some(path), _) => Ok(Targets::Files(in_directory(path))),
    }
}

fn write(targets: &Targets, texts: &[String], overwrite: Overwrite, session: &Session) -> Result<(), CommandError> {
    let paths = match targets {
        Targets::Stdout => return Ok(session.out.raw(texts.concat().as_bytes())?),
        Targets::Files(paths) => paths,
    };
    for (path, text) in paths.iter().zip(texts) {
        // All of them hold secrets.
        local_file::write(path, text.as_bytes(), Access::Owner, overwrite)?;
        session.out.note(format!("created {}", path.display()));
    }
    Ok(())
}
