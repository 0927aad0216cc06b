//! `inject`: access to the machine API for the pods of Kubernetes manifests.

use std::collections::VecDeque;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pki::Role;
use serde_json::{Value, json};

use crate::arguments;
use crate::command_error::CommandError;
use crate::local_file;
use crate::output::yaml_of;
use crate::session::Session;

/// The volume with the talosconfig, also the end of the name of its Secret.
const VOLUME: &str = "talos-secrets";
/// Where clients look for a talosconfig.
const MOUNT_PATH: &str = "/var/run/secrets/talos.dev";

#[derive(Debug, Subcommand)]
pub(crate) enum InjectCommand {
    /// Adds access to the API to the pods of a manifest
    #[command(visible_alias = "tsa")]
    Serviceaccount(ServiceAccountArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServiceAccountArgs {
    /// Manifest; `-` reads standard input
    #[arg(short, long, value_name = "string")]
    file: PathBuf,
    /// Roles of the access
    #[arg(short, long, value_name = "strings", value_delimiter = ',', default_value = "os:reader",
          value_parser = arguments::role)]
    roles: Vec<Role>,
}

pub(crate) fn run(command: &InjectCommand, session: &Session) -> Result<(), CommandError> {
    let InjectCommand::Serviceaccount(args) = command;
    let text = local_file::read(&args.file)?;
    let reading = || format!("reading {}", args.file.display());
    let documents: Vec<Value> =
        yaml::from_multiple(&text).map_err(|error| CommandError::usage(reading()).caused_by(error))?;
    let injected = inject(documents, &args.roles)
        .map_err(|name| CommandError::usage(format!("{}: {name}", args.file.display())))?;
    Ok(session.out.raw(injected.as_bytes())?)
}

/// The documents, each workload with the volume and followed by its ServiceAccount, which replaces one that is there.
/// Workloads within a list stay there, with their accounts.
fn inject(mut documents: Vec<Value>, roles: &[Role]) -> Result<String, String> {
    documents.retain(|document| !document.is_null());
    let mut accounts = VecDeque::new();
    add_volumes(&mut documents, roles, &mut accounts)?;
    let replaced: Vec<_> = accounts.iter().map(identity).collect();
    let documents = add_accounts(documents, &mut accounts, &replaced);
    Ok(documents.iter().map(|document| yaml_of(document) + "---\n").collect())
}

/// Adds the volume to each workload; `accounts` gets their ServiceAccounts, in order.
fn add_volumes(documents: &mut [Value], roles: &[Role], accounts: &mut VecDeque<Value>) -> Result<(), String> {
    for document in documents {
        if let Some(path) = pod_spec(document) {
            accounts.push_back(inject_into(document, path, roles)?);
        } else if let Some(items) = items(document) {
            add_volumes(items, roles, accounts)?;
        }
    }
    Ok(())
}

/// The documents without the accounts that are replaced, and with the next of `accounts` after each workload.
fn add_accounts(documents: Vec<Value>, accounts: &mut VecDeque<Value>, replaced: &[[Value; 4]]) -> Vec<Value> {
    let mut with_accounts = Vec::new();
    for mut document in documents {
        if replaced.contains(&identity(&document)) {
            continue;
        }
        let account = pod_spec(&document).and_then(|_| accounts.pop_front());
        if let Some(items) = items(&mut document) {
            *items = add_accounts(std::mem::take(items), accounts, replaced);
        }
        with_accounts.push(document);
        with_accounts.extend(account);
    }
    with_accounts
}

/// The objects of a list, as kubectl writes several.
fn items(document: &mut Value) -> Option<&mut Vec<Value>> {
    let is_list = document.get("apiVersion")? == "v1" && document.get("kind")? == "List";
    document.get_mut("items").filter(|_| is_list)?.as_array_mut()
}

/// What tells an object from others.
fn identity(object: &Value) -> [Value; 4] {
    ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"]
        .map(|path| object.pointer(path).cloned().unwrap_or_default())
}

/// Where the pod specification of a workload is; none for another object.
fn pod_spec(document: &Value) -> Option<&'static str> {
    match (document["apiVersion"].as_str()?, document["kind"].as_str()?) {
        ("v1", "Pod") => Some("/spec"),
        ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet") | ("batch/v1", "Job") => Some("/spec/template/spec"),
        ("batch/v1", "CronJob") => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

/// Adds the volume to a workload, or renews it, and returns its ServiceAccount.
fn inject_into(document: &mut Value, path: &str, roles: &[Role]) -> Result<Value, String> {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    let name = document.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let workload = name.ok_or_else(|| format!("a {kind} has no name"))?.to_owned();
    let name = format!("{workload}-{VOLUME}");
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = document.pointer("/metadata/namespace").and_then(Value::as_str) {
        metadata["namespace"] = json!(namespace);
    }
    let spec = document.pointer_mut(path).filter(|spec| spec.is_object());
    let spec = spec.ok_or_else(|| format!("{kind} {workload:?} has no pod specification"))?;
    put(&mut spec["volumes"], json!({ "name": VOLUME, "secret": { "secretName": name } }));
    for containers in ["initContainers", "containers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            if container.is_object() {
                put(&mut container["volumeMounts"], json!({ "mountPath": MOUNT_PATH, "name": VOLUME }));
            }
        }
    }
    Ok(json!({
        "apiVersion": "talos.dev/v1alpha1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "spec": { "roles": roles.iter().map(|role| role.as_str()).collect::<Vec<_>>() },
    }))
}

/// Puts an entry into a list, in place of one of its name.
fn put(list: &mut Value, entry: Value) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        match list.iter_mut().find(|known| known["name"] == entry["name"]) {
            Some(known) => *known = entry,
            None => list.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(text: &str) -> String {
        inject(yaml::from_multiple(text).unwrap(), &[Role::Reader, Role::Operator]).unwrap()
    }

    #[test]
    fn every_container_gets_the_secret_and_a_service_account_follows() {
        let manifest = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: other
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: tool
  namespace: ops
spec:
  template:
    spec:
      initContainers:
        - name: init
      containers:
        - name: a
          volumeMounts:
            - name: data
              mountPath: /data
        - name: b
";
        let expected = "\
apiVersion: v1
kind: ConfigMap
metadata:
    name: other
---
apiVersion: apps/v1
kind: Deployment
metadata:
    name: tool
    namespace: ops
spec:
    template:
        spec:
            initContainers:
                - name: init
                  volumeMounts:
                      - mountPath: /var/run/secrets/talos.dev
                        name: talos-secrets
            containers:
                - name: a
                  volumeMounts:
                      - name: data
                        mountPath: /data
                      - mountPath: /var/run/secrets/talos.dev
                        name: talos-secrets
                - name: b
                  volumeMounts:
                      - mountPath: /var/run/secrets/talos.dev
                        name: talos-secrets
            volumes:
                - name: talos-secrets
                  secret:
                      secretName: tool-talos-secrets
---
apiVersion: talos.dev/v1alpha1
kind: ServiceAccount
metadata:
    name: tool-talos-secrets
    namespace: ops
spec:
    roles:
        - os:reader
        - os:operator
---
";
        assert_eq!(injected(manifest), expected);
        // A second time changes nothing.
        assert_eq!(injected(expected), expected);
    }

    #[test]
    fn only_the_service_account_of_a_workload_is_replaced() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a}\nspec: {containers: []}\n";
        let account = |name: &str, namespace: &str| {
            format!(
                "apiVersion: talos.dev/v1alpha1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{roles: [os:admin]}}\n"
            )
        };
        let others = [account("x-talos-secrets", "b"), account("y-talos-secrets", "a")].join("---\n");
        let text = injected(&[account("x-talos-secrets", "a"), pod.to_owned(), others].join("---\n"));
        assert_eq!((text.matches("kind: ServiceAccount").count(), text.matches("os:admin").count()), (3, 2), "{text}");
    }

    #[test]
    fn workloads_of_a_list_get_access_within_the_list() {
        let pod = |name: &str| {
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c}}]}}}}")
        };
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}}";
        let inner = format!("{{apiVersion: v1, kind: List, items: [{}]}}", pod("b"));
        let text = injected(&format!("apiVersion: v1\nkind: List\nitems: [{}, {map}, {inner}]\n", pod("a")));
        let list: Vec<Value> = yaml::from_multiple(&text).unwrap();
        let names = |list: &Value| -> Vec<String> {
            let items = list["items"].as_array().unwrap().iter();
            items.map(|item| format!("{} {}", item["kind"], item["metadata"]["name"]).replace('"', "")).collect()
        };
        assert_eq!(list.len(), 1, "{text}");
        assert_eq!(names(&list[0]), ["Pod a", "ServiceAccount a-talos-secrets", "ConfigMap m", "List null"]);
        assert_eq!(names(&list[0]["items"][3]), ["Pod b", "ServiceAccount b-talos-secrets"]);
        assert_eq!(text.matches("secretName: ").count(), 2, "{text}");
        assert_eq!(injected(&text), text, "a second time changes nothing");
    }

    #[test]
    fn every_kind_of_workload_is_known() {
        for (kind, version, spec) in [
            ("Pod", "v1", "spec: {containers: [{name: a}]}"),
            ("StatefulSet", "apps/v1", "spec: {template: {spec: {containers: [{name: a}]}}}"),
            ("DaemonSet", "apps/v1", "spec: {template: {spec: {containers: [{name: a}]}}}"),
            ("Job", "batch/v1", "spec: {template: {spec: {containers: [{name: a}]}}}"),
            ("CronJob", "batch/v1", "spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a}]}}}}}"),
        ] {
            let text = injected(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n{spec}\n"));
            assert!(text.contains("secretName: x-talos-secrets") && text.contains("mountPath: "), "{kind}: {text}");
            assert!(text.contains("metadata:\n    name: x-talos-secrets\nspec:\n"), "{kind}: {text}");
        }
    }

    #[test]
    fn workloads_without_a_name_or_pods_are_refused() {
        let refused = |text: &str| inject(yaml::from_multiple(text).unwrap(), &[]).unwrap_err();
        assert_eq!(refused("apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\n"), "a Pod has no name");
        let text = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec: 1\n";
        assert_eq!(refused(text), "Job \"x\" has no pod specification");
    }
}
