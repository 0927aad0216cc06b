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
