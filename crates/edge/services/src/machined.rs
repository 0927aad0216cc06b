//! machined itself, listed among the services that it runs.

use std::path::PathBuf;

use async_trait::async_trait;
use supervisor::{HealthCheck, HealthSettings, RunContext, Service, ServiceError};

/// The process that runs all services, and so never ends before them: healthy while its API accepts connections.
#[derive(Debug)]
pub struct MachinedService {
    socket: PathBuf,
}

impl MachinedService {
    /// `socket`: that of the machine API.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }
}

#[async_trait]
impl Service for MachinedService {
    fn id(&self) -> &str {
        "machined"
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        run.running(&format!("Process started with PID {}", std::process::id()));
        run.cancel.cancelled().await;
        Ok(())
    }

    fn health(&self) -> Option<HealthCheck> {
        let socket = self.socket.clone();
        Some(HealthCheck::new(HealthSettings::default(), move || {
            let socket = socket.clone();
            async move {
                let connected = tokio::net::UnixStream::connect(&socket).await;
                connected.map(drop).map_err(|error| format!("connecting to {}: {error}", socket.display()))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_healthy_while_its_socket_accepts() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("machine.sock");
        let check = MachinedService::new(&socket).health().unwrap();
        let refused = check.ask().await.unwrap_err();
        assert!(refused.starts_with("connecting to "), "{refused}");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(check.ask().await, Ok(()));
        drop(listener);
    }
}
