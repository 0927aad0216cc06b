//! Events of the machine for others: as messages of the wire, and delivered to a sink by gRPC.
//!
//! A sink that is away or slow delays nobody: events wait in the ring of the bus, whose oldest are overwritten. Neither is a
//! sink authenticated nor are events encrypted.

mod deliver;
mod message;
mod sink;

pub use deliver::deliver_events;
pub use message::{API_TYPES, SINK_TYPES, any, event_id};
pub use sink::{Sink, SinkError};
