//! Processor and memory usage, sampled.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::perf::{CpuStat, CpuStats, MemoryStats};
use sys::proc_stat::{CpuTimes, KernelStat};

/// Between two samples (Talos 1.7).
const INTERVAL: Duration = Duration::from_secs(30);

/// One look at the kernel's counters.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub stat: KernelStat,
    /// The lines of `/proc/meminfo`, in KiB.
    pub memory: BTreeMap<String, u64>,
}

/// Takes a sample.
pub type TakeSample = Arc<dyn Fn() -> io::Result<Sample> + Send + Sync>;

/// The counters of this kernel.
#[must_use]
pub fn of_kernel() -> TakeSample {
    Arc::new(|| Ok(Sample { stat: sys::proc_stat::kernel_stat()?, memory: sys::proc::meminfo()? }))
}

/// The counters cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the counters of the kernel")]
struct SampleError(#[source] io::Error);

/// `perf.StatsController`: `CpuStats` and `MemoryStats`.
pub struct StatsController {
    sample: TakeSample,
}

impl StatsController {
    pub fn new(sample: TakeSample) -> Self {
        Self { sample }
    }
}

impl std::fmt::Debug for StatsController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatsController").finish_non_exhaustive()
    }
}

#[async_trait]
impl Controller for StatsController {
    fn name(&self) -> &'static str {
        "perf.StatsController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<CpuStats>(), Output::exclusive::<MemoryStats>()]
    }

    fn resync(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let sample = (self.sample)().map_err(SampleError)?;
        ctx.put(CpuStats::ID, processors(&sample.stat))?;
        ctx.put(MemoryStats::ID, memory(&sample.memory))?;
        Ok(())
    }
}

fn processors(stat: &KernelStat) -> CpuStats {
    CpuStats {
        cpu: stat.cpus.iter().map(times).collect(),
        cpu_total: times(&stat.cpu_total),
        irq_total: stat.irq_total,
        context_switches: stat.context_switches,
        process_created: stat.processes_created,
        process_running: stat.processes_running,
        process_blocked: stat.processes_blocked,
        soft_irq_total: stat.soft_irq_total,
    }
}

fn times(times: &CpuTimes) -> CpuStat {
    CpuStat {
        user: times.user,
        nice: times.nice,
        system: times.system,
        idle: times.idle,
        iowait: times.iowait,
        irq: times.irq,
        soft_irq: times.soft_irq,
        steal: times.steal,
        guest: times.guest,
        guest_nice: times.guest_nice,
    }
}

fn memory(values: &BTreeMap<String, u64>) -> MemoryStats {
    let of = |name: &str| values.get(name).copied().unwrap_or_default();
    MemoryStats {
        total: of("MemTotal"),
        used: of("MemTotal").saturating_sub(of("MemFree")),
        available: of("MemAvailable"),
        buffers: of("Buffers"),
        cached: of("Cached"),
        swap_cached: of("SwapCached"),
        active: of("Active"),
        inactive: of("Inactive"),
        active_anon: of("Active(anon)"),
        inactive_anon: of("Inactive(anon)"),
        active_file: of("Active(file)"),
        inactive_file: of("Inactive(file)"),
        unevictable: of("Unevictable"),
        mlocked: of("Mlocked"),
        swap_total: of("SwapTotal"),
        swap_free: of("SwapFree"),
        dirty: of("Dirty"),
        writeback: of("Writeback"),
        anon_pages: of("AnonPages"),
        mapped: of("Mapped"),
        shmem: of("Shmem"),
        slab: of("Slab"),
        sreclaimable: of("SReclaimable"),
        sunreclaim: of("SUnreclaim"),
        kernel_stack: of("KernelStack"),
        page_tables: of("PageTables"),
        nfsunstable: of("NFS_Unstable"),
        bounce: of("Bounce"),
        write_backtmp: of("WritebackTmp"),
        commit_limit: of("CommitLimit"),
        commit_tedas: of("Committed_AS"),
        vmalloc_total: of("VmallocTotal"),
        vmalloc_used: of("VmallocUsed"),
        vmalloc_chunk: of("VmallocChunk"),
        hardware_corrupted: of("HardwareCorrupted"),
        anon_huge_pages: of("AnonHugePages"),
        shmem_huge_pages: of("ShmemHugePages"),
        shmem_pmd_mapped: of("ShmemPmdMapped"),
        cma_total: of("CmaTotal"),
        cma_free: of("CmaFree"),
        huge_pages_total: of("HugePages_Total"),
        huge_pages_free: of("HugePages_Free"),
        huge_pages_rsvd: of("HugePages_Rsvd"),
        huge_pages_surp: of("HugePages_Surp"),
        hugepagesize: of("Hugepagesize"),
        direct_map4k: of("DirectMap4k"),
        direct_map2m: of("DirectMap2M"),
        direct_map1g: of("DirectMap1G"),
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_counters_are_read_again_after_half_a_minute() {
        let sample = Arc::new(Mutex::new(Sample::default()));
        sample.lock().memory = BTreeMap::from([("MemTotal".into(), 100), ("MemFree".into(), 30)]);
        let source = Arc::clone(&sample);
        let harness = Harness::with(StatsController::new(Arc::new(move || Ok(source.lock().clone()))));
        harness.settle().await;
        let memory = harness.get::<MemoryStats>(MemoryStats::ID).unwrap();
        assert_eq!((memory.total, memory.used), (100, 70));
        sample.lock().stat.cpu_total.user = 1.5;
        sample.lock().stat.cpus = vec![CpuTimes { user: 1.5, ..CpuTimes::default() }];
        harness.advance(INTERVAL + Duration::from_secs(1)).await;
        let processors = harness.get::<CpuStats>(CpuStats::ID).unwrap();
        assert_eq!((processors.cpu_total.user, processors.cpu.len()), (1.5, 1));
    }

    #[test]
    fn this_kernel_can_be_sampled() {
        let sample = of_kernel()().unwrap();
        assert!(memory(&sample.memory).total > 0 && !processors(&sample.stat).cpu.is_empty());
    }
}
