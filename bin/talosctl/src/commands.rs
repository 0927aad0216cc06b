//! One module per family of commands, each with its arguments and its `run`.

use clap::Subcommand;

use crate::cluster::{self, ClusterCommand};
use crate::command_error::CommandError;
use crate::session::Session;

pub(crate) mod apply_config;
pub(crate) mod bootstrap;
mod change;
pub(crate) mod completion;
pub(crate) mod containers;
pub(crate) mod disk_keys;
pub(crate) mod disks;
pub(crate) mod edit;
pub(crate) mod etcd;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod generate;
pub(crate) mod get;
pub(crate) mod health;
pub(crate) mod image;
pub(crate) mod inject;
pub(crate) mod inspect;
pub(crate) mod kubeconfig;
pub(crate) mod logs;
pub(crate) mod machineconfig;
pub(crate) mod meta;
pub(crate) mod mounts;
pub(crate) mod patch;
pub(crate) mod planned;
pub(crate) mod power;
pub(crate) mod processes;
pub(crate) mod services;
pub(crate) mod talosconfig;
pub(crate) mod time;
pub(crate) mod validate;
pub(crate) mod version;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Applies a machine configuration to nodes
    #[command(visible_alias = "apply")]
    ApplyConfig(apply_config::ApplyConfigArgs),
    /// Bootstraps the etcd cluster on one control plane node
    Bootstrap(bootstrap::BootstrapArgs),
    /// Manages local clusters
    Cluster {
        #[command(flatten)]
        flags: cluster::ClusterFlags,
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Prints the completion script of a shell
    Completion(completion::CompletionArgs),
    /// Manages the talosconfig: contexts, endpoints, nodes
    #[command(subcommand)]
    Config(talosconfig::ConfigCommand),
    /// Lists containers
    #[command(visible_alias = "c")]
    Containers(containers::ContainersArgs),
    /// Keys of encrypted volumes: recovery keys and those of the TPM
    DiskKeys(disk_keys::DiskKeysArgs),
    /// Lists the disks of nodes
    Disks(disks::DisksArgs),
    /// Shows the kernel log
    Dmesg(logs::DmesgArgs),
    /// Edits the machine configuration of nodes
    Edit(edit::EditArgs),
    /// Manages etcd
    #[command(subcommand)]
    Etcd(etcd::EtcdCommand),
    /// Streams runtime events
    Events(events::EventsArgs),
    /// Generates secrets, certificates and configurations
    Gen {
        /// Overwrites existing files
        #[arg(short, long, global = true)]
        force: bool,
        #[command(subcommand)]
        command: generate::GenCommand,
    },
    /// Gets resources of nodes
    #[command(visible_alias = "g")]
    Get(get::GetArgs),
    /// Checks the health of a cluster
    Health(health::HealthArgs),
    /// Manages images
    #[command(visible_alias = "images")]
    Image(image::ImageArgs),
    /// Injects access to the machine API into Kubernetes manifests
    #[command(subcommand)]
    Inject(inject::InjectCommand),
    /// Inspects the internals of a node
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    /// Fetches the administrator's kubeconfig of the cluster
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Lists files of nodes
    #[command(visible_aliases = ["l", "ls"])]
    List(files::ListArgs),
    /// Shows the logs of a service or a container
    Logs(logs::LogsArgs),
    /// Generates and patches machine configurations
    #[command(subcommand, visible_alias = "mc")]
    Machineconfig(machineconfig::MachineconfigCommand),
    /// Shows memory usage
    #[command(visible_aliases = ["m", "free"])]
    Memory(processes::MemoryArgs),
    /// Writes and deletes values of the META partition
    Meta(meta::MetaArgs),
    /// Lists mounts
    #[command(visible_alias = "mount")]
    Mounts(mounts::MountsArgs),
    /// Patches the machine configuration of nodes
    Patch(patch::PatchArgs),
    /// Lists processes
    #[command(visible_aliases = ["p", "ps"])]
    Processes(processes::ProcessesArgs),
    /// Prints a file of a node
    #[command(visible_alias = "cat")]
    Read(files::ReadArgs),
    /// Reboots nodes
    Reboot(power::RebootArgs),
    /// Resets nodes: wipes their disks
    Reset(power::ResetArgs),
    /// Boots the previous version
    Rollback,
    /// Lists services, shows one, or acts on it
    #[command(visible_alias = "services")]
    Service(services::ServiceArgs),
    /// Shuts nodes down
    Shutdown(power::ShutdownArgs),
    /// Shows the time of nodes and of a time server
    Time(time::TimeArgs),
    /// Upgrades nodes
    Upgrade(power::UpgradeArgs),
    /// Validates a machine configuration
    Validate(validate::ValidateArgs),
    /// Shows the versions of client and nodes
    Version(version::VersionArgs),
    /// A known command that is not implemented.
    #[command(skip)]
    Planned(String),
}

/// Runs a command. `definition` builds the whole command line, for completion scripts.
pub(crate) async fn run(
    command: Command,
    definition: fn() -> clap::Command,
    session: &Session,
) -> Result<(), CommandError> {
    match command {
        Command::ApplyConfig(args) => apply_config::run(args, session).await,
        Command::Bootstrap(args) => bootstrap::run(args, session).await,
        Command::Cluster { flags, command } => cluster::run(flags, command, session).await,
        Command::Completion(args) => completion::run(args, definition(), session),
        Command::Config(command) => talosconfig::run(command, session).await,
        Command::Containers(args) => containers::run(args, session).await,
        Command::DiskKeys(args) => disk_keys::run(args, session).await,
        Command::Disks(args) => disks::run(args, session).await,
        Command::Dmesg(args) => logs::dmesg(args, session).await,
        Command::Edit(args) => edit::run(args, session).await,
        Command::Etcd(command) => etcd::run(command, session).await,
        Command::Events(args) => events::run(args, session).await,
        Command::Gen { force, command } => generate::run(command, force, session),
        Command::Get(args) => get::run(args, session).await,
        Command::Health(args) => health::run(args, session).await,
        Command::Image(args) => image::run(&args, session),
        Command::Inject(command) => inject::run(&command, session),
        Command::Inspect(command) => inspect::run(command, session).await,
        Command::Kubeconfig(args) => kubeconfig::run(args, session).await,
        Command::List(args) => files::list(args, session).await,
        Command::Logs(args) => logs::run(args, session).await,
        Command::Machineconfig(command) => machineconfig::run(command, session),
        Command::Memory(args) => processes::memory(args, session).await,
        Command::Meta(args) => meta::run(args, session).await,
        Command::Mounts(args) => mounts::run(args, session).await,
        Command::Patch(args) => patch::run(args, session).await,
        Command::Processes(args) => processes::run(args, session).await,
        Command::Read(args) => files::read(args, session).await,
        Command::Reboot(args) => power::reboot(args, session).await,
        Command::Reset(args) => power::reset(args, session).await,
        Command::Rollback => power::rollback(session).await,
        Command::Service(args) => services::run(args, session).await,
        Command::Shutdown(args) => power::shutdown(args, session).await,
        Command::Time(args) => time::run(args, session).await,
        Command::Upgrade(args) => power::upgrade(args, session).await,
        Command::Validate(args) => validate::run(args, session),
        Command::Version(args) => version::run(args, session).await,
        Command::Planned(path) => Err(CommandError::not_available(&format!("`talosctl {path}`"))),
    }
}
