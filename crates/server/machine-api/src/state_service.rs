//! The COSI state API: reads by role, no writes.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use state::{Bookmark, Key, Kind, Query, ReadError, ReadEvent, Reader, Start, Store, WatchOptions};
use tonic::{Request, Response, Status};
use wire::cosi::resource as api;
use wire::cosi::resource::state_server::{State, StateServer};

use crate::access::{Access, quoted};

mod convert;

/// Metadata of a status for a watch whose history is lost. Clients that know it restart the watch.
pub const HISTORY_LOST: &str = "cosi-history-lost";

/// The largest request, in bytes: names, queries and bookmarks.
const MAX_REQUEST: usize = 64 << 10;

/// Serves one store under one rule; cheap to clone.
#[derive(Debug, Clone)]
pub struct StateService {
    store: Store,
    access: Access,
}

impl StateService {
    /// A server of `store` with read access by `access`.
    #[must_use]
    pub fn new(store: Store, access: Access) -> Self {
        Self { store, access }
    }

    /// The service with the bounds of its messages.
    #[must_use]
    pub fn server(self) -> StateServer<Self> {
        StateServer::new(self).max_decoding_message_size(MAX_REQUEST).max_encoding_message_size(transport::MAX_MESSAGE)
    }
}

/// The answer to a write: a conflict, in the status in which clients of this API look for one. Who may ask at all was
/// decided before.
fn conflict(code: tonic::Code, what: &str, kind: &Kind, id: &str) -> Status {
    let why = "resources belong to controllers, the API only reads";
    Status::new(code, format!("{what} {kind}/{}: {why}", quoted(id)))
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl State for StateService {
    async fn get(&self, request: Request<api::GetRequest>) -> Result<Response<api::GetResponse>, Status> {
        let (metadata, _, wanted) = request.into_parts();
        let kind = kind(&wanted.namespace, &wanted.r#type)?;
        check_id(&wanted.id)?;
        self.access.check(&self.store, &kind, &metadata)?;
        let found = Reader::get(&self.store, &kind.key(wanted.id)).await.map_err(status)?;
        Ok(Response::new(api::GetResponse { resource: Some(convert::resource(found)) }))
    }

    type ListStream = Streamed<api::ListResponse>;

    async fn list(&self, request: Request<api::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let (metadata, _, wanted) = request.into_parts();
        let kind = kind(&wanted.namespace, &wanted.r#type)?;
        self.access.check(&self.store, &kind, &metadata)?;
        let options = wanted.options.unwrap_or_default();
        let query = convert::query(options.label_query, options.id_query)?;
        // Each is put into its wire form when the client takes it.
        let found = self.store.list(&kind, &query).into_iter();
        let listed = found.map(|found| Ok(api::ListResponse { resource: Some(convert::resource((&found).into())) }));
        Ok(Response::new(stream::iter(listed).boxed()))
    }

    type WatchStream = Streamed<api::WatchResponse>;

    async fn watch(&self, request: Request<api::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, wanted) = request.into_parts();
        let kind = kind(&wanted.namespace, &wanted.r#type)?;
        wanted.id.as_deref().map_or(Ok(()), check_id)?;
        self.access.check(&self.store, &kind, &metadata)?;
        let asked = wanted.options.unwrap_or_default();
        let aggregated = asked.aggregated;
        let options = watch_options(asked)?;
        let events = Reader::watch(&self.store, &kind, wanted.id.as_deref(), options).await.map_err(status)?;
        let tells_errors = wanted.api_version > 0;
        let responses = if aggregated {
            // What is there already goes in one message, as the contents at the beginning do.
            events.ready_chunks(256).map(move |chunk| respond(chunk, tells_errors)).boxed()
        } else {
            events.map(move |event| respond(vec![event], tells_errors)).boxed()
        };
        // Clients of Talos 1.7 wait for a first message and drop it: the watch is in place.
        let begun = stream::iter([Ok(api::WatchResponse::default())]);
        Ok(Response::new(begun.chain(responses).boxed()))
    }

    async fn create(&self, request: Request<api::CreateRequest>) -> Result<Response<api::CreateResponse>, Status> {
        let metadata = request.into_inner().resource.and_then(|r| r.metadata).unwrap_or_default();
        let kind = kind(&metadata.namespace, &metadata.r#type)?;
        Err(conflict(tonic::Code::AlreadyExists, "creating", &kind, &metadata.id))
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> Result<Response<api::UpdateResponse>, Status> {
        let metadata = request.into_inner().new_resource.and_then(|r| r.metadata).unwrap_or_default();
        let kind = kind(&metadata.namespace, &metadata.r#type)?;
        Err(conflict(tonic::Code::FailedPrecondition, "updating", &kind, &metadata.id))
    }

    async fn destroy(&self, request: Request<api::DestroyRequest>) -> Result<Response<api::DestroyResponse>, Status> {
        let asked = request.into_inner();
        let kind = kind(&asked.namespace, &asked.r#type)?;
        Err(conflict(tonic::Code::FailedPrecondition, "destroying", &kind, &asked.id))
    }

    async fn teardown(
        &self,
        request: Request<api::TeardownRequest>,
    ) -> Result<Response<api::TeardownResponse>, Status> {
        let asked = request.into_inner();
        let kind = kind(&asked.namespace, &asked.r#type)?;
        Err(conflict(tonic::Code::FailedPrecondition, "tearing down", &kind, &asked.id))
    }

    async fn teardown_and_destroy(
        &self,
        request: Request<api::TeardownAndDestroyRequest>,
    ) -> Result<Response<api::TeardownAndDestroyResponse>, Status> {
        let asked = request.into_inner();
        let kind = kind(&asked.namespace, &asked.r#type)?;
        Err(conflict(tonic::Code::FailedPrecondition, "tearing down", &kind, &asked.id))
    }
}

fn kind(namespace: &str, type_name: &str) -> Result<Kind, Status> {
    let fits = |part: &str| !part.is_empty() && part.len() <= Kind::MAX_PART;
    if fits(namespace) && fits(type_name) {
        return Ok(Kind::new(namespace, type_name));
    }
    let most = Kind::MAX_PART;
    Err(Status::invalid_argument(format!("a request needs a namespace and a type, each of at most {most} bytes")))
}

fn check_id(id: &str) -> Result<(), Status> {
    if id.len() <= Key::MAX_ID {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("an id has at most {} bytes", Key::MAX_ID)))
}

fn watch_options(asked: api::WatchOptions) -> Result<WatchOptions, Status> {
    let tail = usize::try_from(asked.tail_events).map_err(|_| Status::invalid_argument("tail events is negative"))?;
    let start = match (asked.bootstrap_contents, tail, asked.start_from_bookmark) {
        (false, 0, None) => Start::Now,
        (true, 0, None) => Start::Contents,
        (false, tail, None) => Start::Tail(tail),
        (false, 0, Some(bookmark)) => Start::After(Bookmark(bookmark.to_vec())),
        _ => {
            let why = "a watch starts with contents, with a tail or from a bookmark, not with two of them";
            return Err(Status::invalid_argument(why));
        }
    };
    let query: Query = convert::query(asked.label_query, asked.id_query)?;
    Ok(WatchOptions { start, query, first_bookmark: asked.bootstrap_bookmark })
}

/// One message. A failure is an event of its own for clients that know those, and the end of the call for others.
fn respond(events: Vec<Result<ReadEvent, ReadError>>, tells_errors: bool) -> Result<api::WatchResponse, Status> {
    let mut response = api::WatchResponse::default();
    for event in events {
        match event {
            Ok(event) => response.event.push(convert::event(event)),
            Err(ReadError::HistoryLost(kind)) => return Err(status(ReadError::HistoryLost(kind))),
            Err(error) if tells_errors => response.event.push(api::Event {
                event_type: api::EventType::Errored.into(),
                error: Some(stdx::error_chain(&error)),
                ..api::Event::default()
            }),
            Err(error) => return Err(status(error)),
        }
    }
    Ok(response)
}

fn status(error: ReadError) -> Status {
    let message = stdx::error_chain(&error);
    match error {
        ReadError::NotFound(_) => Status::not_found(message),
        ReadError::InvalidRequest { .. } => Status::failed_precondition(message),
        ReadError::Unavailable { .. } => Status::unavailable(message),
        ReadError::HistoryLost(_) => {
            let mut status = Status::failed_precondition(message);
            status.metadata_mut().insert(HISTORY_LOST, tonic::metadata::MetadataValue::from_static("true"));
            status
        }
    }
}
