//! The specs that one layer of network settings consists of, for controllers that write whole layers.

use controller::{Ctx, Output, ReconcileError};
use resources::network::{AddressSpec, HostnameSpec, LinkSpec, ResolverSpec, RouteSpec, TimeServerSpec};

/// All of them; other layers have other writers.
pub(crate) fn outputs() -> Vec<Output> {
    vec![
        Output::shared::<AddressSpec>(),
        Output::shared::<RouteSpec>(),
        Output::shared::<LinkSpec>(),
        Output::shared::<HostnameSpec>(),
        Output::shared::<ResolverSpec>(),
        Output::shared::<TimeServerSpec>(),
    ]
}

/// Destroys those that this pass did not write.
///
/// # Errors
/// The store's.
pub(crate) fn keep_touched(ctx: &mut Ctx) -> Result<(), ReconcileError> {
    ctx.keep_touched::<AddressSpec>()?;
    ctx.keep_touched::<RouteSpec>()?;
    ctx.keep_touched::<LinkSpec>()?;
    ctx.keep_touched::<HostnameSpec>()?;
    ctx.keep_touched::<ResolverSpec>()?;
    ctx.keep_touched::<TimeServerSpec>()
}
