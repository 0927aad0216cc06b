//! Follows the resources of a type on a state socket.
//!
//! A broken watch is restarted after a pause; the last value stays in force meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use stdx::tasks::TaskSet;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;
use wire::cosi::resource::state_client::StateClient;
use wire::cosi::resource::{EventType, WatchOptions, WatchRequest};

/// Pause before a broken watch is begun again.
const PAUSE: Duration = Duration::from_secs(1);

/// The specs of a type in their protobuf form, by id.
pub type Contents = BTreeMap<String, Bytes>;

/// Follows each of `types` (namespace and name) on a state socket, in tasks of `tasks`, and folds the contents of each into
/// one state by `take_up`. The receiver sees changes alone.
pub fn state<S: Clone + Default + PartialEq + Send + Sync + 'static>(
    socket: &Path,
    types: &[(&'static str, &'static str)],
    tasks: &TaskSet,
    take_up: fn(&mut S, &'static str, &Contents),
) -> watch::Receiver<S> {
    let (sender, receiver) = watch::channel(S::default());
    let channel = crate::unix::channel(socket);
    for &(namespace, kind) in types {
        let sender = sender.clone();
        spawn(tasks, channel.clone(), namespace, kind, move |contents| {
            sender.send_if_modified(|seen| {
                let mut next = seen.clone();
                take_up(&mut next, kind, contents);
                let changed = next != *seen;
                *seen = next;
                changed
            });
        });
    }
    receiver
}

/// Starts a task in `tasks` that calls `seen` with all resources of a type, first when they are complete and then after
/// each change.
pub fn spawn(
    tasks: &TaskSet,
    channel: Channel,
    namespace: &'static str,
    kind: &'static str,
    seen: impl Fn(&Contents) + Send + Sync + 'static,
) {
    tasks.spawn(format!("follow {kind}"), async move {
        loop {
            let why = follow(channel.clone(), namespace, kind, &seen).await;
            tracing::debug!(kind, error = %why, "watch ended; beginning again");
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// Follows a type until the watch breaks; returns the reason.
async fn follow(channel: Channel, namespace: &str, kind: &str, seen: &(impl Fn(&Contents) + Sync)) -> Status {
    let request = WatchRequest {
        namespace: namespace.to_owned(),
        r#type: kind.to_owned(),
        options: Some(WatchOptions { bootstrap_contents: true, ..WatchOptions::default() }),
        api_version: 1,
        ..WatchRequest::default()
    };
    let mut client = StateClient::new(channel).max_decoding_message_size(crate::MAX_MESSAGE);
    let mut events = match client.watch(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    let mut contents = Contents::new();
    let mut complete = false;
    loop {
        let response = match events.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Status::unavailable("the server ended the watch"),
            Err(status) => return status,
        };
        for event in response.event {
            match event.event_type() {
                EventType::Errored => return Status::aborted(event.error.unwrap_or_default()),
                EventType::Bootstrapped => complete = true,
                EventType::Noop => continue,
                kind @ (EventType::Created | EventType::Updated | EventType::Destroyed) => {
                    let Some(resource) = event.resource else { continue };
                    let id = resource.metadata.unwrap_or_default().id;
                    if kind == EventType::Destroyed {
                        contents.remove(&id);
                    } else {
                        let spec = resource.spec.unwrap_or_default();
                        contents.insert(id, spec.proto_spec);
                    }
                }
            }
        }
        if complete {
            seen(&contents);
        }
    }
}
