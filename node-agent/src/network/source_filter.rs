//! A pod sends from its own address alone, in packets and in ARP, and makes no VXLAN packets: two tables of our own, of
//! families `inet` and `arp`, that drop everything else that comes in on pods' links.
//!
//! The kernel's own check (`rp_filter` of the link) does not do: the host may say `net.ipv4.conf.all.rp_filter=2`, which
//! weakens that of every link, and systemd-sysctl may write the links' values anew. And a VXLAN packet brings another
//! packet, from whatever pod it likes, to any node that has the tunnel.
//!
//! The tables are written once; of a pod only elements of sets come and go, by the name of its link. So a pod that comes
//! wakes nobody who waits for changes of chains.

use std::{collections::BTreeMap, net::Ipv4Addr};

use tokio::sync::Mutex;

use super::{
    nft::{self, NftError, TABLE},
    vxlan,
};

/// Families of the tables.
pub const FAMILIES: [&str; 2] = ["inet", "arp"];

/// Keeps the tables up to date. One writer at a time.
#[derive(Default)]
pub struct SourceFilter {
    /// The pods that are in the sets; `None` where the tables have to be written.
    applied: Mutex<Option<BTreeMap<String, Ipv4Addr>>>,
}

impl SourceFilter {
    /// Writes the tables anew at the next refresh, because another program changed them.
    pub async fn forget(&self) {
        *self.applied.lock().await = None;
    }

    /// Whether the kernel has both tables.
    pub async fn is_there() -> Result<bool, NftError> {
        for family in FAMILIES {
            if !nft::is_there(family).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings the tables to the pods that are there. `pods` lists their links with their addresses, now.
    pub async fn refresh(&self, pods: impl Fn() -> Vec<(String, Ipv4Addr)>) -> Result<(), NftError> {
        let mut applied = self.applied.lock().await;
        let wanted: BTreeMap<String, Ipv4Addr> = pods().into_iter().collect();
        if applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let elements = elements(&wanted);
        let script = if applied.take().is_some() { elements } else { tables() + &elements };
        nft::apply(&script).await?;
        *applied = Some(wanted);
        Ok(())
    }

    /// Removes the tables from the kernel.
    pub async fn remove(&self) -> Result<(), NftError> {
        let mut applied = self.applied.lock().await;
        *applied = None;
        for family in FAMILIES {
            nft::remove(family).await?;
        }
        Ok(())
    }
}

/// Both tables without pods, as nft reads them.
fn tables() -> String {
    let sets = "  set links {\n    type ifname\n  }\n  set sources {\n    type ifname . ipv4_addr\n  }\n";
    let begin =
        |family| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n{sets}");
    let chains = [
        "  chain prerouting {\n    type filter hook prerouting priority raw; policy accept;\n".to_owned()
            + "    iifname @links iifname . ip saddr != @sources drop\n"
            + &format!("    iifname @links udp dport {} drop\n  }}\n}}\n", vxlan::PORT),
        "  chain input {\n    type filter hook input priority filter; policy accept;\n".to_owned()
            + "    iifname @links iifname . arp saddr ip != @sources drop\n  }\n}\n",
    ];
    FAMILIES.into_iter().zip(chains).map(|(family, chain)| begin(family) + &chain).collect()
}

/// What the sets hold, in place of all that they held.
fn elements(pods: &BTreeMap<String, Ipv4Addr>) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let links = list(pods.keys().map(|link| format!("\"{link}\"")).collect());
    let sources = list(pods.iter().map(|(link, address)| format!("\"{link}\" . {address}")).collect());
    let mut text = String::new();
    for family in FAMILIES {
        for (set, elements) in [("links", &links), ("sources", &sources)] {
            text.push_str(&format!("flush set {family} {TABLE} {set}\n"));
            if !elements.is_empty() {
                text.push_str(&format!("add element {family} {TABLE} {set} {{ {elements} }}\n"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_a_pods_link_has_the_pods_address() {
        let expected = r#"table inet fairlead
delete table inet fairlead
table inet fairlead {
  set links {
    type ifname
  }
  set sources {
    type ifname . ipv4_addr
  }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname @links iifname . ip saddr != @sources drop
    iifname @links udp dport 4789 drop
  }
}
table arp fairlead
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
    iifname @links iifname . arp saddr ip != @sources drop
  }
}
"#;
        assert_eq!(tables(), expected);
    }

    #[test]
    fn the_sets_hold_the_pods_that_are_there_and_no_others() {
        let pods = [("fl0".to_owned(), Ipv4Addr::new(10, 244, 1, 2)), ("fl1".to_owned(), Ipv4Addr::new(10, 244, 1, 3))];
        let of_family = |family: &str| {
            format!(
                "flush set {family} fairlead links\nadd element {family} fairlead links {{ \"fl0\", \"fl1\" }}\n\
                 flush set {family} fairlead sources\nadd element {family} fairlead sources {{ \"fl0\" . 10.244.1.2, \
                 \"fl1\" . 10.244.1.3 }}\n"
            )
        };
        assert_eq!(elements(&pods.into()), of_family("inet") + &of_family("arp"));
        assert!(!elements(&BTreeMap::new()).contains("add"));
    }
}
