//! Hardware inventory.

resource! {
    /// A memory module.
    MemoryModule: "MemoryModules.hardware.talos.dev" in "hardware", aliases ["memorymodules", "ram"],
    columns [
        "Manufacturer" => "{.manufacturer}",
        "Model" => "{.productName}",
        "SizeMiB" => "{.sizeMiB}",
    ],
    {
        size_mib: u32 = 1 "sizeMiB" omitempty,
        device_locator: String = 2 "deviceLocator" omitempty,
        bank_locator: String = 3 "bankLocator" omitempty,
        speed: u32 = 4 "speed" omitempty,
        manufacturer: String = 5 "manufacturer" omitempty,
        serial_number: String = 6 "serialNumber" omitempty,
        asset_tag: String = 7 "assetTag" omitempty,
        product_name: String = 8 "productName" omitempty,
    }
}

resource! {
    /// A processor.
    Processor: "Processors.hardware.talos.dev" in "hardware", aliases ["cpus", "cpu"],
    columns [
        "Manufacturer" => "{.manufacturer}",
        "Model" => "{.productName}",
        "Cores" => "{.coreCount}",
        "Threads" => "{.threadCount}",
    ],
    {
        socket: String = 1 "socket" omitempty,
        manufacturer: String = 2 "manufacturer" omitempty,
        product_name: String = 3 "productName" omitempty,
        max_speed_mhz: u32 = 4 "maxSpeedMhz" omitempty,
        boot_speed_mhz: u32 = 5 "bootSpeedMhz" omitempty,
        status: u32 = 6 "status" omitempty,
        serial_number: String = 7 "serialNumber" omitempty,
        asset_tag: String = 8 "assetTag" omitempty,
        part_number: String = 9 "partNumber" omitempty,
        core_count: u32 = 10 "coreCount" omitempty,
        core_enabled: u32 = 11 "coreEnabled" omitempty,
        thread_count: u32 = 12 "threadCount" omitempty,
    }
}

resource! {
    /// The machine as described by its firmware.
    SystemInformation: "SystemInformations.hardware.talos.dev" in "hardware", aliases ["systeminformation"],
    columns [
        "Manufacturer" => "{.manufacturer}",
        "ProductName" => "{.productName}",
        "Version" => "{.version}",
        "SerialNumber" => "{.serialnumber}",
        "UUID" => "{.uuid}",
        "WakeUpType" => "{.wakeUpType}",
        "SKUNumber" => "{.skuNumber}",
    ],
    {
        manufacturer: String = 1 "manufacturer" omitempty,
        product_name: String = 2 "productName" omitempty,
        version: String = 3 "version" omitempty,
        serialnumber: String = 4 "serialnumber" omitempty,
        uuid: String = 5 "uuid" omitempty,
        wake_up_type: String = 6 "wakeUpType" omitempty,
        sku_number: String = 7 "skuNumber" omitempty,
    }
}

impl SystemInformation {
    /// ID of the single instance.
    pub const ID: &'static str = "systeminformation";
}
