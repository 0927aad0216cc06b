//! `gen`: secrets, certificates, keys and machine configurations, generated locally.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use pki::{
    Algorithm, Authority, CertificateRequest, PemPair, PrivateKey, Role, Sans, Subject, Template, Usage, Validity,
};
use stdx::{Clock as _, SystemClock};

use crate::arguments;
use crate::command_error::CommandError;
use crate::local_file::{self, Access, Overwrite};
use crate::session::Session;

pub(crate) mod config;
pub(crate) mod secrets;
mod secureboot;

/// Lifetime of a self-signed key pair.
const DAY_HOURS: u32 = 24;

#[derive(Debug, Subcommand)]
pub(crate) enum GenCommand {
    /// Generates a self-signed certificate authority
    Ca(CaArgs),
    /// Generates machine configurations and a talosconfig for a cluster
    Config(Box<config::GenConfigArgs>),
    /// Signs a certificate signing request
    Crt(CrtArgs),
    /// Generates a certificate signing request
    Csr(CsrArgs),
    /// Generates an Ed25519 private key
    Key(KeyArgs),
    /// Generates a self-signed certificate and its key
    Keypair(KeypairArgs),
    /// Generates the secrets of a cluster
    Secrets(SecretsArgs),
    /// Generates keys, certificates and variables for Secure Boot
    Secureboot(secureboot::SecurebootArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// Lifetime of the certificate in hours
    #[arg(long, value_name = "int", default_value_t = 87600)]
    hours: u32,
    /// Organization in the certificate and base name of the files
    #[arg(long, value_name = "string", value_parser = arguments::file_stem)]
    organization: String,
    /// Uses RSA instead of Ed25519
    #[arg(long)]
    rsa: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CrtArgs {
    /// File name of the authority without its extension
    #[arg(long, value_name = "string")]
    ca: String,
    /// File with the certificate signing request
    #[arg(long, value_name = "string")]
    csr: PathBuf,
    /// Lifetime of the certificate in hours
    #[arg(long, value_name = "int", default_value_t = 24)]
    hours: u32,
    /// File name of the certificate without its extension
    #[arg(long, value_name = "string", value_parser = arguments::file_stem)]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct CsrArgs {
    /// IP address in the certificate
    #[arg(long, value_name = "string")]
    ip: Option<String>,
    /// File with the key
    #[arg(long, value_name = "string")]
    key: PathBuf,
    /// Roles in the certificate
    #[arg(long, value_name = "strings", value_delimiter = ',', default_value = "os:admin",
          value_parser = arguments::role)]
    roles: Vec<Role>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// File name of the key without its extension
    #[arg(long, value_name = "string", value_parser = arguments::file_stem)]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct KeypairArgs {
    /// IP address in the certificate
    #[arg(long, value_name = "string")]
    ip: Option<String>,
    /// Organization in the certificate and base name of the files
    #[arg(long, value_name = "string", value_parser = arguments::file_stem)]
    organization: String,
}

#[derive(Debug, Args)]
pub(crate) struct SecretsArgs {
    /// Takes the secrets from a control plane's machine configuration
    #[arg(long, value_name = "string")]
    from_controlplane_config: Option<PathBuf>,
    /// Takes the Kubernetes secrets from a kubeadm PKI directory
    #[arg(short = 'p', long, value_name = "string")]
    from_kubernetes_pki: Option<PathBuf>,
    /// Bootstrap token of the existing Kubernetes cluster
    #[arg(short = 't', long, value_name = "string")]
    kubernetes_bootstrap_token: Option<String>,
    /// File to write to; `-` prints
    #[arg(short, long, value_name = "string", default_value = "secrets.yaml")]
    output_file: PathBuf,
    /// System version to generate for (default: this version)
    #[arg(long, value_name = "string")]
    talos_version: Option<String>,
}

pub(crate) fn run(command: GenCommand, force: bool, session: &Session) -> Result<(), CommandError> {
    let overwrite = Overwrite::forced(force);
    match command {
        GenCommand::Ca(args) => ca(&args, overwrite),
        GenCommand::Config(args) => config::run(&args, overwrite, session),
        GenCommand::Crt(args) => crt(&args, overwrite),
        GenCommand::Csr(args) => csr(&args, overwrite),
        GenCommand::Key(args) => key(&args, overwrite),
        GenCommand::Keypair(args) => keypair(&args, overwrite),
        GenCommand::Secrets(args) => secrets::run(&args, overwrite, session),
        GenCommand::Secureboot(args) => secureboot::run(&args, overwrite, session),
    }
}

/// Writes NAME.crt, NAME.key and NAME.sha256, the last with the public key hash in kubeadm's format.
fn ca(args: &CaArgs, overwrite: Overwrite) -> Result<(), CommandError> {
    let algorithm = if args.rsa { Algorithm::Rsa4096 } else { Algorithm::Ed25519 };
    let subject = Subject::organization(args.organization.clone());
    let authority = Authority::self_signed(&subject, algorithm, validity(args.hours))
        .map_err(CommandError::wrap("generating the authority"))?;
    let certificate = authority.certificate().to_pem();
    let hash = public_key_hash(&authority.certificate().fingerprint())?;
    write_all(
        &args.organization,
        overwrite,
        &[
            ("crt", &certificate, Access::Everybody),
            ("sha256", &hash, Access::Everybody),
            ("key", &authority.key().to_pem(), Access::Owner),
        ],
    )
}

fn key(args: &KeyArgs, overwrite: Overwrite) -> Result<(), CommandError> {
    let key = PrivateKey::generate(Algorithm::Ed25519).map_err(CommandError::wrap("generating the key"))?;
    write_all(&args.name, overwrite, &[("key", &key.to_pem(), Access::Owner)])
}

/// Writes the request beside the key: the path of the key with the extension `.csr`.
fn csr(args: &CsrArgs, overwrite: Overwrite) -> Result<(), CommandError> {
    let key = PrivateKey::from_pem(&local_file::read(&args.key)?)
        .map_err(CommandError::wrap(format!("reading key {}", args.key.display())))?;
    let subject = Subject { common_name: None, organizations: args.roles.iter().map(Role::to_string).collect() };
    let request = CertificateRequest::create(&key, &subject, &ip_sans(args.ip.as_deref())?)
        .map_err(CommandError::wrap("creating the request"))?;
    let path = args.key.with_extension("csr");
    local_file::write(&path, request.to_pem().as_bytes(), Access::Everybody, overwrite)
}

fn crt(args: &CrtArgs, overwrite: Overwrite) -> Result<(), CommandError> {
    let certificate = local_file::read(Path::new(&format!("{}.crt", args.ca)))?;
    let key = local_file::read(Path::new(&format!("{}.key", args.ca)))?;
    let authority = Authority::from_pair(&PemPair::new(certificate, key))
        .map_err(CommandError::wrap(format!("reading authority {}", args.ca)))?;
    let request = CertificateRequest::from_pem(&local_file::read(&args.csr)?)
        .map_err(CommandError::wrap(format!("reading request {}", args.csr.display())))?;
    let template = Template {
        subject: request.subject().clone(),
        sans: request.sans().clone(),
        usage: Usage::Peer,
        validity: validity(args.hours),
    };
    let signed = authority.sign_request(&request, &template).map_err(CommandError::wrap("signing the certificate"))?;
    write_all(&args.name, overwrite, &[("crt", &signed.to_pem(), Access::Everybody)])
}

/// A self-signed certificate, valid for one day like those of nodes.
fn keypair(args: &KeypairArgs, overwrite: Overwrite) -> Result<(), CommandError> {
    let wrapped = || "generating the key pair";
    let subject = Subject::organization(args.organization.clone());
    let template = Template {
        subject: subject.clone(),
        sans: ip_sans(args.ip.as_deref())?,
        usage: Usage::Peer,
        validity: validity(DAY_HOURS),
    };
    let key = PrivateKey::generate(Algorithm::Ed25519).map_err(CommandError::wrap(wrapped()))?;
    let own = Authority::self_signed_with(&subject, key.clone(), validity(DAY_HOURS))
        .map_err(CommandError::wrap(wrapped()))?;
    let certificate = own.issue(&key, &template).map_err(CommandError::wrap(wrapped()))?;
    write_all(
        &args.organization,
        overwrite,
        &[("crt", &certificate.to_pem(), Access::Everybody), ("key", &key.to_pem(), Access::Owner)],
    )
}

fn write_all(name: &str, overwrite: Overwrite, files: &[(&str, &str, Access)]) -> Result<(), CommandError> {
    let paths: Vec<PathBuf> = files.iter().map(|(extension, ..)| format!("{name}.{extension}").into()).collect();
    local_file::check_absent(paths.iter().map(PathBuf::as_path), overwrite)?;
    for (path, (_, text, access)) in paths.iter().zip(files) {
        local_file::write(path, text.as_bytes(), *access, overwrite)?;
    }
    Ok(())
}

fn public_key_hash(fingerprint: &str) -> Result<String, CommandError> {
    let bytes = STANDARD.decode(fingerprint).map_err(CommandError::wrap("reading the fingerprint"))?;
    Ok(format!("sha256:{}", stdx::hex(&bytes)))
}

fn validity(hours: u32) -> Validity {
    Validity::starting(SystemClock.now(), Duration::from_secs(u64::from(hours) * 3600))
}

fn ip_sans(ip: Option<&str>) -> Result<Sans, CommandError> {
    match ip {
        None => Ok(Sans::default()),
        Some(text) => {
            let ip: IpAddr = text
                .parse()
                .map_err(|error| CommandError::usage(format!("--ip {text:?}")).caused_by(Box::new(error) as Box<_>))?;
            Ok(Sans { ips: vec![ip], dns: Vec::new() })
        }
    }
}
