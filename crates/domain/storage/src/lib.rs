//! Controllers of disks and volumes.
