//! A store at the other end of a socket, as a [`Reader`].

use std::time::{Duration, SystemTime};

use ::state::{
    Bookmark, EventKind, Key, Kind, LabelOp, Metadata, Phase, Query, ReadError, ReadEvent, ReadEvents, Reader, Start,
    Untyped, WatchOptions,
};
use async_trait::async_trait;
use futures::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::cosi::resource as api;
use wire::cosi::resource::label_term::Operation;
use wire::cosi::resource::state_client::StateClient;

/// Reads through the API as a client with one role.
pub(crate) struct Remote {
    pub(crate) channel: Channel,
    pub(crate) role: &'static str,
}

impl Remote {
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("talos-role", self.role.parse().unwrap());
        request
    }

    fn client(&self) -> StateClient<Channel> {
        StateClient::new(self.channel.clone())
    }
}

fn error(kind: &Kind, id: &str, status: Status) -> ReadError {
    match status.code() {
        Code::NotFound => ReadError::NotFound(kind.key(id)),
        Code::FailedPrecondition if status.metadata().contains_key(machine_api::HISTORY_LOST) => {
            ReadError::HistoryLost(kind.clone())
        }
        Code::FailedPrecondition | Code::InvalidArgument => {
            ReadError::InvalidRequest { kind: kind.clone(), reason: status.message().to_owned() }
        }
        _ => ReadError::Unavailable { kind: kind.clone(), source: Box::new(status) },
    }
}

fn time(stamp: Option<prost_types::Timestamp>) -> SystemTime {
    let stamp = stamp.unwrap();
    SystemTime::UNIX_EPOCH + Duration::new(stamp.seconds.try_into().unwrap(), stamp.nanos.try_into().unwrap())
}

fn untyped(resource: api::Resource) -> Untyped {
    let (metadata, spec) = (resource.metadata.unwrap(), resource.spec.unwrap());
    let metadata = Metadata {
        namespace: metadata.namespace,
        type_name: metadata.r#type,
        id: metadata.id,
        version: metadata.version.parse().unwrap(),
        owner: metadata.owner,
        phase: Phase::parse(&metadata.phase).unwrap(),
        created: time(metadata.created),
        updated: time(metadata.updated),
        finalizers: metadata.finalizers,
        labels: metadata.labels.into_iter().collect(),
        annotations: metadata.annotations.into_iter().collect(),
    };
    Untyped { metadata, yaml: spec.yaml_spec, proto: spec.proto_spec.to_vec() }
}

fn queries(query: &Query) -> (Vec<api::LabelQuery>, Option<api::IdQuery>) {
    let term = |term: &::state::LabelTerm| {
        let (op, value) = match term.op.clone() {
            LabelOp::Exists => (Operation::Exists, vec![]),
            LabelOp::NotExists => (Operation::NotExists, vec![]),
            LabelOp::Equal(value) => (Operation::Equal, vec![value]),
            LabelOp::In(values) => (Operation::In, values),
            LabelOp::Lt(value) => (Operation::Lt, vec![value]),
            LabelOp::Lte(value) => (Operation::Lte, vec![value]),
            LabelOp::LtNumeric(value) => (Operation::LtNumeric, vec![value]),
            LabelOp::LteNumeric(value) => (Operation::LteNumeric, vec![value]),
        };
        api::LabelTerm { key: term.key.clone(), op: op.into(), value, invert: term.invert }
    };
    let labels = query.label_queries().iter();
    let labels = labels.map(|query| api::LabelQuery { terms: query.terms.iter().map(term).collect() }).collect();
    (labels, query.id_pattern().map(|regexp| api::IdQuery { regexp: regexp.to_owned() }))
}

fn read_event(kind: &Kind, event: api::Event) -> Result<ReadEvent, ReadError> {
    let event_kind = match event.event_type() {
        api::EventType::Created => EventKind::Created,
        api::EventType::Updated => EventKind::Updated,
        api::EventType::Destroyed => EventKind::Destroyed,
        api::EventType::Bootstrapped => EventKind::Bootstrapped,
        api::EventType::Noop => EventKind::Noop,
        api::EventType::Errored => {
            let source = event.error.unwrap_or_default().into();
            return Err(ReadError::Unavailable { kind: kind.clone(), source });
        }
    };
    Ok(ReadEvent {
        kind: event_kind,
        resource: event.resource.map(untyped),
        old: event.old.map(untyped),
        bookmark: event.bookmark.map(|bookmark| Bookmark(bookmark.to_vec())),
    })
}

#[async_trait]
impl Reader for Remote {
    async fn get(&self, key: &Key) -> Result<Untyped, ReadError> {
        let request = api::GetRequest {
            namespace: key.kind.namespace.clone(),
            r#type: key.kind.type_name.clone(),
            id: key.id.clone(),
            options: None,
        };
        let answer = self.client().get(self.request(request)).await.map_err(|s| error(&key.kind, &key.id, s))?;
        Ok(untyped(answer.into_inner().resource.unwrap()))
    }

    async fn list(&self, kind: &Kind, query: &Query) -> Result<Vec<Untyped>, ReadError> {
        let (label_query, id_query) = queries(query);
        let request = api::ListRequest {
            namespace: kind.namespace.clone(),
            r#type: kind.type_name.clone(),
            options: Some(api::ListOptions { label_query, id_query }),
        };
        let failed = |status| error(kind, "", status);
        let mut stream = self.client().list(self.request(request)).await.map_err(failed)?.into_inner();
        let mut listed = Vec::new();
        while let Some(response) = stream.message().await.map_err(failed)? {
            listed.push(untyped(response.resource.unwrap()));
        }
        Ok(listed)
    }

    async fn watch(&self, kind: &Kind, id: Option<&str>, options: WatchOptions) -> Result<ReadEvents, ReadError> {
        let (label_query, id_query) = queries(&options.query);
        let mut asked = api::WatchOptions {
            label_query,
            id_query,
            bootstrap_bookmark: options.first_bookmark,
            ..api::WatchOptions::default()
        };
        match options.start {
            Start::Now => {}
            Start::Contents => asked.bootstrap_contents = true,
            Start::Tail(events) => asked.tail_events = events.try_into().unwrap(),
            Start::After(bookmark) => asked.start_from_bookmark = Some(bookmark.0.into()),
        }
        let request = api::WatchRequest {
            namespace: kind.namespace.clone(),
            r#type: kind.type_name.clone(),
            id: id.map(ToOwned::to_owned),
            options: Some(asked),
            api_version: 1,
        };
        let failed = |status| error(kind, "", status);
        let mut stream = self.client().watch(self.request(request)).await.map_err(failed)?.into_inner();
        // As clients of Talos 1.7 do: one of them would lose an event, and the other wait, without it.
        let first = stream.message().await.map_err(failed)?;
        assert_eq!(first, Some(api::WatchResponse::default()), "a watch begins with an empty message");
        let kind = kind.clone();
        let events = stream.flat_map(move |response| {
            let events = match response {
                Ok(response) => response.event.into_iter().map(|event| read_event(&kind, event)).collect(),
                Err(status) => vec![Err(error(&kind, "", status))],
            };
            futures::stream::iter(events)
        });
        Ok(events.boxed())
    }
}
