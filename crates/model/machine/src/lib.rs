//! Formats and decisions of a machine with hardware of its own: kernel command line, META, partition tables and layouts,
//! boot loader configurations, disk selectors, install plans. Nothing here does I/O or reads a clock.

pub mod boot_option;
pub mod cmdline;
pub mod config_url;
pub mod disk;
pub mod encryption;
pub mod gpt;
pub mod grub;
pub mod install;
pub mod kernel_log;
pub mod layout;
pub mod loader;
pub mod meta;
pub mod network;
pub mod selector;
pub mod size;
pub mod smbios;
pub mod staged;
pub mod trial;
pub mod uki;
