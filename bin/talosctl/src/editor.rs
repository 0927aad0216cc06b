//! The operator's editor, as other tools run it: the text of a variable is a command of the shell, and the file follows.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::command_error::CommandError;

/// Used where no editor is chosen.
const FALLBACK: &str = "vi";

/// Edits a file in the foreground, until the editor ends.
///
/// # Errors
/// When the editor cannot be started, or ends with another status than 0.
pub(crate) async fn edit(editor: Option<&OsStr>, file: &Path) -> Result<(), CommandError> {
    let mut script = editor.unwrap_or(OsStr::new(FALLBACK)).to_owned();
    let name = script.to_string_lossy().into_owned();
    script.push(" \"$@\"");
    let file = file.to_owned();
    // Not in this thread, which keeps the connection to the node alive.
    let status = tokio::task::spawn_blocking(move || shell(&script, &file)).await;
    let status = status.map_err(CommandError::wrap("running the editor"))?;
    let status = status.map_err(CommandError::wrap(format!("starting the editor {name:?}")))?;
    if status.success() {
        return Ok(());
    }
    Err(CommandError::failed(format!("the editor {name:?} ended with {status}"))
        .hint("TALOS_EDITOR or EDITOR names another"))
}

#[expect(clippy::disallowed_methods, reason = "an editor of the operator, on a host: there is no reaper to disturb")]
fn shell(script: &OsString, file: &Path) -> std::io::Result<std::process::ExitStatus> {
    std::process::Command::new("/bin/sh").arg("-c").arg(script).arg("editor").arg(file).status()
}
