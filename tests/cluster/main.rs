//! The end-to-end tests: real clusters on this machine, driven as a user drives them.
//!
//! Hosts are network namespaces with a cgroup, a Docker engine and an agent each. A suite's tests share one cluster,
//! which is started by the first of them that runs and taken down after the last; tests that break things start their
//! own.

#![allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it")]

mod bad_input;
mod cli;
mod control_alone;
mod datagrams;
mod faults;
mod full_disk;
mod kit;
mod network_abuse;
mod node_alone;
mod running_pods;
mod security;
mod seeds;
mod service_names;
#[path = "../skipped.rs"]
mod skipped;
mod streams;
mod suite;
mod three_nodes;
mod up;

use libtest_mimic::{Arguments, Failed, Trial};
use suite::{Suite, TestAlone};

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Clusters share the machine's cores and its one kernel: one test at a time, unless told otherwise.
    arguments.test_threads.get_or_insert(1);
    if !arguments.list
        && let Some(reason) = kit::reason_to_skip()
    {
        skipped::skipped(reason);
        return libtest_mimic::run(&arguments, Vec::new()).exit_code();
    }
    let suites = [
        Suite::new("bad_input", bad_input::TESTS, bad_input::start),
        Suite::new("three_nodes_ebpf", three_nodes::TESTS, || three_nodes::start("ebpf")),
        Suite::new("three_nodes_userspace", three_nodes::TESTS, || three_nodes::start("userspace")),
        Suite::new("seeds", seeds::TESTS, seeds::start),
        Suite::new("running_pods", running_pods::TESTS, running_pods::start),
        Suite::new("streams", streams::TESTS, streams::start),
        Suite::new("broken_streams", streams::broken::TESTS, streams::start),
    ];
    let mut trials: Vec<Trial> = suites.into_iter().flat_map(Suite::trials).collect();
    for (name, test) in ALONE.iter().chain(cli::TESTS).chain(network_abuse::TESTS).chain(security::TESTS) {
        trials.push(Trial::test(*name, move || test().map_err(Failed::from)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Tests with a cluster of their own.
const ALONE: &[TestAlone] = &[
    ("up::the_host_is_as_it_was_after_up_has_ended", up::up_leaves_the_host_as_it_was),
    ("seeds::a_node_port_works_with_a_wider_range", seeds::node_port_with_a_wider_range),
    (
        "faults::a_killed_control_service_loses_no_acknowledged_write",
        faults::control_killed_loses_no_acknowledged_write,
    ),
    ("faults::a_killed_agent_is_not_noticed_by_requests", faults::agent_killed_is_not_noticed),
    ("faults::a_full_disk_fails_writes_and_only_those", full_disk::writes_fail_reads_go_on_and_space_mends_it),
    ("faults::an_agent_killed_under_streams_leaves_nothing_open", streams::broken::agent_killed_under_streams),
    ("faults::pods_come_back_after_docker_restarted", faults::docker_restarted_recovers),
    ("node_alone::a_dead_docker_makes_the_node_not_ready_with_the_reason", node_alone::dead_docker_is_not_ready),
    (
        "node_alone::pods_come_up_after_a_reboot_without_the_control_service",
        node_alone::pods_come_up_after_a_reboot_without_the_control_service,
    ),
    (
        "node_alone::last_known_services_are_served_without_the_control_service",
        node_alone::last_known_services_are_served_without_the_control_service,
    ),
];
