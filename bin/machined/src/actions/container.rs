//! First steps of a node that is a container, as far as its host lets it: what is different from those of a machine.

use sys::capabilities::CAP_SYS_RESOURCE;
use sys::early::{EarlyError, EarlySystem};

use super::early;

/// Mounts have to reach containers and come back from them; the kubelet and containerd make control groups and set
/// kernel parameters. If the host refuses, a warning is logged once.
pub(crate) fn mounts(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    system.share_mounts()?;
    for mount in system.mounts()? {
        let wanted = mount.target.starts_with("/sys") || mount.target.starts_with("/proc/sys");
        if wanted
            && mount.options.iter().any(|option| option == "ro")
            && let Err(error) = system.remount_writable(&mount.target)
        {
            tracing::warn!(error = stdx::error_chain(&error), "read-only mount stays as it is");
        }
    }
    Ok(())
}

pub(crate) fn limits(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    early::limits(system)?;
    if !system.may_have(CAP_SYS_RESOURCE) {
        tracing::warn!("the host withholds CAP_SYS_RESOURCE: OOM scores stay as they are");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sys::early::{Call, FakeEarlySystem};

    use super::*;

    #[test]
    fn what_the_kubelet_writes_to_is_made_writable_where_the_host_lets_it() {
        let system = FakeEarlySystem::default()
            .with_host_mount("/sys", "ro,nosuid")
            .with_host_mount("/sys/fs/cgroup", "rw")
            .with_host_mount("/proc/sys", "ro")
            .with_host_mount("/proc/bus", "ro")
            .with_fixed("/sys");
        mounts(&system).unwrap();
        let remounts = ["/sys", "/proc/sys"].map(|target| Call::Writable(PathBuf::from(target)));
        assert_eq!(system.calls(), [&[Call::Share][..], &remounts].concat());
        let failing = FakeEarlySystem::default();
        failing.fail_at(0);
        assert!(matches!(mounts(&failing), Err(EarlyError::Mount(_))));
    }

    #[test]
    fn a_host_that_limits_its_containers_keeps_none_from_starting() {
        let system = FakeEarlySystem::default().withholding(CAP_SYS_RESOURCE, 1024);
        limits(&system).unwrap();
        assert_eq!(system.calls(), [Call::OpenFiles(early::OPEN_FILES)]);
    }
}
