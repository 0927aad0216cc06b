//! The layer check: a crate uses crates of its own layer and of the layers above it in the list, never below; `domain`
//! crates never use each other. Folders and manifests agree.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::paths::Paths;

    /// From top to bottom: each layer may use itself and those before it.
    const LAYERS: &[&str] = &["base", "model", "engine", "edge", "domain", "server", "bin"];

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Crate {
        layer: String,
        /// Folder below the root, as `crates/base/stdx`.
        folder: String,
        /// Other crates of the workspace that it uses outside its tests.
        uses: Vec<String>,
        /// Other crates of the workspace that only its tests use.
        tests_use: Vec<String>,
    }

    fn workspace() -> BTreeMap<String, Crate> {
        let root = Paths::find().unwrap().root;
        let metadata = crate::metadata::read(&root).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
        packages
            .iter()
            .map(|package| {
                let manifest = Path::new(package["manifest_path"].as_str().unwrap());
                let folder = manifest.parent().unwrap().strip_prefix(&root).unwrap();
                let (mut uses, mut tests_use) = (Vec::new(), Vec::new());
                for dependency in package["dependencies"].as_array().unwrap() {
                    let name = dependency["name"].as_str().unwrap();
                    if names.contains(&name) && dependency["source"].is_null() {
                        let tests = dependency["kind"] == "dev";
                        (if tests { &mut tests_use } else { &mut uses }).push(name.to_owned());
                    }
                }
                let layer = package["metadata"]["arch"]["layer"].as_str().unwrap_or_default().to_owned();
                let name = package["name"].as_str().unwrap().to_owned();
                (name, Crate { layer, folder: folder.display().to_string(), uses, tests_use })
            })
            .collect()
    }

    fn rank(layer: &str) -> Option<usize> {
        LAYERS.iter().position(|known| *known == layer)
    }

    fn wrong_edges(crates: &BTreeMap<String, Crate>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, krate) in crates {
            let Some(own) = rank(&krate.layer) else {
                wrong.push(format!("{name} has no known layer: `{}`", krate.layer));
                continue;
            };
            let expected = match krate.folder.split('/').collect::<Vec<_>>().as_slice() {
                ["crates", layer, _] => layer,
                _ => "bin",
            };
            if expected != krate.layer {
                wrong.push(format!("{name} lies in {} but says layer `{}`", krate.folder, krate.layer));
            }
            for used in krate.uses.iter().chain(&krate.tests_use).filter(|used| *used != name) {
                let Some(layer) = crates.get(used).map(|used| used.layer.as_str()) else { continue };
                if rank(layer).is_none_or(|rank| rank > own) {
                    wrong.push(format!("{name} ({}) uses {used} ({layer}), which is below it", krate.layer));
                } else if layer == "domain" && krate.layer == "domain" {
                    wrong.push(format!("{name} uses {used}: domain crates never use each other"));
                } else if layer == "bin" {
                    wrong.push(format!("{name} uses {used}: nothing uses a program"));
                }
            }
        }
        wrong
    }

    fn krate(layer: &str, folder: &str, uses: &[&str]) -> Crate {
        let uses = uses.iter().map(|&name| name.to_owned()).collect();
        Crate { layer: layer.to_owned(), folder: folder.to_owned(), uses, tests_use: Vec::new() }
    }

    #[test]
    fn every_edge_of_the_workspace_keeps_the_layers() {
        let crates = workspace();
        assert!(crates.len() > 20, "the workspace was not read: {crates:?}");
        assert_eq!(wrong_edges(&crates), Vec::<String>::new());
    }

    #[test]
    fn wrong_edges_are_found() {
        let crates = BTreeMap::from([
            ("stdx".to_owned(), krate("base", "crates/base/stdx", &["state"])),
            ("state".to_owned(), krate("engine", "crates/engine/state", &["stdx"])),
            ("net".to_owned(), krate("domain", "crates/domain/net", &["etcd", "state"])),
            ("etcd".to_owned(), krate("domain", "crates/server/etcd", &[])),
            ("tool".to_owned(), krate("", "bin/tool", &[])),
        ]);
        assert_eq!(
            wrong_edges(&crates),
            [
                "etcd lies in crates/server/etcd but says layer `domain`",
                "net uses etcd: domain crates never use each other",
                "stdx (base) uses state (engine), which is below it",
                "tool has no known layer: ``",
            ]
        );
    }
}
