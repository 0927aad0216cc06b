//! How registries are reached: by containerd, which reads files below `hosts` at each pull, and by the node's own puller.
//!
//! containerd's credentials are not here but in [`crate::cri_parts`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;
use base64::Engine as _;
use config::v1alpha1::Registries;
use containers::{Credentials, HostConfig, Mirror, Proxy};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use indexmap::IndexMap;
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
    let hosts: BTreeSet<&String> = registries.mirrors.keys().chain(registries.config.keys()).collect();
    for host in hosts {
        if !is_host(host) {
            files.refused.push(format!("{host:?} cannot be a registry host"));
            continue;
        }
        let has_tls = host != "*" && registries.config.get(host).is_some_and(|config| config.tls.is_some());
        if !has_tls && !registries.mirrors.contains_key(host) {
            continue;
        }
        let directory = directory(host);
        let mut addresses = mirrors(registries, host, &directory, &mut files)?;
        if has_tls {
            let settings = tls_settings(registries, host, &directory, &mut files)?;
            addresses.push(Address { base: format!("https://{}", server(host)), settings });
        }
        let server = (host != "*").then(|| server(host));
        files.open.insert(format!("{directory}/hosts.toml"), hosts_toml(server, &addresses)?);
    }
    Ok(files)
}

/// The mirrors of a host, in their order.
fn mirrors(
    registries: &Registries,
    host: &str,
    directory: &str,
    files: &mut HostFiles,
) -> Result<Vec<Address>, ReconcileError> {
    let mut addresses = Vec::new();
    let Some(mirror) = registries.mirrors.get(host) else { return Ok(addresses) };
    for endpoint in &mirror.endpoints {
        // An endpoint that cannot be used does not keep the others back.
        let url = match Url::parse(endpoint) {
            Ok(url) if is_plain(endpoint) => url,
            _ => {
                files.refused.push(format!("an endpoint of {host} is not a URL"));
                continue;
            }
        };
        let base = without_user(endpoint, &url).trim_end_matches('/').to_owned();
        let base = if mirror.override_path.unwrap_or(false) { base } else { format!("{base}/v2") };
        let mut settings = vec!["override_path = true".to_owned()];
        let address = &url[Position::BeforeHost..Position::AfterPort];
        settings.extend(tls_settings(registries, address, directory, files)?);
        addresses.push(Address { base, settings });
    }
    Ok(addresses)
}

/// The endpoint without a user and a password, of which containerd takes no notice.
fn without_user(endpoint: &str, url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return endpoint.to_owned();
    }
    format!("{}://{}", url.scheme(), &url[Position::BeforeHost..])
}

/// Where containerd looks for the settings of a host: below a name in which the last colon, that of the port, is written
/// as `_PORT_`.
fn directory(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        _ if host == "*" => "_default".to_owned(),
        Some((name, port)) if !name.is_empty() => format!("{name}_{port}_"),
        _ => host.to_owned(),
    };
    format!("{HOSTS}/{name}")
}

/// Where images of a host really are.
pub(crate) fn server(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// An address that is asked for images, with its settings besides the capabilities.
struct Address {
    base: String,
    settings: Vec<String>,
}

/// The file that containerd reads. Each address is a table, unless one of them has a bracket: containerd's parser takes none
/// in the header of a table, not even in quotes, and then all are written as keys with dots, which keep the order.
fn hosts_toml(server: Option<&str>, addresses: &[Address]) -> Result<String, std::fmt::Error> {
    let mut toml = String::new();
    if let Some(server) = server {
        writeln!(toml, "server = \"https://{server}\"")?;
    }
    let has_bracket = addresses.iter().any(|address| address.base.contains(']'));
    for Address { base, settings } in addresses {
        let prefix = if has_bracket { format!("host.\"{base}\".") } else { "  ".to_owned() };
        let header = if has_bracket { String::new() } else { format!("[host.\"{base}\"]\n") };
        write!(toml, "\n{header}{prefix}capabilities = [\"pull\", \"resolve\"]\n")?;
        for setting in settings {
            writeln!(toml, "{prefix}{setting}")?;
        }
    }
    Ok(toml)
}

/// TLS settings for `host`, with files beside the one that names them.
fn tls_settings(
    registries: &Registries,
    host: &str,
    directory: &str,
    files: &mut HostFiles,
) -> Result<Vec<String>, ReconcileError> {
    let mut settings = Vec::new();
    let Some(tls) = registries.config.get(host).and_then(|config| config.tls.as_ref()) else { return Ok(settings) };
    let path = |name: &str| format!("{directory}/{}-{name}", host.replace(':', "_"));
    if tls.insecure_skip_verify == Some(true) {
        settings.push("skip_verify = true".to_owned());
    }
    if !tls.ca.is_empty() {
        let pem = base64::engine::general_purpose::STANDARD.decode(&tls.ca)?;
        let path = path("ca.crt");
        settings.push(format!("ca = \"/etc/{path}\""));
        files.open.insert(path, String::from_utf8(pem)?);
    }
    if let Some(identity) = &tls.client_identity {
        let (certificate, key) = (path("client.crt"), path("client.key"));
        settings.push(format!("client = [[\"/etc/{certificate}\", \"/etc/{key}\"]]"));
        files.open.insert(certificate, identity.crt.clone());
        files.keys.insert(key, Secret::new(identity.key.clone()));
    }
    Ok(settings)
}

/// `machine.registries` as the node's own puller takes it. Unusable entries are left out: the configuration was
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
    let proxy = config.map(|config| proxy(&config.machine().env)).unwrap_or_default();
    containers::Registries { mirrors: mirrors.collect(), hosts: hosts.collect(), proxy }
}

/// The proxies that the environment of services has, in either spelling.
fn proxy(environment: &IndexMap<String, String>) -> Proxy {
    let value = |name: &str| {
        let value = environment.get(name).or_else(|| environment.get(&name.to_uppercase()));
        value.cloned().unwrap_or_default()
    };
    Proxy { http: value("http_proxy"), https: value("https_proxy"), except: value("no_proxy") }
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

    /// containerd reads no other directory for a host with a port.
    #[test]
    fn the_directory_of_a_host_with_a_port_has_the_port_between_underscores() {
        for (host, name) in [
            ("reg.example.org:5000", "reg.example.org_5000_"),
            ("reg.example.org", "reg.example.org"),
            ("[fd00::1]:5000", "[fd00::1]_5000_"),
            ("[fd00::1]", "[fd00:_1]_"),
            ("*", "_default"),
        ] {
            assert_eq!(directory(host), format!("{HOSTS}/{name}"));
        }
    }

    #[test]
    fn mirrors_with_addresses_of_version_6_are_keys_with_dots_in_their_order() {
        let files = host_files(&registries(
            "    mirrors:\n      ghcr.io:\n        endpoints: [\"http://m:1\", \"https://[fd00::1]:5000\"]\n    \
             config:\n      \"[fd00::1]:5000\": {tls: {insecureSkipVerify: true}}\n",
        ));
        let files = files.unwrap();
        let expected = "server = \"https://ghcr.io\"\n\nhost.\"http://m:1/v2\".capabilities = [\"pull\", \"resolve\"]\n\
                        host.\"http://m:1/v2\".override_path = true\n\n\
                        host.\"https://[fd00::1]:5000/v2\".capabilities = [\"pull\", \"resolve\"]\n\
                        host.\"https://[fd00::1]:5000/v2\".override_path = true\n\
                        host.\"https://[fd00::1]:5000/v2\".skip_verify = true\n";
        assert_eq!(file(&files, "ghcr.io/hosts.toml"), expected);
        assert!(
            file(&files, "[fd00::1]_5000_/hosts.toml").contains("host.\"https://[fd00::1]:5000\".skip_verify = true")
        );
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
        let directory = "registry.example.org_5000_";
        let path = |name: &str| format!("\"/etc/cri/conf.d/hosts/{directory}/registry.example.org_5000-{name}\"");
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
        assert_eq!(file(&files, &format!("{directory}/registry.example.org_5000-client.crt")), "CERTIFICATE\n");
        assert_eq!(file(&files, &format!("{directory}/registry.example.org_5000-ca.crt")), "CA\n");
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
        let directory = etc.path().join("cri/conf.d/hosts/registry.example.org_5000_");
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
    fn proxies_of_the_environment_are_for_pulls_too() {
        let text = "version: v1alpha1\nmachine:\n  env:\n    HTTPS_PROXY: http://p:1\n    http_proxy: http://p:2\n    no_proxy: a,b\n";
        let expected = Proxy { http: "http://p:2".into(), https: "http://p:1".into(), except: "a,b".into() };
        assert_eq!(pull_registries(Some(&MachineConfig::new(text))).proxy, expected);
        assert_eq!(pull_registries(None).proxy, Proxy::default());
    }

    #[test]
    fn what_is_said_of_docker_io_is_for_the_host_that_has_its_images() {
        let text =
            "version: v1alpha1\nmachine:\n  registries:\n    config:\n      docker.io:\n        auth: {username: me}\n";
        let registries = pull_registries(Some(&MachineConfig::new(text)));
        assert_eq!(registries.hosts["registry-1.docker.io"].credentials.as_ref().unwrap().username, "me");
    }
}
