//! Sequences and services of the machine. Our own types, unknown to clients of Talos.

use crate::values::Mount;

closed_enum! {
    /// A sequence of the machine.
    SequenceName {
        None = 0 "",
        Initialize = 1 "initialize",
        Install = 2 "install",
        Boot = 3 "boot",
        Reboot = 4 "reboot",
        Shutdown = 5 "shutdown",
        Reset = 6 "reset",
        Upgrade = 7 "upgrade",
        StageUpgrade = 8 "stageUpgrade",
        MaintenanceUpgrade = 9 "maintenanceUpgrade",
    }
}

closed_enum! {
    /// How far a sequence is.
    SequenceState {
        None = 0 "none",
        Running = 1 "running",
        Canceling = 2 "canceling",
        Done = 3 "done",
        Failed = 4 "failed",
        Canceled = 5 "canceled",
    }
}

closed_enum! {
    /// How the machine ends.
    MachineOutcome {
        None = 0 "",
        Reboot = 1 "reboot",
        PowerOff = 2 "powerOff",
        Halt = 3 "halt",
        Kexec = 4 "kexec",
    }
}

resource! {
    /// The sequence that runs, or the one that ran last.
    SequenceStatus: "SequenceStatuses.runtime.talos.dev" in "runtime",
    columns [
        "Sequence" => "{.sequence}",
        "State" => "{.state}",
        "Phase" => "{.phase}",
        "Tasks" => "{.tasks}",
        "Actor" => "{.actor}",
    ],
    {
        sequence: SequenceName = 1 "sequence",
        state: SequenceState = 2 "state",
        /// The actor; empty for the machine itself.
        actor: String = 3 "actor",
        /// Counts runs of sequences from 1.
        run: u64 = 4 "run",
        phase: String = 5 "phase" omitempty,
        /// Number of the phase, from 1.
        phase_number: u32 = 6 "phaseNumber" omitempty,
        phases: u32 = 7 "phases" omitempty,
        /// Tasks that have not ended.
        tasks: Vec<String> = 8 "tasks" omitempty,
        error: String = 9 "error" omitempty,
        /// Set once it is decided how the machine ends.
        outcome: MachineOutcome = 10 "outcome" omitempty,
    }
}

impl SequenceStatus {
    /// Its only id.
    pub const ID: &'static str = "machine";

    /// Whether services are stopping or must stop: none may be started.
    #[must_use]
    pub fn stops_services(&self) -> bool {
        use SequenceName as Name;
        let stopping = match self.sequence {
            Name::None | Name::Initialize | Name::Install | Name::Boot => false,
            Name::Reboot
            | Name::Shutdown
            | Name::Reset
            | Name::Upgrade
            | Name::StageUpgrade
            | Name::MaintenanceUpgrade => true,
        };
        let ending = self.outcome != MachineOutcome::None || self.state == SequenceState::Failed;
        ending || (stopping && self.state != SequenceState::None)
    }
}

resource! {
    /// A service that shall run, and with what. The id is the service's. No controller puts a secret of the machine in it;
    /// arguments of the configuration may be one.
    ServiceSpec: "ServiceSpecs.runtime.talos.dev" in "runtime" sensitive,
    columns ["Required" => "{.required}", "Waits For" => "{.waitsFor}", "Image" => "{.image}", "Program" => "{.program}"],
    {
        /// The machine is not booted, and not ready, without it.
        required: bool = 1 "required",
        /// The unmet condition of its start; empty if there is none. It does not stop a running service.
        waits_for: String = 2 "waitsFor",
        /// Another value restarts the service: for changes that no other field shows.
        revision: String = 3 "revision",
        /// Path of a program of the node's image; empty for a container.
        program: String = 4 "program" omitempty,
        /// Reference of a container's image; empty for a program.
        image: String = 5 "image" omitempty,
        /// Without the program itself.
        args: Vec<String> = 6 "args",
        /// `KEY=value`.
        environment: Vec<String> = 7 "environment" omitempty,
        /// Beside those that every service of its kind has.
        mounts: Vec<Mount> = 8 "mounts" omitempty,
        /// Linux user; 0 is root.
        user: u32 = 9 "user",
        /// Where the volume is mounted that the service keeps its data on; empty without one.
        volume: String = 10 "volume" omitempty,
        /// A running one ends, and none starts, while it waits.
        ends: bool = 11 "ends" omitempty,
    }
}

resource! {
    /// An operator's override of a service, beside its spec. The id is the service's.
    ServiceOverride: "ServiceOverrides.runtime.talos.dev" in "runtime",
    columns ["Stopped" => "{.stopped}", "Restarts" => "{.restarts}"],
    {
        stopped: bool = 1 "stopped",
        /// Counts restarts that were asked for.
        restarts: u64 = 2 "restarts",
    }
}

impl ServiceOverride {
    /// The writer: the machine API, on behalf of its callers.
    pub const OWNER: &'static str = "machine-api.ServiceOverride";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_not_started_from_the_first_moment_of_a_sequence_that_stops_them() {
        let status = |sequence, state| SequenceStatus { sequence, state, ..SequenceStatus::default() };
        assert!(!status(SequenceName::None, SequenceState::None).stops_services());
        assert!(!status(SequenceName::Boot, SequenceState::Running).stops_services());
        assert!(!status(SequenceName::Boot, SequenceState::Done).stops_services());
        assert!(status(SequenceName::Boot, SequenceState::Failed).stops_services(), "the machine reboots");
        assert!(status(SequenceName::Shutdown, SequenceState::Running).stops_services());
        assert!(status(SequenceName::Reset, SequenceState::Done).stops_services());
        let outcome = MachineOutcome::Reboot;
        assert!(SequenceStatus { outcome, ..status(SequenceName::Boot, SequenceState::Done) }.stops_services());
    }
}
