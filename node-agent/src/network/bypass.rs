//! Forwards packets between pods past a firewall that drops forwarded packets, as Docker's does by default.
//!
//! A packet that any chain drops is gone, whatever other chains accept; and chains of others are not ours to write. But
//! packets between pods need not pass such chains: where one is found, a table of our own takes them at the pod's link
//! and hands them to the link of the destination. Where no chain drops, the table does not exist. Packets to the
//! outside must pass the host's firewall: see [`super::docker_user`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;
use tokio::sync::Mutex;

use super::{
    nft::{self, NftError, TABLE},
    vxlan,
};

/// The paths on which packets are forwarded between this node and the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingPaths {
    /// Links on which packets from other nodes' pods come in, tunnels too.
    pub links: BTreeSet<String>,
    /// Pods and nodes whose packets are taken on those links.
    pub sources: BTreeSet<Ipv4Network>,
    /// Other nodes and their pods: next hop and link.
    pub routes: BTreeMap<Ipv4Network, (Ipv4Addr, String)>,
    /// Where other nodes may have the end of a tunnel: pods send nothing into it.
    pub tunnel_ends: BTreeSet<Ipv4Addr>,
}

impl ForwardingPaths {
    /// Those over links that are there: nft refuses the whole table, with all pods' paths, for one that is not. So it
    /// is with the tunnel where the kernel makes none.
    fn over(&self, present: &PresentLinks) -> Self {
        let mut paths = self.clone();
        paths.links.retain(|link| present.indices.contains_key(link));
        paths.routes.retain(|_, (_, link)| present.indices.contains_key(link.as_str()));
        paths
    }
}

/// The links of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresentLinks {
    /// Those of pods, by the pod's address.
    pub pods: BTreeMap<Ipv4Addr, String>,
    /// Index of every one, by its name.
    pub indices: BTreeMap<String, u32>,
}

/// A table that the kernel took.
#[derive(Debug, PartialEq, Eq)]
struct AppliedTable {
    text: String,
    /// The links that it names, by the index that nft put in the place of the name: of a link that is made anew, rules
    /// would go on to hand packets to the one that went.
    links: BTreeMap<String, u32>,
}

impl AppliedTable {
    fn of(present: &PresentLinks, paths: &ForwardingPaths) -> Self {
        let paths = paths.over(present);
        let on_routes = paths.routes.values().map(|(_, link)| link);
        let named = present.pods.values().chain(&paths.links).chain(on_routes);
        let links = named.filter_map(|name| Some((name.clone(), *present.indices.get(name)?))).collect();
        Self { text: table(&present.pods, &paths), links }
    }
}

/// Keeps the table up to date. One writer at a time.
#[derive(Default)]
pub struct Bypass {
    state: Mutex<State>,
}

struct State {
    /// `Some` while some chain drops forwarded packets.
    paths: Option<ForwardingPaths>,
    applied: Option<AppliedTable>,
    /// The kernel may have the table: of this agent, or of one before it.
    may_be_there: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { paths: None, applied: None, may_be_there: true }
    }
}

impl State {
    async fn remove(&mut self) -> Result<(), NftError> {
        self.applied = None;
        if self.may_be_there && nft::is_there(FAMILY).await? {
            nft::remove(FAMILY).await?;
        }
        self.may_be_there = false;
        Ok(())
    }
}

impl Bypass {
    /// What to do from now on: nothing with `None`. Takes effect with [`Bypass::refresh`].
    pub async fn set(&self, paths: Option<ForwardingPaths>) {
        self.state.lock().await.paths = paths;
    }

    /// Has the table written anew at the next refresh where another program changed or removed it.
    pub async fn forget_changed(&self) {
        let mut state = self.state.lock().await;
        let Some(AppliedTable { text: applied, .. }) = &state.applied else { return };
        // One that cannot be looked at is written.
        if !nft::rules(FAMILY).await.is_ok_and(|rules| rules == nft::rules_of_script(applied)) {
            state.applied = None;
        }
    }

    /// Brings the table to the links that are there. `links` lists them, now.
    pub async fn refresh<E, F>(&self, links: impl Fn() -> F) -> Result<(), E>
    where
        F: Future<Output = Result<PresentLinks, E>>,
        E: From<NftError>,
    {
        let mut state = self.state.lock().await;
        let Some(paths) = state.paths.clone() else {
            return Ok(state.remove().await?);
        };
        state.may_be_there = true;
        for tries_left in (0..TRIES).rev() {
            let wanted = AppliedTable::of(&links().await?, &paths);
            if state.applied.as_ref() == Some(&wanted) {
                return Ok(());
            }
            match nft::apply(&wanted.text).await {
                Ok(()) => {
                    state.applied = Some(wanted);
                    return Ok(());
                }
                // A link that went between looking and writing.
                Err(NftError::Refused(_)) if tries_left > 0 => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the table from the kernel.
    pub async fn remove(&self) -> Result<(), NftError> {
        let mut state = self.state.lock().await;
        state.paths = None;
        state.remove().await
    }
}

/// By which rules packets leave this node.
#[derive(Default)]
struct LeavingRules<'a> {
    /// Destinations with their next hops: one rule looks them all up, where thousands of nodes had each packet pass
    /// thousands of rules.
    by_link: BTreeMap<&'a str, Vec<(Ipv4Network, Ipv4Addr)>>,
    /// Destinations that overlap others, the most specific first: nft takes none such in one map.
    nested: Vec<LeavingRoute<'a>>,
}

/// Destination, next hop and link.
type LeavingRoute<'a> = (Ipv4Network, Ipv4Addr, &'a str);

impl<'a> LeavingRules<'a> {
    fn of(routes: &'a BTreeMap<Ipv4Network, (Ipv4Addr, String)>) -> Self {
        let mut sorted: Vec<_> = routes.iter().map(|(to, (hop, link))| (*to, *hop, link.as_str())).collect();
        sorted.sort_by_key(|(destination, ..)| (destination.network(), destination.prefix()));
        // Of two subnets that overlap one is within the other: in this order, within the last that is in no other.
        let mut nests: Vec<Vec<LeavingRoute<'a>>> = Vec::new();
        for route in sorted {
            match nests.last_mut().filter(|nest| nest[0].0.overlaps(route.0)) {
                Some(nest) => nest.push(route),
                None => nests.push(vec![route]),
            }
        }
        let mut rules = Self::default();
        for nest in nests {
            match nest[..] {
                [(destination, next_hop, link)] => rules.by_link.entry(link).or_default().push((destination, next_hop)),
                _ => rules.nested.extend(nest),
            }
        }
        rules.nested.sort_by_key(|(destination, ..)| std::cmp::Reverse(destination.prefix()));
        rules
    }
}

/// The table as nft reads it. Pure: equal input, equal text.
fn table(pods: &BTreeMap<Ipv4Addr, String>, paths: &ForwardingPaths) -> String {
    let mut text = format!("table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\ntable {FAMILY} {TABLE} {{\n");
    let mut line = |words: &str| writeln!(text, "{words}").expect("writing to a string cannot fail");
    let list = |items: Vec<String>| items.join(", ");
    line("  chain forward {");
    if !pods.is_empty() {
        let pods = list(pods.iter().map(|(address, link)| format!("{address} : \"{link}\"")).collect());
        line(&format!("    fwd ip to ip daddr device ip daddr map {{ {pods} }}"));
    }
    line("  }");
    line("  chain leave {");
    let LeavingRules { by_link, nested } = LeavingRules::of(&paths.routes);
    for (link, hops) in by_link {
        let hops = list(hops.iter().map(|(destination, next_hop)| format!("{destination} : {next_hop}")).collect());
        line(&format!("    fwd ip to ip daddr map {{ {hops} }} device \"{link}\""));
    }
    for (destination, next_hop, link) in nested {
        line(&format!("    ip daddr {destination} fwd ip to {next_hop} device \"{link}\""));
    }
    line("  }");
    if !pods.is_empty() {
        let links = list(pods.values().map(|link| format!("\"{link}\"")).collect());
        line("  chain pods {");
        line(&format!("    type filter hook ingress devices = {{ {links} }} priority 0; policy accept;"));
        // Packets that are taken here are not routed, and so pass by the source filter.
        let own = list(pods.iter().map(|(address, link)| format!("\"{link}\" . {address}")).collect());
        line(&format!("    meta iifname . ip saddr != {{ {own} }} counter drop"));
        if !paths.tunnel_ends.is_empty() {
            let ends = list(paths.tunnel_ends.iter().map(Ipv4Addr::to_string).collect());
            line(&format!("    udp dport {} ip daddr {{ {ends} }} counter drop", vxlan::PORT));
        }
        line("    jump forward");
        line("    jump leave");
        line("  }");
    }
    if !paths.links.is_empty() && !paths.sources.is_empty() {
        let links = list(paths.links.iter().map(|link| format!("\"{link}\"")).collect());
        let sources = list(paths.sources.iter().map(Ipv4Network::to_string).collect());
        line("  chain nodes {");
        line(&format!("    type filter hook ingress devices = {{ {links} }} priority 0; policy accept;"));
        line(&format!("    ip saddr {{ {sources} }} jump forward"));
        line("  }");
    }
    line("}");
    text
}

/// Family of tables that see a packet at its link, before routing.
const FAMILY: &str = "netdev";

const TRIES: usize = 5;

#[cfg(test)]
mod tests {
    use super::{super::nft::RuleCount, *};

    #[test]
    fn the_table_names_links_that_are_there_alone_and_knows_them_by_their_indices() {
        let route = |link: &str| (Ipv4Addr::new(192, 0, 2, 2), link.to_owned());
        let [near, far] = ["10.244.2.0/24", "10.244.3.0/24"].map(|pods| pods.parse().unwrap());
        let paths = ForwardingPaths {
            links: ["eth0".to_owned(), vxlan::DEVICE.to_owned()].into(),
            sources: ["10.244.0.0/16".parse().unwrap()].into(),
            routes: [(near, route("eth0")), (far, route(vxlan::DEVICE))].into(),
            tunnel_ends: BTreeSet::new(),
        };
        let present = |links: &[(&str, u32)]| PresentLinks {
            pods: [(Ipv4Addr::new(10, 244, 1, 2), "fl0".to_owned())].into(),
            indices: links.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect(),
        };
        let without = AppliedTable::of(&present(&[("lo", 1), ("eth0", 2), ("fl0", 3)]), &paths);
        assert!(without.text.contains("10.244.2.0/24") && !without.text.contains("10.244.3.0/24"), "{}", without.text);
        assert!(!without.text.contains(vxlan::DEVICE), "{}", without.text);
        assert_eq!(without.links, [("eth0".to_owned(), 2), ("fl0".to_owned(), 3)].into());
        let anew = AppliedTable::of(&present(&[("lo", 1), ("eth0", 2), ("fl0", 4)]), &paths);
        assert!(anew.text == without.text && anew != without);
        let whole = AppliedTable::of(&present(&[("eth0", 2), ("fl0", 3), (vxlan::DEVICE, 5)]), &paths);
        assert!(whole.text.contains("10.244.3.0/24") && whole.links.contains_key(vxlan::DEVICE), "{}", whole.text);
    }

    #[test]
    fn one_rule_a_link_leads_to_all_nodes_but_to_those_whose_subnets_overlap() {
        let routes = [
            ("10.244.2.0/24", [192, 0, 2, 2], "eth0"),
            ("192.0.2.2/32", [192, 0, 2, 2], "eth0"),
            ("10.244.3.0/24", [10, 244, 3, 1], "fairlead.vx"),
            // The first address alone is not the order: 8.0/22 has all of the others in it, and 9.0/24 not 10.0/24.
            ("10.244.8.0/22", [192, 0, 2, 3], "eth0"),
            ("10.244.9.0/24", [10, 244, 9, 1], "fairlead.vx"),
            ("10.244.9.128/25", [192, 0, 2, 4], "eth0"),
            ("10.244.10.0/24", [192, 0, 2, 5], "eth0"),
            ("10.244.12.0/24", [192, 0, 2, 6], "eth0"),
        ];
        let routes = routes.map(|(to, hop, link)| (to.parse().unwrap(), (hop.into(), link.to_owned()))).into();
        let expected = r#"  chain leave {
    fwd ip to ip daddr map { 10.244.2.0/24 : 192.0.2.2, 10.244.12.0/24 : 192.0.2.6, 192.0.2.2/32 : 192.0.2.2 } device "eth0"
    fwd ip to ip daddr map { 10.244.3.0/24 : 10.244.3.1 } device "fairlead.vx"
    ip daddr 10.244.9.128/25 fwd ip to 192.0.2.4 device "eth0"
    ip daddr 10.244.9.0/24 fwd ip to 10.244.9.1 device "fairlead.vx"
    ip daddr 10.244.10.0/24 fwd ip to 192.0.2.5 device "eth0"
    ip daddr 10.244.8.0/22 fwd ip to 192.0.2.3 device "eth0"
  }
"#;
        let table = table(&BTreeMap::new(), &ForwardingPaths { routes, ..ForwardingPaths::default() });
        assert!(table.contains(expected), "{table}");
    }

    #[test]
    fn packets_go_from_link_to_link_and_only_from_the_cluster() {
        let pods = [(Ipv4Addr::new(10, 244, 1, 2), "fl0".to_owned()), (Ipv4Addr::new(10, 244, 1, 3), "fl1".to_owned())];
        let paths = ForwardingPaths {
            links: ["eth0".to_owned()].into(),
            sources: ["10.244.0.0/16".parse().unwrap(), "192.0.2.2/32".parse().unwrap()].into(),
            routes: [("10.244.2.0/24".parse().unwrap(), (Ipv4Addr::new(192, 0, 2, 2), "eth0".to_owned()))].into(),
            tunnel_ends: [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(10, 244, 2, 1)].into(),
        };
        let expected = r#"table netdev fairlead
delete table netdev fairlead
table netdev fairlead {
  chain forward {
    fwd ip to ip daddr device ip daddr map { 10.244.1.2 : "fl0", 10.244.1.3 : "fl1" }
  }
  chain leave {
    fwd ip to ip daddr map { 10.244.2.0/24 : 192.0.2.2 } device "eth0"
  }
  chain pods {
    type filter hook ingress devices = { "fl0", "fl1" } priority 0; policy accept;
    meta iifname . ip saddr != { "fl0" . 10.244.1.2, "fl1" . 10.244.1.3 } counter drop
    udp dport 4789 ip daddr { 10.244.2.1, 192.0.2.2 } counter drop
    jump forward
    jump leave
  }
  chain nodes {
    type filter hook ingress devices = { "eth0" } priority 0; policy accept;
    ip saddr { 10.244.0.0/16, 192.0.2.2/32 } jump forward
  }
}
"#;
        let table = table(&pods.into(), &paths);
        assert_eq!(table, expected);
        let counted = |(chain, all, deciding): (&str, _, _)| (chain.to_owned(), RuleCount { all, deciding });
        let rules = [("forward", 1, 0), ("leave", 1, 0), ("nodes", 1, 1), ("pods", 4, 4)].map(counted);
        assert_eq!(nft::rules_of_script(&table), rules.into());
    }
}
