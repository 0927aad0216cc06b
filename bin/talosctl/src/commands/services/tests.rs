use wire::machine::{ServiceEvent, ServiceEvents};

use super::*;

fn service(id: &str, health: Option<ServiceHealth>, events: &[(&str, &str, i64)]) -> ServiceInfo {
    let events = events.iter().map(|(state, msg, seconds)| ServiceEvent {
        msg: (*msg).to_owned(),
        state: (*state).to_owned(),
        ts: Some(prost_types::Timestamp { seconds: *seconds, nanos: 0 }),
    });
    ServiceInfo {
        id: id.to_owned(),
        state: "Running".to_owned(),
        events: Some(ServiceEvents { events: events.collect() }),
        health,
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
}

#[test]
fn the_overview_shows_health_age_and_last_event() {
    let healthy = ServiceHealth { healthy: true, ..Default::default() };
    let unknown = ServiceHealth { unknown: true, ..Default::default() };
    let services = vec![
        service("apid", Some(healthy), &[("Preparing", "x", 800), ("Running", "Health check successful", 939)]),
        service("etcd", Some(unknown), &[]),
        service("kubelet", Some(ServiceHealth::default()), &[("Running", "Started", 1000)]),
    ];
    let expected = "\
NODE       SERVICE   STATE     HEALTH   LAST CHANGE   LAST EVENT
10.5.0.2   apid      Running   OK       1m1s ago      Health check successful
10.5.0.2   etcd      Running   ?                      
10.5.0.2   kubelet   Running   Fail     0s ago        Started";
    assert_eq!(overview([("10.5.0.2".to_owned(), services)].into_iter(), now()).take(), expected);
}

#[test]
fn one_service_shows_its_events_newest_first() {
    let shown = details("n", &service("apid", None, &[("Waiting", "a", 990), ("Running", "b", 999)]), now());
    let expected = "\
NODE     n
ID       apid
STATE    Running
HEALTH   ?
EVENTS   [Running]: b (1s ago)
         [Waiting]: a (10s ago)";
    assert_eq!(shown, expected);
}
