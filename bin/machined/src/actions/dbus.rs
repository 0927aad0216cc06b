//! D-Bus, by which the kubelet learns that the machine is about to end, and delays that until its pods have ended.

use std::path::Path;
use std::time::Duration;

use logind::{Bus, LONGEST_DELAY, Logind};
use parking_lot::Mutex;
use resources::k8s::KubeletSpec;
use sequencer::{TaskContext, TaskError};
use state::Store;

/// Beyond what the kubelet gives its pods: it removes their networks and volumes as well.
const MARGIN: Duration = Duration::from_secs(30);

/// The bus of this machine.
#[derive(Debug, Default)]
pub(crate) struct DBus {
    logind: Logind,
    bus: Mutex<Option<Bus>>,
}

impl DBus {
    /// Serves at `socket`. A second time it is made anew.
    pub(crate) fn start(&self, socket: &Path) -> Result<(), TaskError> {
        let mut bus = self.bus.lock();
        // Its socket is removed with it, before the other one is made.
        *bus = None;
        *bus = Some(Bus::start(socket, &self.logind)?);
        Ok(())
    }

    pub(crate) fn stop(&self) {
        *self.bus.lock() = None;
    }

    /// Has the kubelet end its pods, and waits until it has. One that takes longer than it was configured to is not waited for.
    pub(crate) async fn prepare_for_shutdown(&self, store: &Store, context: &TaskContext) -> Result<(), TaskError> {
        let limit = limit(store.get_as::<KubeletSpec>(KubeletSpec::ID)?.as_deref());
        // Both arms are cancel-safe.
        tokio::select! {
            released = self.logind.prepare_for_shutdown(limit) => if let Err(error) = released {
                tracing::warn!(error = stdx::error_chain(&error), ?limit, "pods are ended without the kubelet");
            },
            () = context.cancel.cancelled() => return Err("pods have not ended".into()),
        }
        Ok(())
    }
}

/// How long the kubelet may delay the end.
fn limit(kubelet: Option<&KubeletSpec>) -> Duration {
    let grace = kubelet.and_then(|kubelet| kubelet.config.get("shutdownGracePeriod")?.as_str().map(str::to_owned));
    let grace = grace.and_then(|grace| stdx::duration::parse(&grace).ok());
    grace.map_or(LONGEST_DELAY, |grace| grace.saturating_add(MARGIN).min(LONGEST_DELAY))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sequencer::ActorId;
    use stdx::tasks::CancellationToken;
    use supervisor::LogStore;

    use super::*;

    #[test]
    fn the_kubelet_has_what_it_gives_its_pods_and_a_little_more() {
        let kubelet = |config: serde_json::Value| KubeletSpec {
            config: config.as_object().cloned().unwrap_or_default(),
            ..KubeletSpec::default()
        };
        assert_eq!(limit(Some(&kubelet(serde_json::json!({"shutdownGracePeriod": "45s"})))), Duration::from_secs(75));
        assert_eq!(limit(Some(&kubelet(serde_json::json!({"shutdownGracePeriod": "5h"})))), LONGEST_DELAY);
        assert_eq!(limit(Some(&kubelet(serde_json::json!({})))), LONGEST_DELAY);
        assert_eq!(limit(None), LONGEST_DELAY);
    }

    #[tokio::test]
    async fn a_machine_without_locks_ends_at_once_and_has_its_socket_for_so_long() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("dbus/system_bus_socket");
        let dbus = DBus::default();
        dbus.start(&socket).unwrap();
        dbus.start(&socket).unwrap();
        assert!(socket.exists());
        let context = TaskContext { cancel: CancellationToken::new(), actor: ActorId::machine() };
        let store =
            crate::components::Components::new(Arc::new(platform::Container::new(None, None)), LogStore::default())
                .store;
        dbus.prepare_for_shutdown(&store, &context).await.unwrap();
        dbus.stop();
        assert!(!socket.exists());
    }
}
