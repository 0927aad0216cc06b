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
    let stat = sys::proc_stat::kernel_stat().map_err(io)?;
    let soft = |at: usize| stat.soft_irqs.get(at).copied().unwrap_or_default();
    Ok(api::SystemStat {
        metadata: None,
        boot_time: stat.boot_time,
        cpu_total: Some(cpu_stat(&stat.cpu_total)),
        cpu: stat.cpus.iter().map(cpu_stat).collect(),
        irq_total: stat.irq_total,
        irq: stat.irqs.clone(),
        context_switches: stat.context_switches,
        process_created: stat.processes_created,
        process_running: stat.processes_running,
        process_blocked: stat.processes_blocked,
        soft_irq_total: stat.soft_irq_total,
        soft_irq: Some(api::SoftIrqStat {
            hi: soft(0),
            timer: soft(1),
            net_tx: soft(2),
            net_rx: soft(3),
            block: soft(4),
            block_io_poll: soft(5),
            tasklet: soft(6),
            sched: soft(7),
            hrtimer: soft(8),
            rcu: soft(9),
        }),
    })
}

fn cpu_stat(times: &sys::proc_stat::CpuTimes) -> api::CpuStat {
    api::CpuStat {
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
