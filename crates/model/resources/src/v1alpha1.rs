//! Services, and the hand-over from the boot plan.

resource! {
    /// Requests acquisition of the configuration.
    AcquireConfigSpec: "AcquireConfigSpecs.v1alpha1.talos.dev" in "runtime",
    {
    }
}

impl AcquireConfigSpec {
    /// ID of the single instance.
    pub const ID: &'static str = "machine-config";
}

resource! {
    /// Exists after the configuration was acquired.
    AcquireConfigStatus: "AcquireConfigStatuses.v1alpha1.talos.dev" in "runtime",
    {
    }
}

impl AcquireConfigStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "machine-config";
}

resource! {
    /// A service and its health.
    Service: "Services.v1alpha1.talos.dev" in "runtime", aliases ["svc"],
    columns ["Running" => "{.running}", "Healthy" => "{.healthy}", "Health Unknown" => "{.unknown}"],
    {
        running: bool = 1 "running",
        healthy: bool = 2 "healthy",
        unknown: bool = 3 "unknown",
    }
}
