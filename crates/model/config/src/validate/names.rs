//! Names that must be plain: of links, kernel parameters, modules, servers, files and documents.
//!
//! Each kind of name has one rule, as wide as the part of the system that takes the name. An empty name is refused where
//! the field cannot be left out. Addresses and DNS names with a form of their own are checked by `formats`.

use super::Check;
use crate::document::Document;
use crate::v1alpha1::{Device, Machine};

/// A kind of name.
struct Kind {
    noun: &'static str,
    accepts: fn(&str) -> bool,
    remedy: &'static str,
}

const LINK: Kind = Kind {
    noun: "the name of a link",
    accepts: is_link,
    remedy: "at most 15 bytes without spaces, / and :, such as eth0",
};
const SYSCTL: Kind = Kind {
    noun: "the name of a kernel parameter",
    accepts: is_sysctl,
    remedy: "parts with dots or slashes between, such as net.ipv4.ip_forward",
};
const SYSFS: Kind = Kind {
    noun: "the name of a parameter below /sys",
    accepts: is_parameter,
    remedy: "parts with dots or slashes between, such as devices.system.cpu.cpu0.cpufreq.scaling_governor",
};
const MODULE: Kind = Kind {
    noun: "the name of a kernel module",
    accepts: is_word,
    remedy: "the name without its directory, such as br_netfilter",
};
const TIME_SERVER: Kind = Kind {
    noun: "a time server",
    accepts: is_time_server,
    remedy: "an address, a host name, or the path of a clock such as /dev/ptp0",
};
const REGISTRY: Kind = Kind { noun: "a registry host", accepts: is_registry, remedy: "registry.example.org:5000" };
const PROFILE: Kind = Kind {
    noun: "the name of a seccomp profile",
    accepts: is_profile,
    remedy: "a profile needs the name of a file, such as audit.json",
};
const SERVICE: Kind = Kind {
    noun: "the name of an extension's service",
    accepts: is_word,
    remedy: "the name of the service without ext-, such as nut-client",
};
const DOCUMENT: Kind =
    Kind { noun: "the name of a document", accepts: is_title, remedy: "a single name without /, such as remote-log" };

/// The kernel's bound for names of links, without the zero at the end.
const MAX_LINK: usize = 15;
/// Bound of a part of a path, and of a host name.
const MAX_NAME: usize = 255;

pub(super) fn machine(check: &mut Check<'_>, machine: &Machine) {
    for (path, name, kind) in of_machine(machine) {
        tell(check, &path, name, kind);
    }
}

pub(super) fn document(check: &mut Check<'_>, document: &Document) {
    let kind = if matches!(document, Document::ExtensionService(_)) { &SERVICE } else { &DOCUMENT };
    // a missing name has its own message
    if let Some(name) = document.name().filter(|name| !name.is_empty()) {
        tell(check, "name", name, kind);
    }
}

fn tell(check: &mut Check<'_>, path: &str, name: &str, kind: &Kind) {
    if !(kind.accepts)(name) {
        // a long name would hide the rest of the message
        let shown: String = name.chars().take(MAX_NAME).collect();
        check.error_with_hint(path, format!("{shown:?} cannot be {}", kind.noun), kind.remedy);
    }
}

/// All names of the machine part: where each is, and its kind. Keys are at the path of their map.
fn of_machine(machine: &Machine) -> impl Iterator<Item = (String, &str, &'static Kind)> {
    let links = machine.network.iter().flat_map(|network| &network.interfaces).enumerate().flat_map(of_link);
    let keys = [("sysctls", &machine.sysctls, &SYSCTL), ("sysfs", &machine.sysfs, &SYSFS)];
    let parameters = keys
        .into_iter()
        .flat_map(|(field, map, kind)| map.keys().map(move |name| (format!("machine.{field}"), name.as_str(), kind)));
    let modules = machine.kernel.iter().flat_map(|kernel| &kernel.modules).enumerate();
    let modules = modules
        .filter(|(_, module)| !module.name.is_empty())
        .map(|(n, module)| (format!("machine.kernel.modules[{n}].name"), module.name.as_str(), &MODULE));
    let servers = machine.time.iter().flat_map(|time| &time.servers).enumerate();
    let servers = servers.map(|(n, server)| (format!("machine.time.servers[{n}]"), server.as_str(), &TIME_SERVER));
    let registries = machine.registries.iter().flat_map(|registries| {
        let mirrors = registries.mirrors.keys().map(|host| ("mirrors", host));
        mirrors.chain(registries.config.keys().map(|host| ("config", host)))
    });
    let registries = registries.map(|(field, host)| (format!("machine.registries.{field}"), host.as_str(), &REGISTRY));
    let profiles = machine.seccomp_profiles.iter().enumerate();
    let profiles =
        profiles.map(|(n, profile)| (format!("machine.seccompProfiles[{n}].name"), profile.name.as_str(), &PROFILE));
    links.chain(parameters).chain(modules).chain(servers).chain(registries).chain(profiles)
}

fn of_link((index, device): (usize, &Device)) -> impl Iterator<Item = (String, &str, &'static Kind)> {
    let base = format!("machine.network.interfaces[{index}]");
    let ports = [
        ("bond", device.bond.as_ref().map(|bond| &bond.interfaces)),
        ("bridge", device.bridge.as_ref().map(|bridge| &bridge.interfaces)),
    ];
    let ports = ports.into_iter().flat_map(|(kind, names)| {
        names.into_iter().flatten().enumerate().map(move |(n, name)| (format!("{kind}.interfaces[{n}]"), name))
    });
    let primary = device.bond.iter().map(|bond| ("bond.primary".to_owned(), &bond.primary));
    let own = std::iter::once(("interface".to_owned(), &device.interface));
    // a link may have a selector in place of its name, and a bond no primary port
    let named = own.chain(primary).filter(|(_, name)| !name.is_empty());
    named.chain(ports).map(move |(field, name)| (format!("{base}.{field}"), name.as_str(), &LINK))
}

/// A part of a path, which cannot lead elsewhere. Spaces may be within it.
fn is_part(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(|c: char| c == '/' || c.is_control()) && text.trim() == text
}

/// A part of a path without spaces.
fn is_word(text: &str) -> bool {
    is_part(text) && !text.contains(char::is_whitespace) && text.len() <= MAX_NAME
}

fn is_title(text: &str) -> bool {
    is_part(text) && text.len() <= MAX_NAME
}

/// As the kernel takes them.
fn is_link(text: &str) -> bool {
    is_word(text) && !text.contains(':') && text.len() <= MAX_LINK
}

/// `a.b` or `a/b`; with a slash dots belong to the parts, such as names of links.
fn is_parameter(text: &str) -> bool {
    let text = text.trim_start_matches('/');
    text.split(if text.contains('/') { '/' } else { '.' }).all(is_part)
}

fn is_sysctl(text: &str) -> bool {
    is_parameter(text) && !text.contains(char::is_whitespace)
}

fn is_time_server(text: &str) -> bool {
    match text.strip_prefix("/dev/") {
        Some(clock) => clock.split('/').all(is_word),
        None => is_word(text),
    }
}

/// It becomes the name of a directory.
fn is_registry(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    text == "*" || (!text.is_empty() && !text.starts_with('.') && text.chars().all(is_allowed))
}

fn is_profile(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '\0'])
}
