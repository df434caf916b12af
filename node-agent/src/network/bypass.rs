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

/// Keeps the table up to date. One writer at a time.
#[derive(Default)]
pub struct Bypass {
    state: Mutex<State>,
}

struct State {
    /// `Some` while some chain drops forwarded packets.
    paths: Option<ForwardingPaths>,
    applied: Option<String>,
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
        let Some(applied) = &state.applied else { return };
        // One that cannot be looked at is written.
        if !nft::rules(FAMILY).await.is_ok_and(|rules| rules == nft::rules_of_script(applied)) {
            state.applied = None;
        }
    }

    /// Has the table written anew at the next refresh.
    pub async fn write_anew(&self) {
        self.state.lock().await.applied = None;
    }

    /// Brings the table to the pods that are there. `pods` lists them by address with their links, now.
    pub async fn refresh<E, F>(&self, pods: impl Fn() -> F) -> Result<(), E>
    where
        F: Future<Output = Result<BTreeMap<Ipv4Addr, String>, E>>,
        E: From<NftError>,
    {
        let mut state = self.state.lock().await;
        let Some(paths) = state.paths.clone() else {
            return Ok(state.remove().await?);
        };
        state.may_be_there = true;
        for tries_left in (0..TRIES).rev() {
            let wanted = table(&pods().await?, &paths);
            if state.applied.as_ref() == Some(&wanted) {
                return Ok(());
            }
            match nft::apply(&wanted).await {
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
    for (destination, (next_hop, link)) in &paths.routes {
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
    ip daddr 10.244.2.0/24 fwd ip to 192.0.2.2 device "eth0"
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
