//! `gen secureboot`: keys, certificates and UEFI variables for Secure Boot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use pki::secureboot::{Guid, Variable, authenticated, signature_list};
use pki::{Algorithm, Authority, Certificate, PrivateKey, Subject, Validity};
use stdx::{Clock as _, SystemClock};

use crate::command_error::CommandError;
use crate::local_file::{self, Access, Overwrite};
use crate::session::Session;

/// Firmware does not look at it; other tools may.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Debug, Args)]
pub(crate) struct SecurebootArgs {
    /// Directory for the files
    #[arg(short, long, global = true, value_name = "string", default_value = "_out")]
    output: PathBuf,
    #[command(subcommand)]
    command: SecurebootCommand,
}

#[derive(Debug, Subcommand)]
enum SecurebootCommand {
    /// Generates the variables that enrol a certificate in a firmware: db.auth, KEK.auth, PK.auth
    Database(DatabaseArgs),
    /// Generates the key that signs PCR values: pcr-signing-key.pem
    Pcr,
    /// Generates the key and certificate that sign images: uki-signing-key.pem, uki-signing-cert.pem and .der
    Uki(UkiArgs),
}

#[derive(Debug, Args)]
struct DatabaseArgs {
    /// Certificate to enrol
    #[arg(long, value_name = "string", default_value = "_out/uki-signing-cert.pem")]
    enrolled_certificate: PathBuf,
    /// Certificate of the key that signs the variables
    #[arg(long, value_name = "string", default_value = "_out/uki-signing-cert.pem")]
    signing_certificate: PathBuf,
    /// Key that signs the variables
    #[arg(long, value_name = "string", default_value = "_out/uki-signing-key.pem")]
    signing_key: PathBuf,
}

#[derive(Debug, Args)]
struct UkiArgs {
    /// Common name of the certificate
    #[arg(long, value_name = "string", default_value = "Test UKI Signing Key")]
    common_name: String,
}

/// A file to write: name, content, readers.
type File = (String, Vec<u8>, Access);

pub(super) fn run(args: &SecurebootArgs, overwrite: Overwrite, session: &Session) -> Result<(), CommandError> {
    // Before a key is generated, which takes a while.
    let names: &[&str] = match &args.command {
        SecurebootCommand::Database(_) => &["db.auth", "KEK.auth", "PK.auth"],
        SecurebootCommand::Pcr => &["pcr-signing-key.pem"],
        SecurebootCommand::Uki(_) => &["uki-signing-cert.pem", "uki-signing-cert.der", "uki-signing-key.pem"],
    };
    let paths: Vec<PathBuf> = names.iter().map(|name| args.output.join(name)).collect();
    local_file::check_absent(paths.iter().map(PathBuf::as_path), overwrite)?;
    let files = match &args.command {
        SecurebootCommand::Database(args) => database(args)?,
        SecurebootCommand::Pcr => pcr()?,
        SecurebootCommand::Uki(args) => uki(args)?,
    };
    for (name, content, access) in files {
        let path = args.output.join(name);
        session.out.note(format!("writing {}", path.display()));
        local_file::write(&path, &content, access, overwrite)?;
    }
    Ok(())
}

fn uki(args: &UkiArgs) -> Result<Vec<File>, CommandError> {
    let subject = Subject::common_name(args.common_name.clone());
    let validity = Validity::starting(SystemClock.now(), LIFETIME);
    let own = Authority::self_signed(&subject, Algorithm::Rsa4096, validity)
        .map_err(CommandError::wrap("generating the key and its certificate"))?;
    let certificate = own.certificate();
    Ok(vec![
        ("uki-signing-cert.pem".to_owned(), certificate.to_pem().into_bytes(), Access::Everybody),
        ("uki-signing-cert.der".to_owned(), certificate.der().to_vec(), Access::Everybody),
        ("uki-signing-key.pem".to_owned(), own.key().to_pem().into_bytes(), Access::Owner),
    ])
}

fn pcr() -> Result<Vec<File>, CommandError> {
    let key = PrivateKey::generate(Algorithm::Rsa2048).map_err(CommandError::wrap("generating the key"))?;
    Ok(vec![("pcr-signing-key.pem".to_owned(), key.to_pem().into_bytes(), Access::Owner)])
}

fn database(args: &DatabaseArgs) -> Result<Vec<File>, CommandError> {
    let certificate = |path: &Path| {
        Certificate::from_pem(&local_file::read(path)?)
            .map_err(CommandError::wrap(format!("reading certificate {}", path.display())))
    };
    let (enrolled, signer) = (certificate(&args.enrolled_certificate)?, certificate(&args.signing_certificate)?);
    let key = PrivateKey::from_pem(&local_file::read(&args.signing_key)?)
        .map_err(CommandError::wrap(format!("reading key {}", args.signing_key.display())))?;
    let list = signature_list(&enrolled, Guid::of_certificate(&enrolled));
    let now = SystemClock.now();
    let file = |variable: Variable| {
        let content = authenticated(variable, &list, &signer, &key, now);
        let content = content.map_err(CommandError::wrap(format!("signing {}", variable.name())))?;
        Ok((format!("{}.auth", variable.name()), content, Access::Everybody))
    };
    Variable::ALL.into_iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::output::Output;
    use crate::session::GlobalFlags;

    fn run_in(directory: &Path, command: SecurebootCommand) -> Result<(), CommandError> {
        let args = SecurebootArgs { output: directory.to_owned(), command };
        let session = Session::new(GlobalFlags::default(), Environment::default(), Output::plain());
        run(&args, Overwrite::Refuse, &session)
    }

    #[test]
    fn the_files_have_their_documented_names_and_a_database_is_made_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let uki = || SecurebootCommand::Uki(UkiArgs { common_name: "mine".to_owned() });
        run_in(dir.path(), uki()).unwrap();
        run_in(dir.path(), SecurebootCommand::Pcr).unwrap();
        let (pem, key) = (dir.path().join("uki-signing-cert.pem"), dir.path().join("uki-signing-key.pem"));
        let database = || DatabaseArgs {
            enrolled_certificate: pem.clone(),
            signing_certificate: pem.clone(),
            signing_key: key.clone(),
        };
        run_in(dir.path(), SecurebootCommand::Database(database())).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "KEK.auth",
            "PK.auth",
            "db.auth",
            "pcr-signing-key.pem",
            "uki-signing-cert.der",
            "uki-signing-cert.pem",
            "uki-signing-key.pem",
        ];
        assert_eq!(names, expected);
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        let certificate = Certificate::from_pem(&text(&pem)).unwrap();
        assert_eq!(certificate.der(), std::fs::read(dir.path().join("uki-signing-cert.der")).unwrap());
        assert_eq!(certificate.subject().common_name.as_deref(), Some("mine"));
        for name in ["uki-signing-key.pem", "pcr-signing-key.pem"] {
            assert!(text(&dir.path().join(name)).starts_with("-----BEGIN RSA PRIVATE KEY-----\n"), "{name}");
        }
        for name in ["db.auth", "KEK.auth", "PK.auth"] {
            assert!(std::fs::read(dir.path().join(name)).unwrap().ends_with(certificate.der()), "{name}");
        }
        // Keys are not replaced by accident.
        let exists = run_in(dir.path(), uki()).unwrap_err();
        assert!(exists.error.to_string().ends_with("use --force to overwrite"), "{}", exists.error);
    }
}
