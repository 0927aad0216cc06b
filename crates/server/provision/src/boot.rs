//! What machines ask of their network: addresses by DHCP, boot files by TFTP and HTTP, the time.
//!
//! Answers are computed without sockets; the agent has those. Requests come from guests and are hostile: nothing in them
//! names a file of the host, and everything has a bound.

pub(crate) mod dhcp;
pub(crate) mod files;
pub(crate) mod tftp;
pub(crate) mod time;

/// Boot files by TFTP, as the original calls them, and where Debian's `ipxe` has them.
pub(crate) const IPXE_UEFI: (&str, &str) = ("ipxe/amd64/snp.efi", "/usr/lib/ipxe/snponly.efi");
pub(crate) const IPXE_BIOS: (&str, &str) = ("ipxe/amd64/undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe");
/// The package of both.
pub(crate) const IPXE_PACKAGE: &str = "ipxe";
