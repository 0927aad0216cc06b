//! What this machine is and owns, and what is asked of its volumes. These types are ours: clients of Talos 1.7 do not
//! know them.

use crate::values::{Certificate, Nanoseconds};

closed_enum! {
    /// The rules that configurations of a machine have to pass.
    PlatformMode {
        Container = 0 "container",
        Metal = 1 "metal",
        Cloud = 2 "cloud",
    }
}

impl From<PlatformMode> for ::config::Mode {
    fn from(mode: PlatformMode) -> Self {
        match mode {
            PlatformMode::Container => Self::Container,
            PlatformMode::Metal => Self::Metal,
            PlatformMode::Cloud => Self::Cloud,
        }
    }
}

closed_enum! {
    /// Owner of a part of the machine: the host maintains its own parts, the machine the rest.
    Ownership {
        Host = 0 "host",
        Machine = 1 "machine",
    }
}

resource! {
    /// The parts that this machine owns. Present before any controller depends on it; constant while the machine runs.
    PlatformCapabilities: "PlatformCapabilities.runtime.talos.dev" in "runtime", aliases ["capabilities"],
    columns [
        "Mode" => "{.mode}",
        "Kernel" => "{.kernel}",
        "Network" => "{.network}",
        "Clock" => "{.clock}",
        "Disks" => "{.disks}",
        "Power" => "{.power}",
    ],
    {
        mode: PlatformMode = 1 "mode",
        kernel: Ownership = 2 "kernel",
        network: Ownership = 3 "network",
        clock: Ownership = 4 "clock",
        disks: Ownership = 5 "disks",
        power: Ownership = 6 "power",
    }
}

impl PlatformCapabilities {
    /// ID of the single instance.
    pub const ID: &'static str = "machine";

    /// A machine that owns all of itself, such as metal.
    #[must_use]
    pub fn owning_all(mode: PlatformMode) -> Self {
        let own = Ownership::Machine;
        Self { mode, kernel: own, network: own, clock: own, disks: own, power: own }
    }
}

resource! {
    /// Asks for a volume to be mounted; the id is the volume's label. Gone, it asks for it to be unmounted.
    VolumeRequest: "VolumeRequests.runtime.talos.dev" in "runtime",
    columns ["Requester" => "{.requester}"],
    {
        requester: String = 1 "requester",
    }
}

closed_enum! {
    /// The clients that maintenance mode answers.
    MaintenanceClients {
        Nobody = 0 "nobody",
        Administrators = 1 "administrators",
        Anybody = 2 "anybody",
    }
}

resource! {
    /// The clients that may configure a machine without a configuration. Present in maintenance mode.
    MaintenanceAccess: "MaintenanceAccesses.runtime.talos.dev" in "runtime",
    columns ["Clients" => "{.clients}", "Reason" => "{.reason}"],
    {
        clients: MaintenanceClients = 1 "clients",
        /// Of the authorities that certificates of administrators have to come from; no keys.
        accepted_cas: Vec<Certificate> = 2 "acceptedCAs" omitempty,
        reason: String = 3 "reason",
    }
}

impl MaintenanceAccess {
    /// ID of the single instance.
    pub const ID: &'static str = "maintenance";
}

closed_enum! {
    /// How far the trial of a version has come.
    TrialPhase {
        Prepared = 0 "prepared",
        Running = 1 "running",
        Good = 2 "good",
        Failed = 3 "failed",
    }
}

resource! {
    /// The last trial of a version after an upgrade. Absent on a machine that was never upgraded.
    UpgradeTrial: "UpgradeTrials.runtime.talos.dev" in "runtime",
    columns ["Version" => "{.version}", "Phase" => "{.phase}", "Running" => "{.running}", "Reason" => "{.reason}"],
    {
        version: String = 1 "version",
        slot: String = 2 "slot",
        former_version: String = 3 "formerVersion",
        former_slot: String = 4 "formerSlot",
        phase: TrialPhase = 5 "phase",
        /// The slot that this machine runs from.
        running: String = 6 "running",
        /// Why it failed.
        reason: String = 7 "reason" omitempty,
        /// What the node has to show, and what it does not show yet.
        checks: Vec<String> = 8 "checks" omitempty,
        unmet: Vec<String> = 9 "unmet" omitempty,
        /// How often the version was seen running.
        boots: u32 = 10 "boots",
        /// How long it may take to show them.
        limit: Nanoseconds = 11 "limit",
    }
}

impl UpgradeTrial {
    /// ID of the single instance.
    pub const ID: &'static str = "trial";
}
