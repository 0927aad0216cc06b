//! Disks, partitions and their content.

resource! {
    /// A disk or partition known to the kernel.
    BlockDevice: "BlockDevices.block.talos.dev" in "runtime",
    columns [
        "Type" => "{.type}",
        "PartitionName" => "{.partitionName}",
        "Generation" => "{.generation}",
    ],
    {
        r#type: String = 1 "type",
        major: i64 = 2 "major",
        minor: i64 = 3 "minor",
        partition_name: String = 4 "partitionName" omitempty,
        partition_number: i64 = 5 "partitionNumber" omitempty,
        device_path: String = 7 "devicePath",
        generation: i64 = 6 "generation",
        parent: String = 8 "parent" omitempty,
    }
}

resource! {
    /// Content of a disk or partition: filesystem, partition table, label.
    DiscoveredVolume: "DiscoveredVolumes.block.talos.dev" in "runtime",
    columns [
        "Type" => "{.type}",
        "Size" => "{.size}",
        "Discovered" => "{.name}",
        "Label" => "{.label}",
        "PartitionLabel" => "{.partitionLabel}",
    ],
    {
        r#type: String = 14 "type",
        device_path: String = 15 "devicePath",
        parent: String = 16 "parent" omitempty,
        size: u64 = 1 "size",
        sector_size: u64 = 2 "sectorSize" omitempty,
        io_size: u64 = 3 "ioSize" omitempty,
        name: String = 4 "name",
        uuid: String = 5 "uuid" omitempty,
        label: String = 6 "label" omitempty,
        block_size: u32 = 7 "blockSize" omitempty,
        filesystem_block_size: u32 = 8 "filesystemBlockSize" omitempty,
        probed_size: u64 = 9 "probedSize" omitempty,
        partition_uuid: String = 10 "partitionUUID" omitempty,
        partition_type: String = 11 "partitionType" omitempty,
        partition_label: String = 12 "partitionLabel" omitempty,
        partition_index: u64 = 13 "partitionIndex" omitempty,
    }
}

resource! {
    /// A disk, as operators choose it. Our own type: Talos 1.7 shows disks by its storage API only.
    Disk: "Disks.block.talos.dev" in "runtime",
    columns [
        "Size" => "{.size}",
        "Read Only" => "{.readonly}",
        "Type" => "{.type}",
        "Model" => "{.model}",
        "Serial" => "{.serial}",
        "System" => "{.systemDisk}",
    ],
    {
        device_path: String = 1 "devicePath",
        size: u64 = 2 "size",
        model: String = 3 "model" omitempty,
        serial: String = 4 "serial" omitempty,
        modalias: String = 5 "modalias" omitempty,
        uuid: String = 6 "uuid" omitempty,
        wwid: String = 7 "wwid" omitempty,
        /// The device's own name, which few kinds of disks have.
        name: String = 8 "name" omitempty,
        /// `ssd`, `hdd`, `nvme`, `sd`, or empty.
        r#type: String = 9 "type" omitempty,
        bus_path: String = 10 "busPath" omitempty,
        subsystem: String = 11 "subsystem" omitempty,
        readonly: bool = 12 "readonly",
        system_disk: bool = 13 "systemDisk",
    }
}

resource! {
    /// The disk that the system is installed on, and whether the search for it is over. Our own type; present once disks were
    /// looked at for the first time.
    SystemDisk: "SystemDisks.block.talos.dev" in "runtime",
    columns ["Installed" => "{.installed}", "Settled" => "{.settled}", "Disk" => "{.devicePath}", "Reason" => "{.reason}"],
    {
        /// A disk with the system's partitions was found.
        installed: bool = 1 "installed",
        /// The search is over: a machine that is not installed now has no system on the disks that it came up with.
        settled: bool = 2 "settled",
        /// Name of the disk: `sda`. Empty where there is none.
        disk: String = 3 "disk" omitempty,
        device_path: String = 4 "devicePath" omitempty,
        /// What is waited for, or why the disk was chosen or not found.
        reason: String = 5 "reason",
    }
}

impl SystemDisk {
    /// ID of the single instance.
    pub const ID: &'static str = "system-disk";
}

closed_enum! {
    /// How far a volume is. Missing: its partition is not there. Failed: the last attempt failed, and is repeated.
    /// Locked: no key opens it, and an administrator may bring one; attempts are repeated.
    VolumePhase {
        Missing = 0 "missing",
        Preparing = 1 "preparing",
        Mounted = 2 "mounted",
        Unmounting = 3 "unmounting",
        Failed = 4 "failed",
        Locked = 5 "locked",
    }
}

resource! {
    /// A requested volume of the system disk; the id is its label. Our own type.
    VolumeStatus: "VolumeStatuses.block.talos.dev" in "runtime",
    columns ["Phase" => "{.phase}", "Location" => "{.location}", "Reason" => "{.reason}"],
    {
        phase: VolumePhase = 1 "phase",
        /// Path of the partition.
        location: String = 2 "location" omitempty,
        /// What is waited for, or the error.
        reason: String = 3 "reason" omitempty,
    }
}

closed_enum! {
    /// How a partition of `machine.disks` is. Full: nothing can be written any more. Slow: it does not answer. Failed: it answers
    /// with errors. Lost: its disk is gone. All but the first two are looked at again, and used again without a restart.
    UserDiskPhase {
        Mounted = 0 "mounted",
        Full = 1 "full",
        Slow = 2 "slow",
        Failed = 3 "failed",
        Lost = 4 "lost",
    }
}

resource! {
    /// A mounted partition of `machine.disks`; the id is its mount point. Our own type; present from the mount to the unmount.
    UserDiskStatus: "UserDiskStatuses.block.talos.dev" in "runtime",
    columns [
        "Phase" => "{.phase}",
        "Disk" => "{.disk}",
        "Location" => "{.location}",
        "Errors" => "{.errors}",
        "Reason" => "{.reason}",
    ],
    {
        phase: UserDiskPhase = 1 "phase",
        /// The disk, as the configuration names it.
        disk: String = 2 "disk",
        /// Path of the partition that is mounted, also of one that is gone.
        location: String = 3 "location",
        /// What happened, and what it waits for.
        reason: String = 4 "reason" omitempty,
        /// UUID of the file system: no other one is mounted in its place.
        uuid: String = 5 "uuid" omitempty,
        /// Bytes of the file system, and those that can be written; rounded down to MiB.
        size: u64 = 6 "size",
        available: u64 = 7 "available",
        /// Failed requests to the disk since it appeared, as the kernel's log has them, and the last one of them.
        errors: u64 = 8 "errors",
        last_error: String = 9 "lastError" omitempty,
        /// How often it was mounted anew after it failed or was lost.
        remounts: u64 = 10 "remounts",
    }
}
