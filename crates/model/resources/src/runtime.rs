//! The machine itself: stage, kernel parameters, mounts, platform, services around it.

use std::net::IpAddr;

use crate::enums::MachineStage;
use crate::values::{Nanoseconds, Url};

resource! {
    /// Whether devices are set up.
    DevicesStatus: "DevicesStatuses.runtime.talos.dev" in "runtime",
    columns ["Ready" => "{.ready}"],
    {
        ready: bool = 1 "ready",
    }
}

impl DevicesStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "devices";
}

resource! {
    /// Where events are sent.
    EventSinkConfig: "EventSinkConfigs.runtime.talos.dev" in "runtime",
    {
        endpoint: String = 1 "endpoint",
    }
}

message! {
    /// A file for an extension service.
    ExtensionServiceConfigFile {
        content: String = 1 "content",
        mount_path: String = 2 "mountPath",
    }
}

resource! {
    /// Files and environment of an extension service.
    ExtensionServiceConfig: "ExtensionServiceConfigs.runtime.talos.dev" in "runtime" sensitive,
    {
        files: Vec<ExtensionServiceConfigFile> = 1 "files" omitempty,
        environment: Vec<String> = 2 "environment" omitempty,
    }
}

resource! {
    /// Which version of its configuration an extension service runs with.
    ExtensionServiceConfigStatus: "ExtensionServiceConfigStatuses.runtime.talos.dev" in "runtime",
    {
        spec_version: String = 1 "specVersion",
    }
}

resource! {
    /// A kernel module to load.
    KernelModuleSpec: "KernelModuleSpecs.runtime.talos.dev" in "runtime", aliases ["modules"],
    {
        name: String = 1 "string",
        parameters: Vec<String> = 2 "parameters",
    }
}

resource! {
    /// A kernel parameter to set; the id is its name.
    KernelParamSpec: "KernelParamSpecs.runtime.talos.dev" in "runtime",
    {
        value: String = 1 "value",
        ignore_errors: bool = 2 "ignoreErrors",
    }
}

resource! {
    /// A kernel parameter that is set unless the configuration says otherwise.
    KernelParamDefaultSpec: "KernelParamDefaultSpecs.runtime.talos.dev" in "runtime",
    {
        value: String = 1 "value",
        ignore_errors: bool = 2 "ignoreErrors",
    }
}

resource! {
    /// A kernel parameter that is set.
    KernelParamStatus: "KernelParamStatuses.runtime.talos.dev" in "runtime", aliases ["sysctls", "kernelparameters", "kernelparams"],
    columns ["Current" => "{.current}", "Default" => "{.default}", "Unsupported" => "{.unsupported}"],
    {
        current: String = 1 "current",
        default: String = 2 "default",
        unsupported: bool = 3 "unsupported",
    }
}

resource! {
    /// Where the kernel log is sent.
    KmsgLogConfig: "KmsgLogConfigs.runtime.talos.dev" in "runtime",
    {
        destinations: Vec<Url> = 1 "destinations",
    }
}

impl KmsgLogConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "kmsg-log";
}

resource! {
    /// Asks controllers to clean up before a reset.
    MachineResetSignal: "MachineResetSignals.runtime.talos.dev" in "runtime",
    {
    }
}

impl MachineResetSignal {
    /// ID of the single instance.
    pub const ID: &'static str = "machine";
}

message! {
    /// An unmet condition of a machine's readiness.
    UnmetCondition {
        name: String = 1 "name",
        reason: String = 2 "reason",
    }
}

message! {
    /// Readiness of a machine.
    MachineStatusStatus {
        ready: bool = 1 "ready",
        unmet_conditions: Vec<UnmetCondition> = 2 "unmetConditions",
    }
}

resource! {
    /// Stage and readiness of the machine.
    MachineStatus: "MachineStatuses.runtime.talos.dev" in "runtime",
    columns ["Stage" => "{.stage}", "Ready" => "{.status.ready}"],
    {
        stage: MachineStage = 1 "stage",
        status: MachineStatusStatus = 2 "status",
    }
}

impl MachineStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "machine";
}

resource! {
    /// Where the maintenance API listens.
    MaintenanceServiceConfig: "MaintenanceServiceConfigs.runtime.talos.dev" in "runtime",
    {
        listen_address: String = 1 "listenAddress",
        reachable_addresses: Vec<IpAddr> = 2 "reachableAddresses",
    }
}

resource! {
    /// Asks for the maintenance API.
    MaintenanceServiceRequest: "MaintenanceServiceRequests.runtime.talos.dev" in "runtime",
    {
    }
}

resource! {
    /// A value of the META partition; the id is the key in hexadecimal.
    MetaKey: "MetaKeys.runtime.talos.dev" in "runtime" sensitive, aliases ["meta"],
    columns ["Value" => "{.value}"],
    {
        value: String = 1 "value",
    }
}

resource! {
    /// Whether the META partition was read.
    MetaLoad: "MetaLoads.runtime.talos.dev" in "runtime",
    columns ["Done" => "{.done}"],
    {
        done: bool = 1 "done",
    }
}

impl MetaLoad {
    /// ID of the single instance.
    pub const ID: &'static str = "meta-loaded";
}

resource! {
    /// A mounted partition.
    MountStatus: "MountStatuses.runtime.talos.dev" in "runtime", aliases ["mounts"],
    columns [
        "Source" => "{.source}",
        "Target" => "{.target}",
        "Filesystem Type" => "{.filesystemType}",
    ],
    {
        source: String = 1 "source",
        target: String = 2 "target",
        filesystem_type: String = 3 "filesystemType",
        options: Vec<String> = 4 "options",
        encrypted: bool = 5 "encrypted",
        encryption_providers: Vec<String> = 6 "encryptionProviders" omitempty,
    }
}

impl MountStatus {
    /// The label of the volume with the machine's identity and configuration.
    pub const STATE: &'static str = "STATE";
    /// Label of the volume with service data: images, pods, logs, etcd.
    pub const EPHEMERAL: &'static str = "EPHEMERAL";
}

resource! {
    /// Metadata of the platform.
    PlatformMetadata: "PlatformMetadatas.talos.dev" in "runtime",
    columns [
        "Platform" => "{.platform}",
        "Type" => "{.instanceType}",
        "Region" => "{.region}",
        "Zone" => "{.zone}",
    ],
    {
        platform: String = 1 "platform" omitempty,
        hostname: String = 2 "hostname" omitempty,
        region: String = 3 "region" omitempty,
        zone: String = 4 "zone" omitempty,
        instance_type: String = 5 "instanceType" omitempty,
        instance_id: String = 6 "instanceId" omitempty,
        provider_id: String = 7 "providerId" omitempty,
        spot: bool = 8 "spot" omitempty,
    }
}

impl PlatformMetadata {
    /// ID of the single instance.
    pub const ID: &'static str = "platformmetadata";
}

resource! {
    /// How the machine was booted.
    SecurityState: "SecurityStates.talos.dev" in "runtime",
    columns [
        "SecureBoot" => "{.secureBoot}",
        "UKISigningKeyFingerprint" => "{.ukiSigningKeyFingerprint}",
        "PCRSigningKeyFingerprint" => "{.pcrSigningKeyFingerprint}",
    ],
    {
        secure_boot: bool = 1 "secureBoot",
        uki_signing_key_fingerprint: String = 2 "ukiSigningKeyFingerprint" omitempty,
        pcr_signing_key_fingerprint: String = 3 "pcrSigningKeyFingerprint" omitempty,
    }
}

impl SecurityState {
    /// ID of the single instance.
    pub const ID: &'static str = "securitystate";
}

resource! {
    /// A token that tells this machine from its copies.
    UniqueMachineToken: "UniqueMachineTokens.runtime.talos.dev" in "runtime" sensitive,
    columns ["Token" => "{.token}"],
    {
        token: String = 1 "token",
    }
}

impl UniqueMachineToken {
    /// ID of the single instance.
    pub const ID: &'static str = "unique-machine-token";
}

resource! {
    /// Which watchdog to feed.
    WatchdogTimerConfig: "WatchdogTimerConfigs.runtime.talos.dev" in "runtime",
    columns ["Device" => "{.device}", "Timeout" => "{.timeout}"],
    {
        device: String = 1 "device",
        timeout: Nanoseconds = 2 "timeout",
    }
}

resource! {
    /// The watchdog that is fed.
    WatchdogTimerStatus: "WatchdogTimerStatuses.runtime.talos.dev" in "runtime",
    columns ["Device" => "{.device}", "Timeout" => "{.timeout}"],
    {
        device: String = 1 "device",
        timeout: Nanoseconds = 2 "timeout",
        feed_interval: Nanoseconds = 3 "feedInterval",
    }
}

message! {
    /// The versions that an extension works with.
    ExtensionConstraint {
        version: String = 1 "version",
    }
}

message! {
    /// Compatibility of an extension.
    ExtensionCompatibility {
        talos: ExtensionConstraint = 1 "talos",
    }
}

message! {
    /// Metadata of an extension.
    ExtensionMetadata {
        name: String = 1 "name",
        version: String = 2 "version",
        author: String = 3 "author",
        description: String = 4 "description",
        compatibility: ExtensionCompatibility = 5 "compatibility",
        extra_info: String = 6 "extraInfo" omitempty,
    }
}

resource! {
    /// An extension of the image.
    ExtensionStatus: "ExtensionStatuses.runtime.talos.dev" in "runtime", aliases ["extensions"],
    columns ["Name" => "{.metadata.name}", "Version" => "{.metadata.version}"],
    {
        image: String = 1 "image",
        metadata: ExtensionMetadata = 2 "metadata",
    }
}
