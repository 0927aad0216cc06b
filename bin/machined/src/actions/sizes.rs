//! Warnings about machines that are too small. They keep none from starting.

use resources::config::MachineType;
use sequencer::TaskError;
use state::Store;

use crate::system_disk;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What firmware and kernel keep to themselves of the memory that a machine was sold with (Talos 1.7).
const RESERVED: u64 = 150 * MIB;
/// The smallest system disk.
const DISK: u64 = 6 * GIB;

/// What is wrong with an amount of memory; none if nothing is.
fn memory_problem(kind: MachineType, bytes: u64) -> Option<String> {
    let (minimum, recommended) = if kind.is_control_plane() { (2 * GIB, 4 * GIB) } else { (GIB, 2 * GIB) };
    let shown = |bytes: u64| format!("{} MiB", bytes / MIB);
    if bytes < minimum - RESERVED {
        Some(format!("{} of memory are less than the minimum of {}", shown(bytes), shown(minimum)))
    } else if bytes < recommended - RESERVED {
        Some(format!("{} of memory are less than the recommended {}", shown(bytes), shown(recommended)))
    } else {
        None
    }
}

pub(crate) fn memory(store: &Store) -> Result<(), TaskError> {
    let kind = store.get_as::<MachineType>(MachineType::ID)?.map_or(MachineType::Unknown, |kind| *kind);
    let kib = sys::proc::meminfo()?.get("MemTotal").copied().unwrap_or_default();
    if let Some(problem) = memory_problem(kind, kib * 1024) {
        tracing::warn!(kind = kind.as_str(), "{problem}");
    }
    Ok(())
}

pub(crate) fn disk(store: &Store) -> Result<(), TaskError> {
    match system_disk::device(store)?.and_then(|disk| sys::partitions::disk_size(&disk)) {
        Some(bytes) if bytes < DISK => {
            tracing::warn!("a system disk of {} MiB is smaller than the minimum of {} MiB", bytes / MIB, DISK / MIB);
        }
        Some(_) => {}
        None => tracing::info!("no disk has the system yet"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_planes_need_twice_the_memory_of_workers() {
        let problem = |kind, bytes| memory_problem(kind, bytes).unwrap_or_default();
        assert!(problem(MachineType::ControlPlane, GIB).contains("less than the minimum of 2048 MiB"));
        assert!(problem(MachineType::ControlPlane, 2 * GIB).contains("less than the recommended 4096 MiB"));
        assert!(problem(MachineType::Worker, 512 * MIB).contains("less than the minimum of 1024 MiB"));
        assert!(problem(MachineType::Worker, GIB - 100 * MIB).contains("recommended"));
        assert_eq!(memory_problem(MachineType::ControlPlane, 4 * GIB - RESERVED), None);
        assert_eq!(memory_problem(MachineType::Worker, 2 * GIB), None);
    }
}
