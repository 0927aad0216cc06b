//! The manager of logind, as far as locks and the end of the machine go.

use stdx::error_chain;

use crate::lock::{LONGEST_DELAY, Lock, LockError, Logind};
use crate::message::{Call, Value};
use crate::reply::{FAILED, INVALID_ARGUMENTS, LIMITS_EXCEEDED, Reply, UNKNOWN_METHOD, UNKNOWN_PROPERTY};

/// The name on the bus.
pub(crate) const NAME: &str = "org.freedesktop.login1";
pub(crate) const PATH: &str = "/org/freedesktop/login1";
pub(crate) const INTERFACE: &str = "org.freedesktop.login1.Manager";
/// The signal that the machine is about to end.
pub(crate) const PREPARE_FOR_SHUTDOWN: &str = "PrepareForShutdown";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
/// What a lock may be about; only those of shutdowns have an effect.
const SUBJECTS: [&str; 7] = [
    "shutdown",
    "sleep",
    "idle",
    "handle-power-key",
    "handle-suspend-key",
    "handle-hibernate-key",
    "handle-lid-switch",
];
/// The longest text about a lock.
const LONGEST_TEXT: usize = 256;
const DESCRIPTION: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
 <interface name="org.freedesktop.login1.Manager">
  <property name="InhibitDelayMaxUSec" type="t" access="read"/>
  <property name="PreparingForShutdown" type="b" access="read"/>
  <method name="Inhibit">
   <arg name="what" type="s" direction="in"/>
   <arg name="who" type="s" direction="in"/>
   <arg name="why" type="s" direction="in"/>
   <arg name="mode" type="s" direction="in"/>
   <arg name="pipe_fd" type="h" direction="out"/>
  </method>
  <signal name="PrepareForShutdown"><arg name="start" type="b"/></signal>
 </interface>
</node>
"#;

/// Answers a call to the manager.
pub(crate) fn call(logind: &Logind, call: &Call) -> Reply {
    let texts: Vec<&str> = call.texts.iter().flatten().map(String::as_str).collect();
    // A call need not name the interface.
    let is_of = |interface: &str| call.interface.is_empty() || call.interface == interface;
    if call.member == "Introspect" && is_of(INTROSPECTABLE) {
        return Reply::text(if call.path == PATH { DESCRIPTION } else { "<node/>" });
    }
    if call.path != PATH {
        return Reply::error(UNKNOWN_METHOD, format!("there is no object {}", call.path));
    }
    match (call.member.as_str(), texts.as_slice()) {
        ("Inhibit", [what, who, why, mode]) if is_of(INTERFACE) => inhibit(logind, [what, who, why, mode]),
        ("Inhibit", _) if is_of(INTERFACE) => Reply::error(INVALID_ARGUMENTS, "Inhibit takes four texts"),
        ("Get", [interface, name]) if is_of(PROPERTIES) => {
            match properties(logind, interface).into_iter().find(|(known, _)| known == name) {
                Some((_, value)) => Reply::Values(vec![Value::Variant(Box::new(value))]),
                None => Reply::error(UNKNOWN_PROPERTY, format!("there is no property {name}")),
            }
        }
        ("GetAll", [interface]) if is_of(PROPERTIES) => {
            Reply::Values(vec![Value::Properties(properties(logind, interface))])
        }
        (member, _) => Reply::error(UNKNOWN_METHOD, format!("there is no method {member}")),
    }
}

fn properties(logind: &Logind, interface: &str) -> Vec<(&'static str, Value)> {
    if !interface.is_empty() && interface != INTERFACE {
        return Vec::new();
    }
    let delay = u64::try_from(LONGEST_DELAY.as_micros()).unwrap_or(u64::MAX);
    let is_preparing = *logind.preparing().borrow();
    vec![("InhibitDelayMaxUSec", Value::U64(delay)), ("PreparingForShutdown", Value::Bool(is_preparing))]
}

fn inhibit(logind: &Logind, [what, who, why, mode]: [&str; 4]) -> Reply {
    if let Some(unknown) = what.split(':').find(|subject| !SUBJECTS.contains(subject)) {
        return Reply::error(INVALID_ARGUMENTS, format!("there are no locks of {unknown:?}"));
    }
    // An operator who reboots a machine is not to be told by a pod that it goes on.
    if mode != "delay" {
        return Reply::error(INVALID_ARGUMENTS, format!("locks delay; there are none of mode {mode:?}"));
    }
    if who.is_empty() || [who, why].iter().any(|text| text.len() > LONGEST_TEXT) {
        return Reply::error(INVALID_ARGUMENTS, format!("who and why have at most {LONGEST_TEXT} bytes, who has some"));
    }
    let is_of_shutdown = what.split(':').any(|subject| subject == "shutdown");
    match logind.inhibit(Lock { who: who.to_owned(), why: why.to_owned(), is_of_shutdown }) {
        Ok(descriptor) => Reply::Descriptor(descriptor),
        Err(error @ LockError::TooMany) => Reply::error(LIMITS_EXCEEDED, error_chain(&error)),
        Err(error) => Reply::error(FAILED, error_chain(&error)),
    }
}
