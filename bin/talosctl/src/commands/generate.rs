//! `gen`: secrets, certificates, keys and machine configurations, all without a machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::command_error::CommandError;
use crate::session::Session;

pub(crate) mod config;

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
}

#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// How many hours the certificate is valid
    #[arg(long, value_name = "int", default_value_t = 87600)]
    hours: u32,
    /// Organization in the certificate, and name of the files
    #[arg(long, value_name = "string")]
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
    /// How many hours the certificate is valid
    #[arg(long, value_name = "int", default_value_t = 24)]
    hours: u32,
    /// File name of the certificate without its extension
    #[arg(long, value_name = "string")]
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
    #[arg(long, value_name = "strings", value_delimiter = ',', default_value = "os:admin")]
    roles: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// File name of the key without its extension
    #[arg(long, value_name = "string")]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct KeypairArgs {
    /// IP address in the certificate
    #[arg(long, value_name = "string")]
    ip: Option<String>,
    /// Organization in the certificate, and name of the files
    #[arg(long, value_name = "string")]
    organization: String,
}

#[derive(Debug, Args)]
pub(crate) struct SecretsArgs {
    /// Takes the secrets from a control plane's machine configuration
    #[arg(long, value_name = "string")]
    from_controlplane_config: Option<PathBuf>,
    /// Takes the Kubernetes secrets from a directory with its PKI
    #[arg(short = 'p', long, value_name = "string")]
    from_kubernetes_pki: Option<PathBuf>,
    /// Bootstrap token of the Kubernetes whose PKI is taken
    #[arg(short = 't', long, value_name = "string")]
    kubernetes_bootstrap_token: Option<String>,
    /// File to write to; `-` prints
    #[arg(short, long, value_name = "string", default_value = "secrets.yaml")]
    output_file: PathBuf,
    /// Version of the system that the secrets are for (default: this one)
    #[arg(long, value_name = "string")]
    talos_version: Option<String>,
}

pub(crate) fn run(_command: GenCommand, _force: bool, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl gen`"))
}
