//! `gen secrets`: the secrets bundle of a cluster, new or from existing secrets.

use std::path::Path;

use config::generate::Contract;
use pki::secrets::{EncryptionSecret, ServiceAccountKey};
use pki::{Algorithm, KubernetesPki, PemPair, SecretsBundle, SecretsOptions};
use stdx::{Clock as _, SystemClock};

use super::SecretsArgs;
use crate::arguments;
use crate::command_error::CommandError;
use crate::local_file::{self, Access, Overwrite};
use crate::patches;
use crate::session::Session;

pub(super) fn run(args: &SecretsArgs, overwrite: Overwrite, session: &Session) -> Result<(), CommandError> {
    let to_file = args.output_file != Path::new("-");
    if to_file {
        local_file::check_absent([args.output_file.as_path()], overwrite)?;
    }
    if args.kubernetes_bootstrap_token.is_some() && args.from_kubernetes_pki.is_none() {
        session.out.warning("--kubernetes-bootstrap-token has no effect without --from-kubernetes-pki");
    }
    let bundle = make(args)?;
    if to_file {
        local_file::write(&args.output_file, bundle.to_yaml().as_bytes(), Access::Owner, overwrite)
    } else {
        Ok(session.out.raw(bundle.to_yaml().as_bytes())?)
    }
}

fn make(args: &SecretsArgs) -> Result<SecretsBundle, CommandError> {
    let options = options_for(arguments::contract(args.talos_version.as_deref())?);
    match (&args.from_controlplane_config, &args.from_kubernetes_pki) {
        (Some(_), Some(_)) => {
            Err(CommandError::usage("--from-controlplane-config and --from-kubernetes-pki cannot be used together"))
        }
        (Some(path), None) => of_control_plane(path),
        (None, Some(directory)) => {
            let pki = kubernetes_pki(directory)?;
            SecretsBundle::from_kubernetes_pki(
                &pki,
                args.kubernetes_bootstrap_token.clone(),
                SystemClock.now(),
                options,
            )
            .map_err(CommandError::wrap(format!("importing the PKI in {}", directory.display())))
        }
        (None, None) => {
            SecretsBundle::generate(SystemClock.now(), options).map_err(CommandError::wrap("generating secrets"))
        }
    }
}

/// Algorithms of a version's bundle: the cipher changed in 1.3, the service account key in 1.7.
pub(crate) fn options_for(contract: Contract) -> SecretsOptions {
    let mut options = SecretsOptions::default();
    if contract < (Contract { major: 1, minor: 3 }) {
        options.encryption = EncryptionSecret::AesCbc;
    }
    if contract < (Contract { major: 1, minor: 7 }) {
        options.service_account = Algorithm::EcdsaP256;
    }
    options
}

/// The secrets in a control plane configuration.
pub(super) fn of_control_plane(path: &Path) -> Result<SecretsBundle, CommandError> {
    let documents = patches::documents(path)?;
    let wrong = |text: &str| CommandError::usage(format!("{}: {text}", path.display()));
    let config = documents.v1alpha1().ok_or_else(|| wrong("no machine configuration"))?;
    if !config.is_control_plane() {
        return Err(wrong("not a control plane configuration"));
    }
    config::generate::secrets_from_config(config).map_err(|error| wrong("cannot extract the secrets").caused_by(error))
}

/// Reads a PKI directory in kubeadm's layout.
fn kubernetes_pki(directory: &Path) -> Result<KubernetesPki, CommandError> {
    let read = |name: &str| local_file::read(&directory.join(name));
    let pair =
        |name: &str| Ok::<_, CommandError>(PemPair::new(read(&format!("{name}.crt"))?, read(&format!("{name}.key"))?));
    Ok(KubernetesPki {
        ca: pair("ca")?,
        etcd: pair("etcd/ca")?,
        front_proxy: pair("front-proxy-ca")?,
        service_account: ServiceAccountKey { key: read("sa.key")? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_get_the_secrets_they_know() {
        let of = |version: &str| options_for(version.parse().unwrap());
        assert_eq!(of("v1.7.0"), SecretsOptions::default());
        assert_eq!(of("1.6").service_account, Algorithm::EcdsaP256);
        assert_eq!(of("v1.2.3").encryption, EncryptionSecret::AesCbc);
    }
}
