//! Writes the system onto a disk: partitions, boot loader, slots. The steps are planned by the crate `machine`.
