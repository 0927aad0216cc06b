//! Controllers of the machine itself: its configuration, files, clock and kernel parameters, its services and status.
//!
//! [`services_run`] decides from resources which of the node's services run.

pub mod config_type;
pub mod configuration;
pub mod cri_config;
pub mod cri_parts;
pub mod etc_file;
pub mod kernel_param;
pub mod machine_status;
pub mod mount;
pub mod platform_config;
pub mod service_status;
pub mod services_run;
pub mod time_sync;
