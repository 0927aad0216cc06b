//! The kubelet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use supervisor::{Condition, HealthCheck, HealthSettings, RunContext, Service, ServiceError};
use sys::files::{self, FileError};
use tokio_util::sync::CancellationToken;

use crate::container::Runtime;
use crate::oci::{Mount, Privilege, Shape, with_path};
use crate::{POD_LOGS, group, oom};

/// Settings of the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletSettings {
    pub image: String,
    /// Without the program itself.
    pub args: Vec<String>,
    /// Beside those that every kubelet has.
    pub extra_mounts: Vec<Mount>,
    /// `KEY=value`.
    pub environment: Vec<String>,
    /// Where the volume EPHEMERAL is mounted.
    pub volume: PathBuf,
}

/// Runs the kubelet.
pub struct KubeletService {
    settings: KubeletSettings,
    runtime: Runtime,
    conditions: Vec<Arc<dyn Condition>>,
}

impl std::fmt::Debug for KubeletService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeletService").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KubeletService {
    pub fn new(settings: KubeletSettings, runtime: Runtime, conditions: Vec<Arc<dyn Condition>>) -> Self {
        Self { settings, runtime, conditions }
    }
}

/// Directories shared by kubelet and node.
const WRITABLE: [&str; 7] = ["/dev", "/sys", "/run", "/etc/cni", "/etc/kubernetes", "/opt", "/usr/libexec/kubernetes"];

/// As above, on the volume.
const WRITABLE_ON_VOLUME: [&str; 4] = ["lib/cni", "lib/containerd", "lib/kubelet", "log"];

/// Directories on the volume that are made.
const DIRECTORIES: [&str; 5] = ["lib/cni", "lib/kubelet", POD_LOGS, "log/containers", "lib/kubelet/seccomp"];

/// By which the kubelet learns that the machine is about to end. Its library looks below `/var/run`, which images need not have.
const BUS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";
const BUS: &str = "/run/dbus/system_bus_socket";

const READONLY: [&str; 4] = ["/etc/hosts", "/etc/machine-id", "/etc/os-release", "/etc/resolv.conf"];

#[async_trait]
impl Service for KubeletService {
    fn id(&self) -> &'static str {
        "kubelet"
    }

    fn depends_on(&self) -> Vec<String> {
        vec!["containerd".into()]
    }

    fn conditions(&self) -> Vec<Arc<dyn Condition>> {
        self.conditions.clone()
    }

    async fn prepare(&self, _cancel: CancellationToken) -> Result<(), ServiceError> {
        prepare_directories(&self.settings)?;
        self.runtime.pull(&self.settings.image).await
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        let on_volume = |path: &str| Mount::writable(&self.settings.volume.join(path).display().to_string());
        let mut mounts: Vec<Mount> = WRITABLE.into_iter().map(Mount::writable).collect();
        mounts.extend(WRITABLE_ON_VOLUME.into_iter().map(on_volume));
        mounts.extend(READONLY.into_iter().map(Mount::readonly));
        mounts.extend(self.settings.extra_mounts.iter().cloned());
        let args = std::iter::once("/usr/local/bin/kubelet".to_owned()).chain(self.settings.args.iter().cloned());
        let mut environment =
            with_path("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", &self.settings.environment);
        if !environment.iter().any(|variable| variable.starts_with(BUS_VARIABLE)) {
            environment.push(format!("{BUS_VARIABLE}=unix:path={BUS}"));
        }
        let shape = Shape {
            args: args.collect(),
            environment,
            privilege: Privilege::Host,
            mounts,
            oom_score_adj: Some(oom::KUBELET),
            cgroup: format!("/{}", group::KUBELET),
        };
        self.runtime.run(self.id(), &self.settings.image, shape, Duration::from_secs(30), &run).await
    }

    fn health(&self) -> Option<HealthCheck> {
        let settings = HealthSettings { initial_delay: Duration::from_secs(2), ..HealthSettings::default() };
        Some(HealthCheck::new(settings, healthz))
    }
}

/// Other services write on the volume too: links are not followed where a directory is made.
fn prepare_directories(settings: &KubeletSettings) -> Result<(), FileError> {
    for path in DIRECTORIES {
        files::ensure_directory(&settings.volume.join(path), 0o755)?;
    }
    for mount in settings.extra_mounts.iter().filter(|mount| mount.is_bind()) {
        let source = Path::new(&mount.source);
        // A file may be shown as well, also one that a link leads to.
        if !source.exists() {
            files::ensure_directory(source, 0o700)?;
        }
    }
    Ok(())
}

/// `GET /healthz` on the kubelet's own port: 200 is well.
async fn healthz() -> Result<(), String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", 10248)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = ask.await.map_err(|e| format!("asking the kubelet: {e}"))?;
    let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if first.contains(" 200 ") { Ok(()) } else { Err(format!("the kubelet answered {first:?}")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn settings(volume: &Path, sources: &[&Path]) -> KubeletSettings {
        let mount = |source: &&Path| Mount::writable(&source.display().to_string());
        KubeletSettings {
            image: "kubelet:1".to_owned(),
            args: Vec::new(),
            extra_mounts: sources.iter().map(mount).collect(),
            environment: Vec::new(),
            volume: volume.to_owned(),
        }
    }

    /// The kubelet failed for ever: a bind mount needs its source.
    #[test]
    fn the_source_of_an_extra_mount_is_made_where_it_is_missing() {
        let volume = tempfile::tempdir().unwrap();
        let (file, made) = (volume.path().join("file"), volume.path().join("lib/longhorn"));
        std::fs::write(&file, "").unwrap();
        let mut settings = settings(volume.path(), &[&file, &made]);
        let tmpfs = Mount { kind: "tmpfs".to_owned(), ..Mount::writable("tmpfs") };
        settings.extra_mounts.push(tmpfs);
        prepare_directories(&settings).unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(file.is_file() && !Path::new("tmpfs").exists());
        assert!(volume.path().join("log/pods").is_dir());
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o755)).unwrap();
        prepare_directories(&settings).unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o7777, 0o755, "what is there stays as it is");
    }

    #[test]
    fn nothing_is_made_through_a_link() {
        let (volume, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(other.path(), volume.path().join("link")).unwrap();
        let source = volume.path().join("link/made");
        let error = prepare_directories(&settings(volume.path(), &[&source])).unwrap_err();
        assert_eq!((error.operation, error.path), ("making the directory", source));
        assert!(!other.path().join("made").exists());
    }
}
