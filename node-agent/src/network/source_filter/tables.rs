//! The two tables of the source filter as nft reads them: whole, or what changes in their sets. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::Ipv4Addr,
};

use super::super::{
    nft::{self, RuleCount, TABLE},
    vxlan,
};

/// One of the tables, named for its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilterTable {
    /// Packets. One chain looks at what comes from pods, so that all else costs one look at a set.
    Inet,
    /// Who a pod says it is to its link.
    Arp,
}

/// What the sets of a table hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSets {
    /// The pods' links, with their addresses.
    pub pods: BTreeMap<String, Ipv4Addr>,
    /// Where other nodes may have the end of a tunnel. Only the table of packets has them.
    pub nodes: BTreeSet<Ipv4Addr>,
}

impl FilterTable {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Inet, Self::Arp];

    /// Family of the table.
    pub fn family(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Arp => "arp",
        }
    }

    /// Brings the table from `old` to `new`; with no `old`, makes it anew.
    pub fn script(self, old: Option<&FilterSets>, new: &FilterSets) -> String {
        let empty = FilterSets::default();
        let (mut text, old) = match old {
            Some(old) => (String::new(), old),
            None => (self.without_pods(), &empty),
        };
        let elements = |sets: &FilterSets| -> Vec<(&'static str, BTreeSet<String>)> {
            let links = sets.pods.keys().map(|link| format!("\"{link}\"")).collect();
            let sources = sets.pods.iter().map(|(link, address)| format!("\"{link}\" . {address}")).collect();
            let nodes = sets.nodes.iter().map(Ipv4Addr::to_string).collect();
            match self {
                Self::Inet => vec![("links", links), ("sources", sources), ("nodes", nodes)],
                Self::Arp => vec![("links", links), ("sources", sources)],
            }
        };
        for ((set, old), (_, new)) in elements(old).into_iter().zip(elements(new)) {
            text.push_str(&self.change("delete", set, old.difference(&new)));
            text.push_str(&self.change("add", set, new.difference(&old)));
        }
        text
    }

    fn change(self, verb: &str, set: &str, elements: impl Iterator<Item = impl Display>) -> String {
        let elements: Vec<String> = elements.map(|element| element.to_string()).collect();
        if elements.is_empty() {
            return String::new();
        }
        format!("{verb} element {} {TABLE} {set} {{ {} }}\n", self.family(), elements.join(", "))
    }

    /// How many rules each chain has.
    pub fn rules(self) -> BTreeMap<String, RuleCount> {
        nft::rules_of_script(&self.without_pods())
    }

    fn without_pods(self) -> String {
        let family = self.family();
        let mut text = format!("table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n");
        let nodes = [("nodes", "ipv4_addr")];
        let sets = [("links", "ifname"), ("sources", "ifname . ipv4_addr")];
        for (set, kind) in sets.into_iter().chain(nodes).take(if self == Self::Inet { 3 } else { 2 }) {
            text.push_str(&format!("  set {set} {{\n    type {kind}\n  }}\n"));
        }
        for Chain { name, hook, rules } in self.chains() {
            text.push_str(&format!("  chain {name} {{\n"));
            for line in hook.iter().map(|hook| (*hook).to_owned()).chain(rules) {
                text.push_str(&format!("    {line}\n"));
            }
            text.push_str("  }\n");
        }
        text + "}\n"
    }

    fn chains(self) -> Vec<Chain> {
        match self {
            Self::Inet => vec![
                Chain {
                    name: "prerouting",
                    hook: Some("type filter hook prerouting priority raw; policy accept;"),
                    rules: vec!["iifname @links jump pods".to_owned()],
                },
                Chain {
                    name: "pods",
                    hook: None,
                    rules: vec![
                        // Pods have no IPv6: what they send of it would make them routers and neighbours of the node.
                        "meta nfproto ipv6 counter drop".to_owned(),
                        "iifname . ip saddr != @sources counter drop".to_owned(),
                        // Broadcasts and multicasts come to this node, too.
                        format!("udp dport {} fib daddr type != unicast counter drop", vxlan::PORT),
                        format!("udp dport {} ip daddr @nodes counter drop", vxlan::PORT),
                    ],
                },
            ],
            Self::Arp => vec![Chain {
                name: "input",
                hook: Some("type filter hook input priority filter; policy accept;"),
                rules: vec!["iifname @links iifname . arp saddr ip != @sources counter drop".to_owned()],
            }],
        }
    }
}

struct Chain {
    name: &'static str,
    hook: Option<&'static str>,
    rules: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(pods: &[(&str, u8)], nodes: &[u8]) -> FilterSets {
        FilterSets {
            pods: pods.iter().map(|(link, host)| ((*link).to_owned(), Ipv4Addr::new(10, 244, 1, *host))).collect(),
            nodes: nodes.iter().map(|host| Ipv4Addr::new(192, 0, 2, *host)).collect(),
        }
    }

    #[test]
    fn what_comes_from_a_pods_link_has_the_pods_address_and_leads_into_no_tunnel() {
        let packets = r#"table inet fairlead
delete table inet fairlead
table inet fairlead {
  set links {
    type ifname
  }
  set sources {
    type ifname . ipv4_addr
  }
  set nodes {
    type ipv4_addr
  }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname @links jump pods
  }
  chain pods {
    meta nfproto ipv6 counter drop
    iifname . ip saddr != @sources counter drop
    udp dport 4789 fib daddr type != unicast counter drop
    udp dport 4789 ip daddr @nodes counter drop
  }
}
add element inet fairlead links { "fl0" }
add element inet fairlead sources { "fl0" . 10.244.1.2 }
add element inet fairlead nodes { 192.0.2.2 }
"#;
        assert_eq!(FilterTable::Inet.script(None, &sets(&[("fl0", 2)], &[2])), packets);
        let neighbours = r#"table arp fairlead
delete table arp fairlead
table arp fairlead {
  set links {
    type ifname
  }
  set sources {
    type ifname . ipv4_addr
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname @links iifname . arp saddr ip != @sources counter drop
  }
}
"#;
        assert_eq!(FilterTable::Arp.script(None, &sets(&[], &[2])), neighbours);
        let all = |count| RuleCount { all: count, deciding: count };
        assert_eq!(FilterTable::Inet.rules(), [("prerouting".to_owned(), all(1)), ("pods".to_owned(), all(4))].into());
    }

    #[test]
    fn of_sets_that_stand_only_the_difference_is_written() {
        let (old, new) = (sets(&[("fl0", 2), ("fl1", 3), ("fl2", 4)], &[2, 3]), sets(&[("fl0", 2), ("fl1", 5)], &[3]));
        let expected = r#"delete element inet fairlead links { "fl2" }
delete element inet fairlead sources { "fl1" . 10.244.1.3, "fl2" . 10.244.1.4 }
add element inet fairlead sources { "fl1" . 10.244.1.5 }
delete element inet fairlead nodes { 192.0.2.2 }
"#;
        assert_eq!(FilterTable::Inet.script(Some(&old), &new), expected);
        assert_eq!(FilterTable::Arp.script(Some(&new), &new), "");
        let one_more = sets(&[("fl0", 2), ("fl1", 5), ("fl9", 9)], &[3]);
        let added =
            "add element arp fairlead links { \"fl9\" }\nadd element arp fairlead sources { \"fl9\" . 10.244.1.9 }\n";
        assert_eq!(FilterTable::Arp.script(Some(&new), &one_more), added);
    }
}
