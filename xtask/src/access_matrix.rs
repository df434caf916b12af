//! `cargo xtask access-matrix`: who may do what, asked of fairlead and of the real kube-apiserver.

use std::path::PathBuf;

use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Ask fairlead and kube-apiserver who may do what, and report where they differ in target/access
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask access-matrix --peers DIR\n  \
                        cargo xtask access-matrix --peers DIR --questions 1000000 -- --parts matrix")]
pub struct AccessMatrix {
    /// Directory where kube-apiserver, kube-controller-manager, etcd and kubectl were built
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_PEERS")]
    peers: PathBuf,
    /// How many questions are asked at most; evenly taken out of all [default: 25000]
    #[arg(long, value_name = "N")]
    questions: Option<usize>,
    /// How many of them are sent as requests, too [default: 2500]
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
    /// More for the test: --parts, --out
    #[arg(last = true, value_name = "ARGUMENT")]
    more: Vec<String>,
}

impl AccessMatrix {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Run)?;
        let mut cargo = workspace::cargo();
        // As a test, not as a bench: what is looked for needs no optimised build.
        cargo.args(["test", "--locked", "--bench", "access", "--"]);
        cargo.arg("--peers").arg(std::path::absolute(self.peers)?);
        for (flag, value) in [("--questions", self.questions), ("--requests", self.requests)] {
            if let Some(value) = value {
                cargo.args([flag, &value.to_string()]);
            }
        }
        cargo.args(self.more);
        command::run(&mut cargo)
    }
}

/// What the matrix asks is read by a file without dependencies, whose tests are here: a bench has none of its own.
#[cfg(test)]
#[path = "../../tests/access/asked.rs"]
#[allow(dead_code, reason = "the matrix needs more of it than its tests")]
mod asked;

#[cfg(test)]
mod tests {
    use super::asked::Asked;

    fn asked(what: &str) -> Asked<'_> {
        Asked { part: "requests", who: "system:node:n1", what }
    }

    #[test]
    fn a_resource_is_read_from_its_place_alone() {
        let secret = asked("GET /api/v1/namespaces/team-a/secrets/of-n1");
        assert!(!secret.is_about("", "namespaces") && secret.asks(&["get"], "", "secrets") && secret.names_known());
        assert!(!asked("GET /api/v1/namespaces/nodes/secrets/nodes").is_about("", "nodes"));
        assert!(asked("GET /api/v1/namespaces/team-a").asks(&["get"], "", "namespaces"));
        assert!(!asked("PUT /api/v1/namespaces/team-a/finalize").asks(&["update"], "", "namespaces"));
        assert_eq!(asked("PUT /api/v1/namespaces/team-a/finalize").subresource(), "finalize");
        assert!(asked("GET /api/v1/nodes?watch=1").asks(&["watch"], "", "nodes"));
        assert!(!asked("GET /api/v1/nodes/n1/proxy/nodes").asks(&["get"], "", "nodes"));
        assert!(!asked("GET /apis/example.com/v1/nodes").is_about("", "nodes"));
        assert_eq!(asked("GET /healthz/nodes").target(), None);
        assert_eq!(asked("GET /apis/apps/v1/").target(), None);
        let request = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let approval = format!("PATCH {request}/a/approval?dryRun=All {{}}");
        assert_eq!(asked(&approval).target().unwrap().subresource, "approval");
    }

    #[test]
    fn a_review_is_read_by_its_fields() {
        let review = r#"{"group":"","name":"nodes","resource":"secrets","subresource":"","verb":"get"}"#;
        assert!(asked(review).asks(&["get"], "", "secrets") && !asked(review).is_about("", "nodes"));
        assert_eq!(asked(r#"{"path":"/metrics","verb":"get"}"#).target(), None);
    }

    #[test]
    fn a_node_has_a_name_and_the_group_of_nodes() {
        let is_node = |who| Asked { part: "reviews", who, what: "" }.is_by_node();
        assert!(is_node("system:node:n1") && is_node("system:node:n1 [\"system:nodes\", \"system:authenticated\"]"));
        assert!(!is_node("system:node:n1 [\"system:authenticated\"]"));
        assert!(!is_node("system:node: [\"system:nodes\"]") && !is_node("n1 [\"system:nodes\"]"));
    }
}
