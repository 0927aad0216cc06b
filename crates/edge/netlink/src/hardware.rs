//! The devices behind links, as sysfs tells of them. It shows the links of the namespace that it was mounted in.

use std::path::Path;

use crate::model::LinkHardware;

/// Reads `NAME/device` below `links`, which is `/sys/class/net`. What cannot be read is empty.
pub(crate) fn read(links: &Path, name: &str) -> LinkHardware {
    let device = links.join(name).join("device");
    let own = std::fs::read_to_string(device.join("uevent")).unwrap_or_default();
    // The device of a paravirtual card is on the bus of its parent.
    let parent = || std::fs::read_to_string(device.join("../uevent")).unwrap_or_default();
    let bus_path = value(&own, "PCI_SLOT_NAME").or_else(|| value(&parent(), "PCI_SLOT_NAME"));
    LinkHardware {
        bus_path: bus_path.unwrap_or_default(),
        driver: value(&own, "DRIVER").unwrap_or_default(),
        pci_id: value(&own, "PCI_ID").unwrap_or_default(),
    }
}

fn value(uevent: &str, key: &str) -> Option<String> {
    uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_and_a_paravirtual_card_have_a_place_on_the_bus_and_others_have_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let card = folder("eth0/device");
        std::fs::write(card.join("uevent"), "DRIVER=e1000\nPCI_ID=8086:100E\nPCI_SLOT_NAME=0000:00:02.0\n").unwrap();
        let paravirtual = folder("devices/0000:00:03.0/virtio0");
        std::fs::write(paravirtual.join("uevent"), "DRIVER=virtio_net\nMODALIAS=virtio:d1v1AF4\n").unwrap();
        std::fs::write(paravirtual.join("../uevent"), "DRIVER=virtio-pci\nPCI_SLOT_NAME=0000:00:03.0\n").unwrap();
        std::os::unix::fs::symlink(&paravirtual, folder("eth1").join("device")).unwrap();
        let text = |name| {
            let found = read(root.path(), name);
            [found.bus_path, found.driver, found.pci_id].join(" ")
        };
        assert_eq!(text("eth0"), "0000:00:02.0 e1000 8086:100E");
        assert_eq!(text("eth1"), "0000:00:03.0 virtio_net ");
        assert_eq!(text("lo"), "  ");
    }
}
