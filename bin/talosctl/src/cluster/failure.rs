//! Why `cluster create` failed, where to look, and how to go on.

use std::path::Path;

use provision::ProvisionError;
use provision::up::UpError;

use crate::command_error::CommandError;
use crate::session::Session;

/// The failure, where to look, and how to remove the created parts.
pub(super) fn explain(error: UpError, name: &str, root: &Path, session: &Session) -> CommandError {
    let left = error.left_something();
    let mut hints = Vec::new();
    match &error {
        UpError::Provision(ProvisionError::Refused { problems, .. }) => {
            let refused = CommandError::usage(format!("cluster {name} cannot be created, nothing was changed"));
            let refused = problems.iter().fold(refused, |error, problem| {
                session.out.note(format!("  {}", problem.what));
                error.hint(problem.remedy.clone())
            });
            return refused;
        }
        UpError::FileExists(_) => {
            hints.push("the nodes' configurations go into the current folder: choose another".to_owned());
        }
        UpError::NotReady(failure) => {
            if !failure.last_lines.is_empty() {
                let whose = failure.service.as_ref().map_or_else(
                    || format!("of node {}", failure.node),
                    |service| format!("of service {service} on {}", failure.node),
                );
                session.out.note(format!("last lines {whose}:"));
                failure.last_lines.iter().for_each(|line| session.out.note(format!("  {line}")));
            }
            if let Some(service) = &failure.service {
                let node = failure.address;
                hints.push(format!(
                    "`talosctl logs {service} --nodes {node}` and `talosctl services --nodes {node}` show more"
                ));
            }
            hints.push(format!("the node's own log is {}", failure.node_log.display()));
        }
        _ => {}
    }
    if left {
        let state = root.display();
        hints.push(format!(
            "the cluster is kept for inspection; `talosctl cluster destroy --name {name} --state {state}` removes it"
        ));
    }
    let failed = CommandError::failed(format!("creating cluster {name}")).caused_by(error);
    hints.into_iter().fold(failed, CommandError::hint)
}
