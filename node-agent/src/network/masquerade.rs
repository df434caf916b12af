//! Pods reach the outside under the node's address: one nftables table of our own, written whole and in one transaction.
//!
//! Other tables are read at most, to say when one of them drops what pods send; they are never written.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io,
    net::Ipv4Addr,
    process::{Output, Stdio},
};

use ipnetwork::Ipv4Network;
use tokio::{io::AsyncWriteExt, process::Command};

/// Who is masqueraded, and towards whom not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    pub pod_cidr: Ipv4Network,
    /// Pods of all nodes.
    pub cluster_cidr: Ipv4Network,
    pub service_cidr: Ipv4Network,
    /// Nodes that know the way back to our pods.
    pub nodes: BTreeSet<Ipv4Addr>,
}

/// Why the table could not be written.
#[derive(Debug, thiserror::Error)]
pub enum MasqueradeError {
    #[error("the program nft is needed for pods to reach the outside: install the package nftables")]
    Missing(#[source] io::Error),
    #[error("run nft")]
    Run(#[source] io::Error),
    #[error("nft refused: {0}")]
    Refused(String),
}

/// The table as nft reads it. It replaces an earlier one: nothing of that is left, and no packet sees it half.
pub fn table(masquerade: &Masquerade) -> String {
    let Masquerade { pod_cidr, cluster_cidr, service_cidr, nodes } = masquerade;
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
    text.push_str("  set nodes {\n    type ipv4_addr\n");
    if !nodes.is_empty() {
        let nodes: Vec<String> = nodes.iter().map(Ipv4Addr::to_string).collect();
        writeln!(text, "    elements = {{ {} }}", nodes.join(", ")).expect("writing to a string cannot fail");
    }
    text.push_str("  }\n");
    let chain = [
        "  chain postrouting {".to_owned(),
        "    type nat hook postrouting priority srcnat; policy accept;".to_owned(),
        format!("    ip saddr != {pod_cidr} return"),
        format!("    ip daddr {cluster_cidr} return"),
        format!("    ip daddr {pod_cidr} return"),
        format!("    ip daddr {service_cidr} return"),
        "    ip daddr 224.0.0.0/4 return".to_owned(),
        "    ip daddr @nodes return".to_owned(),
        "    masquerade fully-random".to_owned(),
        "  }\n}\n".to_owned(),
    ];
    text + &chain.join("\n")
}

pub async fn apply(masquerade: &Masquerade) -> Result<(), MasqueradeError> {
    run(&["-f", "-"], &table(masquerade)).await.map(drop)
}

/// Whether the kernel has our table.
pub async fn is_there() -> Result<bool, MasqueradeError> {
    match run(&["list", "table", "ip", TABLE], "").await {
        Ok(_) => Ok(true),
        Err(MasqueradeError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the table away. Not an error where there is none.
pub async fn remove() -> Result<(), MasqueradeError> {
    run(&["-f", "-"], &format!("table ip {TABLE}\ndelete table ip {TABLE}\n")).await.map(drop)
}

/// Chains of others that drop forwarded packets unless a rule says otherwise, as `ip filter FORWARD`.
pub async fn dropping_chains() -> Result<Vec<String>, MasqueradeError> {
    let listed = run(&["-j", "list", "chains"], "").await?;
    Ok(dropping(&String::from_utf8_lossy(&listed.stdout)))
}

/// The `forward` chains with policy drop in nft's JSON. Pure.
fn dropping(json: &str) -> Vec<String> {
    let parsed: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let chains = parsed["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    let text = |chain: &serde_json::Value, field: &str| chain[field].as_str().unwrap_or_default().to_owned();
    chains
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter(|chain| matches!(text(chain, "family").as_str(), "ip" | "inet"))
        .map(|chain| [text(chain, "family"), text(chain, "table"), text(chain, "name")].join(" "))
        .collect()
}

async fn run(arguments: &[&str], input: &str) -> Result<Output, MasqueradeError> {
    let spawned = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MasqueradeError::Missing(error),
        _ => MasqueradeError::Run(error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(MasqueradeError::Run)?;
    }
    let output = child.wait_with_output().await.map_err(MasqueradeError::Run)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(MasqueradeError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Of family `ip`.
const TABLE: &str = "fairlead";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_pods_are_masqueraded_and_not_towards_the_cluster() {
        let masquerade = Masquerade {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            nodes: [Ipv4Addr::new(192, 168, 0, 2), Ipv4Addr::new(192, 168, 0, 1)].into(),
        };
        let expected = "table ip fairlead
delete table ip fairlead
table ip fairlead {
  set nodes {
    type ipv4_addr
    elements = { 192.168.0.1, 192.168.0.2 }
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr != 10.244.1.0/24 return
    ip daddr 10.244.0.0/16 return
    ip daddr 10.244.1.0/24 return
    ip daddr 10.96.0.0/12 return
    ip daddr 224.0.0.0/4 return
    ip daddr @nodes return
    masquerade fully-random
  }
}
";
        assert_eq!(table(&masquerade), expected);
    }

    #[test]
    fn chains_of_others_that_drop_what_is_forwarded_are_named() {
        let json = r#"{"nftables": [{"metainfo": {}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "fw", "name": "fwd", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}]}"#;
        assert_eq!(dropping(json), ["ip filter FORWARD"]);
        assert!(dropping("").is_empty());
    }
}
