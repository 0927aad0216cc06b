//! Draining a node: pods are evicted through the API server, which respects their disruption budgets.
//!
//! The node is not cordoned here, and no pod is deleted that a budget protects: the caller's patience ends a drain.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::KubeApi;
use crate::bound_pod::{Eviction, Upkeep};
use crate::error::KubeError;

/// How often it is looked which pods are left, and evictions that a budget forbade are asked for again.
const POLL: Duration = Duration::from_secs(2);
/// A drain ends when the API server has not answered for this long: nobody would say when it is done.
const SILENCE: Duration = Duration::from_secs(30);

/// A drain, and what it still waits for.
#[derive(Debug, Default)]
pub struct Drain {
    /// Pods with what keeps them.
    left: BTreeMap<String, String>,
}

impl Drain {
    /// Evicts pods of `node` until none is left that can be. Cancel-safe: a drain that is begun again goes on.
    ///
    /// # Errors
    /// The API server does not answer for half a minute, or refuses.
    pub async fn run(&mut self, api: &dyn KubeApi, node: &str) -> Result<(), KubeError> {
        let mut heard = Instant::now();
        loop {
            match self.pass(api, node).await {
                Ok(()) if self.left.is_empty() => return Ok(()),
                Ok(()) => heard = Instant::now(),
                // This node could ask all the time that it ran: it is not permitted.
                Err(error) if error.code() == Some(403) || !error.is_retryable() => return Err(error),
                Err(error) if heard.elapsed() >= SILENCE => return Err(error),
                Err(error) => tracing::debug!(error = stdx::error_chain(&error), "drain: asking again"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Looks once, and asks for the evictions of all pods that are left.
    async fn pass(&mut self, api: &dyn KubeApi, node: &str) -> Result<(), KubeError> {
        let pods = api.pods_on(node).await?;
        let mut left = BTreeMap::new();
        for pod in &pods {
            let keeps = match pod.upkeep {
                Upkeep::DaemonSet | Upkeep::Mirror | Upkeep::Finished => continue,
                Upkeep::Leaving => "ending".to_owned(),
                Upkeep::Evictable => match api.evict(pod).await? {
                    // The next look shows whether another one of that name is there.
                    Eviction::Gone => "gone".to_owned(),
                    Eviction::Accepted => {
                        tracing::info!(pod = pod.id(), "pod evicted");
                        "ending".to_owned()
                    }
                    Eviction::Forbidden(reason) => reason,
                },
            };
            left.insert(pod.id(), keeps);
        }
        self.left = left;
        Ok(())
    }

    /// The pods that were left when it was last looked, each with what keeps it.
    #[must_use]
    pub fn left(&self) -> String {
        self.left.iter().map(|(pod, keeps)| format!("{pod} ({keeps})")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FakeKube;
    use crate::bound_pod::BoundPod;

    fn pod(name: &str, upkeep: Upkeep) -> BoundPod {
        BoundPod { namespace: "default".into(), name: name.into(), uid: format!("uid of {name}"), upkeep }
    }

    fn cluster(pods: &[BoundPod]) -> FakeKube {
        let kube = FakeKube::new("v1.30.0");
        for pod in pods {
            kube.bind_pod("n", pod.clone());
        }
        kube
    }

    #[tokio::test(start_paused = true)]
    async fn pods_are_evicted_and_waited_for_but_not_those_that_would_come_back() {
        let kube = cluster(&[
            pod("web", Upkeep::Evictable),
            pod("proxy", Upkeep::DaemonSet),
            pod("etcd", Upkeep::Mirror),
            pod("job", Upkeep::Finished),
            pod("old", Upkeep::Leaving),
        ]);
        let mut drain = Drain::default();
        drain.run(&kube, "n").await.unwrap();
        assert_eq!(kube.evictions(), ["default/web"]);
        assert_eq!(kube.bound_pods("n"), ["etcd", "job", "proxy"]);
        assert_eq!(drain.left(), "");
        // Other nodes are nobody's business here.
        assert_eq!(kube.bound_pods("m"), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_respected_until_it_allows_the_eviction() {
        let kube = cluster(&[pod("db", Upkeep::Evictable), pod("web", Upkeep::Evictable)]);
        kube.forbid_eviction("db", true);
        let mut drain = Drain::default();
        let minute = Duration::from_secs(60);
        let ended = tokio::time::timeout(minute, drain.run(&kube, "n")).await;
        assert!(ended.is_err(), "{ended:?}");
        assert_eq!(drain.left(), "default/db (its disruption budget allows none)");
        assert_eq!(kube.bound_pods("n"), ["db"]);
        kube.forbid_eviction("db", false);
        drain.run(&kube, "n").await.unwrap();
        assert_eq!(kube.bound_pods("n"), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_or_refuses_ends_the_drain() {
        let kube = cluster(&[pod("web", Upkeep::Evictable)]);
        kube.set_reachable(false);
        let begun = Instant::now();
        let error = Drain::default().run(&kube, "n").await.unwrap_err();
        assert!(matches!(error, KubeError::Transport { .. }), "{error}");
        assert!((SILENCE..SILENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        kube.set_reachable(true);
        kube.refuse("evicting", 403);
        let error = Drain::default().run(&kube, "n").await.unwrap_err();
        assert_eq!(error.code(), Some(403));
        kube.refuse("evicting", 0);
        kube.refuse("listing", 503);
        let mut drain = Drain::default();
        let ended = tokio::time::timeout(Duration::from_secs(10), drain.run(&kube, "n")).await;
        assert!(ended.is_err(), "a busy server is asked again: {ended:?}");
        kube.refuse("listing", 0);
        drain.run(&kube, "n").await.unwrap();
    }
}
