//! Disks, partitions and file systems of the kernel: block devices, probing, partition tables, making of file systems, loop
//! devices. What a partition is for is decided elsewhere.
