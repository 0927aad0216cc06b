//! How each sequence that ends a machine begins: the node leaves its cluster, as far as the sequence means that.

use sequencer::{Outcome, Parameters, Request, Then};

use super::outline::{Facts, Outline};
use super::step::Step::{CordonAndDrain, LeaveEtcd, RemoveAllPods, SendResetSignal, StopAllPods};

/// Its pods end. They start again with the machine.
pub(super) fn of_reboot() -> Outline {
    Outline::new(Then::End(Outcome::Reboot)).phase("cleanup", &[StopAllPods])
}

/// Unless it is forced, its pods go elsewhere first.
pub(super) fn of_shutdown(request: &Request) -> Outline {
    let outline = Outline::new(Then::End(Outcome::PowerOff));
    let is_forced = matches!(&request.options.parameters, Parameters::Shutdown(shutdown) if shutdown.force);
    let drained = if is_forced { outline } else { outline.phase("drain", &[CordonAndDrain]) };
    drained.phase("cleanup", &[StopAllPods])
}

/// A graceful one leaves nothing of the node in its cluster. `outline` is what comes before that.
pub(super) fn of_reset(outline: Outline, request: &Request, facts: Facts) -> Outline {
    let is_graceful = matches!(&request.options.parameters, Parameters::Reset(reset) if reset.graceful);
    let departed = if is_graceful { leave(outline, facts) } else { outline.phase("cleanup", &[StopAllPods]) };
    departed.phase("preReset", &[SendResetSignal])
}

/// Its pods go elsewhere. Where its data is not preserved it leaves etcd, as it comes back without any. `outline` is what comes
/// before that.
pub(super) fn of_upgrade(outline: Outline, preserve: bool, facts: Facts) -> Outline {
    if preserve {
        return outline.phase("drain", &[CordonAndDrain]).phase("cleanup", &[StopAllPods]);
    }
    leave(outline, facts)
}

/// Its pods end. Where its data is not preserved it leaves etcd (Talos 1.7: it is not drained). `outline` is what comes before
/// that.
pub(super) fn of_staged_upgrade(outline: Outline, preserve: bool, facts: Facts) -> Outline {
    let stopped = outline.phase("cleanup", &[StopAllPods]);
    if facts.control_plane && !preserve { stopped.phase("leave", &[LeaveEtcd]) } else { stopped }
}

/// Nothing of the node stays in its cluster.
fn leave(outline: Outline, facts: Facts) -> Outline {
    let left = outline.phase("drain", &[CordonAndDrain]).phase("cleanup", &[RemoveAllPods]);
    if facts.control_plane { left.phase("leave", &[LeaveEtcd]) } else { left }
}
