//! A registry on loopback that machines pull the installer image from.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use provision::registry::{Layout, Site, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Registry {
    /// Serves an OCI image layout.
    pub(crate) fn start(layout: &Path) -> anyhow::Result<Self> {
        let site = Site::images(Layout::new(layout));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).context("opening the registry")?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, site) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, _stop: stop })
    }
}
