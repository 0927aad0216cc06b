//! Clusters of a tiny init and of tiny virtual machines on this machine. Needs root, runc, iproute2, nftables, iptables,
//! squashfs-tools, busybox-static, qemu-system-x86, ipxe-qemu, ipxe and swtpm.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod agent;
mod cleanup;
mod firewall;
mod machines;
mod nodes;
mod support;
