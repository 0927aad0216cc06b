//! What spec controllers have in common: each merged spec is held while the kernel has it, and removed from the kernel before
//! it goes. A failure of one keeps no other back.

use controller::{Ctx, Held, ReconcileError};
use resources::Spec;
use resources::runtime::DevicesStatus;

/// Specs by what is to be done about them.
#[derive(Debug)]
pub(crate) struct Specs<S> {
    /// To be in the kernel, by id.
    pub(crate) wanted: Vec<S>,
    /// To be removed from the kernel, then released.
    pub(crate) going: Vec<(String, S)>,
}

/// Holds all that run.
pub(crate) fn hold_all<S: Spec>(ctx: &Ctx) -> Result<Specs<S>, ReconcileError> {
    let mut specs = Specs { wanted: Vec::new(), going: Vec::new() };
    for listed in ctx.list::<S>()? {
        match ctx.hold::<S>(listed.id())? {
            Held::Running(spec) => specs.wanted.push(S::clone(&spec)),
            Held::TearingDown(spec) => specs.going.push((spec.id().to_owned(), S::clone(&spec))),
            Held::Absent => {}
        }
    }
    Ok(specs)
}

/// The first failure of several attempts.
#[derive(Debug, Default)]
pub(crate) struct FirstError(Option<ReconcileError>);

impl FirstError {
    /// Whether it succeeded.
    pub(crate) fn keep(&mut self, result: Result<(), impl Into<ReconcileError>>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                self.0.get_or_insert(error.into());
                false
            }
        }
    }

    pub(crate) fn into_result(self) -> Result<(), ReconcileError> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Whether udev has named the links, so that names of specs and of links mean the same.
pub(crate) fn devices_are_ready(ctx: &Ctx) -> Result<bool, ReconcileError> {
    Ok(ctx.get::<DevicesStatus>(DevicesStatus::ID)?.is_some_and(|status| status.ready))
}
