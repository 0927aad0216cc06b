//! Controllers of the machine itself: its configuration, files, clock and kernel parameters, its services and status.
//!
//! [`service_spec`] says which services the machine itself needs, [`service_run`] makes the supervisor run all that have a spec.

pub mod adjtime_status;
pub mod config_type;
pub mod configuration;
pub mod crash_records;
pub mod cri_config;
pub mod cri_parts;
mod deliveries;
pub mod document_config;
pub mod etc_file;
pub mod event_sink;
pub mod kernel_module;
pub mod kernel_param;
pub mod log_delivery;
pub mod machine_status;
pub mod maintenance;
pub mod maintenance_config;
pub mod mount;
pub mod perf_stats;
pub mod platform_config;
pub mod platform_status;
pub mod seccomp;
pub mod sequence_status;
pub mod service_run;
pub mod service_spec;
pub mod service_status;
pub mod system_info;
pub mod time_sync;
pub mod user_files;
pub mod watchdog;
