//! Kubeconfig files for components, the kubelet and administrators.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::yaml::{self, YamlError};

/// Client authentication. Certificates and keys are PEM text.
#[derive(Clone)]
pub enum Credentials<'a> {
    ClientCertificate {
        certificate: &'a str,
        key: &'a str,
    },
    Token(&'a str),
    /// The file holds certificate and key.
    CertificateFile(&'a str),
    TokenFile(&'a str),
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ClientCertificate { .. } => "ClientCertificate",
            Self::Token(_) => "Token",
            Self::CertificateFile(_) => "CertificateFile",
            Self::TokenFile(_) => "TokenFile",
        })
    }
}

/// The authority of the server certificate.
#[derive(Debug, Clone)]
pub enum Authority<'a> {
    /// One or more certificates, PEM.
    Pem(&'a str),
    File(&'a str),
}

#[derive(Debug, Clone)]
pub struct Kubeconfig<'a> {
    pub cluster: &'a str,
    pub user: &'a str,
    pub context: &'a str,
    /// Namespace of the context; left out when empty.
    pub namespace: &'a str,
    pub server: &'a str,
    pub authority: Authority<'a>,
    pub credentials: Credentials<'a>,
}

impl Kubeconfig<'_> {
    #[must_use]
    pub fn document(&self) -> Value {
        let mut cluster = json!({ "server": self.server });
        match self.authority {
            Authority::Pem(pem) => cluster["certificate-authority-data"] = json!(STANDARD.encode(pem)),
            Authority::File(path) => cluster["certificate-authority"] = json!(path),
        }
        let user = match self.credentials {
            Credentials::ClientCertificate { certificate, key } => json!({
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": STANDARD.encode(key),
            }),
            Credentials::Token(token) => json!({ "token": token }),
            Credentials::CertificateFile(path) => json!({ "client-certificate": path, "client-key": path }),
            Credentials::TokenFile(path) => json!({ "tokenFile": path }),
        };
        let mut context = json!({ "cluster": self.cluster, "user": self.user });
        if !self.namespace.is_empty() {
            context["namespace"] = json!(self.namespace);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": self.cluster, "cluster": cluster }],
            "users": [{ "name": self.user, "user": user }],
            "contexts": [{ "name": self.context, "context": context }],
            "current-context": self.context,
        })
    }

    /// # Errors
    /// As [`yaml::to_string`].
    pub fn yaml(&self) -> Result<String, YamlError> {
        yaml::to_string(&self.document())
    }
}

/// Names inside kubeconfigs follow from the cluster's name and the user, as `admin@talos-default`.
///
/// # Errors
/// As [`yaml::to_string`].
pub fn admin(cluster: &str, server: &str, ca: &str, certificate: &str, key: &str) -> Result<String, YamlError> {
    let context = format!("admin@{cluster}");
    Kubeconfig {
        cluster,
        user: &context,
        context: &context,
        namespace: "default",
        server,
        authority: Authority::Pem(ca),
        credentials: Credentials::ClientCertificate { certificate, key },
    }
    .yaml()
}

/// For a component of the control plane, such as `system:kube-scheduler`.
///
/// # Errors
/// As [`yaml::to_string`].
pub fn component(
    cluster: &str,
    user: &str,
    server: &str,
    ca: &str,
    certificate: &str,
    key: &str,
) -> Result<String, YamlError> {
    let context = format!("{user}@{cluster}");
    Kubeconfig {
        cluster,
        user,
        context: &context,
        namespace: "",
        server,
        authority: Authority::Pem(ca),
        credentials: Credentials::ClientCertificate { certificate, key },
    }
    .yaml()
}

/// The kubelet's bootstrap kubeconfig, for requesting a certificate. `token` is `id.secret`.
///
/// # Errors
/// As [`yaml::to_string`].
pub fn kubelet_bootstrap(server: &str, ca: &str, token: &str) -> Result<String, YamlError> {
    Kubeconfig {
        cluster: "local",
        user: "kubelet",
        context: "local",
        namespace: "",
        server,
        authority: Authority::Pem(ca),
        credentials: Credentials::Token(token),
    }
    .yaml()
}

/// The kubelet's own, with the names that it would write itself. `file` holds certificate and key; the kubelet renews them.
///
/// # Errors
/// As [`yaml::to_string`].
pub fn kubelet(server: &str, ca: &str, file: &str) -> Result<String, YamlError> {
    Kubeconfig {
        cluster: "default-cluster",
        user: "default-auth",
        context: "default-context",
        namespace: "default",
        server,
        authority: Authority::Pem(ca),
        credentials: Credentials::CertificateFile(file),
    }
    .yaml()
}

/// A kubeconfig whose client certificate is in a file.
#[derive(Clone)]
pub struct WithCertificateFile {
    pub kubeconfig: String,
    /// PEM of certificate and key.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for WithCertificateFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithCertificateFile").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateFileError {
    #[error(transparent)]
    Yaml(#[from] YamlError),
    #[error("the kubeconfig has no client certificate in it")]
    Missing,
}

/// Moves the client certificate out of a kubeconfig. Programs of Kubernetes read a kubeconfig once, but a certificate file that
/// it names again whenever it changes.
///
/// # Errors
/// [`CertificateFileError`]
pub fn with_certificate_file(kubeconfig: &str, file: &str) -> Result<WithCertificateFile, CertificateFileError> {
    let mut document = yaml::documents(kubeconfig)?.into_iter().next().ok_or(CertificateFileError::Missing)?;
    let user = document.pointer_mut("/users/0/user").and_then(Value::as_object_mut);
    let user = user.ok_or(CertificateFileError::Missing)?;
    let mut content = Vec::new();
    for key in ["client-certificate", "client-key"] {
        let data = user.remove(&format!("{key}-data"));
        let decoded = data.as_ref().and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
        content.extend(decoded.ok_or(CertificateFileError::Missing)?);
        user.insert(key.to_owned(), json!(file));
    }
    Ok(WithCertificateFile { kubeconfig: yaml::to_string(&document)?, content })
}

/// For pods, with their service account's token.
#[must_use]
pub fn in_cluster(server: &str) -> Value {
    Kubeconfig {
        cluster: "local",
        user: "service-account",
        context: "service-account-context",
        namespace: "default",
        server,
        authority: Authority::File("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
        credentials: Credentials::TokenFile("/var/run/secrets/kubernetes.io/serviceaccount/token"),
    }
    .document()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_context_is_named_after_user_and_cluster() {
        let text = admin("prod", "https://1.2.3.4:6443", "CA", "CERT", "KEY").unwrap();
        let document = &yaml::documents(&text).unwrap()[0];
        assert_eq!(document["current-context"], "admin@prod");
        assert_eq!(document["contexts"][0]["context"]["user"], "admin@prod");
        assert_eq!(document["clusters"][0]["cluster"]["certificate-authority-data"], "Q0E=");
        assert_eq!(document["users"][0]["user"]["client-key-data"], "S0VZ");
    }

    #[test]
    fn client_certificate_moves_to_a_file() {
        let text = component("c", "system:kube-scheduler", "https://a", "CA", "CERT\n", "KEY\n").unwrap();
        let moved = with_certificate_file(&text, "/secrets/client.pem").unwrap();
        assert_eq!(moved.content, b"CERT\nKEY\n");
        let document = &yaml::documents(&moved.kubeconfig).unwrap()[0];
        let file = "/secrets/client.pem";
        assert_eq!(document["users"][0]["user"], json!({ "client-certificate": file, "client-key": file }));
        assert_eq!(document["clusters"][0]["cluster"]["server"], "https://a");
        let again = with_certificate_file(&moved.kubeconfig, file);
        assert!(matches!(again, Err(CertificateFileError::Missing)), "{again:?}");
    }

    #[test]
    fn credentials_do_not_print() {
        let shown = format!("{:?}", Credentials::Token("abc.def"));
        assert_eq!(shown, "Token");
    }
}
