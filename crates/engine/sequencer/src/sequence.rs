//! Sequences of a machine, and its outcomes.

use std::fmt;

/// A sequence of a machine, with the names of Talos 1.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sequence {
    Initialize,
    Install,
    Boot,
    Reboot,
    Shutdown,
    Reset,
    Upgrade,
    StageUpgrade,
    MaintenanceUpgrade,
}

impl Sequence {
    pub const ALL: [Self; 9] = [
        Self::Initialize,
        Self::Install,
        Self::Boot,
        Self::Reboot,
        Self::Shutdown,
        Self::Reset,
        Self::Upgrade,
        Self::StageUpgrade,
        Self::MaintenanceUpgrade,
    ];

    /// The name in events and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Install => "install",
            Self::Boot => "boot",
            Self::Reboot => "reboot",
            Self::Shutdown => "shutdown",
            Self::Reset => "reset",
            Self::Upgrade => "upgrade",
            Self::StageUpgrade => "stageUpgrade",
            Self::MaintenanceUpgrade => "maintenanceUpgrade",
        }
    }

    /// Whether it stops the services of the machine: from its start on, no controller starts one.
    #[must_use]
    pub const fn stops_services(self) -> bool {
        match self {
            Self::Initialize | Self::Install | Self::Boot => false,
            Self::Reboot
            | Self::Shutdown
            | Self::Reset
            | Self::Upgrade
            | Self::StageUpgrade
            | Self::MaintenanceUpgrade => true,
        }
    }

    /// Whether `next` may take over from it without being forced. As Talos 1.7, but that a boot yields to a staged upgrade as well:
    /// the boot of a control plane that waits for its bootstrap does not end.
    pub(crate) const fn yields_to(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Initialize, Self::MaintenanceUpgrade)
                | (Self::Boot, Self::Reboot | Self::Reset | Self::Upgrade | Self::StageUpgrade)
                | (Self::Reboot | Self::Reset, Self::Reboot)
                | (_, Self::Shutdown)
        )
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Reboot,
    PowerOff,
    Halt,
    /// Starts the kernel that was loaded before, without the firmware.
    Kexec,
}

impl Outcome {
    /// The argument of reboot(2), as restart events carry it.
    #[must_use]
    pub const fn reboot_command(self) -> i64 {
        match self {
            Self::Reboot => 0x0123_4567,
            Self::PowerOff => 0x4321_fedc,
            Self::Halt => 0xcdef_0123,
            Self::Kexec => 0x4558_4543,
        }
    }
}

/// The actor. Clients follow the events of their id. The machine itself has the empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ActorId(String);

impl ActorId {
    /// An id that a caller made up, unique among callers.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The machine itself.
    #[must_use]
    pub fn machine() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "machine" } else { &self.0 })
    }
}

/// Whether a request waits for a table's leave to take over from a running sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Takeover {
    /// Only where Talos 1.7's table lets it.
    #[default]
    ByTable,
    /// From any sequence: rollback, the reboot of a configuration, the power button, signals.
    Always,
}

/// How a sequence is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub takeover: Takeover,
    /// How the machine ends after it; none leaves that to the sequence.
    pub end: Option<Outcome>,
    pub parameters: Parameters,
}

/// What a caller asks of one kind of sequence. A planner reads those of the sequence that it plans, and takes the defaults
/// where a request has none or another's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Parameters {
    #[default]
    None,
    Reboot(RebootMode),
    Shutdown(ShutdownParameters),
    Reset(ResetParameters),
    Upgrade(UpgradeParameters),
}

/// Whether a reboot passes through the firmware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RebootMode {
    /// By kexec where that is possible.
    #[default]
    Default,
    /// By the firmware.
    Powercycle,
}

/// Parameters of [`Sequence::Shutdown`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShutdownParameters {
    /// The node is not drained.
    pub force: bool,
}

/// The disks that a reset wipes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WipeMode {
    #[default]
    All,
    SystemDisk,
    UserDisks,
}

/// Parameters of [`Sequence::Reset`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResetParameters {
    /// The node is drained and leaves its cluster first.
    pub graceful: bool,
    pub mode: WipeMode,
    /// Labels of partitions of the system disk to wipe; none are all of it.
    pub labels: Vec<String>,
    /// Devices of other disks to wipe.
    pub user_disks: Vec<String>,
}

/// Parameters of the upgrade sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpgradeParameters {
    /// Reference of the installer image.
    pub image: String,
    pub preserve: bool,
    pub force: bool,
    pub reboot: RebootMode,
}

/// A request for a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub sequence: Sequence,
    pub actor: ActorId,
    pub options: Options,
}

impl Request {
    /// A request with the default options.
    pub fn new(sequence: Sequence, actor: ActorId) -> Self {
        Self { sequence, actor, options: Options::default() }
    }

    /// Takes over from any sequence.
    #[must_use]
    pub fn taking_over(mut self) -> Self {
        self.options.takeover = Takeover::Always;
        self
    }

    /// With parameters of its sequence.
    #[must_use]
    pub fn with(mut self, parameters: Parameters) -> Self {
        self.options.parameters = parameters;
        self
    }

    /// Ends the machine this way.
    #[must_use]
    pub fn ending_in(mut self, outcome: Outcome) -> Self {
        self.options.end = Some(outcome);
        self
    }
}

/// Names a run of a sequence; counts up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
