//! Encoding of nf_tables requests and decoding of replies. Constants are those of the kernel's `nf_tables.h` and
//! `nfnetlink.h`: headers in host byte order, attribute values in network byte order.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Masquerade;

/// Our table, of the family `inet` (IPv4 and IPv6).
pub(super) const TABLE: &str = "talos_pods";
const CHAIN: &str = "postrouting";

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = NEW_TABLE | 1;
const DELETE_TABLE: u16 = NEW_TABLE | 2;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;
const GET_RULE: u16 = NEW_TABLE | 7;

const FAMILY_ANY: u8 = 0;
const FAMILY_INET: u8 = 1;

const NESTED: u16 = 0x8000;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USER_DATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

const HOOK_POSTROUTING: u32 = 4;
/// Where sources are translated.
const PRIORITY_SOURCE_NAT: u32 = 100;
const REGISTER: u32 = 1;
const META_FAMILY: u32 = 15;
const NETWORK_HEADER: u32 = 1;
/// The rule comment as shown by `nft`.
const USER_DATA_COMMENT: u8 = 0;

/// Messages of one transaction.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Sequence numbers of messages that get a reply.
    pub(super) asked: Vec<u32>,
    /// The next sequence number.
    pub(super) next: u32,
}

/// The kernel's reply to one message: an error number (0 for success), or a part of a dump.
pub(super) struct Answer<'a> {
    pub(super) sequence: u32,
    pub(super) result: Option<i32>,
    pub(super) payload: &'a [u8],
}

/// Replaces our table with one chain and these rules.
pub(super) fn with_rules(first: u32, rules: &[Masquerade]) -> Batch {
    let mut batch = Batch::begin(first);
    // Only an existing table can be removed, so it is created first.
    batch.ask(NEW_TABLE, CREATE, &table());
    batch.ask(DELETE_TABLE, 0, &table());
    batch.ask(NEW_TABLE, CREATE, &table());
    batch.ask(NEW_CHAIN, CREATE, &chain());
    for rule in rules {
        batch.ask(NEW_RULE, CREATE | APPEND, &self::rule(rule));
    }
    batch.end()
}

/// Removes our table.
pub(super) fn without_table(first: u32) -> Batch {
    let mut batch = Batch::begin(first);
    batch.ask(DELETE_TABLE, 0, &table());
    batch.end()
}

/// Queries our table: the reply is success or `ENOENT`.
pub(super) fn get_table(sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, GET_TABLE, REQUEST | ACK, sequence, (FAMILY_INET, 0), &table());
    bytes
}

/// Requests the rules of our chain.
pub(super) fn list_rules(sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, GET_RULE, REQUEST | DUMP, sequence, (FAMILY_INET, 0), &rule_place());
    bytes
}

/// Identifies the rule, for operators and for us.
pub(super) fn comment(rule: &Masquerade) -> String {
    let mut hasher = DefaultHasher::new();
    (rule.source, &rule.except).hash(&mut hasher);
    format!("pods of {} ({:016x})", rule.source, hasher.finish())
}

/// The comment of a rule in a dump.
pub(super) fn comment_of(payload: &[u8]) -> Option<String> {
    let user_data = attributes(payload.get(4..)?).find(|(kind, _)| *kind == RULE_USER_DATA)?.1;
    let [kind, length, rest @ ..] = user_data else { return None };
    let text = rest.get(..usize::from(*length)).filter(|_| *kind == USER_DATA_COMMENT)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

/// The messages of a datagram.
pub(super) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        let sequence = word(bytes, 8)?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let payload = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let result = match kind {
            NLMSG_DONE => Some(0),
            // Error numbers are negative.
            NLMSG_ERROR => Some(i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?).wrapping_neg()),
            _ => None,
        };
        Some(Answer { sequence, result, payload })
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Attribute types, without flags, and values.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & !NESTED, value))
    })
}

impl Batch {
    fn begin(first: u32) -> Self {
        let mut batch = Self { bytes: Vec::new(), asked: Vec::new(), next: first };
        batch.push(BATCH_BEGIN, REQUEST, (FAMILY_ANY, SUBSYSTEM), &[]);
        batch
    }

    fn ask(&mut self, kind: u16, flags: u16, attributes: &[u8]) {
        self.asked.push(self.next);
        self.push(kind, flags | REQUEST | ACK, (FAMILY_INET, 0), attributes);
    }

    fn end(mut self) -> Self {
        self.push(BATCH_END, REQUEST, (FAMILY_ANY, SUBSYSTEM), &[]);
        self
    }

    fn push(&mut self, kind: u16, flags: u16, header: (u8, u16), attributes: &[u8]) {
        message(&mut self.bytes, kind, flags, self.next, header, attributes);
        self.next = self.next.wrapping_add(1);
    }
}

/// A message; `header` is the family and resource id of nfnetlink's header.
fn message(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, header: (u8, u16), attributes: &[u8]) {
    let length = u32::try_from(16 + 4 + attributes.len()).unwrap_or(u32::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    // The sender's port; the kernel knows it.
    out.extend([0; 4]);
    let (family, resource) = header;
    out.extend([family, 0]);
    out.extend(resource.to_be_bytes());
    out.extend(attributes);
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn text(out: &mut Vec<u8>, kind: u16, text: &str) {
    attribute(out, kind, &[text.as_bytes(), &[0]].concat());
}

fn number(out: &mut Vec<u8>, kind: u16, number: u32) {
    attribute(out, kind, &number.to_be_bytes());
}

fn nested(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    attribute(out, kind | NESTED, &inner);
}

fn table() -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, TABLE_NAME, TABLE);
    out
}

fn chain() -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, CHAIN_TABLE, TABLE);
    text(&mut out, CHAIN_NAME, CHAIN);
    nested(&mut out, CHAIN_HOOK, |out| {
        number(out, HOOK_NUMBER, HOOK_POSTROUTING);
        number(out, HOOK_PRIORITY, PRIORITY_SOURCE_NAT);
    });
    text(&mut out, CHAIN_TYPE, "nat");
    out
}

fn rule_place() -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, RULE_TABLE, TABLE);
    text(&mut out, RULE_CHAIN, CHAIN);
    out
}

/// `ip saddr SOURCE ip daddr != EXCEPT ... masquerade`, never for multicast.
fn rule(rule: &Masquerade) -> Vec<u8> {
    let mut out = rule_place();
    let family: u8 = if rule.source.addr().is_ipv4() { 2 } else { 10 };
    nested(&mut out, RULE_EXPRESSIONS, |out| {
        expression(out, "meta", |out| {
            number(out, 1, REGISTER);
            number(out, 2, META_FAMILY);
        });
        compare(out, Comparison::Equal, &[family]);
        subnet(out, AddressField::Source, Comparison::Equal, rule.source);
        let same_family = |net: &&IpNet| net.addr().is_ipv4() == rule.source.addr().is_ipv4();
        for net in rule.except.iter().filter(same_family) {
            subnet(out, AddressField::Destination, Comparison::Unequal, *net);
        }
        subnet(out, AddressField::Destination, Comparison::Unequal, multicast(rule.source));
        expression(out, "masq", |_| {});
    });
    let comment = [comment(rule).as_bytes(), &[0]].concat();
    let length = u8::try_from(comment.len()).unwrap_or(u8::MAX);
    attribute(&mut out, RULE_USER_DATA, &[&[USER_DATA_COMMENT, length], comment.as_slice()].concat());
    out
}

fn multicast(like: IpNet) -> IpNet {
    match like {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4)),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    }
}

fn expression(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    nested(out, LIST_ELEMENT, |out| {
        text(out, EXPRESSION_NAME, name);
        nested(out, EXPRESSION_DATA, fill);
    });
}

#[derive(Clone, Copy)]
enum Comparison {
    Equal,
    Unequal,
}

#[derive(Clone, Copy)]
enum AddressField {
    Source,
    Destination,
}

/// Continues only if the register matches.
fn compare(out: &mut Vec<u8>, is: Comparison, value: &[u8]) {
    expression(out, "cmp", |out| {
        number(out, 1, REGISTER);
        number(out, 2, if matches!(is, Comparison::Equal) { 0 } else { 1 });
        data(out, 3, value);
    });
}

fn data(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nested(out, kind, |out| attribute(out, DATA_VALUE, value));
}

/// Continues only if an address of the packet is in the subnet, or is not.
fn subnet(out: &mut Vec<u8>, side: AddressField, is: Comparison, net: IpNet) {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (network, mask) = (bytes(net.network()), bytes(net.netmask()));
    let length = u32::from(net.max_prefix_len()) / 8;
    let source_at = if net.addr().is_ipv4() { 12 } else { 8 };
    expression(out, "payload", |out| {
        number(out, 1, REGISTER);
        number(out, 2, NETWORK_HEADER);
        number(out, 3, if matches!(side, AddressField::Source) { source_at } else { source_at + length });
        number(out, 4, length);
    });
    expression(out, "bitwise", |out| {
        number(out, 1, REGISTER);
        number(out, 2, REGISTER);
        number(out, 3, length);
        data(out, 4, &mask);
        data(out, 5, &vec![0; mask.len()]);
    });
    compare(out, is, &network);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masquerade() -> Masquerade {
        Masquerade { source: "10.244.1.0/24".parse().unwrap(), except: vec!["10.244.0.0/16".parse().unwrap()] }
    }

    #[test]
    fn a_batch_is_framed_and_every_change_in_it_is_answered() {
        let batch = with_rules(7, &[masquerade()]);
        let kinds: Vec<u16> = {
            let (mut kinds, mut rest) = (Vec::new(), batch.bytes.as_slice());
            while let Some(length) = word(rest, 0) {
                kinds.push(u16::from_ne_bytes([rest[4], rest[5]]));
                rest = &rest[usize::try_from(length).unwrap().next_multiple_of(4)..];
            }
            kinds
        };
        assert_eq!(
            kinds,
            [BATCH_BEGIN, NEW_TABLE, DELETE_TABLE, NEW_TABLE, NEW_CHAIN, NEW_RULE, BATCH_END],
            "the old table goes in the same transaction in which the new one comes"
        );
        assert_eq!((batch.asked, batch.next), (vec![8, 9, 10, 11, 12], 14));
    }

    #[test]
    fn the_comment_of_a_rule_is_found_again_and_differs_by_what_the_rule_does() {
        let rule = masquerade();
        let payload = [vec![FAMILY_INET, 0, 0, 0], self::rule(&rule)].concat();
        assert_eq!(comment_of(&payload).unwrap(), comment(&rule));
        assert!(comment(&rule).starts_with("pods of 10.244.1.0/24 ("));
        assert_ne!(comment(&rule), comment(&Masquerade { except: Vec::new(), ..rule }));
        assert_eq!(comment_of(&[]), None);
        assert_eq!(comment_of(&[0, 0, 0, 0, 200, 0, 7, 0, 1]), None, "an attribute longer than its message");
    }

    #[test]
    fn answers_end_at_what_is_cut_off() {
        let mut bytes = Vec::new();
        message(&mut bytes, NLMSG_ERROR, 0, 5, (0, 0), &[]);
        // The error number is in the place of nfnetlink's header.
        bytes[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        message(&mut bytes, NLMSG_DONE, 0, 6, (0, 0), &[]);
        let all: Vec<_> = answers(&bytes).map(|answer| (answer.sequence, answer.result)).collect();
        assert_eq!(all, [(5, Some(2)), (6, Some(0))]);
        assert_eq!(answers(&bytes[..30]).count(), 1);
    }
}
