//! Pods reach the outside under the node's address: one nftables table of our own, written whole and in one
//! transaction.
//!
//! The table also keeps the kernel from refusing DNS queries while the agent is away, as between two versions of it: a
//! client that gets no reply retries, one that is refused fails.

use std::{collections::BTreeSet, fmt::Write as _, net::Ipv4Addr};

use ipnetwork::Ipv4Network;

use super::nft::{self, NftError, TABLE};

/// Which sources are masqueraded, and for which destinations they are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// This node's pods, whose packets to elsewhere get the node's address.
    pub pod_cidr: Ipv4Network,
    /// The node's own address in `pod_cidr`, where the agent answers names.
    pub gateway: Ipv4Addr,
    /// Pods of all nodes.
    pub cluster_cidr: Ipv4Network,
    /// ClusterIPs: packets to them keep their source.
    pub service_cidr: Ipv4Network,
    /// Nodes that know the way back to our pods.
    pub nodes: BTreeSet<Ipv4Addr>,
}

/// Whether the kernel has the table with all of its rules.
pub async fn stands(masquerade: &Masquerade) -> Result<bool, NftError> {
    Ok(nft::rules(FAMILY).await? == nft::rules_of_script(&table(masquerade)))
}

/// The table as nft reads it. It replaces an earlier one: nothing of that is left, and no packet sees it half. Pure.
pub fn table(masquerade: &Masquerade) -> String {
    let Masquerade { pod_cidr, gateway, cluster_cidr, service_cidr, nodes } = masquerade;
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
        "  }".to_owned(),
        "  chain output {".to_owned(),
        "    type filter hook output priority filter; policy accept;".to_owned(),
        format!("    ip saddr {gateway} icmp type destination-unreachable drop"),
        "  }\n}\n".to_owned(),
    ];
    text + &chain.join("\n")
}

/// Family of the table.
pub const FAMILY: &str = "ip";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_pods_are_masqueraded_and_not_towards_the_cluster() {
        let masquerade = Masquerade {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 244, 1, 1),
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
  chain output {
    type filter hook output priority filter; policy accept;
    ip saddr 10.244.1.1 icmp type destination-unreachable drop
  }
}
";
        assert_eq!(table(&masquerade), expected);
        let rules: Vec<_> =
            nft::rules_of_script(expected).into_iter().map(|(chain, count)| (chain, count.all)).collect();
        assert_eq!(rules, [("output".to_owned(), 1), ("postrouting".to_owned(), 7)]);
    }
}
