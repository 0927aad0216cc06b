//! `disks`: the disks of nodes and their properties.

use clap::Args;
use client::Client;
use wire::storage::Disk;
use wire::storage::disk::DiskType;

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct DisksArgs {
    /// Asks a node in maintenance mode, without a client certificate
    #[arg(short, long)]
    insecure: bool,
}

const COLUMNS: [&str; 13] = [
    "DEV",
    "MODEL",
    "SERIAL",
    "TYPE",
    "UUID",
    "WWID",
    "MODALIAS",
    "NAME",
    "SIZE",
    "BUS_PATH",
    "SUBSYSTEM",
    "READ_ONLY",
    "SYSTEM_DISK",
];

pub(crate) async fn run(args: DisksArgs, session: &Session) -> Result<(), CommandError> {
    let show = async |client: Client, with_node: bool| {
        let mut nodes = Replies::new(&session.out, &client);
        let header = with_node.then_some("NODE").into_iter().chain(COLUMNS);
        let mut table = Table::new(header);
        for (node, reply) in nodes.take_all(client.disks().await?) {
            for disk in &reply.disks {
                table.row(with_node.then(|| node.clone()).into_iter().chain(cells(disk)));
            }
        }
        nodes.print(&mut table)?;
        nodes.finish()
    };
    if args.insecure {
        // Each node is asked on its own.
        return session.on_insecure_nodes(&[], async |client| show(client, false).await).await;
    }
    let many = session.nodes()?.len() > 1;
    show(session.client().await?, many).await
}

fn cells(disk: &Disk) -> [String; 13] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let kind = match disk.r#type() {
        DiskType::Unknown => "UNKNOWN",
        DiskType::Ssd => "SSD",
        DiskType::Hdd => "HDD",
        DiskType::Nvme => "NVME",
        DiskType::Sd => "SD",
    };
    let mark = |is_so: bool| if is_so { "*".to_owned() } else { String::new() };
    [
        disk.device_name.clone(),
        or_dash(&disk.model),
        or_dash(&disk.serial),
        kind.to_owned(),
        or_dash(&disk.uuid),
        or_dash(&disk.wwid),
        or_dash(&disk.modalias),
        or_dash(&disk.name),
        size(disk.size),
        or_dash(&disk.bus_path),
        or_dash(&disk.subsystem),
        mark(disk.readonly),
        mark(disk.system_disk),
    ]
}

/// With two digits where there are few: `512 B`, `6.4 GB`, `20 GB`.
fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    for name in ["B", "kB", "MB", "GB", "TB", "PB"] {
        let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
        if tenths < 100 && unit > 1 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        if tenths < 9995 || name == "PB" {
            return format!("{} {name}", (tenths + 5) / 10);
        }
        unit = unit.saturating_mul(1000);
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_and_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (999, "999 B"),
            (6_442_450_944, "6.4 GB"),
            (20_000_000_000, "20 GB"),
            (999_950_000_000, "1.0 TB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn properties_that_a_disk_does_not_have_are_dashes() {
        let disk = Disk {
            device_name: "/dev/vda".into(),
            size: 6_442_450_944,
            r#type: DiskType::Hdd.into(),
            system_disk: true,
            bus_path: "/pci0000:00/virtio1/".into(),
            subsystem: "/sys/class/block".into(),
            ..Disk::default()
        };
        let shown = cells(&disk);
        assert_eq!(shown[..4], ["/dev/vda", "-", "-", "HDD"]);
        assert_eq!(shown[8..], ["6.4 GB", "/pci0000:00/virtio1/", "/sys/class/block", "", "*"]);
    }
}
