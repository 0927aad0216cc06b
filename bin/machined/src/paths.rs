//! Where things of a node are.

/// Where machined renders files of `/etc`.
pub(crate) const RENDERED_ETC: &str = "/system/etc";
/// Where programs look for them.
pub(crate) const ETC: &str = "/etc";
/// Copies of files of the image that the configuration changes.
pub(crate) const COPIES: &str = "/system/files";
/// Where containerd listens.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Keeps the permission to found an etcd cluster until there is a member; on the volume STATE.
pub(crate) const BOOTSTRAP_FILE: &str = "etcd-bootstrap";
/// Where the machine API listens: for apid alone.
pub(crate) const MACHINE_SOCKET: &str = "/system/run/machined/machine.sock";
/// Where a container's host finds how the node ended, on the volume STATE; see the node contract in ARCHITECTURE.md.
pub(crate) const EXIT_STATUS: &str = ".exit-status";
/// Where variables of the firmware are.
pub(crate) const EFI_VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Where the system's D-Bus listens.
pub(crate) const DBUS_SOCKET: &str = "/run/dbus/system_bus_socket";
