//! The arguments of the emulator and of the TPM for one machine. Pure.

use std::path::Path;

use super::machine::{CONTROL, Card, Machine, TPM, TPM_SOCKET, VARIABLES, disk, escaped};
use crate::machines::{Accelerator, DiskBus, MachineClock, Media};

/// SATA ports of the board.
const PORTS: usize = 6;
/// One of them is the CD drive's.
pub(super) const IDE_DISKS: usize = PORTS - 1;

/// What a machine does at this power-on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// Its disk has partitions.
    Disk,
    /// Its disk is empty, or not to be booted from.
    Media,
}

/// Where the outputs of a machine go.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    pub(super) console: &'a Path,
    pub(super) events: &'a Path,
}

/// Arguments of the emulator.
pub(super) fn emulator(machine: &Machine, boot: Boot, outputs: &Outputs<'_>) -> Vec<String> {
    let mut arguments = Arguments(Vec::new());
    board(machine, &mut arguments);
    channels(outputs, &mut arguments);
    disks(machine, &mut arguments);
    let Machine { cards, settings, .. } = machine;
    for (number, Card { mac, link }) in cards.iter().enumerate() {
        arguments.pair("-netdev", format!("tap,id=net{number},ifname={link},script=no,downscript=no"));
        // Firmware boots from the cluster's own network alone.
        let boot = if number == 0 { ",bootindex=3" } else { "" };
        arguments.pair("-device", format!("virtio-net-pci,netdev=net{number},mac={mac}{boot}"));
    }
    if settings.tpm {
        arguments.pair("-chardev", format!("socket,id=tpm,path={TPM_SOCKET}"));
        arguments.pair("-tpmdev", "emulator,id=tpm0,chardev=tpm");
        arguments.pair("-device", "tpm-tis,tpmdev=tpm0");
    }
    if boot == Boot::Media || !settings.boots_from_disk {
        media(machine, &mut arguments);
    }
    arguments.0
}

struct Arguments(Vec<String>);

impl Arguments {
    fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.to_owned(), value.into()]);
    }
}

fn board(machine: &Machine, arguments: &mut Arguments) {
    let Machine { uuid, cpus, memory, settings, .. } = machine;
    arguments.0.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    arguments.pair("-name", machine.process_name());
    arguments.pair("-machine", "q35");
    arguments.pair(
        "-accel",
        match settings.accelerator {
            Accelerator::Kvm => "kvm",
            // With a host thread for each processor, QEMU 7.2 lets one run code that another is just patching: the kernel panics.
            Accelerator::Tcg => "tcg,thread=single",
        },
    );
    arguments.pair("-cpu", "max");
    arguments.pair("-smp", cpus.to_string());
    arguments.pair("-m", format!("{}M", memory >> 20));
    arguments.pair("-smbios", format!("type=1,uuid={uuid}"));
    arguments.pair(
        "-rtc",
        match settings.clock {
            MachineClock::Right => "base=utc",
            MachineClock::Wrong => "base=2011-11-11T11:11:00",
        },
    );
    // Boot loaders draw; nobody looks.
    arguments.pair("-display", "none");
    arguments.pair("-vga", "std");
    arguments.pair("-device", "virtio-rng-pci");
    if let Some(code) = &machine.firmware {
        let code = escaped(code);
        arguments.pair("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
        arguments.pair("-drive", format!("if=pflash,unit=1,format=raw,file={VARIABLES}"));
    }
}

/// Everything is appended, so that logs can be cut in place.
fn channels(outputs: &Outputs<'_>, arguments: &mut Arguments) {
    let (console, events) = (escaped(outputs.console), escaped(outputs.events));
    arguments.pair("-chardev", format!("file,id=console,path={console},append=on"));
    arguments.pair("-serial", "chardev:console");
    arguments
        .pair("-chardev", format!("socket,id=control,path={CONTROL},server=on,wait=off,logfile={events},logappend=on"));
    arguments.pair("-mon", "chardev=control,mode=control");
}

fn disks(machine: &Machine, arguments: &mut Arguments) {
    let drive = |number: usize| format!("id=disk{number},file={},format=raw,if=none,discard=unmap", disk(number));
    arguments.pair("-drive", drive(0));
    arguments.pair("-device", "virtio-blk-pci,drive=disk0,bootindex=1");
    let extra = machine.settings.more_disks();
    let has = |bus: DiskBus| extra.iter().any(|disk| disk.bus == bus);
    if has(DiskBus::Scsi) {
        arguments.pair("-device", "virtio-scsi-pci,id=scsi0");
    }
    if has(DiskBus::Usb) {
        arguments.pair("-device", "qemu-xhci,id=usb0");
    }
    let mut ports = 0..IDE_DISKS;
    for (number, disk) in (1..).zip(&extra) {
        arguments.pair("-drive", drive(number));
        let name = format!("drive=disk{number}");
        arguments.pair(
            "-device",
            match disk.bus {
                DiskBus::Ide => format!("ide-hd,{name},bus=ide.{}", ports.next().unwrap_or(IDE_DISKS)),
                DiskBus::Nvme => format!("nvme,{name},serial=disk{number}"),
                DiskBus::Scsi => format!("scsi-hd,{name},bus=scsi0.0"),
                DiskBus::Usb => format!("usb-storage,{name},bus=usb0.0"),
                DiskBus::Virtio => format!("virtio-blk-pci,{name}"),
            },
        );
    }
}

fn media(machine: &Machine, arguments: &mut Arguments) {
    match &machine.settings.media {
        Media::Kernel { kernel, initramfs } => {
            arguments.pair("-kernel", kernel.to_string_lossy());
            arguments.pair("-initrd", initramfs.to_string_lossy());
            let mut line = machine.settings.arguments();
            line.extend(machine.configuration.as_ref().map(|url| format!("talos.config={url}")));
            arguments.pair("-append", line.join(" "));
        }
        Media::Iso(path) => {
            let path = escaped(path);
            arguments.pair("-drive", format!("id=cd0,file={path},format=raw,media=cdrom,if=none,readonly=on"));
            arguments.pair("-device", format!("ide-cd,drive=cd0,bus=ide.{IDE_DISKS},bootindex=2"));
        }
        // The disk itself, or the network, which comes after the disk.
        Media::DiskImage(_) | Media::Network(_) => {}
    }
}

/// Arguments of the TPM, which ends when the emulator closes its connection.
pub(super) fn tpm() -> Vec<String> {
    let mut arguments = Arguments(vec!["socket".to_owned(), "--tpm2".to_owned(), "--terminate".to_owned()]);
    arguments.pair("--tpmstate", format!("dir={TPM},mode=0600"));
    arguments.pair("--ctrl", format!("type=unixio,path={TPM_SOCKET}"));
    arguments.0
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::machines::tests::settings;
    use crate::machines::{ExtraDisk, MachineSettings};

    pub(crate) fn machine(settings: MachineSettings) -> Machine {
        Machine {
            cluster: "one".to_owned(),
            node: "one-worker-1".to_owned(),
            uuid: "3f3b5e0e-8f1c-4a52-9d3c-0a4b0a1e9a55".to_owned(),
            cards: vec![Card { mac: "02:11:22:33:44:55".to_owned(), link: "tn7692c3adn2".to_owned() }],
            cpus: 2,
            memory: 2 << 30,
            firmware: Some(PathBuf::from("/usr/share/OVMF/OVMF_CODE_4M.fd")),
            configuration: Some("http://10.5.0.1:5000/configurations/0123/config.yaml".to_owned()),
            settings,
        }
    }

    fn lines(machine: &Machine, boot: Boot) -> String {
        let outputs = Outputs { console: Path::new("/c/one/logs/a,b.log"), events: Path::new("/c/one/logs/e.log") };
        let arguments = emulator(machine, boot, &outputs);
        let flag = |argument: &str| argument.starts_with('-');
        let text = arguments
            .iter()
            .map(|argument| if flag(argument) { format!("\n{argument}") } else { format!(" {argument}") });
        text.collect::<String>().trim_start().to_owned() + "\n"
    }

    #[test]
    fn a_machine_is_rendered_as_the_golden_file_says() {
        let got = lines(&machine(settings()), Boot::Media) + "\nswtpm " + &tpm().join(" ") + "\n";
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/machine.txt");
        #[expect(clippy::disallowed_methods, reason = "golden files are renewed by a variable")]
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            std::fs::write(&golden, &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn a_machine_with_something_on_its_disk_boots_from_it_unless_it_may_not() {
        let installed = lines(&machine(settings()), Boot::Disk);
        assert!(!installed.contains("-kernel") && !installed.contains("-append"), "{installed}");
        let never = machine(MachineSettings { boots_from_disk: false, ..settings() });
        assert!(lines(&never, Boot::Disk).contains("-kernel /assets/vmlinuz"));
    }

    #[test]
    fn an_iso_is_tried_after_the_disk_and_before_the_network() {
        let settings = MachineSettings { media: Media::Iso("/a,b.iso".into()), ..settings() };
        let text = lines(&machine(settings), Boot::Media);
        for wanted in ["file=/a,,b.iso,", "drive=disk0,bootindex=1", "drive=cd0,bus=ide.5,bootindex=2", "bootindex=3"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("-kernel"), "{text}");
    }

    #[test]
    fn each_network_has_a_card_and_firmware_boots_from_the_first() {
        let card = |last| Card { mac: format!("02:00:00:00:00:0{last}"), link: format!("tn{last}") };
        let machine = Machine { cards: vec![card(1), card(2)], ..machine(settings()) };
        let text = lines(&machine, Boot::Media);
        for wanted in [
            "-netdev tap,id=net0,ifname=tn1,script=no,downscript=no\n",
            "-device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,bootindex=3\n",
            "-netdev tap,id=net1,ifname=tn2,script=no,downscript=no\n",
            "-device virtio-net-pci,netdev=net1,mac=02:00:00:00:00:02\n",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }

    #[test]
    fn extra_disks_get_the_bus_that_was_asked_for() {
        let buses = [DiskBus::Ide, DiskBus::Nvme, DiskBus::Scsi, DiskBus::Usb, DiskBus::Virtio, DiskBus::Ide];
        let extra_disks = buses.map(|bus| ExtraDisk { size: 1, bus }).to_vec();
        let text = lines(&machine(MachineSettings { extra_disks, ..settings() }), Boot::Disk);
        for wanted in [
            "ide-hd,drive=disk1,bus=ide.0",
            "nvme,drive=disk2,serial=disk2",
            "virtio-scsi-pci,id=scsi0",
            "scsi-hd,drive=disk3",
            "qemu-xhci,id=usb0",
            "usb-storage,drive=disk4",
            "virtio-blk-pci,drive=disk5",
            "ide-hd,drive=disk6,bus=ide.1",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
