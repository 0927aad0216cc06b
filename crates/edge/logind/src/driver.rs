//! The bus itself, as one client sees it: names and rules. Pure.

use crate::manager;
use crate::message::{Call, Value};
use crate::reply::{
    ACCESS_DENIED, FAILED, INVALID_ARGUMENTS, LIMITS_EXCEEDED, MATCH_RULE_INVALID, NAME_HAS_NO_OWNER, Reply,
    UNKNOWN_METHOD,
};
use crate::rule::Rule;

/// The name of the bus on itself.
pub(crate) const NAME: &str = "org.freedesktop.DBus";
/// The unique name of logind.
pub(crate) const LOGIND: &str = ":1.0";
const PEER: &str = "org.freedesktop.DBus.Peer";
/// Rules of a client.
const RULES: usize = 64;
/// The answer of `StartServiceByName`.
const ALREADY_RUNNING: u32 = 2;

/// What the bus knows of a client.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Its unique name.
    name: String,
    guid: String,
    is_greeted: bool,
    rules: Vec<Rule>,
}

impl Driver {
    pub(crate) const fn new(name: String, guid: String) -> Self {
        Self { name, guid, is_greeted: false, rules: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the client has said hello: before that it may call nothing else.
    pub(crate) const fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Whether the client wants a signal of logind.
    pub(crate) fn wants(&self, member: &str) -> bool {
        let signal = |sender| {
            [
                ("type", "signal"),
                ("sender", sender),
                ("interface", manager::INTERFACE),
                ("path", manager::PATH),
                ("member", member),
            ]
        };
        let is_wanted = |rule: &Rule| rule.matches(&signal(LOGIND)) || rule.matches(&signal(manager::NAME));
        self.is_greeted && self.rules.iter().any(is_wanted)
    }

    fn owner(&self, name: &str) -> Option<&str> {
        match name {
            NAME => Some(NAME),
            manager::NAME | LOGIND => Some(LOGIND),
            name if name == self.name => Some(&self.name),
            _ => None,
        }
    }

    /// Answers what every object answers; none for any other call.
    pub(crate) fn peer(&self, call: &Call) -> Option<Reply> {
        match (call.interface.as_str(), call.member.as_str()) {
            (PEER, "Ping") => Some(Reply::Values(Vec::new())),
            (PEER, "GetMachineId") => Some(Reply::text(&self.guid)),
            _ => None,
        }
    }

    /// Answers a call to the bus.
    pub(crate) fn call(&mut self, call: &Call) -> Reply {
        let texts: Vec<&str> = call.texts.iter().flatten().map(String::as_str).collect();
        let none = || Reply::Values(Vec::new());
        match (call.member.as_str(), texts.as_slice()) {
            ("Hello", _) if self.is_greeted => Reply::error(FAILED, "Hello is said once"),
            ("Hello", _) => {
                self.is_greeted = true;
                Reply::text(&self.name)
            }
            ("AddMatch", [_]) if self.rules.len() == RULES => {
                Reply::error(LIMITS_EXCEEDED, format!("a client has at most {RULES} rules"))
            }
            ("AddMatch", [rule]) => match Rule::parse(rule) {
                Ok(rule) => {
                    self.rules.push(rule);
                    none()
                }
                Err(error) => Reply::error(MATCH_RULE_INVALID, error.to_string()),
            },
            ("RemoveMatch", [text]) => {
                if let Some(at) = self.rules.iter().position(|rule| rule.is(text)) {
                    self.rules.remove(at);
                }
                none()
            }
            ("GetId", []) => Reply::text(&self.guid),
            ("ListNames" | "ListActivatableNames", []) => {
                let names = [NAME, manager::NAME, LOGIND, &self.name];
                Reply::Values(vec![Value::Texts(names.map(str::to_owned).to_vec())])
            }
            ("NameHasOwner", [name]) => Reply::Values(vec![Value::Bool(self.owner(name).is_some())]),
            ("GetNameOwner", [name]) => match self.owner(name) {
                Some(owner) => Reply::text(owner),
                None => Reply::error(NAME_HAS_NO_OWNER, format!("nobody has the name {name}")),
            },
            ("RequestName", _) => Reply::error(ACCESS_DENIED, "clients have no names of their own on this bus"),
            ("StartServiceByName", _) => Reply::Values(vec![Value::U32(ALREADY_RUNNING)]),
            ("Introspect", []) => Reply::text("<node/>"),
            ("AddMatch" | "RemoveMatch" | "NameHasOwner" | "GetNameOwner", _) => {
                Reply::error(INVALID_ARGUMENTS, format!("{} takes a text", call.member))
            }
            (member, _) => Reply::error(UNKNOWN_METHOD, format!("there is no method {member}")),
        }
    }
}
