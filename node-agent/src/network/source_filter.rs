//! A pod sends from its own address alone, in packets and in ARP, makes no IPv6 packets, and none of the tunnel between
//! nodes: two tables of our own, of families `inet` and `arp`, that drop everything else that comes in on pods' links.
//!
//! The kernel's own check (`rp_filter` of the link) does not do: the host may say `net.ipv4.conf.all.rp_filter=2`,
//! which weakens that of every link, and systemd-sysctl may write the links' values anew. A VXLAN packet brings another
//! packet, from whatever pod it likes, to any node that has the tunnel; those to other hosts are the pods' own
//! overlays. And by a Router Advertisement a pod would become the node's way to all of IPv6.
//!
//! The tables are written once; of a pod only elements of sets come and go, by the name of its link. So a pod that
//! comes wakes nobody who waits for changes of chains. Each table is written without the other where nft refuses one: a
//! kernel may lack the family `arp`.

mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use tokio::sync::Mutex;

use self::tables::{FilterSets, FilterTable};
use super::nft::{self, NftError};
use crate::world::World;

/// Why a table is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// That of packets, without which no pod starts.
    #[error("cannot filter the packets of pods")]
    Packets(#[source] NftError),
    /// That of ARP alone. A kernel without the family `arp` refuses it for good: pods come and go all the same.
    #[error("cannot filter the ARP of pods")]
    Arp(#[source] NftError),
}

impl FilterError {
    /// Whether no pod starts because of it.
    pub fn is_of_packets(&self) -> bool {
        matches!(self, Self::Packets(_))
    }

    fn of(table: FilterTable) -> fn(NftError) -> Self {
        match table {
            FilterTable::Inet => Self::Packets,
            FilterTable::Arp => Self::Arp,
        }
    }
}

/// Runs scripts of nft.
#[async_trait::async_trait]
pub trait RunScript: Send + Sync {
    /// All of `script` or nothing.
    async fn apply(&self, script: &str) -> Result<(), NftError>;
}

/// The program.
struct NftProgram;

#[async_trait::async_trait]
impl RunScript for NftProgram {
    async fn apply(&self, script: &str) -> Result<(), NftError> {
        nft::apply(script).await
    }
}

/// Keeps the tables up to date. One writer at a time.
pub struct SourceFilter {
    nft: Arc<dyn RunScript>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeSet<Ipv4Addr>,
    tables: BTreeMap<FilterTable, TableState>,
}

/// What is known of one table.
#[derive(Default)]
struct TableState {
    /// What it holds; `None` where it has to be written.
    applied: Option<FilterSets>,
    /// The kernel has taken it once.
    was_taken: bool,
}

impl Default for SourceFilter {
    fn default() -> Self {
        Self::new(Arc::new(NftProgram))
    }
}

impl SourceFilter {
    /// With `nft` for the program.
    pub fn new(nft: Arc<dyn RunScript>) -> Self {
        let tables = FilterTable::ALL.into_iter().map(|table| (table, TableState::default())).collect();
        Self { nft, state: Mutex::new(State { nodes: BTreeSet::new(), tables }) }
    }

    /// Has those tables written anew that another program changed.
    pub async fn forget_changed(&self) {
        let mut state = self.state.lock().await;
        for (table, known) in &mut state.tables {
            // One that cannot be looked at is written.
            if known.applied.is_some() && !stands(*table).await.unwrap_or(false) {
                known.applied = None;
            }
        }
    }

    /// Brings the tables to the nodes and pods that are there, also those which the kernel did not take before. `pods`
    /// lists the pods' links with their addresses, now. No node is removed where not `prune`.
    pub async fn reconcile(
        &self,
        mut nodes: BTreeSet<Ipv4Addr>,
        prune: bool,
        pods: impl Fn() -> Vec<(String, Ipv4Addr)>,
    ) -> Result<(), FilterError> {
        let mut state = self.state.lock().await;
        if !prune {
            nodes.append(&mut state.nodes);
        }
        state.nodes = nodes;
        self.bring(&mut state, pods, |_, _| true).await
    }

    /// Brings the tables to the pods that are there. Fails where the kernel does not take that of packets; that of ARP
    /// counts only once the kernel has taken it: a kernel that lacks the family never will.
    pub async fn refresh(&self, pods: impl Fn() -> Vec<(String, Ipv4Addr)>) -> Result<(), FilterError> {
        let mut state = self.state.lock().await;
        self.bring(&mut state, pods, |table, known| table == FilterTable::Inet || known.was_taken).await
    }

    async fn bring(
        &self,
        state: &mut State,
        pods: impl Fn() -> Vec<(String, Ipv4Addr)>,
        concerns: impl Fn(FilterTable, &TableState) -> bool,
    ) -> Result<(), FilterError> {
        let pods: BTreeMap<String, Ipv4Addr> = pods().into_iter().collect();
        let all = FilterSets { pods, nodes: state.nodes.clone() };
        let mut behind: Vec<_> = state.tables.iter_mut().filter(|(table, known)| concerns(**table, known)).collect();
        behind.retain(|(_, known)| known.applied.as_ref() != Some(&all));
        // That of packets is the first.
        let Some(first) = behind.first().map(|(table, _)| **table) else { return Ok(()) };
        // Taken: what a write leaves that fails or ends half-way is not known.
        let script: String =
            behind.iter_mut().map(|(table, known)| table.script(known.applied.take().as_ref(), &all)).collect();
        match self.nft.apply(&script).await {
            Ok(()) => {
                behind.iter_mut().for_each(|(_, known)| known.took(&all));
                return Ok(());
            }
            Err(NftError::Refused(_)) => {}
            Err(error) => return Err(FilterError::of(first)(error)),
        }
        // It may be one of the tables, or an element that is not there any more: whole ones, each for itself.
        let mut done = Ok(());
        for (table, known) in behind {
            match self.nft.apply(&table.script(None, &all)).await {
                Ok(()) => known.took(&all),
                Err(error) => done = done.and(Err(FilterError::of(*table)(error))),
            }
        }
        done
    }

    /// Removes the tables from the kernel.
    pub async fn remove(&self) -> Result<(), NftError> {
        let mut state = self.state.lock().await;
        for (table, known) in &mut state.tables {
            known.applied = None;
            if nft::is_there(table.family()).await? {
                nft::remove(table.family()).await?;
            }
        }
        Ok(())
    }
}

impl TableState {
    fn took(&mut self, sets: &FilterSets) {
        *self = Self { applied: Some(sets.clone()), was_taken: true };
    }
}

/// Whether the kernel has the table with all of its rules.
async fn stands(table: FilterTable) -> Result<bool, NftError> {
    Ok(nft::rules(table.family()).await? == table.rules())
}

/// Where other nodes than `own` may have the end of a tunnel: at all addresses that the World tells, and at the first
/// of their pods' subnet. Those that it does not tell, as of further links, are not known here.
pub fn tunnel_ends(world: &World, own: &str) -> BTreeSet<Ipv4Addr> {
    let others = world.nodes.values().filter(|node| &*node.name != own);
    let of_node = |node: &Arc<crate::world::Node>| {
        let gateway = node.pod_cidr.map(|pods| Ipv4Addr::from(u32::from(pods.network()).saturating_add(1)));
        node.internal_ip.into_iter().chain(node.external_ips.clone()).chain(gateway).collect::<Vec<_>>()
    };
    others.flat_map(of_node).collect()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// A kernel that refuses scripts with these words, and notes those that it takes.
    struct Kernel {
        refuses: Mutex<Vec<&'static str>>,
        taken: Mutex<Vec<String>>,
    }

    #[async_trait::async_trait]
    impl RunScript for Kernel {
        async fn apply(&self, script: &str) -> Result<(), NftError> {
            if self.refuses.lock().iter().any(|words| script.contains(words)) {
                return Err(NftError::Refused("no".into()));
            }
            self.taken.lock().push(script.to_owned());
            Ok(())
        }
    }

    fn filter(refuses: &[&'static str]) -> (Arc<Kernel>, SourceFilter) {
        let kernel = Arc::new(Kernel { refuses: Mutex::new(refuses.to_vec()), taken: Mutex::default() });
        (kernel.clone(), SourceFilter::new(kernel))
    }

    fn pods(hosts: &[u8]) -> Vec<(String, Ipv4Addr)> {
        hosts.iter().map(|host| (format!("fl{host}"), Ipv4Addr::new(10, 244, 1, *host))).collect()
    }

    async fn reconcile(filter: &SourceFilter, hosts: &[u8]) -> Result<(), FilterError> {
        filter.reconcile(BTreeSet::new(), true, || pods(hosts)).await
    }

    #[tokio::test]
    async fn where_the_kernel_lacks_one_family_the_other_filters_and_pods_come_all_the_same() {
        let (kernel, filter) = filter(&["table arp"]);
        for _ in 0..2 {
            let refused = reconcile(&filter, &[2]).await;
            assert!(matches!(refused, Err(FilterError::Arp(_))), "said each time: {refused:?}");
        }
        filter.refresh(|| pods(&[2, 3])).await.unwrap();
        let taken = kernel.taken.lock().clone();
        assert_eq!(taken.len(), 2, "{taken:?}");
        assert!(taken[0].starts_with("table inet fairlead\ndelete table inet") && !taken[0].contains("arp"));
        assert!(taken[1].starts_with("add element inet fairlead links { \"fl3\" }\n"), "{}", taken[1]);
        kernel.refuses.lock().clear();
        reconcile(&filter, &[2, 3]).await.unwrap();
        assert!(kernel.taken.lock()[2].starts_with("table arp fairlead\ndelete table arp"));
    }

    #[tokio::test]
    async fn a_pod_that_a_table_does_not_take_is_an_error_and_the_table_is_written_whole_again() {
        let (kernel, filter) = filter(&[]);
        reconcile(&filter, &[2]).await.unwrap();
        kernel.refuses.lock().push("fl3");
        assert!(matches!(filter.refresh(|| pods(&[2, 3])).await, Err(FilterError::Packets(_))));
        kernel.refuses.lock().clear();
        filter.refresh(|| pods(&[2])).await.unwrap();
        let last = kernel.taken.lock().last().cloned().unwrap();
        assert!(last.contains("delete table inet") && last.contains("delete table arp"), "{last}");

        // An element that is gone without our doing.
        kernel.refuses.lock().push("delete element");
        filter.refresh(|| pods(&[])).await.unwrap();
        assert_eq!(kernel.taken.lock().len(), 4);
    }

    #[tokio::test]
    async fn nodes_stay_until_the_world_is_complete() {
        let (kernel, filter) = filter(&[]);
        let node = Ipv4Addr::new(192, 0, 2, 2);
        filter.reconcile([node].into(), true, Vec::new).await.unwrap();
        filter.reconcile(BTreeSet::new(), false, Vec::new).await.unwrap();
        assert_eq!(kernel.taken.lock().len(), 1);
        filter.reconcile(BTreeSet::new(), true, Vec::new).await.unwrap();
        assert_eq!(kernel.taken.lock()[1], "delete element inet fairlead nodes { 192.0.2.2 }\n");
    }
}
