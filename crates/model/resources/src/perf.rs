//! Processor and memory usage.

message! {
    /// Processor seconds by kind.
    CpuStat {
        user: f64 = 1 "user",
        nice: f64 = 2 "nice",
        system: f64 = 3 "system",
        idle: f64 = 4 "idle",
        iowait: f64 = 5 "iowait",
        irq: f64 = 6 "irq",
        soft_irq: f64 = 7 "softIrq",
        steal: f64 = 8 "steal",
        guest: f64 = 9 "guest",
        guest_nice: f64 = 10 "guestNice",
    }
}

resource! {
    /// Processor statistics since boot.
    CpuStats: "CPUStats.perf.talos.dev" in "perf",
    columns ["User" => "{.cpuTotal.user}", "System" => "{.cpuTotal.system}"],
    {
        cpu: Vec<CpuStat> = 1 "cpu",
        cpu_total: CpuStat = 2 "cpuTotal",
        irq_total: u64 = 3 "irqTotal",
        context_switches: u64 = 4 "contextSwitches",
        process_created: u64 = 5 "processCreated",
        process_running: u64 = 6 "processRunning",
        process_blocked: u64 = 7 "processBlocked",
        soft_irq_total: u64 = 8 "softIrqTotal",
    }
}

impl CpuStats {
    /// ID of the single instance.
    pub const ID: &'static str = "latest";
}

resource! {
    /// Memory usage in KiB.
    MemoryStats: "MemoryStats.perf.talos.dev" in "perf",
    columns ["Used" => "{.used}", "Total" => "{.total}"],
    {
        total: u64 = 1 "total",
        used: u64 = 2 "used",
        available: u64 = 3 "available",
        buffers: u64 = 4 "buffers",
        cached: u64 = 5 "cached",
        swap_cached: u64 = 6 "swapCached",
        active: u64 = 7 "active",
        inactive: u64 = 8 "inactive",
        active_anon: u64 = 9 "activeAnon",
        inactive_anon: u64 = 10 "inactiveAnon",
        active_file: u64 = 11 "activeFile",
        inactive_file: u64 = 12 "inactiveFile",
        unevictable: u64 = 13 "unevictable",
        mlocked: u64 = 14 "mlocked",
        swap_total: u64 = 15 "swapTotal",
        swap_free: u64 = 16 "swapFree",
        dirty: u64 = 17 "dirty",
        writeback: u64 = 18 "writeback",
        anon_pages: u64 = 19 "anonPages",
        mapped: u64 = 20 "mapped",
        shmem: u64 = 21 "shmem",
        slab: u64 = 22 "slab",
        sreclaimable: u64 = 23 "sreclaimable",
        sunreclaim: u64 = 24 "sunreclaim",
        kernel_stack: u64 = 25 "kernelStack",
        page_tables: u64 = 26 "pageTables",
        nfsunstable: u64 = 27 "nfsunstable",
        bounce: u64 = 28 "bounce",
        write_backtmp: u64 = 29 "writeBacktmp",
        commit_limit: u64 = 30 "commitLimit",
        commit_tedas: u64 = 31 "commitTedas",
        vmalloc_total: u64 = 32 "vmallocTotal",
        vmalloc_used: u64 = 33 "vmallocUsed",
        vmalloc_chunk: u64 = 34 "vmallocChunk",
        hardware_corrupted: u64 = 35 "hardwareCorrupted",
        anon_huge_pages: u64 = 36 "anonHugePages",
        shmem_huge_pages: u64 = 37 "shmemHugePages",
        shmem_pmd_mapped: u64 = 38 "shmemPmdMapped",
        cma_total: u64 = 39 "cmaTotal",
        cma_free: u64 = 40 "cmaFree",
        huge_pages_total: u64 = 41 "hugePagesTotal",
        huge_pages_free: u64 = 42 "hugePagesFree",
        huge_pages_rsvd: u64 = 43 "hugePagesRsvd",
        huge_pages_surp: u64 = 44 "hugePagesSurp",
        hugepagesize: u64 = 45 "hugepagesize",
        direct_map4k: u64 = 46 "directMap4k",
        direct_map2m: u64 = 47 "directMap2m",
        direct_map1g: u64 = 48 "directMap1g",
    }
}

impl MemoryStats {
    /// ID of the single instance.
    pub const ID: &'static str = "latest";
}
