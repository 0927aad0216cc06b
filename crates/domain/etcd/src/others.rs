//! The members of etcd on other nodes: what they say together, and which of them carries out a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use etcd_edge::membership::Cluster;
use etcd_edge::{Connector, Etcd, EtcdError, Member, MemberId, Tls};

/// How long all of them may take together: one that is away must not keep a node from starting.
const ANSWER: Duration = Duration::from_secs(3);
/// How many addresses are asked; etcd's own advice ends at seven members.
const MOST: usize = 16;
const CLIENT_PORT: u16 = 2379;

/// What the others said, and the way to one of them.
#[derive(Debug)]
pub(crate) struct Others {
    pub(crate) cluster: Cluster,
    pub(crate) etcd: Arc<dyn Etcd>,
}

struct Answer {
    id: MemberId,
    etcd: Arc<dyn Etcd>,
    /// Of one whose quorum has confirmed it.
    members: Option<Vec<Member>>,
}

/// Asks etcd at all these addresses at the same time. Nothing where none of them answers for a quorum.
pub(crate) async fn ask(connector: &Arc<dyn Connector>, tls: &Tls, addresses: &[IpAddr]) -> Option<Others> {
    let asked = addresses.iter().take(MOST).map(|address| {
        let endpoint = format!("https://{}", SocketAddr::new(*address, CLIENT_PORT));
        let (connector, tls) = (Arc::clone(connector), tls.clone());
        async move {
            match tokio::time::timeout(ANSWER, ask_one(&*connector, &tls, endpoint.clone())).await {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(error)) => {
                    tracing::debug!(endpoint, error = %stdx::error_chain(&error), "member of etcd does not answer");
                    None
                }
                Err(_) => None,
            }
        }
    });
    let answers: Vec<Answer> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    let running = answers.iter().map(|answer| answer.id).collect();
    let chosen = answers.into_iter().find_map(|answer| Some((answer.members?, answer.etcd)));
    chosen.map(|(members, etcd)| Others { cluster: Cluster { members, running }, etcd })
}

async fn ask_one(connector: &dyn Connector, tls: &Tls, endpoint: String) -> Result<Answer, EtcdError> {
    let etcd = connector.connect(&[endpoint], tls).await?;
    let status = etcd.status().await?;
    let members = if status.is_learner { None } else { confirmed(&*etcd).await };
    Ok(Answer { id: status.id, etcd, members })
}

/// The members that a member knows. The list of one that is behind is an old one: after a read that its quorum confirms it is none.
async fn confirmed(etcd: &dyn Etcd) -> Option<Vec<Member>> {
    let members = async {
        etcd.confirm_quorum().await?;
        etcd.members().await
    };
    let failed = |error: &EtcdError| tracing::debug!(error = stdx::error_chain(error), "member of etcd has no quorum");
    members.await.inspect_err(failed).ok()
}
