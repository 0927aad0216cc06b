//! Services, and the hand-over from the boot plan.

resource! {
    /// Asks for the configuration to be acquired.
    AcquireConfigSpec: "AcquireConfigSpecs.v1alpha1.talos.dev" in "runtime",
    {
    }
}

impl AcquireConfigSpec {
    /// Its only id.
    pub const ID: &'static str = "machine-config";
}

resource! {
    /// Exists once the configuration was acquired.
    AcquireConfigStatus: "AcquireConfigStatuses.v1alpha1.talos.dev" in "runtime",
    {
    }
}

impl AcquireConfigStatus {
    /// Its only id.
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
