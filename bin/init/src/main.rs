//! The first program of a machine: mounts the root image that its initramfs carries, and starts machined.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}
