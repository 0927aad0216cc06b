//! Logs of kernels that panicked, which the firmware or reserved memory kept: moved from the kernel's store to EPHEMERAL, so that
//! the store has room for the next one.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::runtime::MountStatus;
use sys::files::{self, Access, FileError};

/// Where the kernel shows its store.
pub const STORE: &str = "/sys/fs/pstore";
/// Below the volume EPHEMERAL. Everything in it is of the records.
const DIRECTORY: &str = "log/pstore";
/// A longer record stays in the store: kernels keep some tens of kilobytes.
const LONGEST: u64 = 4 << 20;
/// So many are kept, the youngest ones. A panic leaves about ten parts.
const KEPT: usize = 100;

/// `runtime.CrashRecordController`: moves records of the kernel's store once EPHEMERAL is mounted.
#[derive(Debug)]
pub struct CrashRecordController {
    store: PathBuf,
}

impl CrashRecordController {
    /// Moves what is in this directory, [`STORE`] on a machine.
    #[must_use]
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self { store: store.into() }
    }
}

#[async_trait]
impl Controller for CrashRecordController {
    fn name(&self) -> &'static str {
        "runtime.CrashRecordController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::strong::<MountStatus>().id(MountStatus::EPHEMERAL)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(volume) = ctx.hold_while_running::<MountStatus>(MountStatus::EPHEMERAL)? else { return Ok(()) };
        let directory = Path::new(&volume.target).join(DIRECTORY);
        let records = names(&self.store)?;
        if records.is_empty() {
            return Ok(());
        }
        files::make_directory(&directory, Access::directory_of(0))?;
        let mut failures = Vec::new();
        let mut moved = 0;
        for name in records {
            match move_record(&self.store.join(&name), &directory, &name) {
                Ok(true) => moved += 1,
                Ok(false) => {}
                // One that fails keeps no other one in the store.
                Err(error) => failures.push(format!("{name:?}: {error}")),
            }
        }
        if moved > 0 {
            tracing::warn!(records = moved, directory = %directory.display(), "an earlier kernel left its log");
        }
        // They begin with the time.
        let kept = names(&directory)?;
        for old in &kept[..kept.len().saturating_sub(KEPT)] {
            files::remove(&directory.join(old))?;
        }
        if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) }
    }
}

/// The names in a directory, in their order.
fn names(directory: &Path) -> Result<Vec<String>, FileError> {
    let mut names: Vec<String> =
        files::list(directory)?.into_iter().filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Writes a record durably, and then removes it from the store. False for one that is too long, which stays.
fn move_record(record: &Path, directory: &Path, name: &str) -> Result<bool, ReconcileError> {
    let file = File::open(record)?;
    // The kernel gives a record the time that it was written at.
    let time = file.metadata()?.mtime().max(0);
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        tracing::warn!(record = name, "a record of an earlier kernel is too long to be kept, and stays in the store");
        return Ok(false);
    }
    // Stores in memory use a name again.
    files::write_atomic(&directory.join(format!("{time:010}-{name}")), &content, Access::SECRET)?;
    files::remove(record)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    struct Test {
        store: tempfile::TempDir,
        volume: tempfile::TempDir,
        harness: Harness,
    }

    impl Test {
        fn start() -> Self {
            let (store, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let harness = Harness::with(CrashRecordController::new(store.path()));
            Self { store, volume, harness }
        }

        fn record(&self, name: &str, seconds: u64, content: &[u8]) {
            let path = self.store.path().join(name);
            std::fs::write(&path, content).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }

        async fn mount(&self) {
            let target = self.volume.path().display().to_string();
            self.harness.put(MountStatus::EPHEMERAL, MountStatus { target, ..MountStatus::default() });
            self.harness.settle().await;
        }

        fn kept(&self) -> Vec<String> {
            names(&self.volume.path().join(DIRECTORY)).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn records_leave_the_store_once_they_are_on_the_disk() {
        let test = Test::start();
        test.record("dmesg-efi-1", 1_700_000_000, b"Panic#1 Part1");
        test.record("dmesg-ramoops-0", 5, b"");
        test.harness.settle().await;
        assert_eq!(names(test.store.path()).unwrap().len(), 2, "there is no disk yet");
        test.mount().await;
        assert_eq!(names(test.store.path()).unwrap(), Vec::<String>::new());
        assert_eq!(test.kept(), ["0000000005-dmesg-ramoops-0", "1700000000-dmesg-efi-1"]);
        let path = test.volume.path().join(DIRECTORY).join("1700000000-dmesg-efi-1");
        assert_eq!(std::fs::read(&path).unwrap(), b"Panic#1 Part1");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_cannot_be_kept_stays_in_the_store_and_the_others_leave_it() {
        let test = Test::start();
        test.record("dmesg-efi-1", 1, b"1");
        test.record("dmesg-efi-2", 2, &vec![0; usize::try_from(LONGEST).unwrap() + 1]);
        // Something that cannot be replaced has the name of its copy.
        test.record("dmesg-efi-3", 3, b"3");
        std::fs::create_dir_all(test.volume.path().join(DIRECTORY).join("0000000003-dmesg-efi-3/x")).unwrap();
        test.mount().await;
        assert_eq!(names(test.store.path()).unwrap(), ["dmesg-efi-2", "dmesg-efi-3"]);
        assert_eq!(test.kept(), ["0000000001-dmesg-efi-1", "0000000003-dmesg-efi-3"]);
        let said = test.harness.status("runtime.CrashRecordController").last_error.unwrap();
        assert!(said.contains("dmesg-efi-3"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_youngest_records_are_kept() {
        let test = Test::start();
        for time in 0..KEPT as u64 + 3 {
            test.record(&format!("dmesg-efi-{time}"), time, b"x");
        }
        test.mount().await;
        let kept = test.kept();
        assert_eq!((kept.len(), kept[0].as_str()), (KEPT, "0000000003-dmesg-efi-3"));
    }
}
