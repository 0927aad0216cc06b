//! Between the store's words and those of the wire.

use prost_types::Timestamp;
use state::{EventKind, LabelOp, LabelQuery, LabelTerm, Query, ReadEvent, Untyped};
use tonic::Status;
use wire::cosi::resource as api;
use wire::cosi::resource::label_term::Operation;

pub(super) fn resource(resource: Untyped) -> api::Resource {
    let metadata = resource.metadata;
    let metadata = api::Metadata {
        namespace: metadata.namespace,
        r#type: metadata.type_name,
        id: metadata.id,
        version: metadata.version.to_string(),
        owner: metadata.owner,
        phase: metadata.phase.as_str().to_owned(),
        created: Some(Timestamp::from(metadata.created)),
        updated: Some(Timestamp::from(metadata.updated)),
        finalizers: metadata.finalizers,
        annotations: metadata.annotations.into_iter().collect(),
        labels: metadata.labels.into_iter().collect(),
    };
    let spec = api::Spec { proto_spec: resource.proto.into(), yaml_spec: resource.yaml };
    api::Resource { metadata: Some(metadata), spec: Some(spec) }
}

pub(super) fn event(event: ReadEvent) -> api::Event {
    api::Event {
        resource: event.resource.map(resource),
        old: event.old.map(resource),
        error: None,
        event_type: event_type(event.kind).into(),
        bookmark: event.bookmark.map(|bookmark| bookmark.0.into()),
    }
}

fn event_type(kind: EventKind) -> api::EventType {
    match kind {
        EventKind::Created => api::EventType::Created,
        EventKind::Updated => api::EventType::Updated,
        EventKind::Destroyed => api::EventType::Destroyed,
        EventKind::Bootstrapped => api::EventType::Bootstrapped,
        EventKind::Noop => api::EventType::Noop,
    }
}

/// # Errors
/// `INVALID_ARGUMENT` for terms that lack what they compare with, and patterns that do not compile.
pub(super) fn query(labels: Vec<api::LabelQuery>, id: Option<api::IdQuery>) -> Result<Query, Status> {
    let labels = labels.into_iter().map(label_query).collect::<Result<Vec<_>, _>>()?;
    let query = Query::default().labels(labels.into_iter().filter(|query| !query.terms.is_empty()).collect());
    match id {
        Some(id) if !id.regexp.is_empty() => {
            query.id_matches(&id.regexp).map_err(|error| Status::invalid_argument(error.to_string()))
        }
        _ => Ok(query),
    }
}

fn label_query(query: api::LabelQuery) -> Result<LabelQuery, Status> {
    let terms = query.terms.into_iter().map(term).collect::<Result<Vec<_>, _>>()?;
    Ok(LabelQuery { terms })
}

fn term(term: api::LabelTerm) -> Result<LabelTerm, Status> {
    let operation = Operation::try_from(term.op)
        .map_err(|_| Status::invalid_argument(format!("label {}: operation {} is not known", term.key, term.op)))?;
    let mut values = term.value.into_iter();
    let mut value = || {
        values.next().ok_or_else(|| Status::invalid_argument(format!("label {}: nothing to compare with", term.key)))
    };
    let op = match operation {
        Operation::Exists => LabelOp::Exists,
        Operation::NotExists => LabelOp::NotExists,
        Operation::Equal => LabelOp::Equal(value()?),
        Operation::Lt => LabelOp::Lt(value()?),
        Operation::Lte => LabelOp::Lte(value()?),
        Operation::LtNumeric => LabelOp::LtNumeric(value()?),
        Operation::LteNumeric => LabelOp::LteNumeric(value()?),
        Operation::In => LabelOp::In(values.collect()),
    };
    Ok(LabelTerm { key: term.key, op, invert: term.invert })
}
