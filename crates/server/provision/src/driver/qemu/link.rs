//! A machine's connections to the cluster's bridges: a tap for each, and how bad they are.

use std::fmt::Write as _;

use crate::command::{IP, TC, UNSHARE};
use crate::error::{HostError, Operation as _, Problem};
use crate::machines::Impairment;
use crate::network;
use crate::plan::{Plan, PlannedNode};

/// Makes the taps of a machine and connects them.
pub(super) fn attach(plan: &Plan, node: &PlannedNode, impairment: Option<Impairment>) -> Result<(), HostError> {
    let operation = || format!("connecting node {}", node.name);
    let mtu = plan.mtu;
    for network in plan.networks() {
        let (link, bridge) = (plan.link(node, &network), &network.bridge);
        let commands = format!("tuntap add dev {link} mode tap\nlink set {link} mtu {mtu} master {bridge} up\n");
        IP.run_with_input(["-batch", "-"], &commands).operation(operation)?;
        if let Some(impairment) = impairment {
            let arguments = discipline(&link, impairment);
            TC.run(arguments.split(' ')).operation(|| format!("impairing the network of node {}", node.name))?;
        }
    }
    Ok(())
}

/// Takes the taps away.
pub(super) fn detach(plan: &Plan, node: &PlannedNode) -> Result<(), HostError> {
    let mut errors = Vec::new();
    plan.networks().iter().for_each(|own| network::remove_link(&plan.link(node, own), &mut errors));
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// Whether this kernel can impair so, tried in a network namespace that ends with the trial.
pub(super) fn problem(impairment: Impairment) -> Option<Problem> {
    let arguments = discipline("lo", impairment);
    let arguments = ["--net", TC.program].into_iter().chain(arguments.split(' '));
    let error = UNSHARE.run(arguments).err()?;
    let what = format!("this kernel cannot impair the network so: {error}");
    Some(Problem::new(what, "modprobe sch_netem sch_tbf, or leave out --with-network-chaos"))
}

/// Arguments of `tc`. What a tap sends is what its machine receives, and all that machines tell each other is received by one.
fn discipline(link: &str, impairment: Impairment) -> String {
    let head = format!("qdisc add dev {link} root");
    match impairment {
        // Room for a burst of ten milliseconds at a gigabit, and packets may wait for 400 ms before they are dropped.
        Impairment::Bandwidth(kilobits) => format!("{head} tbf rate {kilobits}kbit burst 1600kb latency 400ms"),
        Impairment::Packets { latency, jitter, loss, reorder, corrupt } => {
            let mut text = format!("{head} netem");
            // Writing to a string cannot fail.
            if !latency.is_zero() || !jitter.is_zero() {
                let _ = write!(text, " delay {}us {}us", latency.as_micros(), jitter.as_micros());
            }
            for (name, share) in [("loss", loss), ("corrupt", corrupt), ("reorder", reorder)] {
                if share > 0 {
                    let _ = write!(text, " {name} {}.{:04}%", share / 10_000, share % 10_000);
                }
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn impairments_are_told_to_the_kernel_in_its_units() {
        let bandwidth = discipline("tn0n1", Impairment::Bandwidth(1000));
        assert_eq!(bandwidth, "qdisc add dev tn0n1 root tbf rate 1000kbit burst 1600kb latency 400ms");
        let packets = Impairment::Packets {
            latency: Duration::from_millis(50),
            jitter: Duration::from_micros(1500),
            loss: 12_500,
            reorder: 100_000,
            corrupt: 1,
        };
        let wanted =
            "qdisc add dev tn0n1 root netem delay 50000us 1500us loss 1.2500% corrupt 0.0001% reorder 10.0000%";
        assert_eq!(discipline("tn0n1", packets), wanted);
        let none =
            Impairment::Packets { latency: Duration::ZERO, jitter: Duration::ZERO, loss: 0, reorder: 0, corrupt: 0 };
        assert_eq!(discipline("tn0n1", none), "qdisc add dev tn0n1 root netem");
    }
}
