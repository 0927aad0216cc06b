//! A member leaves its cluster for good.
//!
//! Data and processes of the member are the caller's: etcd ends by itself once it was removed, and its data is of no use then.

use std::time::Duration;

use crate::{Etcd, EtcdError, Member, MemberId};

/// The pause between attempts while the cluster is not healthy (Talos 1.7).
const BETWEEN: Duration = Duration::from_secs(10);

/// Why a member stays.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// Nobody else has the cluster's data.
    #[error(
        "this node is the only voting member of etcd: the cluster would end with it; use --graceful=false if that is meant"
    )]
    LastMember,
    /// etcd does not answer, or refuses.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// Why a cluster cannot do without a member.
#[derive(Debug, thiserror::Error)]
pub enum AwayError {
    #[error("this node is the only voting member of etcd, whose data would be wiped: use --preserve")]
    LastMember,
    #[error("etcd has two voting members, and no quorum while one of them is away")]
    TwoMembers,
    #[error("the member {0} of etcd was added and has not started")]
    Unstarted(MemberId),
    /// etcd does not answer, or has no quorum.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// What leaving means for a member of a cluster with these members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// It has been removed.
    None,
    /// No other member votes.
    Last,
    /// The others go on.
    OneOfSeveral,
}

fn membership(members: &[Member], own: MemberId) -> Membership {
    let is_member = members.iter().any(|member| member.id == own);
    let others_vote = members.iter().any(|member| member.id != own && !member.is_learner);
    match (is_member, others_vote) {
        (false, _) => Membership::None,
        (true, false) => Membership::Last,
        (true, true) => Membership::OneOfSeveral,
    }
}

/// Whether the member that answers could leave now. Changes nothing.
///
/// # Errors
/// It is the last one, or there is no quorum that could decide about it.
pub async fn can_leave(etcd: &dyn Etcd) -> Result<(), LeaveError> {
    if look(etcd).await?.1 == Membership::OneOfSeveral {
        etcd.confirm_quorum().await?;
    }
    Ok(())
}

/// Whether the cluster can do without the member that answers: for a while, or for good where its data is not preserved.
///
/// # Errors
/// [`AwayError`].
pub async fn can_be_away(etcd: &dyn Etcd, preserve: bool) -> Result<(), AwayError> {
    let own = etcd.status().await?.id;
    let members = etcd.members().await?;
    if !members.iter().any(|member| member.id == own) {
        return Ok(());
    }
    if let Some(unstarted) = members.iter().find(|member| member.name.is_empty()) {
        return Err(AwayError::Unstarted(unstarted.id));
    }
    match (members.iter().filter(|member| !member.is_learner).count(), preserve) {
        (0 | 1, false) => return Err(AwayError::LastMember),
        (0 | 1, true) => return Ok(()),
        (2, _) => return Err(AwayError::TwoMembers),
        _ => {}
    }
    Ok(etcd.confirm_quorum().await?)
}

async fn look(etcd: &dyn Etcd) -> Result<(MemberId, Membership), LeaveError> {
    let own = etcd.status().await?.id;
    match membership(&etcd.members().await?, own) {
        Membership::Last => Err(LeaveError::LastMember),
        membership => Ok((own, membership)),
    }
}

/// Removes the member that answers. While the cluster is not healthy enough for that it is asked again: the caller's patience
/// ends it. Cancel-safe: a member that was removed is not removed again.
///
/// # Errors
/// As [`can_leave`].
pub async fn leave(etcd: &dyn Etcd) -> Result<(), LeaveError> {
    let (own, membership) = look(etcd).await?;
    if membership == Membership::None {
        return Ok(());
    }
    loop {
        match etcd.remove(own).await {
            Ok(()) | Err(EtcdError::MemberNotFound(_)) => return Ok(()),
            Err(error) if error.is_retryable() => {
                tracing::warn!(error = stdx::error_chain(&error), "etcd does not let this member go yet; asking again");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeEtcd;

    fn member(id: u64, is_learner: bool) -> Member {
        Member { id: MemberId(id), name: String::new(), peer_urls: vec![], client_urls: vec![], is_learner }
    }

    #[test]
    fn a_learner_does_not_keep_a_cluster() {
        let own = MemberId(1);
        assert_eq!(membership(&[member(1, false), member(2, true)], own), Membership::Last);
        assert_eq!(membership(&[member(1, false), member(2, false)], own), Membership::OneOfSeveral);
        assert_eq!(membership(&[member(1, true), member(2, false)], own), Membership::OneOfSeveral);
        assert_eq!(membership(&[member(2, false)], own), Membership::None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_several_is_removed_and_the_last_one_stays() {
        let etcd = FakeEtcd::default();
        etcd.add_member("a", "10.5.0.2");
        assert!(matches!(can_leave(&etcd).await, Err(LeaveError::LastMember)));
        assert!(matches!(leave(&etcd).await, Err(LeaveError::LastMember)));
        etcd.add_member("b", "10.5.0.3");
        can_leave(&etcd).await.unwrap();
        // The member that answers is the first one.
        leave(&etcd).await.unwrap();
        let names: Vec<String> = etcd.members().await.unwrap().into_iter().map(|member| member.name).collect();
        assert_eq!(names, ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_may_be_away_where_the_others_decide_without_it() {
        let etcd = FakeEtcd::default();
        etcd.add_member("a", "10.5.0.2");
        can_be_away(&etcd, true).await.unwrap();
        assert!(matches!(can_be_away(&etcd, false).await, Err(AwayError::LastMember)));
        etcd.add_member("b", "10.5.0.3");
        assert!(matches!(can_be_away(&etcd, true).await, Err(AwayError::TwoMembers)));
        etcd.add_member("c", "10.5.0.4");
        can_be_away(&etcd, false).await.unwrap();
        etcd.add_member("", "10.5.0.5");
        assert!(matches!(can_be_away(&etcd, true).await, Err(AwayError::Unstarted(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_quorum_nobody_leaves_until_there_is_one() {
        let etcd = FakeEtcd::default();
        etcd.add_member("a", "10.5.0.2");
        etcd.add_member("b", "10.5.0.3");
        etcd.set_quorum(false);
        let refused = can_leave(&etcd).await;
        assert!(matches!(refused, Err(LeaveError::Etcd(EtcdError::Timeout { .. }))), "{refused:?}");
        let minute = Duration::from_secs(60);
        let ended = tokio::time::timeout(minute, leave(&etcd)).await;
        assert!(ended.is_err(), "{ended:?}");
        assert_eq!(etcd.members().await.unwrap().len(), 2);
        etcd.set_quorum(true);
        leave(&etcd).await.unwrap();
        assert_eq!(etcd.members().await.unwrap().len(), 1);
    }
}
