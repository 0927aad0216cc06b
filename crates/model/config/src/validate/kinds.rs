//! The documents beside the root document.

use std::collections::HashSet;
use std::time::Duration;

use super::Check;
use crate::document::Document;
use crate::kinds::NetworkRuleConfig;

const SHORTEST_WATCHDOG: Duration = Duration::from_secs(10);
/// Limits of a trial: no machine starts faster, and a version that is never judged keeps the node from its next upgrade.
const TRIAL_LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(24 * 60 * 60);

pub(super) fn check(check: &mut Check<'_>, document: &Document) {
    if document.name() == Some("") {
        check.error("name", format!("{} needs a name", document.kind()));
    }
    match document {
        Document::V1alpha1(_) => {}
        Document::NetworkDefaultAction(action) => {
            required(check, "ingress", &action.ingress);
        }
        Document::NetworkRule(rule) => rule_check(check, rule),
        Document::ExtensionService(service) => {
            if service.config_files.is_empty() && service.environment.is_empty() {
                check.error("", "configFiles or environment is needed");
            }
            let mut paths = HashSet::new();
            for (index, file) in service.config_files.iter().enumerate() {
                required(check, &format!("configFiles[{index}].mountPath"), &file.mount_path);
                required(check, &format!("configFiles[{index}].content"), &file.content);
                if !paths.insert(file.mount_path.as_str()) {
                    check.error(
                        &format!("configFiles[{index}].mountPath"),
                        format!("a second file {}", file.mount_path),
                    );
                }
            }
            for (index, variable) in service.environment.iter().enumerate() {
                if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                    check.error(&format!("environment[{index}]"), "an environment variable is written NAME=value");
                }
            }
        }
        Document::EventSink(sink) => required(check, "endpoint", &sink.endpoint),
        Document::KmsgLog(log) => required(check, "url", &log.url),
        Document::WatchdogTimer(timer) => {
            required(check, "device", &timer.device);
            let timeout = stdx::duration::parse(&timer.timeout);
            if timeout.is_ok_and(|timeout| timeout < SHORTEST_WATCHDOG) {
                check.error("timeout", "the shortest timeout is 10s");
            }
        }
        Document::UpgradeTrial(trial) => {
            required(check, "limit", &trial.limit);
            let limit = stdx::duration::parse(&trial.limit);
            if limit.is_ok_and(|limit| !TRIAL_LIMITS.contains(&limit)) {
                check.error("limit", "the limit of a trial is 1m at least and 24h at most");
            }
        }
        Document::SideroLink(link) => required(check, "apiUrl", &link.api_url),
    }
}

fn required(check: &mut Check<'_>, path: &str, value: &str) {
    if value.is_empty() {
        check.error(path, "a value is needed");
    }
}

fn rule_check(check: &mut Check<'_>, rule: &NetworkRuleConfig) {
    match &rule.port_selector {
        None => check.error("portSelector", "a rule needs ports and a protocol"),
        Some(selector) => {
            required(check, "portSelector.protocol", &selector.protocol);
            let with_ports = matches!(selector.protocol.as_str(), "tcp" | "udp");
            if with_ports && selector.ports.is_empty() {
                check.error("portSelector.ports", "a rule needs ports");
            }
            let mut sorted = selector.ports.clone();
            sorted.sort_by_key(|range| range.low);
            if sorted.windows(2).any(|pair| pair[1].low <= pair[0].high) {
                check.error("portSelector.ports", "ranges of ports overlap");
            }
        }
    }
    if rule.ingress.is_empty() {
        check.error("ingress", "a rule needs the networks that it lets in");
    }
    for (index, ingress) in rule.ingress.iter().enumerate() {
        required(check, &format!("ingress[{index}].subnet"), &ingress.subnet);
        let nets = (ingress.subnet.parse::<ipnet::IpNet>(), ingress.except.parse::<ipnet::IpNet>());
        if let (Ok(subnet), Ok(except)) = nets
            && !subnet.contains(&except)
        {
            check.error(&format!("ingress[{index}].except"), format!("{except} is not part of {subnet}"));
        }
    }
}
