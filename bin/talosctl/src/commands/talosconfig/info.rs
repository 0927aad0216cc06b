//! `config info`: the current context and its certificate.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::Certificate;
use serde_json::{Value, json};
use stdx::{Clock as _, SystemClock};

use crate::command_error::CommandError;
use crate::output::{json, relative, yaml_of};
use crate::session::Session;

pub(super) fn run(output: &str, session: &Session) -> Result<(), CommandError> {
    if !matches!(output, "text" | "json" | "yaml") {
        return Err(CommandError::usage(format!("unknown output format: {output:?}"))
            .hint("the formats are text, json and yaml"));
    }
    let config = session.talosconfig()?;
    let selected = config.select(session.globals.context.as_deref());
    let path = session.talosconfig_path()?;
    let (name, context) = selected.map_err(|error| CommandError::no_context(error, &path))?;
    let certificate = match context.crt.as_str() {
        "" => None,
        text => Some(certificate(text)?),
    };
    let roles = certificate.as_ref().map(|one| one.subject().organizations.clone()).unwrap_or_default();
    let expiry = certificate.as_ref().map(|one| describe(one.not_after(), SystemClock.now()));
    let (remaining, not_after) = expiry.unwrap_or_default();
    let info = json!({
        "context": name, "nodes": context.nodes, "endpoints": context.endpoints, "roles": roles,
        "certTTL": remaining, "certNotAfter": not_after,
    });
    let text = match output {
        "json" => json::indented(&info),
        "yaml" => yaml_of(&info),
        _ => text_of(&info),
    };
    Ok(session.out.line(text.trim_end())?)
}

fn text_of(info: &Value) -> String {
    let list = |key: &str| {
        let values = info[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        if texts.is_empty() { "not defined".to_owned() } else { texts.join(", ") }
    };
    let text = |key: &str| info[key].as_str().unwrap_or_default();
    let mut lines = vec![
        format!("Current context:     {}", text("context")),
        format!("Nodes:               {}", list("nodes")),
        format!("Endpoints:           {}", list("endpoints")),
    ];
    if !text("certNotAfter").is_empty() {
        lines.push(format!("Roles:               {}", list("roles")));
        lines.push(format!("Certificate expires: {} ({})", text("certTTL"), text("certNotAfter")));
    }
    lines.join("\n")
}

fn certificate(base64: &str) -> Result<Certificate, CommandError> {
    let wrapped = || "reading the certificate of the context";
    let pem = STANDARD.decode(base64.trim()).map_err(CommandError::wrap(wrapped()))?;
    let pem = String::from_utf8(pem).map_err(CommandError::wrap(wrapped()))?;
    Certificate::from_pem(&pem).map_err(CommandError::wrap(wrapped()))
}

/// Relative and absolute time.
fn describe(at: SystemTime, now: SystemTime) -> (String, String) {
    let stamp = jiff::Timestamp::try_from(at).map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
    (relative(at, now), stamp)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn expiry_says_how_far_and_when() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (left, stamp) = describe(now + Duration::from_secs(365 * 24 * 3600), now);
        assert_eq!((left.as_str(), stamp.as_str()), ("1 year from now", "2024-11-13"));
        assert_eq!(describe(now - Duration::from_secs(90), now).0, "1 minute ago");
    }
}
