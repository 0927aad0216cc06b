//! Access to the machine API from pods.

resource! {
    /// The pods that may use the machine API.
    KubernetesAccessConfig: "KubernetesAccessConfigs.cluster.talos.dev" in "config",
    {
        enabled: bool = 1 "enabled",
        allowed_api_roles: Vec<String> = 2 "allowedAPIRoles",
        allowed_kubernetes_namespaces: Vec<String> = 3 "allowedKubernetesNamespaces",
    }
}

impl KubernetesAccessConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "config";
}
