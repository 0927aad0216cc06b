//! Builds the client in Go of the system tests (`tests/go-client`), once for each state of its sources and of the messages.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::bundle;
use crate::paths::Paths;
use crate::step::{Step, Steps, command};

/// The oldest Go that the modules of the client can be built with.
const OLDEST_GO: (u32, u32) = (1, 24);

/// The sources, and the messages that code is generated from.
const SOURCES: &str = "tests/go-client";
const MESSAGES: &str = "crates/model/wire/proto";

/// The client; it is built unless it exists.
pub(crate) fn build(steps: &mut Steps, paths: &Paths, programs: &Path) -> anyhow::Result<PathBuf> {
    steps.run("client in Go", |step| {
        let directory = paths.cache.join(format!("go-client-{:016x}", fingerprint(&paths.root)?));
        let client = directory.join("client");
        if client.exists() {
            return Ok(client);
        }
        let work = directory.join("work");
        // The remains of an interrupted run are useless.
        bundle::remove(&directory)?;
        std::fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
        let go = go(step, paths, programs, &work)?;
        let sources = paths.root.join(SOURCES);
        let built = work.join("built");
        let mut build = command("bash");
        build.arg(sources.join("build.sh")).arg(&sources).arg(paths.root.join(MESSAGES)).arg(go).arg(&work).arg(&built);
        step.call(&mut build)?;
        std::fs::rename(&built, &client).with_context(|| format!("moving {}", built.display()))?;
        bundle::remove(&work)?;
        Ok(client)
    })
}

/// The machine's Go, or Debian's, which is unpacked for the build.
fn go(step: &mut Step, paths: &Paths, programs: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let installed = step.read(command("go").arg("version")).ok();
    if installed.as_deref().and_then(version).is_some_and(|version| version >= OLDEST_GO) {
        return Ok("go".into());
    }
    let unpacked = work.join("go");
    bundle::unpack_go(step, paths, programs, &unpacked)?;
    Ok(unpacked.join(bundle::GO_ROOT).join("bin/go"))
}

/// Of `go version go1.24.4 linux/amd64`.
fn version(output: &str) -> Option<(u32, u32)> {
    let mut parts = output.split_whitespace().nth(2)?.strip_prefix("go")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A fingerprint of all files that the client is built from.
fn fingerprint(root: &Path) -> anyhow::Result<u64> {
    let mut files = Vec::new();
    collect(&root.join(SOURCES), &mut files)?;
    collect(&root.join(MESSAGES), &mut files)?;
    files.sort();
    let texts: Vec<String> = files
        .iter()
        .map(|path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display())))
        .collect::<Result<_, _>>()?;
    Ok(bundle::fingerprint(texts.iter().map(String::as_str)))
}

fn collect(directory: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read_from_what_it_prints() {
        assert_eq!(version("go version go1.24.4 linux/amd64\n"), Some((1, 24)));
        assert_eq!(version("go version go1.26rc1 linux/amd64\n"), None);
        assert_eq!(version("sh: go: not found\n"), None);
    }

    #[test]
    fn the_client_has_sources_and_messages() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        collect(&root.join(SOURCES), &mut files).unwrap();
        collect(&root.join(MESSAGES), &mut files).unwrap();
        let has = |end: &str| files.iter().any(|path| path.ends_with(end));
        assert!(has("go-client/build.sh") && has("go-client/go.sum") && has("machine/machine.proto"), "{files:?}");
    }
}
