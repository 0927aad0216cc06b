//! What the steps of the plans do on a node.

mod configuration;
mod container;
pub(crate) mod dbus;
mod departure;
mod devices;
mod early;
mod install;
mod kexec;
pub(crate) mod services;
mod sizes;
pub(crate) mod upgrade;
mod volumes;
pub(crate) mod wipe;

use std::path::Path;
use std::sync::Arc;

use ::services::installation::MemoryInstaller;
use async_trait::async_trait;
use block::disk::Disks;
use containers::pods::{Cleanup, Cri};
use resources::block::SystemDisk;
use resources::config::MachineType;
use resources::runtime::MountStatus;
use sequencer::TaskError;
use sys::early::EarlySystem;
use sys::late::LateSystem;
use sys::teardown::{self, Patience};
use sys::udev::Udevadm;

use crate::components::Machine;
use crate::paths::{CONTAINERD_SOCKET, DBUS_SOCKET};
use crate::plans::{Actions, Data, Facts, Job, MachineKind, Step};
use crate::storage::{self, NodeMeta};

/// Owner of the resources that request a sequence's work from controllers.
const SEQUENCER: &str = "sequencer";

/// Acts on this node.
#[derive(Debug)]
pub(crate) struct NodeActions {
    pub(crate) kind: MachineKind,
    pub(crate) machine: Machine,
    pub(crate) system: Arc<dyn EarlySystem>,
    pub(crate) late: Arc<dyn LateSystem>,
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) wiped: wipe::Wiped,
    pub(crate) held: upgrade::Held,
    pub(crate) dbus: dbus::DBus,
    pub(crate) staged: upgrade::Staged,
}

impl NodeActions {
    /// Whether the machine has its own disks, and none of them has this volume.
    async fn has_no(&self, volume: &str) -> Result<bool, TaskError> {
        if self.kind != MachineKind::Machine {
            return Ok(false);
        }
        let components = &self.machine.components;
        if volumes::is_absent(&components.store, volume).await? {
            tracing::info!(volume, "no disk has this volume");
            return Ok(true);
        }
        let devices = storage::devices(&components.storage)?;
        let waits = volumes::waits_for_configuration(&components.store, &*devices, volume).await?;
        if waits {
            tracing::info!(volume, "the volume is blank, and made when there is a configuration");
        }
        Ok(waits)
    }

    /// The steps that depend on whose the kernel is.
    fn perform_early(&self, step: Step) -> Result<(), TaskError> {
        let system = self.system.as_ref();
        match (self.kind, step) {
            (kind, Step::SetupSystemDirectory) => early::directories(system, kind)?,
            (MachineKind::Container, Step::MountPseudoFilesystems) => container::mounts(system)?,
            (MachineKind::Container, Step::SetRlimit) => container::limits(system)?,
            (MachineKind::Machine, Step::EnforceKsppRequirements) => early::kspp(system)?,
            (MachineKind::Machine, Step::MountBpfFs) => early::mount_if_known(system, &early::BPF)?,
            (MachineKind::Machine, Step::MountCgroups) => early::cgroup_filesystem(system)?,
            (MachineKind::Machine, Step::MountPseudoFilesystems) => early::pseudo_filesystems(system)?,
            (MachineKind::Machine, Step::SetRlimit) => early::limits(system)?,
            (MachineKind::Machine, Step::WriteImaPolicy) => early::ima_policy(system)?,
            (MachineKind::Machine, Step::CreateSystemCgroups) => early::cgroups(system)?,
            (MachineKind::Machine, Step::CreateOsReleaseFile) => early::os_release(system)?,
            (kind, step) => return Err(format!("a {kind:?} has no step {}", step.name()).into()),
        }
        Ok(())
    }
}

#[async_trait]
impl Actions for NodeActions {
    fn facts(&self) -> Facts {
        let disk = self.machine.components.store.get_as::<SystemDisk>(SystemDisk::ID);
        let installed = disk.ok().flatten().is_some_and(|disk| disk.installed);
        let kind = self.machine.components.store.get_as::<MachineType>(MachineType::ID);
        let control_plane = kind.ok().flatten().is_some_and(|kind| kind.is_control_plane());
        let staged = self.staged.get().map(|staged| Data::of(staged.preserve));
        Facts { installed, control_plane, wipe_asked: wipe::is_asked(&*self.system), staged }
    }

    async fn perform(&self, step: Step, job: Job) -> Result<(), TaskError> {
        let components = &self.machine.components;
        let (store, supervisor) = (&components.store, &components.supervisor);
        tracing::debug!(sequence = %job.request.sequence, step = step.name(), "step");
        match step {
            Step::LoadModules => devices::load_modules().await,
            Step::CreateEtcFiles => {
                if self.kind == MachineKind::Machine {
                    devices::prepare_rules(&*self.system)?;
                }
                services::etc(&*self.system)
            }
            Step::StartMachined => services::start_machined(&self.machine),
            Step::StartUdevd => services::is_started(supervisor, "udevd", &job.context).await,
            Step::StartSyslogd => services::is_started(supervisor, "syslogd", &job.context).await,
            Step::WaitForDevices => devices::system_disk_or_all(store, &job.context).await,
            Step::WipeDisks => {
                wipe::asked_by_kernel_argument(&*self.system, &self.disks, store).await?;
                if wipe::argument_forgets_encryption(&*self.system) {
                    storage::forget_state_encryption(&components.storage).await?;
                }
                Ok(())
            }
            Step::Install => {
                let devices = storage::devices(&components.storage)?;
                let installer = MemoryInstaller::default();
                install::install(components, &*self.system, &*devices, &installer, &job.context).await
            }
            Step::StartArrays => storage::start_arrays(&components.storage).await,
            Step::ActivateLogicalVolumes => storage::activate_logical_volumes(&components.storage).await,
            Step::MountUserDisks => storage::mount_user_disks(store, &components.storage).await,
            Step::UnmountUserDisks => storage::unmount_user_disks(store, &components.storage).await,
            Step::MountState | Step::SaveConfig if self.has_no(MountStatus::STATE).await? => Ok(()),
            Step::MountState => volumes::mount_state(store, &components.gate).await,
            Step::UnmountState => volumes::unmount(store, MountStatus::STATE).await,
            Step::MountEphemeral => volumes::mount(store, MountStatus::EPHEMERAL).await,
            Step::UnmountEphemeral => volumes::unmount(store, MountStatus::EPHEMERAL).await,
            Step::SetupVarDirectory => volumes::var(store),
            Step::StartContainerd => services::is_started(supervisor, "containerd", &job.context).await,
            Step::LoadConfig => configuration::load(store, &job.context).await,
            Step::SaveConfig => configuration::saved(store, &job.context).await,
            Step::MemorySizeCheck => sizes::memory(store),
            Step::DiskSizeCheck => sizes::disk(store),
            Step::WriteUdevRules => {
                // The first step of a boot that needs more than the system disk.
                devices::known(store, &job.context).await?;
                devices::write_rules(store, &Udevadm::default()).await
            }
            Step::WriteUserFiles => volumes::user_files(store).await,
            Step::StartAllServices => services::all_up(store, supervisor, &job.context).await,
            Step::CordonAndDrain => {
                let kubelet = Path::new(kubernetes::paths::KUBELET_KUBECONFIG);
                departure::drain(store, &kube_edge::RealConnect, kubelet, &job.context).await
            }
            Step::StartDbus => self.dbus.start(Path::new(DBUS_SOCKET)),
            Step::StopDbus => {
                self.dbus.stop();
                Ok(())
            }
            Step::StopAllPods | Step::RemoveAllPods => {
                self.dbus.prepare_for_shutdown(store, &job.context).await?;
                let cleanup = if step == Step::StopAllPods { Cleanup::Stop } else { Cleanup::Remove };
                departure::clean_up_pods(supervisor, &pods(), cleanup).await
            }
            Step::LeaveEtcd => departure::leave_etcd(store, supervisor, &components.etcd).await,
            Step::SendResetSignal => Ok(departure::send_reset_signal(store)?),
            Step::StopAllServices => Ok(supervisor.shutdown().await?),
            Step::ForceCleanup => force_cleanup(Arc::clone(&self.late)).await,
            Step::KexecPrepare => kexec::prepare(store, Arc::clone(&self.late)).await,
            Step::NoteWhatHolds => self.held.note(store),
            Step::StageUpgrade => {
                upgrade::stage(&NodeMeta(Arc::clone(&components.storage)), &self.held, &job.request).await
            }
            Step::TakeStagedUpgrade => {
                self.staged.take_from(store, &NodeMeta(Arc::clone(&components.storage)), &job.context).await
            }
            Step::Upgrade => {
                let installer = MemoryInstaller::default();
                let image = self.staged.image(&job.request)?;
                upgrade::install(components, &*self.system, &installer, image, &job.context).await
            }
            Step::WipeEphemeral => wipe::ephemeral(&self.disks, store).await,
            Step::PrepareTrial => {
                let checks = self.staged.checks(store)?.unwrap_or_else(|| self.held.checks());
                upgrade::prepare_trial(store, storage::trial(&components.storage)?, checks).await
            }
            Step::VerifyDisksToWipe => wipe::verify(&self.disks, store, &job.request).await,
            Step::ReleaseDeviceGroups => storage::release_device_groups(&components.storage).await,
            Step::ResetSystemDisk | Step::ResetSystemPartitions => {
                wipe::reset_system(&self.disks, store, &self.wiped, &job.request).await?;
                if wipe::forgets_encryption(&job.request) {
                    storage::forget_state_encryption(&components.storage).await?;
                }
                Ok(())
            }
            Step::ResetUserDisks => wipe::reset_user_disks(&self.disks, store, &self.wiped, &job.request).await,
            step => self.perform_early(step),
        }
    }
}

/// The pods of this node.
fn pods() -> Cri {
    Cri::new(Path::new(CONTAINERD_SOCKET))
}

/// Ends what still runs, and has it write nothing any more: the disks are about to be wiped.
async fn force_cleanup(system: Arc<dyn LateSystem>) -> Result<(), TaskError> {
    let work = move || {
        teardown::end_processes(&*system);
        teardown::unmount_all(&system, Patience::default())
    };
    // Ending processes takes time.
    let left = tokio::task::spawn_blocking(work).await?;
    if left.is_empty() {
        return Ok(());
    }
    let left: Vec<String> = left.iter().map(|target| target.display().to_string()).collect();
    Err(format!("still written to: {}", left.join(", ")).into())
}

#[cfg(test)]
mod tests {
    use sys::late::FakeLateSystem;

    use super::*;

    #[tokio::test]
    async fn what_still_runs_before_a_wipe_is_ended_and_what_stays_is_named() {
        let machine = || FakeLateSystem::default().with_mount("/var", "xfs", "rw").with_process(false, Some("/var"));
        let system = Arc::new(machine());
        force_cleanup(Arc::clone(&system) as _).await.unwrap();
        assert!(!system.others_run() && system.mounts().is_empty());
        let stuck = Arc::new(machine().with_stuck("/var"));
        let error = force_cleanup(stuck).await.unwrap_err();
        assert_eq!(error.to_string(), "still written to: /var");
    }
}
