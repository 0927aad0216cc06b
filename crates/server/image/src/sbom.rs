//! The SBOM of an image, SPDX 2.3 as JSON: the image, the Debian packages with versions and digests, and our own
//! programs. Deterministic: the time is [`crate::EPOCH_TEXT`], the namespace is derived from the image's digest.

use serde_json::{Value, json};

use crate::assemble::{Assembled, Inputs};
use crate::tree::Kind;
use crate::{EPOCH_TEXT, sha256};

/// The document for an image named `name` of version `version` whose file has digest `digest`.
#[must_use]
pub fn spdx(name: &str, version: &str, digest: &str, done: &Assembled, inputs: &Inputs) -> Value {
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-Image",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": digest }],
    })];
    for package in inputs.packages.iter().filter(|package| done.packages.contains(&package.name)) {
        let source = package.source.as_deref().unwrap_or(&package.name);
        packages.push(json!({
            "SPDXID": format!("SPDXRef-Package-{}", identifier(&package.name)),
            "name": package.name,
            "versionInfo": package.version,
            "supplier": "Organization: Debian",
            "downloadLocation": "NOASSERTION",
            "homepage": package.homepage.as_deref().unwrap_or("NOASSERTION"),
            "sourceInfo": format!("built from Debian source package {source}"),
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "checksums": [{ "algorithm": "SHA256", "checksumValue": package.sha256 }],
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator":
                    format!("pkg:deb/debian/{}@{}?arch={}", package.name, package.version, package.architecture),
            }],
        }));
    }
    for (program, path) in &done.programs {
        let Some(Kind::File(content)) = done.tree.get(path).map(|node| &node.kind) else { continue };
        packages.push(json!({
            "SPDXID": format!("SPDXRef-Program-{}", identifier(program)),
            "name": program,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "Apache-2.0",
            "licenseDeclared": "Apache-2.0",
            "copyrightText": "NOASSERTION",
            "packageFileName": path,
            "primaryPackagePurpose": "APPLICATION",
            "checksums": [{ "algorithm": "SHA256", "checksumValue": sha256(content) }],
        }));
    }
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    for package in packages.iter().skip(1) {
        if let Some(id) = package["SPDXID"].as_str() {
            relationships.push(relationship("SPDXRef-Image", "CONTAINS", id));
        }
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("urn:sha256:{digest}"),
        "creationInfo": { "created": EPOCH_TEXT, "creators": ["Tool: imager"] },
        "packages": packages,
        "relationships": relationships,
    })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// SPDX identifiers consist of letters, digits, `.` and `-`.
fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}
