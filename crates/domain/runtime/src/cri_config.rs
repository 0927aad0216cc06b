//! How registries are reached: by containerd, which reads files below `hosts` at each pull, and by the node's own puller.
//!
//! containerd's credentials are not here but in [`crate::cri_parts`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;
use base64::Engine as _;
use config::v1alpha1::Registries;
use containers::{Credentials, HostConfig, Mirror};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::files::EtcFileSpec;
use stdx::Secret;
use sys::files::{Access, write_atomic};
use url::{Position, Url};

/// Below `/etc`: a directory per registry host, as containerd reads it.
pub(crate) const HOSTS: &str = "cri/conf.d/hosts";

/// `files.CRIRegistryConfigController`: `machine.registries` as `hosts.toml` files.
///
/// `EtcFileSpec` is readable by every role: secrets are only written here, never to a resource.
#[derive(Debug)]
pub struct CriRegistryConfigController {
    /// Where files of `/etc` are written.
    rendered: PathBuf,
    /// The keys that were written, by their paths below `/etc`.
    keys: BTreeSet<String>,
}

impl CriRegistryConfigController {
    /// Writes keys below `rendered`, as `EtcFileController` writes the other files.
    #[must_use]
    pub fn new(rendered: PathBuf) -> Self {
        Self { rendered, keys: BTreeSet::new() }
    }
}

#[async_trait]
impl Controller for CriRegistryConfigController {
    fn name(&self) -> &'static str {
        "files.CRIRegistryConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<EtcFileSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let config = MachineConfig::root_of(active.as_deref())?;
        let registries = config.and_then(|config| config.machine().registries.as_ref());
        let files = registries.map(host_files).transpose()?.unwrap_or_default();
        for (path, key) in &files.keys {
            write_atomic(&self.rendered.join(path), key.expose().as_bytes(), Access::SECRET)?;
            self.keys.insert(path.clone());
        }
        for (path, contents) in files.open {
            ctx.put(&path, EtcFileSpec { contents: contents.into_bytes(), mode: 0o600 })?;
        }
        ctx.keep_touched::<EtcFileSpec>()?;
        let dropped = self.keys.iter().filter(|path| !files.keys.contains_key(*path)).cloned().collect::<Vec<_>>();
        for path in dropped {
            sys::files::remove(&self.rendered.join(&path))?;
            self.keys.remove(&path);
        }
        if files.refused.is_empty() { Ok(()) } else { Err(ReconcileError::msg(files.refused.join("; "))) }
    }
}

/// Files by their paths below `/etc`.
#[derive(Debug, Default)]
struct HostFiles {
    /// The public part.
    open: BTreeMap<String, String>,
    keys: BTreeMap<String, Secret<String>>,
    /// Registries that were left out, each with the reason.
    refused: Vec<String>,
}

/// Whether a host can be the name of a directory, and stand in a TOML string: names from the configuration are not paths.
fn is_host(host: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    host == "*" || (host.starts_with(|c: char| c != '.') && host.chars().all(is_allowed))
}

/// Whether a URL can stand in a TOML string as it was written.
fn is_plain(url: &str) -> bool {
    !url.chars().any(|c| c.is_control() || matches!(c, '"' | '\\'))
}

/// A directory per host with mirrors or with settings of its own.
fn host_files(registries: &Registries) -> Result<HostFiles, ReconcileError> {
    let mut files = HostFiles::default();
    let hosts = registries.mirrors.keys().chain(registries.config.keys());
    files.refused.extend(hosts.filter(|host| !is_host(host)).map(|host| format!("{host:?} cannot be a registry host")));
    for (host, mirror) in registries.mirrors.iter().filter(|(host, _)| is_host(host)) {
        let directory = directory(host);
        let mut toml = String::new();
        if host != "*" {
            writeln!(toml, "server = \"https://{}\"", server(host))?;
        }
        for endpoint in &mirror.endpoints {
            // An endpoint that cannot be used does not keep the others back.
            let url = match Url::parse(endpoint) {
                Ok(url) if is_plain(endpoint) => url,
                _ => {
                    files.refused.push(format!("an endpoint of {host} is not a URL"));
                    continue;
                }
            };
            let endpoint = without_user(endpoint, &url);
            let complete = mirror.override_path.unwrap_or(false);
            let base = if complete {
                endpoint.trim_end_matches('/').to_owned()
            } else {
                format!("{}/v2", endpoint.trim_end_matches('/'))
            };
            write_host(&mut toml, &base)?;
            writeln!(toml, "  override_path = true")?;
            write_tls(registries, &url[Position::BeforeHost..Position::AfterPort], &directory, &mut toml, &mut files)?;
        }
        if host != "*" && registries.config.get(host).is_some_and(|config| config.tls.is_some()) {
            write_host(&mut toml, &format!("https://{}", server(host)))?;
            write_tls(registries, host, &directory, &mut toml, &mut files)?;
        }
        files.open.insert(format!("{directory}/hosts.toml"), toml);
    }
    let mirrored = |host: &&String| registries.mirrors.contains_key(*host);
    for host in registries.config.keys().filter(|host| is_host(host) && !mirrored(host)) {
        if registries.config.get(host).is_none_or(|config| config.tls.is_none()) {
            continue;
        }
        let directory = directory(host);
        let server = server(host);
        let mut toml = format!("server = \"https://{server}\"\n");
        write_host(&mut toml, &format!("https://{server}"))?;
        write_tls(registries, host, &directory, &mut toml, &mut files)?;
        files.open.insert(format!("{directory}/hosts.toml"), toml);
    }
    Ok(files)
}

/// The endpoint without a user and a password, of which containerd takes no notice.
fn without_user(endpoint: &str, url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return endpoint.to_owned();
    }
    format!("{}://{}", url.scheme(), &url[Position::BeforeHost..])
}

fn directory(host: &str) -> String {
    let name = if host == "*" { "_default".to_owned() } else { host.replace(':', "_") };
    format!("{HOSTS}/{name}")
}

/// Where images of a host really are.
pub(crate) fn server(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

fn write_host(toml: &mut String, base: &str) -> std::fmt::Result {
    writeln!(toml, "\n[host.\"{base}\"]\n  capabilities = [\"pull\", \"resolve\"]")
}

/// TLS settings for `host`, with files beside the one that names them.
fn write_tls(
    registries: &Registries,
    host: &str,
    directory: &str,
    toml: &mut String,
    files: &mut HostFiles,
) -> Result<(), ReconcileError> {
    let Some(tls) = registries.config.get(host).and_then(|config| config.tls.as_ref()) else { return Ok(()) };
    let path = |name: &str| format!("{directory}/{}-{name}", host.replace(':', "_"));
    if tls.insecure_skip_verify == Some(true) {
        writeln!(toml, "  skip_verify = true")?;
    }
    if !tls.ca.is_empty() {
        let pem = base64::engine::general_purpose::STANDARD.decode(&tls.ca)?;
        let path = path("ca.crt");
        writeln!(toml, "  ca = \"/etc/{path}\"")?;
        files.open.insert(path, String::from_utf8(pem)?);
    }
    if let Some(identity) = &tls.client_identity {
        let (certificate, key) = (path("client.crt"), path("client.key"));
        writeln!(toml, "  client = [[\"/etc/{certificate}\", \"/etc/{key}\"]]")?;
        files.open.insert(certificate, identity.crt.clone());
        files.keys.insert(key, Secret::new(identity.key.clone()));
    }
    Ok(())
}

/// `machine.registries` as the node's own puller takes it. What cannot be used is left out: the configuration was
/// validated when it came in.
pub fn pull_registries(active: Option<&MachineConfig>) -> containers::Registries {
    // Only decodable configurations become active.
    let config = MachineConfig::root_of(active).ok().flatten();
    let registries = config.and_then(|config| config.machine().registries.clone()).unwrap_or_default();
    let mirrors = registries.mirrors.iter().map(|(host, mirror)| {
        let endpoints = mirror.endpoints.iter().filter_map(|url| Url::parse(url).ok()).collect();
        (host.clone(), Mirror { endpoints, override_path: mirror.override_path.unwrap_or(false) })
    });
    let hosts = registries.config.iter().map(|(host, registry)| (server(host).to_owned(), host_config(registry)));
    containers::Registries { mirrors: mirrors.collect(), hosts: hosts.collect() }
}

fn host_config(registry: &config::v1alpha1::Registry) -> HostConfig {
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let tls = registry.tls.clone().unwrap_or_default();
    let credentials = registry.auth.as_ref().map(|auth| {
        let secret = |value: &config::SecretString| (!value.is_empty()).then(|| Secret::new(value.expose().to_owned()));
        Credentials {
            username: auth.username.clone(),
            password: secret(&auth.password),
            auth: secret(&auth.auth),
            identity_token: secret(&auth.identity_token),
        }
    });
    HostConfig {
        credentials,
        ca: if tls.ca.is_empty() { None } else { decode(&tls.ca) },
        client_identity: tls
            .client_identity
            .map(|pair| Secret::new(format!("{}\n{}", pair.crt, pair.key).into_bytes())),
        insecure_skip_verify: tls.insecure_skip_verify.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use controller::testing::Harness;

    use super::*;

    fn registries(yaml: &str) -> Registries {
        let text = format!("version: v1alpha1\nmachine:\n  registries:\n{yaml}");
        let documents = config::Documents::from_yaml(text.as_bytes()).unwrap();
        documents.v1alpha1().unwrap().machine().registries.clone().unwrap()
    }

    #[test]
    fn a_mirror_becomes_a_hosts_file_that_falls_back_to_the_host() {
        let files =
            host_files(&registries("    mirrors:\n      ghcr.io:\n        endpoints: [http://10.5.0.1:5000]\n"));
        assert_eq!(
            file(&files.unwrap(), "ghcr.io/hosts.toml"),
            "server = \"https://ghcr.io\"\n\n[host.\"http://10.5.0.1:5000/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n"
        );
    }

    #[test]
    fn the_star_is_the_default_directory_without_a_server() {
        let files = host_files(&registries(
            "    mirrors:\n      \"*\":\n        endpoints: [http://m/x]\n        overridePath: true\n",
        ));
        let files = files.unwrap();
        let toml = file(&files, "_default/hosts.toml");
        assert!(toml.starts_with("\n[host.\"http://m/x\"]"), "{toml}");
    }

    /// A registry with all TLS settings.
    fn private() -> String {
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        format!(
            "    config:\n      registry.example.org:5000:\n        tls:\n          ca: {}\n          clientIdentity:\n            \
             crt: {}\n            key: {}\n",
            base64("CA\n"),
            base64("CERTIFICATE\n"),
            base64("KEY\n"),
        )
    }

    fn file<'a>(files: &'a HostFiles, name: &str) -> &'a str {
        let path = format!("cri/conf.d/hosts/{name}");
        files.open.get(&path).unwrap_or_else(|| panic!("no {path} in {files:?}"))
    }

    #[test]
    fn containerd_shows_its_certificate_to_a_registry_without_mirrors() {
        let files = host_files(&registries(&private())).unwrap();
        let directory = "registry.example.org_5000";
        let path = |name: &str| format!("\"/etc/cri/conf.d/hosts/{directory}/{directory}-{name}\"");
        assert_eq!(
            file(&files, &format!("{directory}/hosts.toml")),
            format!(
                "server = \"https://registry.example.org:5000\"\n\n[host.\"https://registry.example.org:5000\"]\n  \
                 capabilities = [\"pull\", \"resolve\"]\n  ca = {}\n  client = [[{}, {}]]\n",
                path("ca.crt"),
                path("client.crt"),
                path("client.key"),
            )
        );
        assert_eq!(file(&files, &format!("{directory}/{directory}-client.crt")), "CERTIFICATE\n");
        assert_eq!(file(&files, &format!("{directory}/{directory}-ca.crt")), "CA\n");
    }

    #[test]
    fn a_mirror_has_the_tls_of_the_host_that_it_is_on() {
        let mirror = "    mirrors:\n      ghcr.io:\n        endpoints: [https://user@registry.example.org:5000/x]\n";
        let files = host_files(&registries(&format!("{mirror}{}", private()))).unwrap();
        let toml = file(&files, "ghcr.io/hosts.toml");
        assert!(
            toml.contains("client = [[\"/etc/cri/conf.d/hosts/ghcr.io/registry.example.org_5000-client.crt\""),
            "{toml}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_secret_is_for_root_alone_is_in_no_resource_and_goes_with_its_registry() {
        let etc = tempfile::tempdir().unwrap();
        let harness = Harness::with(CriRegistryConfigController::new(etc.path().into()));
        let mirror = "    mirrors:\n      ghcr.io:\n        endpoints: [https://me:KEY@registry.example.org:5000/x]\n";
        let text = format!("version: v1alpha1\nmachine:\n  registries:\n{mirror}{}", private());
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        let directory = etc.path().join("cri/conf.d/hosts/registry.example.org_5000");
        let key = directory.join("registry.example.org_5000-client.key");
        assert_eq!(std::fs::read(&key).unwrap(), b"KEY\n");
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let specs = harness.list::<EtcFileSpec>();
        assert!(specs.iter().any(|spec| spec.id().ends_with("-client.crt")), "{specs:?}");
        for spec in specs {
            let text = String::from_utf8_lossy(&spec.contents);
            assert!(!text.contains("KEY"), "{}: {text}", spec.id());
        }
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new("version: v1alpha1\nmachine: {}\n"));
        harness.settle().await;
        assert!(!key.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_would_be_a_path_is_left_out_and_the_others_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("system/etc");
        let harness = Harness::with(CriRegistryConfigController::new(etc.clone()));
        let hostile = private().replace("registry.example.org:5000", "../../../../../stolen");
        let good = "    mirrors:\n      ghcr.io:\n        endpoints: [\"http://a\\nb\", http://m]\n      ..: {endpoints: [http://m]}\n";
        let text = format!("version: v1alpha1\nmachine:\n  registries:\n{good}{hostile}");
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        assert_eq!(harness.ids::<EtcFileSpec>(), ["cri/conf.d/hosts/ghcr.io/hosts.toml"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a key was written");
        let said = harness.status("files.CRIRegistryConfigController").last_error.unwrap();
        assert!(said.contains("stolen") && said.contains("\"..\"") && said.contains("ghcr.io"), "{said}");
    }

    #[test]
    fn the_nodes_own_puller_has_the_certificate_and_the_key_too() {
        let text = format!("version: v1alpha1\nmachine:\n  type: worker\n  registries:\n{}", private());
        let registries = pull_registries(Some(&MachineConfig::new(text)));
        let host = &registries.hosts["registry.example.org:5000"];
        assert_eq!(host.client_identity.as_ref().unwrap().expose(), b"CERTIFICATE\n\nKEY\n");
        assert_eq!(host.ca.as_deref(), Some(b"CA\n".as_slice()));
    }

    #[test]
    fn what_is_said_of_docker_io_is_for_the_host_that_has_its_images() {
        let text =
            "version: v1alpha1\nmachine:\n  registries:\n    config:\n      docker.io:\n        auth: {username: me}\n";
        let registries = pull_registries(Some(&MachineConfig::new(text)));
        assert_eq!(registries.hosts["registry-1.docker.io"].credentials.as_ref().unwrap().username, "me");
    }
}
