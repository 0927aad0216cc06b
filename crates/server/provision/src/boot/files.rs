//! The files that machines fetch by HTTP from the cluster's agent: configurations, and kernel and initramfs for iPXE with the
//! script that loads them. What a client names is looked up in a list; it is never part of a path, but for the secret of a
//! configuration, which is 32 hexadecimal digits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::folder::Folder;
use crate::machines::{BootScript, MachineSettings, Media};

const CONFIGURATIONS: &str = "/configurations/";
const CONFIGURATION: &str = "config.yaml";
const SCRIPT: &str = "/boot/script.ipxe";
const KERNEL: &str = "/boot/vmlinuz";
const INITRAMFS: &str = "/boot/initramfs.xz";
const SECRET_DIGITS: usize = 32;

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A machine configuration, with secrets.
    Configuration(PathBuf),
    File(PathBuf),
    Text(String),
}

/// The files of one cluster.
#[derive(Clone)]
pub(crate) struct BootFiles {
    pub(crate) folder: Folder,
    pub(crate) settings: MachineSettings,
    /// The address of the configuration of the machine that has an address.
    pub(crate) configuration_of: Arc<dyn Fn(IpAddr) -> Option<String> + Send + Sync>,
}

impl fmt::Debug for BootFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootFiles").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The address of a configuration with this secret.
pub(crate) fn configuration_url(gateway: Ipv4Addr, port: u16, secret: &str) -> String {
    format!("http://{gateway}:{port}{CONFIGURATIONS}{secret}/{CONFIGURATION}")
}

/// The secret in such an address.
pub(crate) fn secret_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once(CONFIGURATIONS)?;
    let (secret, name) = rest.split_once('/')?;
    (name == CONFIGURATION && is_secret(secret)).then_some(secret)
}

/// The address of the script for iPXE.
pub(crate) fn script_url(gateway: Ipv4Addr, port: u16) -> String {
    format!("http://{gateway}:{port}{SCRIPT}")
}

fn is_secret(text: &str) -> bool {
    text.len() == SECRET_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl BootFiles {
    /// What is at a path, for a client.
    pub(crate) fn find(&self, client: IpAddr, path: &str) -> Option<Content> {
        if let Some(rest) = path.strip_prefix(CONFIGURATIONS) {
            let (secret, name) = rest.split_once('/')?;
            let known = name == CONFIGURATION && is_secret(secret);
            return known.then(|| Content::Configuration(self.folder.configurations().join(secret)));
        }
        let Media::Network(BootScript::Files { kernel, initramfs }) = &self.settings.media else { return None };
        match path {
            SCRIPT => Some(Content::Text(self.script((self.configuration_of)(client)))),
            KERNEL => Some(Content::File(kernel.clone())),
            INITRAMFS => Some(Content::File(initramfs.clone())),
            _ => None,
        }
    }

    /// Names are relative to the script's own address. The kernel's EFI stub finds the initramfs by its name.
    fn script(&self, configuration: Option<String>) -> String {
        let mut arguments = self.settings.arguments();
        arguments.extend(configuration.map(|url| format!("talos.config={url}")));
        format!("#!ipxe\nkernel vmlinuz initrd=initramfs.xz {}\ninitrd initramfs.xz\nboot\n", arguments.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::machines::tests::settings;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 5, 0, 2));

    fn files(media: Media) -> BootFiles {
        let settings = MachineSettings { media, ..settings() };
        let folder = Folder::new(Path::new("/clusters"), "one").unwrap();
        let known = |client| (client == CLIENT).then(|| format!("http://for/{client}"));
        BootFiles { folder, settings, configuration_of: Arc::new(known) }
    }

    fn network() -> BootFiles {
        files(Media::Network(BootScript::Files { kernel: "/k".into(), initramfs: "/i".into() }))
    }

    #[test]
    fn a_configuration_is_found_by_its_secret_alone() {
        let secret = "0123456789abcdef0123456789abcdef";
        let url = configuration_url([10, 5, 0, 1].into(), 5000, secret);
        assert_eq!(url, format!("http://10.5.0.1:5000/configurations/{secret}/config.yaml"));
        assert_eq!(secret_of(&url), Some(secret));
        let files = files(settings().media);
        let find = |path: &str| files.find(CLIENT, path);
        let wanted = Content::Configuration(format!("/clusters/one/configurations/{secret}").into());
        assert_eq!(find(&format!("/configurations/{secret}/config.yaml")), Some(wanted));
        let upper = secret.to_uppercase();
        for bad in ["", "x", "..", "../state.json", &secret[1..], &upper, &format!("{secret}0")] {
            assert_eq!(find(&format!("/configurations/{bad}/config.yaml")), None, "{bad}");
        }
        for path in
            [format!("/configurations/{secret}"), format!("/configurations/{secret}/x"), "/boot/vmlinuz".to_owned()]
        {
            assert_eq!(find(&path), None, "{path}");
        }
    }

    #[test]
    fn a_machine_that_boots_from_the_network_is_told_its_own_configuration() {
        let files = network();
        let find = |path: &str| files.find(CLIENT, path);
        assert_eq!(find("/boot/vmlinuz"), Some(Content::File("/k".into())));
        assert_eq!(find("/boot/initramfs.xz"), Some(Content::File("/i".into())));
        let Some(Content::Text(script)) = find("/boot/script.ipxe") else { panic!("no script") };
        assert!(script.starts_with("#!ipxe\nkernel vmlinuz initrd=initramfs.xz init_on_alloc=1 "), "{script}");
        assert!(script.contains(" talos.debug talos.config=http://for/10.5.0.2\n"), "{script}");
        assert_eq!(find("/boot/../state.json"), None);
        let stranger = files.find([10, 5, 0, 3].into(), "/boot/script.ipxe");
        assert!(matches!(stranger, Some(Content::Text(script)) if !script.contains("talos.config=")));
    }
}
