//! The end-to-end tests: real clusters on this machine, driven as a user drives them.
//!
//! Hosts are network namespaces with a cgroup, a Docker engine and an agent each. A suite's tests share one cluster, which is
//! started by the first of them that runs and taken down after the last; tests that break things start their own.

mod kit;
mod suite;
mod three_nodes;

use libtest_mimic::{Arguments, Trial};
use suite::Suite;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Clusters share the machine's two cores and its one kernel: one test at a time, unless told otherwise.
    arguments.test_threads.get_or_insert(1);
    if let Some(reason) = kit::reason_to_skip() {
        println!("skipped, because {reason}");
        return libtest_mimic::run(&arguments, Vec::new()).exit_code();
    }
    let suites = [
        Suite::new("three_nodes_ebpf", three_nodes::TESTS, || three_nodes::start("ebpf")),
        Suite::new("three_nodes_userspace", three_nodes::TESTS, || three_nodes::start("userspace")),
    ];
    let trials: Vec<Trial> = suites.into_iter().flat_map(Suite::trials).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
