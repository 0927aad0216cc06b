//! Call quotas: how many calls are open at a time, all together and for each caller.
//!
//! A call counts until its last response message was taken or its client left, once for each node that it goes to.
//! Callers are told apart by key and by source address; those that another node forwards by what that node tells of them.
//! Administrators have a part of all calls to themselves and do not count against the address that they come from, so
//! neither a busy reader nor a busy network keeps them out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;

use crate::authz::Shape;

/// How many calls may be open.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Total: no more than the streams of the one connection to `machined`.
    pub total: usize,
    /// The part of `total` that only administrators get.
    pub reserved: usize,
    /// Of one key.
    pub per_key: usize,
    /// Streams among the calls of one key: watches, logs, events.
    pub streams_per_key: usize,
    /// Of one administrator's key, calls and streams alike.
    pub per_admin_key: usize,
    /// From one address, administrators apart.
    pub per_address: usize,
}

impl CallLimits {
    /// Of `apid`.
    pub const APID: Self =
        Self { total: 4096, reserved: 1024, per_key: 512, streams_per_key: 256, per_admin_key: 768, per_address: 1024 };
    /// For maintenance mode, where callers have no key.
    pub const MAINTENANCE: Self =
        Self { total: 256, reserved: 0, per_key: 256, streams_per_key: 256, per_admin_key: 256, per_address: 64 };
}

/// Whether calls come out of the administrators' part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Admin,
    Ordinary,
}

/// The subject of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) class: Class,
    /// The key of the caller, or the forwarded caller's as reported by its node.
    pub(crate) key: Option<Arc<str>>,
    /// Where the caller connects from; nothing for a caller of another node, which counted it.
    pub(crate) address: Option<IpAddr>,
}

/// Counts calls; clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct CallQuota {
    limits: CallLimits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    ordinary: usize,
    admin: usize,
    by_key: HashMap<Arc<str>, usize>,
    streams_by_key: HashMap<Arc<str>, usize>,
    by_address: HashMap<IpAddr, usize>,
}

/// Calls that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct CallPermit {
    account: Account,
    shape: Shape,
    calls: usize,
    open: Arc<Mutex<Open>>,
}

impl CallQuota {
    pub(crate) fn new(limits: CallLimits) -> Self {
        Self { limits, open: Arc::default() }
    }

    /// Counts `calls` calls together.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with the limit that is reached.
    pub(crate) fn admit(&self, account: Account, shape: Shape, calls: usize) -> Result<CallPermit, Status> {
        let limits = &self.limits;
        let mut open = self.open.lock();
        let all = open.ordinary + open.admin + calls;
        let is_admin = account.class == Class::Admin;
        if all > limits.total || (!is_admin && open.ordinary + calls > limits.total - limits.reserved) {
            return Err(exhausted("the node has as many open calls as it serves"));
        }
        if let Some(key) = &account.key {
            let most = if is_admin { limits.per_admin_key } else { limits.per_key };
            if count(&open.by_key, key) + calls > most {
                return Err(exhausted(&format!("more than {most} open calls of one client")));
            }
            let most = limits.streams_per_key;
            if !is_admin && shape != Shape::Unary && count(&open.streams_by_key, key) + calls > most {
                return Err(exhausted(&format!("more than {most} open streams of one client")));
            }
        }
        let account = Account { address: account.address.filter(|_| !is_admin), ..account };
        if let Some(address) = &account.address
            && count(&open.by_address, address) + calls > limits.per_address
        {
            return Err(exhausted(&format!("more than {} open calls from one address", limits.per_address)));
        }
        *(if is_admin { &mut open.admin } else { &mut open.ordinary }) += calls;
        if let Some(key) = &account.key {
            *open.by_key.entry(Arc::clone(key)).or_default() += calls;
            if shape != Shape::Unary {
                *open.streams_by_key.entry(Arc::clone(key)).or_default() += calls;
            }
        }
        if let Some(address) = account.address {
            *open.by_address.entry(address).or_default() += calls;
        }
        drop(open);
        Ok(CallPermit { account, shape, calls, open: Arc::clone(&self.open) })
    }
}

fn exhausted(why: &str) -> Status {
    Status::resource_exhausted(format!("{why}: try again later"))
}

fn count<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

/// Counts less, and forgets a key that has none left.
fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K, calls: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count -= calls;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let open = &mut *open;
        *(if self.account.class == Class::Admin { &mut open.admin } else { &mut open.ordinary }) -= self.calls;
        if let Some(key) = &self.account.key {
            release(&mut open.by_key, key, self.calls);
            if self.shape != Shape::Unary {
                release(&mut open.streams_by_key, key, self.calls);
            }
        }
        if let Some(address) = &self.account.address {
            release(&mut open.by_address, address, self.calls);
        }
    }
}

impl CallPermit {
    /// The response, which counts until it was taken or dropped.
    pub(crate) fn hold(self, response: http::Response<Body>) -> http::Response<Body> {
        response.map(|body| Body::new(CountedBody { body, _permit: self }))
    }
}

/// A response body with the permit of its call.
struct CountedBody {
    body: Body,
    _permit: CallPermit,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: CallLimits =
        CallLimits { total: 10, reserved: 4, per_key: 3, streams_per_key: 2, per_admin_key: 6, per_address: 4 };

    fn account(class: Class, key: &str, address: [u8; 4]) -> Account {
        Account { class, key: Some(key.into()), address: Some(IpAddr::from(address)) }
    }

    fn reader(key: &str, last: u8) -> Account {
        account(Class::Ordinary, key, [10, 0, 0, last])
    }

    fn refused(quota: &CallQuota, account: Account, shape: Shape, calls: usize) -> String {
        let status = quota.admit(account, shape, calls).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        status.message().to_owned()
    }

    #[test]
    fn a_caller_has_its_share_of_calls_and_of_streams() {
        let quota = CallQuota::new(SMALL);
        let streams: Vec<_> = (0..2).map(|_| quota.admit(reader("a", 1), Shape::ServerStream, 1).unwrap()).collect();
        assert!(refused(&quota, reader("a", 2), Shape::ServerStream, 1).contains("2 open streams of one client"));
        let _unary = quota.admit(reader("a", 1), Shape::Unary, 1).unwrap();
        assert!(refused(&quota, reader("a", 2), Shape::Unary, 1).contains("3 open calls of one client"));
        let _other = quota.admit(reader("b", 1), Shape::ServerStream, 1).unwrap();
        drop(streams);
        quota.admit(reader("a", 1), Shape::ServerStream, 2).unwrap();
    }

    #[test]
    fn callers_behind_one_address_share_it_and_administrators_do_not_count() {
        let quota = CallQuota::new(SMALL);
        let _held = (
            quota.admit(reader("a", 1), Shape::Unary, 2).unwrap(),
            quota.admit(reader("b", 1), Shape::Unary, 2).unwrap(),
        );
        assert!(refused(&quota, reader("c", 1), Shape::Unary, 1).contains("4 open calls from one address"));
        quota.admit(reader("c", 2), Shape::Unary, 1).unwrap();
        quota.admit(account(Class::Admin, "d", [10, 0, 0, 1]), Shape::ServerStream, 6).unwrap();
    }

    #[test]
    fn administrators_have_room_when_everybody_else_has_none() {
        let quota = CallQuota::new(SMALL);
        let _held: Vec<_> = (1..=3).map(|n| quota.admit(reader(&n.to_string(), n), Shape::Unary, 2).unwrap()).collect();
        assert!(refused(&quota, reader("9", 9), Shape::Unary, 1).contains("as many open calls"));
        let admin = |key| account(Class::Admin, key, [10, 0, 0, 1]);
        assert!(refused(&quota, admin("x"), Shape::Unary, 7).contains("as many open calls"));
        let _admin = quota.admit(admin("x"), Shape::ServerStream, 4).unwrap();
        assert!(refused(&quota, admin("y"), Shape::Unary, 1).contains("as many open calls"));
    }

    #[test]
    fn nothing_is_kept_of_callers_without_calls() {
        let quota = CallQuota::new(SMALL);
        for n in 0..100 {
            drop(quota.admit(reader(&n.to_string(), n), Shape::ServerStream, 1).unwrap());
        }
        let open = quota.open.lock();
        assert_eq!((open.ordinary, open.by_key.len(), open.streams_by_key.len(), open.by_address.len()), (0, 0, 0, 0));
    }

    #[test]
    fn a_call_is_open_until_its_response_was_dropped() {
        let quota = CallQuota::new(SMALL);
        let permit = quota.admit(reader("a", 1), Shape::Unary, 3).unwrap();
        let unread = http_body_util::Full::new(Bytes::from_static(b"x"));
        let unread = http_body_util::BodyExt::map_err(unread, |never| match never {});
        let response = permit.hold(http::Response::new(Body::new(unread)));
        refused(&quota, reader("a", 1), Shape::Unary, 1);
        drop(response);
        quota.admit(reader("a", 1), Shape::Unary, 3).unwrap();
    }
}
