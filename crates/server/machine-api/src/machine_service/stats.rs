//! Kernel statistics: memory, processors, disks, network devices, mounts and processes.
//!
//! The parsers are pure functions of the content of files below `/proc` and skip unknown lines.

use tonic::Status;
use wire::machine as api;

fn read(path: &str) -> Result<String, Status> {
    std::fs::read_to_string(path).map_err(|error| Status::internal(format!("reading {path}: {error}")))
}

fn io(error: std::io::Error) -> Status {
    Status::internal(error.to_string())
}

pub(super) fn memory() -> Result<api::Memory, Status> {
    let values = sys::proc::meminfo().map_err(io)?;
    let of = |name: &str| values.get(name).copied().unwrap_or_default();
    let meminfo = api::MemInfo {
        memtotal: of("MemTotal"),
        memfree: of("MemFree"),
        memavailable: of("MemAvailable"),
        buffers: of("Buffers"),
        cached: of("Cached"),
        swapcached: of("SwapCached"),
        active: of("Active"),
        inactive: of("Inactive"),
        activeanon: of("Active(anon)"),
        inactiveanon: of("Inactive(anon)"),
        activefile: of("Active(file)"),
        inactivefile: of("Inactive(file)"),
        unevictable: of("Unevictable"),
        mlocked: of("Mlocked"),
        swaptotal: of("SwapTotal"),
        swapfree: of("SwapFree"),
        dirty: of("Dirty"),
        writeback: of("Writeback"),
        anonpages: of("AnonPages"),
        mapped: of("Mapped"),
        shmem: of("Shmem"),
        slab: of("Slab"),
        sreclaimable: of("SReclaimable"),
        sunreclaim: of("SUnreclaim"),
        kernelstack: of("KernelStack"),
        pagetables: of("PageTables"),
        nfsunstable: of("NFS_Unstable"),
        bounce: of("Bounce"),
        writebacktmp: of("WritebackTmp"),
        commitlimit: of("CommitLimit"),
        committedas: of("Committed_AS"),
        vmalloctotal: of("VmallocTotal"),
        vmallocused: of("VmallocUsed"),
        vmallocchunk: of("VmallocChunk"),
        hardwarecorrupted: of("HardwareCorrupted"),
        anonhugepages: of("AnonHugePages"),
        shmemhugepages: of("ShmemHugePages"),
        shmempmdmapped: of("ShmemPmdMapped"),
        cmatotal: of("CmaTotal"),
        cmafree: of("CmaFree"),
        hugepagestotal: of("HugePages_Total"),
        hugepagesfree: of("HugePages_Free"),
        hugepagesrsvd: of("HugePages_Rsvd"),
        hugepagessurp: of("HugePages_Surp"),
        hugepagesize: of("Hugepagesize"),
        directmap4k: of("DirectMap4k"),
        directmap2m: of("DirectMap2M"),
        directmap1g: of("DirectMap1G"),
    };
    Ok(api::Memory { metadata: None, meminfo: Some(meminfo) })
}

pub(super) fn load_average() -> Result<api::LoadAvg, Status> {
    let [load1, load5, load15] = sys::proc::load_average().map_err(io)?;
    Ok(api::LoadAvg { metadata: None, load1, load5, load15 })
}

pub(super) fn processes() -> Result<api::Process, Status> {
    let processes = sys::proc::processes().map_err(io)?.into_iter().map(|process| api::ProcessInfo {
        pid: process.pid,
        ppid: process.ppid,
        state: process.state.to_string(),
        threads: i32::try_from(process.threads).unwrap_or(i32::MAX),
        cpu_time: process.cpu_time,
        virtual_memory: process.virtual_memory,
        resident_memory: process.resident_memory,
        command: process.command,
        executable: process.executable,
        args: process.args,
    });
    Ok(api::Process { metadata: None, processes: processes.collect() })
}

pub(super) fn mounts() -> Result<api::Mounts, Status> {
    let table = sys::mounts::table().map_err(|error| Status::internal(stdx::error_chain(&error)))?;
    let stats = table.into_iter().map(|mount| {
        // A file system that does not answer is listed without a size.
        let (size, available) = rustix::fs::statvfs(&mount.target)
            .map(|stat| (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
            .unwrap_or_default();
        api::MountStat { filesystem: mount.source, size, available, mounted_on: mount.target.display().to_string() }
    });
    Ok(api::Mounts { metadata: None, stats: stats.collect() })
}

pub(super) fn disks() -> Result<api::DiskStats, Status> {
    let devices = disk_stats(&read("/proc/diskstats")?);
    let mut total = api::DiskStat { name: "total".into(), ..Default::default() };
    for device in &devices {
        total.read_completed += device.read_completed;
        total.read_sectors += device.read_sectors;
        total.read_time_ms += device.read_time_ms;
        total.write_completed += device.write_completed;
        total.write_sectors += device.write_sectors;
        total.write_time_ms += device.write_time_ms;
        total.io_in_progress += device.io_in_progress;
        total.io_time_ms += device.io_time_ms;
    }
    Ok(api::DiskStats { metadata: None, total: Some(total), devices })
}

fn disk_stats(text: &str) -> Vec<api::DiskStat> {
    let device = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let name = fields.next()?.to_owned();
        let numbers: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let of = |at: usize| numbers.get(at).copied().unwrap_or_default();
        Some(api::DiskStat {
            name,
            read_completed: of(0),
            read_merged: of(1),
            read_sectors: of(2),
            read_time_ms: of(3),
            write_completed: of(4),
            write_merged: of(5),
            write_sectors: of(6),
            write_time_ms: of(7),
            io_in_progress: of(8),
            io_time_ms: of(9),
            io_time_weighted_ms: of(10),
            discard_completed: of(11),
            discard_merged: of(12),
            discard_sectors: of(13),
            discard_time_ms: of(14),
        })
    };
    text.lines().filter_map(device).collect()
}

pub(super) fn network_devices() -> Result<api::NetworkDeviceStats, Status> {
    let devices = net_devices(&read("/proc/net/dev")?);
    let mut total = api::NetDev { name: "total".into(), ..Default::default() };
    for device in &devices {
        total.rx_bytes += device.rx_bytes;
        total.rx_packets += device.rx_packets;
        total.rx_errors += device.rx_errors;
        total.rx_dropped += device.rx_dropped;
        total.tx_bytes += device.tx_bytes;
        total.tx_packets += device.tx_packets;
        total.tx_errors += device.tx_errors;
        total.tx_dropped += device.tx_dropped;
    }
    Ok(api::NetworkDeviceStats { metadata: None, total: Some(total), devices })
}

fn net_devices(text: &str) -> Vec<api::NetDev> {
    let device = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let numbers: Vec<u64> = counters.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let of = |at: usize| numbers.get(at).copied().unwrap_or_default();
        Some(api::NetDev {
            name: name.trim().to_owned(),
            rx_bytes: of(0),
            rx_packets: of(1),
            rx_errors: of(2),
            rx_dropped: of(3),
            rx_fifo: of(4),
            rx_frame: of(5),
            rx_compressed: of(6),
            rx_multicast: of(7),
            tx_bytes: of(8),
            tx_packets: of(9),
            tx_errors: of(10),
            tx_dropped: of(11),
            tx_fifo: of(12),
            tx_collisions: of(13),
            tx_carrier: of(14),
            tx_compressed: of(15),
        })
    };
    text.lines().filter_map(device).collect()
}

pub(super) fn system() -> Result<api::SystemStat, Status> {
    Ok(system_stat(&read("/proc/stat")?))
}

fn system_stat(text: &str) -> api::SystemStat {
    let mut stat = api::SystemStat::default();
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(' ') else { continue };
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let of = |at: usize| numbers.get(at).copied().unwrap_or_default();
        match key {
            "cpu" => stat.cpu_total = Some(cpu_stat(&numbers)),
            _ if key.starts_with("cpu") => stat.cpu.push(cpu_stat(&numbers)),
            "btime" => stat.boot_time = of(0),
            "ctxt" => stat.context_switches = of(0),
            "processes" => stat.process_created = of(0),
            "procs_running" => stat.process_running = of(0),
            "procs_blocked" => stat.process_blocked = of(0),
            "intr" => {
                stat.irq_total = of(0);
                stat.irq = numbers.get(1..).unwrap_or_default().to_vec();
            }
            "softirq" => {
                stat.soft_irq_total = of(0);
                stat.soft_irq = Some(api::SoftIrqStat {
                    hi: of(1),
                    timer: of(2),
                    net_tx: of(3),
                    net_rx: of(4),
                    block: of(5),
                    block_io_poll: of(6),
                    tasklet: of(7),
                    sched: of(8),
                    hrtimer: of(9),
                    rcu: of(10),
                });
            }
            _ => {}
        }
    }
    stat
}

/// The kernel counts in hundredths of a second, the API in seconds.
#[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^53")]
fn cpu_stat(ticks: &[u64]) -> api::CpuStat {
    let of = |at: usize| ticks.get(at).copied().unwrap_or_default() as f64 / 100.0;
    api::CpuStat {
        user: of(0),
        nice: of(1),
        system: of(2),
        idle: of(3),
        iowait: of(4),
        irq: of(5),
        soft_irq: of(6),
        steal: of(7),
        guest: of(8),
        guest_nice: of(9),
    }
}

pub(super) fn processors() -> Result<api::CpUsInfo, Status> {
    Ok(api::CpUsInfo { metadata: None, cpu_info: cpu_info(&read("/proc/cpuinfo")?) })
}

fn cpu_info(text: &str) -> Vec<api::CpuInfo> {
    let block = |block: &str| {
        let mut cpu = api::CpuInfo::default();
        for line in block.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let text = || value.to_owned();
            let number = || value.parse().unwrap_or_default();
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match key.trim() {
                "processor" => cpu.processor = number(),
                "vendor_id" => cpu.vendor_id = text(),
                "cpu family" => cpu.cpu_family = text(),
                "model" => cpu.model = text(),
                "model name" => cpu.model_name = text(),
                "stepping" => cpu.stepping = text(),
                "microcode" => cpu.microcode = text(),
                "cpu MHz" => cpu.cpu_mhz = value.parse().unwrap_or_default(),
                "cache size" => cpu.cache_size = text(),
                "physical id" => cpu.physical_id = text(),
                "siblings" => cpu.siblings = number(),
                "core id" => cpu.core_id = text(),
                "cpu cores" => cpu.cpu_cores = number(),
                "apicid" => cpu.apic_id = text(),
                "initial apicid" => cpu.initial_apic_id = text(),
                "fpu" => cpu.fpu = text(),
                "fpu_exception" => cpu.fpu_exception = text(),
                "cpuid level" => cpu.cpu_id_level = number(),
                "wp" => cpu.wp = text(),
                "flags" => cpu.flags = words(),
                "bugs" => cpu.bugs = words(),
                "bogomips" => cpu.bogo_mips = value.parse().unwrap_or_default(),
                "clflush size" => cpu.cl_flush_size = number(),
                "cache_alignment" => cpu.cache_alignment = number(),
                "address sizes" => cpu.address_sizes = text(),
                "power management" => cpu.power_management = text(),
                _ => {}
            }
        }
        cpu
    };
    text.split("\n\n").filter(|block| !block.trim().is_empty()).map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_their_counters_in_place() {
        let text =
            "   8       0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n   8  1 sda1 1 0 8 1 0 0 0 0 0 4 1\nbad\n";
        let devices = disk_stats(text);
        assert_eq!(devices.len(), 2);
        assert_eq!((devices[0].name.as_str(), devices[0].read_completed, devices[0].discard_time_ms), ("sda", 1, 15));
        assert_eq!((devices[1].io_time_ms, devices[1].discard_completed), (4, 0));
    }

    #[test]
    fn network_devices_skip_the_heading() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let devices = net_devices(text);
        assert_eq!(devices.len(), 1);
        assert_eq!((devices[0].name.as_str(), devices[0].rx_bytes, devices[0].tx_compressed), ("eth0", 1, 16));
    }

    #[test]
    fn processors_are_counted_in_seconds() {
        let stat = system_stat("cpu  100 0 50 1000 0 0 0 0 0 0\ncpu0 100 0 50 1000\nbtime 1700000000\nintr 7 1 2\n");
        assert_eq!((stat.cpu_total.unwrap().user, stat.cpu.len(), stat.boot_time), (1.0, 1, 1_700_000_000));
        assert_eq!((stat.irq_total, stat.irq.as_slice()), (7, &[1, 2][..]));
    }

    #[test]
    fn each_block_of_cpuinfo_is_a_processor() {
        let cpus = cpu_info("processor\t: 0\nmodel name\t: A CPU\nflags\t\t: a b\n\nprocessor\t: 1\n\n");
        assert_eq!(cpus.len(), 2);
        assert_eq!((cpus[0].model_name.as_str(), cpus[0].flags.len(), cpus[1].processor), ("A CPU", 2, 1));
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(memory().unwrap().meminfo.unwrap().memtotal > 0);
        assert!(!processes().unwrap().processes.is_empty());
        assert!(mounts().unwrap().stats.iter().any(|mount| mount.mounted_on == "/"));
        assert!(system().unwrap().boot_time > 0);
        assert!(!processors().unwrap().cpu_info.is_empty());
    }
}
