//! The wire: generated protobuf messages and gRPC services of the machine API, the COSI state API, the discovery
//! API and the resource specs, one module per protobuf package. Nothing else: conversions to domain types are in
//! `resources`, `client` and the servers.
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/all.rs"));
