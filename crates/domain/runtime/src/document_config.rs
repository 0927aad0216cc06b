//! Parts of the configuration as resources, for whoever carries them out and for clients that ask what is configured:
//! kernel modules, files of extension services, the watchdog.

use std::time::Duration;

use config::v1alpha1::Config;
use config::{Document, Documents};
use controller::{Controller, Projection};
use resources::runtime::{ExtensionServiceConfig, ExtensionServiceConfigFile, KernelModuleSpec, WatchdogTimerConfig};

/// The id of Talos 1.7.
pub(crate) const WATCHDOG: &str = "timer";
/// The timeout of a watchdog that has none in its document (Talos 1.7).
const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(60);

#[must_use]
pub fn controllers() -> Vec<Box<dyn Controller>> {
    vec![
        Projection::boxed("runtime.KernelModuleConfigController", kernel_modules),
        Projection::of_documents("runtime.ExtensionServiceConfigController", extension_services),
        Projection::of_documents("runtime.WatchdogTimerConfigController", watchdog),
    ]
}

fn kernel_modules(config: &Config) -> Vec<(String, KernelModuleSpec)> {
    let modules = config.machine().kernel.as_ref().map(|kernel| kernel.modules.as_slice()).unwrap_or_default();
    let spec = |module: &config::v1alpha1::KernelModule| {
        let (name, parameters) = (module.name.clone(), module.parameters.clone());
        (name.clone(), KernelModuleSpec { name, parameters })
    };
    modules.iter().map(spec).collect()
}

fn extension_services(documents: &Documents) -> Vec<(String, ExtensionServiceConfig)> {
    let spec = |document: &Document| match document {
        Document::ExtensionService(service) => {
            let file = |file: &config::kinds::ExtensionConfigFile| ExtensionServiceConfigFile {
                content: file.content.clone(),
                mount_path: file.mount_path.clone(),
            };
            let files = service.config_files.iter().map(file).collect();
            let environment = service.environment.clone();
            Some((service.name.clone(), ExtensionServiceConfig { files, environment }))
        }
        _ => None,
    };
    documents.documents().iter().filter_map(spec).collect()
}

fn watchdog(documents: &Documents) -> Vec<(String, WatchdogTimerConfig)> {
    let spec = |document: &Document| match document {
        Document::WatchdogTimer(watchdog) => {
            // What is no duration was refused with the configuration.
            let timeout = stdx::duration::parse(&watchdog.timeout).unwrap_or(WATCHDOG_TIMEOUT);
            let device = watchdog.device.clone();
            Some((WATCHDOG.to_owned(), WatchdogTimerConfig { device, timeout: timeout.into() }))
        }
        _ => None,
    };
    documents.documents().iter().filter_map(spec).collect()
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::config::MachineConfig;
    use resources::values::Nanoseconds;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn documents_are_resources_for_as_long_as_they_are_there() {
        let harness = Harness::new();
        for controller in controllers() {
            harness.runtime.register_boxed(controller).unwrap();
        }
        harness.runtime.start();
        let root = "version: v1alpha1\nmachine:\n  type: worker\n  kernel:\n    modules:\n      - name: br_netfilter\n        \
                    parameters: [a=1]\n";
        let others = "---\napiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: frr\nconfigFiles:\n  - content: x\n    \
                      mountPath: /etc/frr.conf\nenvironment: [A=b]\n---\napiVersion: v1alpha1\nkind: WatchdogTimerConfig\n\
                      device: /dev/watchdog0\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(format!("{root}{others}")));
        harness.settle().await;
        let module = harness.get::<KernelModuleSpec>("br_netfilter").unwrap();
        assert_eq!((module.name.as_str(), module.parameters.as_slice()), ("br_netfilter", &["a=1".to_owned()][..]));
        let service = harness.get::<ExtensionServiceConfig>("frr").unwrap();
        assert_eq!((service.files[0].mount_path.as_str(), service.environment.len()), ("/etc/frr.conf", 1));
        let watchdog = harness.get::<WatchdogTimerConfig>(WATCHDOG).unwrap();
        assert_eq!(watchdog.timeout, Nanoseconds::from(Duration::from_secs(60)));

        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new("version: v1alpha1\nmachine:\n  type: worker\n"));
        harness.settle().await;
        assert_eq!(harness.get::<KernelModuleSpec>("br_netfilter"), None);
        assert_eq!(harness.get::<ExtensionServiceConfig>("frr"), None);
        assert_eq!(harness.get::<WatchdogTimerConfig>(WATCHDOG), None);
    }
}
