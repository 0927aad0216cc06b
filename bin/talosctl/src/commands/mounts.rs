//! `mounts`: file systems of nodes and their sizes.

use clap::Args;
use wire::machine::MountStat;

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct MountsArgs {}

pub(crate) async fn run(_: MountsArgs, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let mut table =
        Table::new(["NODE", "FILESYSTEM", "SIZE(GB)", "USED(GB)", "AVAILABLE(GB)", "PERCENT USED", "MOUNTED ON"]);
    for (node, reply) in nodes.take_all(client.mounts().await?) {
        // Those without a size hold no data: proc, sysfs, and others that the kernel makes up.
        for mount in reply.stats.iter().filter(|mount| mount.size > 0) {
            table.row(cells(&node, mount));
        }
    }
    nodes.print(&mut table)?;
    nodes.finish()
}

fn cells(node: &str, mount: &MountStat) -> [String; 7] {
    let used = mount.size.saturating_sub(mount.available);
    [
        node.to_owned(),
        mount.filesystem.clone(),
        gigabytes(mount.size),
        gigabytes(used),
        gigabytes(mount.available),
        format!("{}%", hundredths(u128::from(used) * 10_000, mount.size)),
        mount.mounted_on.clone(),
    ]
}

fn gigabytes(bytes: u64) -> String {
    hundredths(u128::from(bytes) * 100, 1_000_000_000)
}

/// A quotient of which the dividend was multiplied by hundred, rounded, with two decimals.
fn hundredths(dividend: u128, divisor: u64) -> String {
    let divisor = u128::from(divisor.max(1));
    let rounded = (dividend + divisor / 2) / divisor;
    format!("{}.{:02}", rounded / 100, rounded % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_gigabytes_of_a_thousand_megabytes_with_two_decimals() {
        let mount =
            |size, available| MountStat { filesystem: "tmpfs".into(), size, available, mounted_on: "/run".into() };
        let shown = cells("10.5.0.2", &mount(8_000_000_000, 7_012_800_000));
        assert_eq!(shown, ["10.5.0.2", "tmpfs", "8.00", "0.99", "7.01", "12.34%", "/run"]);
        let full = cells("n", &mount(5_000_000, 0));
        assert_eq!(full[2..6], ["0.01", "0.01", "0.00", "100.00%"]);
        // A file system that grew between two readings.
        assert_eq!(cells("n", &mount(1, 2))[5], "0.00%");
    }
}
