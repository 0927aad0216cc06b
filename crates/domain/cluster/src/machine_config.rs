//! The machine configuration as this crate's controllers read it.

use config::Documents;
use controller::{Ctx, Input, ReconcileError};
use resources::config::MachineConfig;

/// The input that [`read`] needs.
pub(crate) fn input() -> Input {
    Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)
}

/// The configuration in force; `None` before there is one.
pub(crate) fn read(ctx: &Ctx) -> Result<Option<Documents>, ReconcileError> {
    let Some(resource) = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)? else {
        return Ok(None);
    };
    Ok(Some(Documents::from_yaml(resource.text.as_bytes())?))
}
