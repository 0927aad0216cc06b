//! The clock.

use crate::values::Nanoseconds;

resource! {
    /// Clock discipline of the kernel.
    AdjtimeStatus: "AdjtimeStatuses.v1alpha1.talos.dev" in "runtime",
    columns [
        "Offset" => "{.offset}",
        "EstError" => "{.estError}",
        "MaxError" => "{.maxError}",
        "Status" => "{.status}",
        "Sync" => "{.syncStatus}",
    ],
    {
        offset: Nanoseconds = 1 "offset",
        frequency_adjustment_ratio: f64 = 2 "frequencyAdjustmentRatio",
        max_error: Nanoseconds = 3 "maxError",
        est_error: Nanoseconds = 4 "estError",
        status: String = 5 "status",
        constant: i64 = 6 "constant",
        sync_status: bool = 7 "syncStatus",
        state: String = 8 "state",
    }
}

impl AdjtimeStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "node";
}

resource! {
    /// Whether the clock is synchronised.
    TimeStatus: "TimeStatuses.v1alpha1.talos.dev" in "runtime",
    columns ["Synced" => "{.synced}"],
    {
        synced: bool = 1 "synced",
        epoch: i64 = 2 "epoch",
        sync_disabled: bool = 3 "syncDisabled",
    }
}

impl TimeStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "node";
}
