//! Whether a member of etcd is of use: it sees a leader, a quorum confirms what it answers, and it raises no alarm.

use crate::{Etcd, EtcdError};

/// Why a member is of no use.
#[derive(Debug, thiserror::Error)]
pub enum UnhealthyError {
    /// It does not answer, or no quorum does.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// An election goes on, or the quorum is lost.
    #[error("etcd has no leader")]
    NoLeader,
    /// It answers no read that needs a quorum.
    #[error("the member is a learner and does not vote yet")]
    Learner,
    /// Such as `NOSPACE` or `CORRUPT`.
    #[error("etcd raises {}", .0.join(", "))]
    Alarms(Vec<String>),
}

/// Checks one member.
///
/// # Errors
/// [`UnhealthyError`].
pub async fn check(etcd: &dyn Etcd) -> Result<(), UnhealthyError> {
    let status = etcd.status().await?;
    if status.leader.is_none() {
        return Err(UnhealthyError::NoLeader);
    }
    if !status.errors.is_empty() {
        return Err(UnhealthyError::Alarms(status.errors));
    }
    if status.is_learner {
        return Err(UnhealthyError::Learner);
    }
    Ok(etcd.confirm_quorum().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeEtcd;

    #[tokio::test(start_paused = true)]
    async fn leadership_and_a_quorum_decide() {
        let etcd = FakeEtcd::default();
        etcd.add_member("one", "10.5.0.2");
        check(&etcd).await.unwrap();
        etcd.set_quorum(false);
        assert!(matches!(check(&etcd).await.unwrap_err(), UnhealthyError::NoLeader));
        etcd.set_quorum(true);
        let learner = FakeEtcd::default();
        learner.add_learner(&["https://10.5.0.3:2380".to_owned()]).await.unwrap();
        assert!(matches!(check(&learner).await, Err(UnhealthyError::Learner)));
        etcd.raise("NOSPACE");
        assert_eq!(check(&etcd).await.unwrap_err().to_string(), "etcd raises NOSPACE");
        etcd.set_down(true);
        assert!(matches!(check(&etcd).await.unwrap_err(), UnhealthyError::Etcd(EtcdError::Timeout { .. })));
    }
}
