//! `edit`: the configuration of nodes in the operator's editor.

use std::io::Write as _;
use std::path::Path;

use clap::Args;
use client::Client;
use config::Documents;
use tempfile::NamedTempFile;

use super::change::{ChangeArgs, Found};
use crate::applying;
use crate::command_error::CommandError;
use crate::editor;
use crate::local_file;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: EditArgs, session: &Session) -> Result<(), CommandError> {
    session.on_each_node(async |client, node| edit(&args.change, &client, node, session).await).await
}

/// Opens the editor until the node takes the configuration, or nothing changes any more.
async fn edit(args: &ChangeArgs, client: &Client, node: &str, session: &Session) -> Result<(), CommandError> {
    let found = args.read(&client.to_node(node)).await?;
    let node_client = client.to_nodes([node]);
    let mut rounds = Rounds::new(&found, node);
    loop {
        let page = rounds.page();
        let file = temporary(&page)?;
        let ended = editor::edit(session.environment.editor.as_deref(), file.path()).await;
        let edited = match (ended, local_file::read(file.path())) {
            (Ok(()), Ok(edited)) => edited,
            (Err(error), Ok(edited)) if edited == page => return Err(error),
            (Err(error), _) | (_, Err(error)) => return Err(kept(error, file)),
        };
        let text = match rounds.judge(&edited) {
            Step::Apply(text) => text,
            Step::Again => continue,
            Step::Stop(reason) => {
                session.out.note(reason);
                return Ok(());
            }
            Step::GiveUp(reason) => return Err(kept(CommandError::failed(reason), file)),
        };
        match applying::apply_to_one(&node_client, node, args.request(text), session).await {
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.invalid => rounds.refused(stdx::error_chain(refusal.error.error.as_ref())),
            Err(refusal) => return Err(kept(refusal.error, file)),
        }
    }
}

/// Readable by the operator only, as the configuration has secrets.
fn temporary(page: &str) -> Result<NamedTempFile, CommandError> {
    let make = || {
        let mut file = tempfile::Builder::new().prefix("machineconfig-").suffix(".yaml").tempfile()?;
        file.write_all(page.as_bytes())?;
        file.flush()?;
        Ok::<_, std::io::Error>(file)
    };
    make().map_err(CommandError::wrap("writing a temporary file"))
}

/// The error, with the place of the edited file, which stays.
fn kept(error: CommandError, file: NamedTempFile) -> CommandError {
    let path = file.into_temp_path();
    let shown = Path::display(&path).to_string();
    match path.keep() {
        Ok(_) => error.hint(format!("your changes are kept in {shown}")),
        Err(_) => error,
    }
}

/// The texts that go to the editor and come back.
struct Rounds<'a> {
    found: &'a Found,
    node: &'a str,
    /// What the editor shows next.
    text: String,
    error: Option<String>,
}

/// What follows from an edited text.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Apply(String),
    Again,
    Stop(&'static str),
    GiveUp(String),
}

impl<'a> Rounds<'a> {
    fn new(found: &'a Found, node: &'a str) -> Self {
        Self { found, node, text: found.text.clone(), error: None }
    }

    /// Comments above the configuration: whose it is, and the error of the last round.
    fn header(&self) -> String {
        let mut lines = vec![
            format!("Editing {} at node {}", self.found.name, self.node),
            "These comments are removed again; a file without anything else changes nothing.".to_owned(),
        ];
        if let Some(error) = &self.error {
            lines.push(String::new());
            lines.extend(format!("error: {error}").lines().map(str::to_owned));
        }
        lines.iter().map(|line| format!("{}\n", format!("# {line}").trim_end())).collect()
    }

    fn page(&self) -> String {
        format!("{}{}", self.header(), self.text)
    }

    /// Without the comments of [`Self::header`]; comments of the configuration stay.
    fn without_header(&self, page: &str) -> String {
        let header = self.header();
        let mut wanted = header.lines();
        let lines = page.split_inclusive('\n').skip_while(|line| {
            let line = line.trim_end();
            wanted.clone().any(|known| known == line) && wanted.by_ref().any(|known| known == line)
        });
        lines.collect()
    }

    fn judge(&mut self, page: &str) -> Step {
        let text = self.without_header(page);
        if text.trim().is_empty() {
            return Step::Stop("Edit was cancelled: the file is empty.");
        }
        if text == self.text
            && let Some(error) = self.error.take()
        {
            return Step::GiveUp(error);
        }
        if text == self.found.text {
            return Step::Stop("Apply was skipped: no changes detected.");
        }
        self.text.clone_from(&text);
        match Documents::from_yaml(text.as_bytes()) {
            Ok(_) => Step::Apply(text),
            Err(errors) => {
                self.refused(stdx::error_chain(&errors));
                Step::Again
            }
        }
    }

    fn refused(&mut self, error: String) {
        self.error = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# my own comment\nversion: v1alpha1\ndebug: false\n";

    fn found() -> Found {
        Found { name: "MachineConfigs.config.talos.dev/v1alpha1".to_owned(), text: TEXT.to_owned() }
    }

    #[test]
    fn the_page_names_the_node_and_comments_of_the_configuration_stay() {
        let found = found();
        let mut rounds = Rounds::new(&found, "10.5.0.2");
        let page = rounds.page();
        let title = "# Editing MachineConfigs.config.talos.dev/v1alpha1 at node 10.5.0.2\n";
        assert!(page.starts_with(title) && page.ends_with(TEXT), "{page}");
        let edited = page.replace("false", "true");
        assert_eq!(rounds.judge(&edited), Step::Apply(TEXT.replace("false", "true")));
        // Also with half of the header removed.
        let edited = page.replace(title, "").replace("false", "true");
        assert_eq!(rounds.judge(&edited), Step::Apply(TEXT.replace("false", "true")));
    }

    #[test]
    fn nothing_is_applied_without_a_change() {
        let found = found();
        let mut rounds = Rounds::new(&found, "n");
        let page = rounds.page();
        assert_eq!(rounds.judge(&page), Step::Stop("Apply was skipped: no changes detected."));
        assert_eq!(rounds.judge("\n"), Step::Stop("Edit was cancelled: the file is empty."));
    }

    #[test]
    fn an_error_opens_the_editor_again_and_no_change_after_it_gives_up() {
        let found = found();
        let mut rounds = Rounds::new(&found, "n");
        let broken = rounds.page().replace("debug", "debog");
        assert_eq!(rounds.judge(&broken), Step::Again);
        let page = rounds.page();
        assert!(page.contains("# error: ") && page.contains("debog: false"), "{page}");
        let Step::GiveUp(reason) = rounds.judge(&page) else { panic!("{page}") };
        assert!(reason.contains("debog"), "{reason}");
        rounds.refused("the node says\nno".to_owned());
        let page = rounds.page();
        assert!(page.contains("# error: the node says\n# no\n"), "{page}");
        assert_eq!(
            rounds.judge(&page.replace("debog", "debug")),
            Step::Stop("Apply was skipped: no changes detected.")
        );
    }
}
