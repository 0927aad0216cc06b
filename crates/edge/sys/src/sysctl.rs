//! Kernel parameters under `/proc/sys`.

use std::io;
use std::path::PathBuf;

/// What failed about a kernel parameter.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    #[error("reading kernel parameter {name}")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("writing {value:?} to kernel parameter {name}")]
    Write {
        name: String,
        value: String,
        #[source]
        source: io::Error,
    },
}

/// `net.ipv4.ip_forward` and `net/ipv4/ip_forward` alike; a slash form keeps the dots of interface names.
fn path(name: &str) -> PathBuf {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    PathBuf::from("/proc/sys").join(relative.trim_start_matches('/'))
}

/// The current value, without the line end.
///
/// # Errors
/// `Read`; a parameter that this kernel lacks is `io::ErrorKind::NotFound`.
pub fn read(name: &str) -> Result<String, SysctlError> {
    std::fs::read_to_string(path(name))
        .map(|text| text.trim_end().to_owned())
        .map_err(|source| SysctlError::Read { name: name.to_owned(), source })
}

/// Writes a value.
///
/// # Errors
/// `Write` with the kernel's reason.
pub fn write(name: &str, value: &str) -> Result<(), SysctlError> {
    std::fs::write(path(name), value).map_err(|source| SysctlError::Write {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_file() {
        assert_eq!(path("kernel.pid_max"), PathBuf::from("/proc/sys/kernel/pid_max"));
        assert_eq!(path("net/ipv4/conf/eth0.5/forwarding"), PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/forwarding"));
        assert_eq!(read("kernel.ostype").unwrap(), "Linux");
    }

    #[test]
    fn an_absent_parameter_is_named_in_the_error() {
        let error = read("kernel.no_such_parameter").unwrap_err();
        assert!(matches!(&error, SysctlError::Read { name, source } if name == "kernel.no_such_parameter"
            && source.kind() == io::ErrorKind::NotFound));
    }
}
