//! containerd's main configuration file: constant settings, registry credentials, and the operator's customization.
//!
//! containerd has no other place for credentials that it uses whoever asks, and reads the file when it starts: a change
//! needs a restart, which is the work of [`crate::service_spec`]. How registries are reached is in [`crate::cri_config`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use config::v1alpha1::{FilePlace, Registries, RegistryAuth};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::files::EtcFileStatus;
use sys::files::{Access, FileError, write_atomic};
use toml_edit::{DocumentMut, Item, TableLike, TomlError};

use crate::cri_config::{HOSTS, server};

/// Below `/etc`: containerd's configuration.
pub const CONTAINERD_FILE: &str = "cri/containerd.toml";

/// A customization that containerd could not read. The text is not shown: it may hold secrets.
#[derive(Debug, thiserror::Error)]
#[error("{} is not TOML: line {line}: {message}", FilePlace::CUSTOMIZATION)]
pub struct CustomizationError {
    line: usize,
    message: String,
}

fn parse(text: &str) -> Result<DocumentMut, CustomizationError> {
    text.parse().map_err(|error: TomlError| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        CustomizationError { line, message: error.message().to_owned() }
    })
}

/// Whether containerd's configuration can be customized by this text.
///
/// # Errors
/// [`CustomizationError`].
pub fn check_customization(text: &str) -> Result<(), CustomizationError> {
    parse(text).map(drop)
}

/// The version of a file that is as it was when the machine started.
pub(crate) const FIRST_VERSION: &str = "0";

/// The image of the container that holds a pod's namespaces.
const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.8";

/// The machine-dependent part of containerd's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerdLimits {
    /// The kernel refuses to lower OOM scores here.
    pub restrict_oom_score: bool,
}

/// The configuration file of this machine.
#[derive(Debug, Clone)]
pub struct ContainerdFile {
    /// Where files of `/etc` are written.
    pub rendered: PathBuf,
    pub limits: ContainerdLimits,
}

impl ContainerdFile {
    /// Writes it as it is before there is a configuration of the machine.
    ///
    /// # Errors
    /// Names the file.
    pub fn write_first(&self) -> Result<(), FileError> {
        self.write(&self.text(&Registries::default())).map(drop)
    }

    fn text(&self, registries: &Registries) -> String {
        containerd_toml(self.limits) + &credentials_toml(registries)
    }

    /// Whether it changed. Only root reads it.
    fn write(&self, toml: &str) -> Result<bool, FileError> {
        write_atomic(&self.rendered.join(CONTAINERD_FILE), toml.as_bytes(), Access::SECRET)
    }
}

fn containerd_toml(limits: ContainerdLimits) -> String {
    let restrict = limits.restrict_oom_score;
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]

[debug]
  level = "info"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = {restrict}
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/{HOSTS}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    discard_unpacked_layers = false
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#
    )
}

/// The configuration with a customization: tables are merged, all other values replaced. containerd itself would replace
/// the settings of a whole plug-in.
fn customized(toml: &str, customization: &str) -> Result<String, CustomizationError> {
    let mut document = parse(toml)?;
    let customization = parse(customization)?;
    merge(document.as_table_mut(), customization.as_table());
    Ok(document.to_string())
}

fn merge(into: &mut dyn TableLike, from: &dyn TableLike) {
    for (key, value) in from.iter() {
        match (into.get_mut(key).and_then(Item::as_table_like_mut), value.as_table_like()) {
            (Some(below), Some(value)) => merge(below, value),
            _ => drop(into.insert(key, value.clone())),
        }
    }
}

/// The credentials, by the contacted host: a mirror's are those of its own address.
///
/// Hosts are keys of one table: containerd's parser takes no `]` in the header of a table, not even in quotes.
fn credentials_toml(registries: &Registries) -> String {
    let known = registries.config.iter().filter_map(|(host, registry)| Some((server(host), registry.auth.as_ref()?)));
    // No key may come twice: containerd would not start.
    let by_host: BTreeMap<_, _> = known.filter(|(host, _)| is_address(host)).collect();
    let mut entries = String::new();
    for (host, auth) in by_host {
        let fields = fields(auth).into_iter().filter(|(_, value)| !value.is_empty());
        let fields: Vec<_> = fields.map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
        // containerd refuses to pull with credentials in which nothing is.
        if !fields.is_empty() {
            entries += &format!("  {} = {{ auth = {{ {} }} }}\n", quoted(host), fields.join(", "));
        }
    }
    if entries.is_empty() {
        return entries;
    }
    format!("\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n{entries}")
}

fn fields(auth: &RegistryAuth) -> [(&'static str, &str); 4] {
    [
        ("username", &auth.username),
        ("password", auth.password.expose()),
        ("auth", auth.auth.expose()),
        ("identitytoken", auth.identity_token.expose()),
    ]
}

/// Whether it can be the address of anything; other keys of the configuration are never looked up.
fn is_address(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
}

/// As a basic string of TOML, which is one of JSON but for one character.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// `files.CRIConfigPartsController`: keeps containerd's file up to `machine.registries`, and to the customization among
/// `machine.files`.
///
/// This file has secrets in it, so it is in no resource. It is reported like the others, with a
/// version that counts its changes.
#[derive(Debug)]
pub struct CriConfigPartsController {
    file: ContainerdFile,
    changes: u64,
}

impl CriConfigPartsController {
    /// For a file that is written already, see [`ContainerdFile::write_first`].
    #[must_use]
    pub fn new(file: ContainerdFile) -> Self {
        Self { file, changes: 0 }
    }
}

#[async_trait]
impl Controller for CriConfigPartsController {
    fn name(&self) -> &'static str {
        "files.CRIConfigPartsController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<EtcFileStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let config = MachineConfig::root_of(active.as_deref())?;
        let registries = config.and_then(|config| config.machine().registries.clone()).unwrap_or_default();
        let files = config.map(|config| config.machine().files.as_slice()).unwrap_or_default();
        let customization = files.iter().rev().find(|file| file.place() == Some(FilePlace::Customization));
        let plain = self.file.text(&registries);
        // One that cannot be read does not keep the credentials back.
        let (toml, outcome) = match customization.map(|file| customized(&plain, &file.content)) {
            None => (plain, Ok(())),
            Some(Ok(toml)) => (toml, Ok(())),
            Some(Err(error)) => (plain, Err(error.into())),
        };
        if self.file.write(&toml)? {
            self.changes += 1;
        }
        let spec_version = self.changes.to_string();
        ctx.put(CONTAINERD_FILE, EtcFileStatus { spec_version })?;
        ctx.keep_touched::<EtcFileStatus>()?;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use controller::testing::Harness;

    use super::*;

    fn credentials(yaml: &str) -> String {
        let text = format!("version: v1alpha1\nmachine:\n  registries:\n    config:\n{yaml}");
        let documents = config::Documents::from_yaml(text.as_bytes()).unwrap();
        credentials_toml(documents.v1alpha1().unwrap().machine().registries.as_ref().unwrap())
    }

    #[test]
    fn every_kind_of_credentials_is_for_the_host_that_is_asked() {
        let text = "      docker.io: {auth: {username: me, password: 'a\"b\\c'}}\n      \
                    '[fd00::1]:5000': {auth: {auth: bWU6eA==}}\n      ghcr.io: {auth: {identityToken: t}}\n";
        let expected = r#"
[plugins."io.containerd.grpc.v1.cri".registry.configs]
  "[fd00::1]:5000" = { auth = { auth = "bWU6eA==" } }
  "ghcr.io" = { auth = { identitytoken = "t" } }
  "registry-1.docker.io" = { auth = { username = "me", password = "a\"b\\c" } }
"#;
        assert_eq!(credentials(text), expected);
    }

    /// Otherwise containerd would fail to start, or fail to pull without credentials.
    #[test]
    fn what_containerd_could_not_read_is_left_out() {
        assert_eq!(credentials("      a.example: {auth: {}}\n      b.example: {}\n"), "");
        assert_eq!(credentials("      'a\"]': {auth: {username: me}}\n"), "");
        let twice = "      docker.io: {auth: {username: a}}\n      registry-1.docker.io: {auth: {username: b}}\n";
        assert_eq!(credentials(twice).matches("registry-1.docker.io").count(), 1);
        assert_eq!(quoted("\u{7f}\n"), r#""\u007F\n""#);
    }

    #[test]
    fn a_customization_is_merged_into_the_tables_that_are_there() {
        let base = "version = 2\n[plugins.\"cri\"]\n  image = \"pause\"\n[plugins.\"cri\".registry.configs]\n  \"[::1]:5\" = { a = 1 }\n";
        let customization = "[metrics]\n  address = \"0.0.0.0:1\"\n[plugins.cri]\n  image = \"other\"\n  ports = true\n\
                             [plugins.cri.containerd.runtimes.runsc]\n  type = \"runsc\"\n";
        let merged: DocumentMut = customized(base, customization).unwrap().parse().unwrap();
        let expected = "version = 2\n[plugins.cri]\nimage = \"other\"\nports = true\nregistry.configs.\"[::1]:5\".a = 1\n\
                        containerd.runtimes.runsc.type = \"runsc\"\n[metrics]\naddress = \"0.0.0.0:1\"\n";
        let expected: DocumentMut = expected.parse().unwrap();
        assert_eq!(plain(merged.as_item()), plain(expected.as_item()));
        let error = check_customization("[a]\nsecret = swordfish\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(!error.to_string().contains("swordfish"), "{error}");
    }

    /// Without spaces, order and forms of tables.
    fn plain(item: &Item) -> BTreeMap<String, String> {
        fn walk(path: &str, item: &Item, found: &mut BTreeMap<String, String>) {
            match item.as_table_like() {
                Some(table) => table.iter().for_each(|(key, item)| walk(&format!("{path}/{key}"), item, found)),
                None => drop(found.insert(path.to_owned(), item.to_string().trim().to_owned())),
            }
        }
        let mut found = BTreeMap::new();
        walk("", item, &mut found);
        found
    }

    #[test]
    fn containerd_is_told_to_leave_oom_scores_where_the_kernel_refuses_them() {
        assert!(
            containerd_toml(ContainerdLimits { restrict_oom_score: true }).contains("restrict_oom_score_adj = true")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_for_root_alone_and_its_version_says_when_it_changed() {
        let etc = tempfile::tempdir().unwrap();
        let limits = ContainerdLimits { restrict_oom_score: false };
        let file = ContainerdFile { rendered: etc.path().into(), limits };
        file.write_first().unwrap();
        let path = etc.path().join(CONTAINERD_FILE);
        let first = std::fs::read(&path).unwrap();
        let harness = Harness::with(CriConfigPartsController::new(file));
        let version = || harness.get::<EtcFileStatus>(CONTAINERD_FILE).unwrap().spec_version.clone();
        harness.settle().await;
        assert_eq!(version(), FIRST_VERSION);
        let configure = |registries: &str| {
            let text = format!("version: v1alpha1\nmachine:\n  registries: {registries}\n");
            harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        };
        configure("{mirrors: {ghcr.io: {endpoints: ['http://10.5.0.1:5000']}}}");
        harness.settle().await;
        assert_eq!(version(), FIRST_VERSION, "files that containerd reads at each pull are not here");
        configure("{config: {ghcr.io: {auth: {username: me, password: hidden}}}}");
        harness.settle().await;
        assert_eq!(version(), "1");
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"hidden\""));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        configure("{}");
        harness.settle().await;
        assert_eq!((version().as_str(), std::fs::read(&path).unwrap()), ("2", first));
        let customize = |content: &str| {
            let file = format!("{{path: {}, op: create, content: '{content}'}}", FilePlace::CUSTOMIZATION);
            configure(&format!("{{}}\n  files: [{file}]"));
        };
        customize("metrics.address = \"127.0.0.1:11234\"");
        harness.settle().await;
        assert_eq!(version(), "3");
        assert!(std::fs::read_to_string(&path).unwrap().contains("127.0.0.1:11234"));
        customize("[broken");
        harness.settle().await;
        assert!(!std::fs::read_to_string(&path).unwrap().contains("broken"));
        let said = harness.status("files.CRIConfigPartsController").last_error.unwrap();
        assert!(said.contains("is not TOML"), "{said}");
    }
}
