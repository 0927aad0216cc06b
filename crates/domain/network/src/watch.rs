//! Wakes a controller on kernel notifications.

use controller::Ctx;
use netlink::Changes;

/// Starts the watch on the first call; later calls do nothing.
#[derive(Debug, Default)]
pub(crate) struct WatchOnce(bool);

impl WatchOnce {
    /// Call it before looking, so that no change falls between look and watch.
    pub(crate) fn start(&mut self, ctx: &mut Ctx, changes: impl IntoIterator<Item = Changes>) {
        if std::mem::replace(&mut self.0, true) {
            return;
        }
        for changes in changes {
            let waker = ctx.waker();
            ctx.keep("netlink-changes", move || {
                let (waker, mut changes) = (waker.clone(), changes.clone());
                async move {
                    while changes.changed().await {
                        waker.wake();
                    }
                }
            });
        }
    }
}
