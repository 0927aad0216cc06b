//! Takes the contexts of a cluster out of the operator's files: those that `create` put there, and nothing else.

use client::TalosConfig;
use provision::{Contexts, WrittenContext};

use crate::command_error::CommandError;
use crate::commands::kubeconfig::{self, Removed};
use crate::session::Session;

/// Removes the remaining contexts. A file that cannot be changed causes a warning: the cluster is removed in any case.
pub(super) fn remove(contexts: &Contexts, session: &Session) {
    if let Some(written) = &contexts.talosconfig {
        tell(written, "talosconfig", remove_from_talosconfig(written), session);
    }
    if let Some(written) = &contexts.kubeconfig {
        tell(written, "kubeconfig", kubeconfig::remove_written(written), session);
    }
}

fn tell(written: &WrittenContext, kind: &str, removed: Result<Removed, CommandError>, session: &Session) {
    let (name, file) = (&written.name, written.file.display());
    match removed {
        Ok(Removed::Nothing) => {}
        Ok(Removed::Context) => session.out.note(format!("context {name:?} is removed from {file}")),
        Err(error) => session.out.warning(format!(
            "context {name:?} cannot be removed from the {kind} {file}: {}",
            stdx::error_chain(error.error.as_ref())
        )),
    }
}

fn remove_from_talosconfig(written: &WrittenContext) -> Result<Removed, CommandError> {
    if !written.file.exists() {
        return Ok(Removed::Nothing);
    }
    let failed = || CommandError::wrap("changing the talosconfig");
    let mut config = TalosConfig::load(&written.file).map_err(failed())?;
    let removed = take_out(&mut config, written);
    if removed == Removed::Context {
        config.save(&written.file).map_err(failed())?;
    }
    Ok(removed)
}

/// Takes a context out unless it is another cluster's by now. If it was current, the one before it is again, where it is
/// still there.
fn take_out(config: &mut TalosConfig, written: &WrittenContext) -> Removed {
    if config.contexts.get(&written.name).is_none_or(|context| context.ca != written.authority) {
        return Removed::Nothing;
    }
    config.contexts.shift_remove(&written.name);
    if config.context == written.name {
        let previous = Some(&written.previous).filter(|name| config.contexts.contains_key(*name));
        config.context = previous.cloned().unwrap_or_default();
    }
    Removed::Context
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(previous: &str) -> WrittenContext {
        WrittenContext {
            file: "/talosconfig".into(),
            name: "one".to_owned(),
            authority: "b25l".to_owned(),
            previous: previous.to_owned(),
        }
    }

    fn config(current: &str) -> TalosConfig {
        let text = format!(
            "context: {current}\ncontexts:\n  mine: {{ endpoints: [a], ca: bWluZQ== }}\n  one: {{ endpoints: [b], ca: b25l }}\n  \
             other: {{ endpoints: [c], ca: b3RoZXI= }}\n"
        );
        TalosConfig::from_yaml(&text).unwrap()
    }

    #[test]
    fn the_context_goes_and_the_one_before_it_is_current_again() {
        let after = |current: &str, previous: &str| {
            let mut config = config(current);
            assert_eq!(take_out(&mut config, &written(previous)), Removed::Context);
            assert_eq!(config.contexts.keys().collect::<Vec<_>>(), ["mine", "other"]);
            assert_eq!(take_out(&mut config, &written(previous)), Removed::Nothing);
            config.context
        };
        assert_eq!(after("one", "mine"), "mine");
        assert_eq!(after("one", "gone"), "");
        assert_eq!(after("one", ""), "");
        assert_eq!(after("other", "mine"), "other", "the operator chose another meanwhile");
    }

    #[test]
    fn a_context_of_the_same_name_with_another_authority_stays() {
        let mut config = config("one");
        let foreign = WrittenContext { authority: "Zm9yZWlnbg==".to_owned(), ..written("mine") };
        assert_eq!(take_out(&mut config, &foreign), Removed::Nothing);
        assert_eq!((config.contexts.len(), config.context.as_str()), (3, "one"));
    }

    #[test]
    fn a_file_that_is_gone_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talosconfig");
        let written = WrittenContext { file: file.clone(), ..written("mine") };
        assert_eq!(remove_from_talosconfig(&written).unwrap(), Removed::Nothing);
        config("one").save(&file).unwrap();
        assert_eq!(remove_from_talosconfig(&written).unwrap(), Removed::Context);
        assert_eq!(TalosConfig::load(&file).unwrap().context, "mine");
    }
}
