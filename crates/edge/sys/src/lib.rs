//! The kernel edge of a node: processes and their reaper, signals, mounts, cgroups, kernel parameters, kmsg and `/proc`.
//!
//! `unsafe` code, signal dispositions, children and mounts live here and nowhere else. This crate decides nothing: it
//! contains no policy, and its errors name the operation and its subject.

#![expect(unsafe_code, reason = "this crate is where system calls are made; each use explains its soundness")]

pub mod capabilities;
pub mod cgroups;
pub mod cpu;
pub mod drivers;
pub mod early;
pub mod files;
pub mod guard;
pub mod host;
pub mod kernel_param;
pub mod kmsg;
pub mod late;
pub mod loop_device;
pub mod modules;
pub mod mounts;
pub mod partitions;
pub mod power;
pub mod power_button;
pub mod proc;
pub mod proc_stat;
pub mod process;
pub mod root;
pub mod signals;
pub mod softdog;
pub mod teardown;
pub mod udev;
pub mod watchdog;
