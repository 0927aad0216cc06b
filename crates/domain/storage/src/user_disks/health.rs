//! What is seen of a mounted partition, and what that means: a decision without I/O.

use std::path::PathBuf;

use block::Usage;
use resources::block::UserDiskPhase;

/// With less room nothing useful can be written: a log of XFS and a few files.
const FULL: u64 = 4 << 20;

/// What is mounted at the mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mounted {
    /// A partition; `is_there`: the kernel has it still.
    Partition { path: PathBuf, is_there: bool },
    /// Nothing, or what keeps others from writing below it.
    Nothing,
}

/// What the file system answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Usage(Usage),
    Error(String),
    /// Nothing within so many seconds.
    Silence(u64),
}

/// What is at the path of the configuration now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The partition with the file system that was mounted.
    Same(PathBuf),
    /// Something else, or nothing: why it is not used.
    No(String),
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// Takes the old mount away, whoever uses it, and mounts this partition.
    Replace(PathBuf),
    /// Unmounts it if nobody uses it, and mounts this partition, which is the same one.
    Renew(PathBuf),
}

/// How a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) phase: UserDiskPhase,
    pub(super) reason: String,
    pub(super) act: Act,
}

/// Judges a partition by what was seen. `found` counts where it is not mounted, or its disk is gone.
pub(super) fn judge(mounted: &Mounted, answer: &Answer, found: &Found) -> Verdict {
    let verdict = |phase, reason: &str, act| Verdict { phase, reason: reason.to_owned(), act };
    let lost = |what: &str| match found {
        Found::Same(path) => verdict(UserDiskPhase::Lost, "its disk is back", Act::Replace(path.clone())),
        Found::No(why) => verdict(UserDiskPhase::Lost, &format!("{what}: {why}"), Act::Nothing),
    };
    let path = match mounted {
        Mounted::Partition { path, is_there: true } => path,
        Mounted::Partition { is_there: false, .. } => return lost("its disk is gone, what uses it gets I/O errors"),
        Mounted::Nothing => return lost("it is not mounted, nobody can write there"),
    };
    match answer {
        Answer::Usage(usage) if usage.available < FULL => {
            let left = usage.available >> 20;
            verdict(UserDiskPhase::Full, &format!("{left} MiB are left: delete files"), Act::Nothing)
        }
        Answer::Usage(_) => verdict(UserDiskPhase::Mounted, "", Act::Nothing),
        Answer::Error(error) => verdict(UserDiskPhase::Failed, error, Act::Renew(path.clone())),
        Answer::Silence(seconds) => {
            verdict(UserDiskPhase::Slow, &format!("no answer within {seconds} s"), Act::Nothing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USED: Answer = Answer::Usage(Usage { size: 1 << 30, available: 1 << 29 });

    fn partition(is_there: bool) -> Mounted {
        Mounted::Partition { path: "/dev/vdb1".into(), is_there }
    }

    #[test]
    fn a_disk_that_is_gone_is_replaced_by_its_own_file_system_alone() {
        let same = judge(&partition(false), &USED, &Found::Same("/dev/vdc1".into()));
        assert_eq!((same.phase, same.act), (UserDiskPhase::Lost, Act::Replace("/dev/vdc1".into())));
        for mounted in [partition(false), Mounted::Nothing] {
            let other = judge(&mounted, &Answer::Error("EIO".into()), &Found::No("there is no disk".into()));
            assert_eq!((other.phase, other.act), (UserDiskPhase::Lost, Act::Nothing));
            assert!(other.reason.ends_with(": there is no disk"), "{}", other.reason);
        }
    }

    #[test]
    fn one_that_answers_with_errors_is_renewed_and_a_full_or_slow_one_is_left() {
        let found = Found::No("not looked for".into());
        let failed = judge(&partition(true), &Answer::Error("EIO".into()), &found);
        assert_eq!((failed.phase, failed.act), (UserDiskPhase::Failed, Act::Renew("/dev/vdb1".into())));
        let full = Answer::Usage(Usage { size: 1 << 30, available: FULL - 1 });
        for (answer, phase) in
            [(USED, UserDiskPhase::Mounted), (full, UserDiskPhase::Full), (Answer::Silence(10), UserDiskPhase::Slow)]
        {
            let verdict = judge(&partition(true), &answer, &found);
            assert_eq!((verdict.phase, verdict.act), (phase, Act::Nothing));
        }
    }
}
