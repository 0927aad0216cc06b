//! What the boot sequences do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain_runtime::cri_parts::{CONTAINERD_FILE, ContainerdFile, ContainerdLimits};
use domain_runtime::mount;
use resources::runtime::MountStatus;
use resources::v1alpha1::AcquireConfigSpec;
use sequencer::{Plan, Task, TaskError};
use services::ContainerdService;
use state::{Key, StateError, Store};
use supervisor::Supervisor;
use sys::capabilities::{CAP_SYS_RESOURCE, bounding};

use crate::machine::{CONTAINERD_SOCKET, ETC, Parts, RENDERED_ETC};

/// A task that only talks to the kernel.
const QUICK: Duration = Duration::from_secs(30);
/// How long those who write to a volume may take to stop.
const UNMOUNT: Duration = Duration::from_secs(10);
/// Owner of the resources that ask controllers to do a sequence's work.
const SEQUENCER: &str = "sequencer";
/// How long a machine may take to bring all services up (Talos 1.7: 70 minutes; a control plane waits for bootstrap).
const BOOT: Duration = Duration::from_secs(70 * 60);

/// Directories of the system that are made at each boot, with their modes.
const DIRECTORIES: [(&str, u32); 8] = [
    ("/system/etc", 0o755),
    ("/system/etc/cri", 0o755),
    ("/system/run", 0o755),
    ("/system/run/machined", 0o755),
    ("/system/run/apid", 0o755),
    ("/system/run/trustd", 0o755),
    ("/system/secrets", 0o755),
    ("/system/config", 0o755),
];

/// Brings the machine to where a configuration can be acquired.
pub(crate) fn initialize(start_api: Task, parts: &Parts, containerd: ContainerdService) -> Plan {
    let (supervisor, store) = (parts.supervisor.clone(), parts.store.clone());
    Plan::new("initialize")
        .phase(
            "systemRequirements",
            vec![
                Task::new("setupSystemDirectory", QUICK, async { Ok(directories()?) }),
                Task::new("mountPseudoFilesystems", QUICK, async { mounts() }),
                Task::new("setRLimit", QUICK, async { limits() }),
            ],
        )
        .phase("etc", vec![Task::new("createEtcFiles", QUICK, async { etc() })])
        .phase("earlyServices", vec![start_api])
        .phase(
            "mountSystem",
            vec![mount("mountState", &store, MountStatus::STATE), mount("ephemeral", &store, MountStatus::EPHEMERAL)],
        )
        .phase("var", vec![Task::new("setupVarDirectory", QUICK, var(store.clone()))])
        .phase(
            "containerd",
            // Its images and containers are below /var.
            vec![Task::new("startContainerd", QUICK, async move {
                supervisor.ensure(Arc::new(containerd));
                Ok(())
            })],
        )
        .phase("config", vec![Task::new("loadConfig", QUICK, async move { Ok(begin_acquisition(&store)?) })])
}

/// Waits for all that a configured machine runs.
pub(crate) fn boot(supervisor: &Supervisor, expected: Vec<&'static str>) -> Plan {
    let supervisor = supervisor.clone();
    let up = Task::new("startAllServices", BOOT, async move {
        let mut revision = supervisor.revision();
        loop {
            revision.borrow_and_update();
            let is_up = |id: &&str| supervisor.get(id).is_some_and(|status| status.is_up());
            if expected.iter().all(is_up) {
                return Ok(());
            }
            revision.changed().await?;
        }
    });
    Plan::new("boot").phase("startEverything", vec![up])
}

fn mount(name: &'static str, store: &Store, volume: &'static str) -> Task {
    let store = store.clone();
    Task::new(name, QUICK, async move { Ok(mount::mount(&store, volume, QUICK).await.map(drop)?) })
}

/// Directories below the volume EPHEMERAL that services expect.
async fn var(store: Store) -> Result<(), TaskError> {
    let ephemeral = store.get_as::<MountStatus>(MountStatus::EPHEMERAL)?;
    if let Some(ephemeral) = ephemeral {
        std::fs::create_dir_all(Path::new(&ephemeral.target).join("log"))?;
    }
    Ok(())
}

/// Has the configuration acquired: from now on the machine waits for one, in maintenance mode where it has to.
fn begin_acquisition(store: &Store) -> Result<(), StateError> {
    store.put(AcquireConfigSpec::ID, AcquireConfigSpec {}, SEQUENCER).map(drop)
}

/// The configuration is there.
pub(crate) fn end_acquisition(store: &Store) -> Result<(), StateError> {
    match store.destroy(&Key::of::<AcquireConfigSpec>(AcquireConfigSpec::ID), SEQUENCER) {
        Err(StateError::NotFound(_)) => Ok(()),
        ended => ended,
    }
}

/// Ends all services, then takes the volumes from those who write to them.
pub(crate) fn shutdown(parts: &Parts) -> Plan {
    let (supervisor, store) = (parts.supervisor.clone(), parts.store.clone());
    let stop = Task::new("stopAllServices", Duration::from_secs(90), async move {
        supervisor.shutdown().await;
        Ok(())
    });
    let unmount = |name, volume: &'static str| {
        let store = store.clone();
        Task::new(name, QUICK, async move { Ok(mount::unmount(&store, volume, UNMOUNT).await?) })
    };
    Plan::new("shutdown").phase("stopEverything", vec![stop]).phase(
        "unmountSystem",
        vec![
            unmount("unmountEphemeralPartition", MountStatus::EPHEMERAL),
            unmount("unmountStatePartition", MountStatus::STATE),
        ],
    )
}

fn directories() -> std::io::Result<()> {
    for (path, mode) in DIRECTORIES {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Mounts have to reach containers and come back from them; the kubelet and containerd make control groups and set
/// kernel parameters. Where the host refuses, the machine says so once and goes on.
fn mounts() -> Result<(), TaskError> {
    sys::mounts::make_shared(Path::new("/"))?;
    for mount in sys::mounts::table()? {
        let wanted = mount.target.starts_with("/sys") || mount.target.starts_with("/proc/sys");
        if wanted && mount.options.iter().any(|option| option == "ro") {
            let result = sys::mounts::remount_writable(&mount.target);
            if let Err(error) = result {
                tracing::warn!(error = stdx::error_chain(&error), "read-only mount stays as it is");
            }
        }
    }
    Ok(())
}

fn limits() -> Result<(), TaskError> {
    /// Talos 1.7.
    const OPEN_FILES: u64 = 1_048_576;
    let got = sys::host::raise_open_files(OPEN_FILES)?;
    if got < OPEN_FILES {
        tracing::warn!(wanted = OPEN_FILES, got, "the host limits open files");
    }
    if !bounding().contains(&CAP_SYS_RESOURCE) {
        tracing::warn!("the host withholds CAP_SYS_RESOURCE: OOM scores stay as they are");
    }
    Ok(())
}

fn etc() -> Result<(), TaskError> {
    containerd_file().write_first()?;
    sys::mounts::bind(&Path::new(RENDERED_ETC).join("cri"), &Path::new(ETC).join("cri"))?;
    Ok(())
}

/// containerd's configuration file.
pub(crate) fn containerd_file() -> ContainerdFile {
    let limits = ContainerdLimits { restrict_oom_score: !bounding().contains(&CAP_SYS_RESOURCE) };
    ContainerdFile { rendered: RENDERED_ETC.into(), limits }
}

/// containerd as the boot plan starts it.
pub(crate) fn containerd(logs: supervisor::LogStore) -> ContainerdService {
    ContainerdService::new(&Path::new(ETC).join(CONTAINERD_FILE), Path::new(CONTAINERD_SOCKET), logs)
}
