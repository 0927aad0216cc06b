//! Keys and certificates.

use std::net::IpAddr;

use crate::values::{Certificate, CertificateAndKey, Key, Url};

resource! {
    /// Certificates of the machine API.
    ApiCertificate: "ApiCertificates.secrets.talos.dev" in "secrets" sensitive,
    {
        accepted_cas: Vec<Certificate> = 4 "acceptedCAs",
        client: Option<CertificateAndKey> = 2 "client",
        server: Option<CertificateAndKey> = 3 "server",
    }
}

impl ApiCertificate {
    /// ID of the single instance.
    pub const ID: &'static str = "api";
}

resource! {
    /// Names and addresses for a certificate.
    CertSans: "CertSANs.secrets.talos.dev" in "secrets" sensitive,
    {
        ips: Vec<IpAddr> = 1 "ips",
        dns_names: Vec<String> = 2 "dnsNames",
        fqdn: String = 3 "fqdn",
    }
}

impl CertSans {
    /// The id `api`.
    pub const API_ID: &'static str = "api";
    /// The id `maintenance`.
    pub const MAINTENANCE_ID: &'static str = "maintenance";
    /// The id `k8s`.
    pub const K8S_ID: &'static str = "k8s";
}

resource! {
    /// Certificates of etcd.
    EtcdSecrets: "EtcdSecrets.secrets.talos.dev" in "secrets" sensitive,
    {
        etcd: Option<CertificateAndKey> = 1 "etcd",
        etcd_peer: Option<CertificateAndKey> = 2 "etcdPeer",
        etcd_admin: Option<CertificateAndKey> = 3 "etcdAdmin",
        etcd_api_server: Option<CertificateAndKey> = 4 "etcdAPIServer",
    }
}

impl EtcdSecrets {
    /// ID of the single instance.
    pub const ID: &'static str = "etcd";
}

resource! {
    /// The CA of etcd.
    EtcdRootSecret: "EtcdRootSecrets.secrets.talos.dev" in "secrets" sensitive,
    {
        etcd_ca: Option<CertificateAndKey> = 1 "etcdCA",
    }
}

impl EtcdRootSecret {
    /// ID of the single instance.
    pub const ID: &'static str = "etcd";
}

resource! {
    /// The kubelet's bootstrap credentials.
    KubeletSecrets: "KubeletSecrets.secrets.talos.dev" in "secrets" sensitive,
    {
        endpoint: Url = 1 "endpoint",
        accepted_cas: Vec<Certificate> = 5 "acceptedCAs",
        bootstrap_token_id: String = 3 "bootstrapTokenID",
        bootstrap_token_secret: String = 4 "bootstrapTokenSecret",
    }
}

impl KubeletSecrets {
    /// ID of the single instance.
    pub const ID: &'static str = "kubelet";

    /// The token as the API server of the cluster knows it. One without an id is a token that its owner chose.
    #[must_use]
    pub fn bootstrap_token(&self) -> String {
        match self.bootstrap_token_id.as_str() {
            "" => self.bootstrap_token_secret.clone(),
            id => format!("{id}.{}", self.bootstrap_token_secret),
        }
    }
}

resource! {
    /// Kubeconfigs of control plane components.
    KubernetesSecrets: "KubernetesSecrets.secrets.talos.dev" in "secrets" sensitive,
    {
        scheduler_kubeconfig: String = 4 "schedulerKubeconfig",
        controller_manager_kubeconfig: String = 5 "controllerManagerKubeconfig",
        localhost_admin_kubeconfig: String = 6 "localhostAdminKubeconfig",
        admin_kubeconfig: String = 7 "adminKubeconfig",
    }
}

impl KubernetesSecrets {
    /// ID of the single instance.
    pub const ID: &'static str = "k8s-certs";
}

resource! {
    /// Certificates of the API server.
    KubernetesDynamicCerts: "KubernetesDynamicCerts.secrets.talos.dev" in "secrets" sensitive,
    {
        api_server: Option<CertificateAndKey> = 1 "apiServer",
        api_server_kubelet_client: Option<CertificateAndKey> = 2 "apiServerKubeletClient",
        front_proxy: Option<CertificateAndKey> = 3 "frontProxy",
    }
}

impl KubernetesDynamicCerts {
    /// ID of the single instance.
    pub const ID: &'static str = "k8s-dynamic-certs";
}

resource! {
    /// CAs and keys of Kubernetes.
    KubernetesRootSecret: "KubernetesRootSecrets.secrets.talos.dev" in "secrets" sensitive,
    {
        name: String = 1 "name",
        endpoint: Url = 2 "endpoint",
        local_endpoint: Url = 3 "local_endpoint",
        cert_sans: Vec<String> = 4 "certSANs",
        api_server_ips: Vec<IpAddr> = 14 "apiServerIPs",
        dns_domain: String = 6 "dnsDomain",
        issuing_ca: Option<CertificateAndKey> = 7 "issuingCA",
        accepted_cas: Vec<Certificate> = 15 "acceptedCAs",
        service_account: Option<Key> = 8 "serviceAccount",
        aggregator_ca: Option<CertificateAndKey> = 9 "aggregatorCA",
        aes_cbc_encryption_secret: String = 10 "aesCBCEncryptionSecret",
        bootstrap_token_id: String = 11 "bootstrapTokenID",
        bootstrap_token_secret: String = 12 "bootstrapTokenSecret",
        secretbox_encryption_secret: String = 13 "secretboxEncryptionSecret",
    }
}

impl KubernetesRootSecret {
    /// ID of the single instance.
    pub const ID: &'static str = "k8s";
}

resource! {
    /// The certificate of the maintenance API.
    MaintenanceServiceCertificate: "MaintenanceServiceCertificates.secrets.talos.dev" in "secrets" sensitive,
    {
        ca: Option<CertificateAndKey> = 1 "ca",
        server: Option<CertificateAndKey> = 2 "server",
    }
}

impl MaintenanceServiceCertificate {
    /// ID of the single instance.
    pub const ID: &'static str = "maintenance";
}

resource! {
    /// The CA of the maintenance API.
    MaintenanceRootSecret: "MaintenanceRootSecrets.secrets.talos.dev" in "secrets" sensitive,
    {
        ca: Option<CertificateAndKey> = 1 "ca",
    }
}

impl MaintenanceRootSecret {
    /// ID of the single instance.
    pub const ID: &'static str = "maintenance";
}

resource! {
    /// The CA of the machine API.
    OsRootSecret: "OSRootSecrets.secrets.talos.dev" in "secrets" sensitive,
    {
        issuing_ca: Option<CertificateAndKey> = 1 "issuingCA",
        accepted_cas: Vec<Certificate> = 5 "acceptedCAs",
        cert_san_ips: Vec<IpAddr> = 2 "certSANIPs",
        cert_san_dns_names: Vec<String> = 3 "certSANDNSNames",
        token: String = 4 "token",
    }
}

impl OsRootSecret {
    /// ID of the single instance.
    pub const ID: &'static str = "os";
}

resource! {
    /// The certificate of trustd.
    TrustdCertificate: "TrustdCertificates.secrets.talos.dev" in "secrets" sensitive,
    {
        accepted_cas: Vec<Certificate> = 3 "acceptedCAs",
        server: Option<CertificateAndKey> = 2 "server",
    }
}

impl TrustdCertificate {
    /// ID of the single instance.
    pub const ID: &'static str = "trustd";
}
