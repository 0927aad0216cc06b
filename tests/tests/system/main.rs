//! The system tests: one cluster of two nodes, shared by all checks in order and removed at the end.
//!
//! It has a runner of its own because the order matters: the checks that break things come last, and the very last is
//! that nothing is left. A check that fails does not keep the later ones from running. Arguments are substrings of the
//! names of the checks to run; those that make and remove the cluster always run.

mod access;
mod cluster;
mod control_planes;
mod faults;
mod go_client;
mod host;
mod kubernetes;
mod lifecycle;
mod machines;
mod members;
mod pod_network;
mod pods;
mod renamed;
mod settings;
mod start;

use std::process::ExitCode;

use cluster::Cluster;
use tests::runner::{Tally, Wanted};

type Check = fn(&Cluster) -> anyhow::Result<()>;

/// The checks in their order.
const CHECKS: &[(&str, Check)] = &[
    ("the_clusters_dns_answers_when_create_ends", start::the_clusters_dns_answers_when_create_ends),
    ("no_component_of_a_new_cluster_was_refused", start::no_component_of_a_new_cluster_was_refused),
    ("pods_resolve_names", pods::pods_resolve_names),
    ("pods_reach_services_over_flannel", pod_network::pods_reach_services_over_flannel),
    ("all_nodes_are_ready", members::all_nodes_are_ready),
    ("members_are_the_same_on_every_node", members::members_are_the_same_on_every_node),
    ("pods_reach_services_of_the_other_node", pods::pods_reach_services_of_the_other_node),
    ("pods_reach_what_is_outside_the_cluster", pods::pods_reach_what_is_outside_the_cluster),
    ("a_custom_resource_is_kept", kubernetes::a_custom_resource_is_kept),
    ("a_custom_pod_network_comes_from_its_manifest", pod_network::a_custom_pod_network_comes_from_its_manifest),
    (
        "a_node_follows_its_name_and_endpoint_and_certificates_restart_nothing",
        renamed::a_node_follows_its_name_and_endpoint_and_certificates_restart_nothing,
    ),
    (
        "three_control_planes_are_one_cluster_that_can_lose_one",
        control_planes::three_control_planes_are_one_cluster_that_can_lose_one,
    ),
    ("virtual_machines_become_a_cluster", machines::virtual_machines_become_a_cluster),
    ("a_second_bootstrap_is_refused", access::a_second_bootstrap_is_refused),
    ("a_second_cluster_in_the_same_network_is_refused", access::a_second_cluster_in_the_same_network_is_refused),
    (
        "a_cluster_that_no_node_would_accept_is_refused_before_anything_is_made",
        access::a_cluster_that_no_node_would_accept_is_refused_before_anything_is_made,
    ),
    ("no_certificate_is_refused", access::no_certificate_is_refused),
    ("a_certificate_of_another_cluster_is_refused", access::a_certificate_of_another_cluster_is_refused),
    ("an_expired_certificate_is_refused", access::an_expired_certificate_is_refused),
    (
        "a_reader_reads_resources_but_neither_files_nor_secrets",
        access::a_reader_reads_resources_but_neither_files_nor_secrets,
    ),
    ("a_worker_answers_for_itself_and_forwards_nothing", access::a_worker_answers_for_itself_and_forwards_nothing),
    (
        "a_node_that_is_down_is_named_beside_the_answer_of_the_other",
        access::a_node_that_is_down_is_named_beside_the_answer_of_the_other,
    ),
    (
        "a_client_in_go_reads_every_type_and_calls_every_method",
        go_client::a_client_in_go_reads_every_type_and_calls_every_method,
    ),
    ("booted_nodes_say_so", lifecycle::booted_nodes_say_so),
    ("files_profiles_and_mounts_are_on_the_worker", settings::files_profiles_and_mounts_are_on_the_worker),
    ("logs_of_the_worker_arrive_by_udp", settings::logs_of_the_worker_arrive_by_udp),
    ("controllers_have_a_log_of_their_own", settings::controllers_have_a_log_of_their_own),
    ("an_operator_restarts_a_kubelet_and_stops_no_etcd", lifecycle::an_operator_restarts_a_kubelet_and_stops_no_etcd),
    ("apid_returns", faults::apid_returns),
    ("trustd_returns", faults::trustd_returns),
    ("containerd_returns", faults::containerd_returns),
    ("etcd_returns", faults::etcd_returns),
    ("kubelet_returns", faults::kubelet_returns),
    ("kube_apiserver_returns", faults::kube_apiserver_returns),
    ("discoveryd_returns", faults::discoveryd_returns),
    ("the_cluster_agent_returns", faults::the_cluster_agent_returns),
    ("the_guard_of_the_cluster_agent_returns", faults::the_guard_of_the_cluster_agent_returns),
    (
        "a_cluster_agent_without_a_guard_is_started_by_the_operator",
        faults::a_cluster_agent_without_a_guard_is_started_by_the_operator,
    ),
    ("a_worker_whose_machined_is_killed_starts_again", faults::a_worker_whose_machined_is_killed_starts_again),
    ("a_worker_reboots_and_stays_off_as_it_was_asked", faults::a_worker_reboots_and_stays_off_as_it_was_asked),
    (
        "a_control_plane_whose_machined_is_killed_starts_again",
        faults::a_control_plane_whose_machined_is_killed_starts_again,
    ),
    ("a_damaged_configuration_leads_to_maintenance_mode", faults::a_damaged_configuration_leads_to_maintenance_mode),
    ("pods_run_after_all_that", faults::pods_run_after_all_that),
];

fn main() -> ExitCode {
    let wanted = Wanted::from_arguments();
    let mut tally = Tally::default();
    if let Some(cluster) = tally.run("a_cluster_is_created", Cluster::create) {
        for (name, check) in CHECKS.iter().filter(|(name, _)| wanted.has(name)) {
            if tally.run(name, || check(&cluster)).is_none() {
                cluster.show_logs(cluster::NAME);
            }
        }
        tally.run("nothing_is_left_of_a_destroyed_cluster", || cluster.destroy());
    }
    tally.close()
}
