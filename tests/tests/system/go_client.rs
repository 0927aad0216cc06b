//! A client in Go with another gRPC and another TLS, generated from the messages of the wire.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::access::{Authority, Identity};
use crate::cluster::{CONTROL_PLANE, Cluster, WORKER, variable};
use tests::support::{run, say};

/// It lists, gets and watches every type, and calls every method, of both nodes.
pub(crate) fn a_client_in_go_reads_every_type_and_calls_every_method(cluster: &Cluster) -> anyhow::Result<()> {
    let program = variable("TEST_GO_CLIENT")?;
    let identity = |role: &str| -> anyhow::Result<PathBuf> {
        let folder = cluster.file(&format!("go-{}", role.replace(':', "-")));
        std::fs::create_dir_all(&folder).context("making a folder")?;
        Identity::make(cluster, &folder, Authority::Own, role, "1")?;
        Ok(folder)
    };
    let (admin, reader) = (identity("os:admin")?, identity("os:reader")?);
    for node in [CONTROL_PLANE, WORKER] {
        let endpoint = format!("{}:50000", node.address);
        let (admin, reader) = (admin.to_string_lossy(), reader.to_string_lossy());
        let arguments =
            ["-endpoint", &endpoint, "-node", node.address, "-admin", admin.as_ref(), "-reader", reader.as_ref()];
        let report = run(&program, &arguments)?.ok().with_context(|| format!("calling {}", node.name))?;
        say(&format!("    {}: {}", node.name, report.trim_end()));
    }
    Ok(())
}
