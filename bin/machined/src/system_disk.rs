//! The system disk of this machine. Other disks may have partitions of the same names, from an earlier installation:
//! `SystemDisk` says which disk counts.

use std::path::PathBuf;

use resources::block::SystemDisk;
use state::{Kind, StateError, Store, WatchOptions};

/// Its device; none where no disk has the system, as far as is known now.
pub(crate) fn device(store: &Store) -> Result<Option<PathBuf>, StateError> {
    let disk = store.get_as::<SystemDisk>(SystemDisk::ID)?.filter(|disk| disk.installed);
    Ok(disk.map(|disk| PathBuf::from(&disk.device_path)))
}

/// The same once the search for it is over. Waits for that.
pub(crate) async fn settled_device(store: &Store) -> Result<Option<PathBuf>, StateError> {
    loop {
        // The watch first: a change after the look is an event.
        let mut changes = store.watch_kind(&Kind::of::<SystemDisk>(), WatchOptions::default())?;
        if store.get_as::<SystemDisk>(SystemDisk::ID)?.is_some_and(|disk| disk.installed || disk.settled) {
            return device(store);
        }
        drop(changes.next().await);
    }
}
