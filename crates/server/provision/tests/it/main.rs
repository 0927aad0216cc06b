//! Clusters of a tiny init on this machine. Needs root, runc, iproute2, nftables, iptables, squashfs-tools and busybox-static.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod agent;
mod cleanup;
mod firewall;
mod nodes;
mod support;
