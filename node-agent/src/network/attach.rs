//! A pod's link to its node: a veth pair, one address, permanent neighbours and a route on each side.
//!
//! Nothing is remembered but the address: what is there is looked up each time and completed, so every call may be
//! repeated.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;

use super::{
    AttachError, NetworkError,
    address_records::AddressRecords,
    bypass::PresentLinks,
    netlink::{Link, Netlink, NetlinkError, Route, VethEnd},
    pod_link::{self, POD_END},
    subnet::Subnet,
};

/// Attaches pods. Calls for different pods may overlap, those for one pod must not.
pub struct Attacher {
    netlink: Netlink,
    records: AddressRecords,
    subnet: Mutex<Subnet>,
    gateway: Ipv4Addr,
    node_ip: Ipv4Addr,
    mtu: AtomicU32,
    /// Network namespaces of the pods that this agent attached, by the names of their links.
    namespaces: Mutex<BTreeMap<String, PathBuf>>,
}

impl Attacher {
    /// Adopts the addresses recorded in `records` that lie in `subnet`. The links of other pods go: their addresses
    /// lead nowhere.
    pub async fn open(
        netlink: Netlink,
        records: PathBuf,
        mut subnet: Subnet,
        node_ip: Ipv4Addr,
        mtu: u32,
    ) -> Result<Self, NetworkError> {
        let records = AddressRecords::open(records)?;
        let mut unfit = Vec::new();
        for (pod_uid, address) in records.load()? {
            if !subnet.adopt(&pod_uid, address) {
                tracing::warn!(pod_uid, %address, "taking away a pod's address that does not fit the pod subnet");
                records.remove(&pod_uid)?;
                unfit.push(pod_uid);
            }
        }
        let gateway = subnet.gateway();
        let (subnet, mtu, namespaces) = (Mutex::new(subnet), AtomicU32::new(mtu), Mutex::default());
        let attacher = Self { netlink, records, subnet, gateway, node_ip, mtu, namespaces };
        for pod_uid in unfit {
            attacher.remove_link(&pod_uid).await?;
        }
        Ok(attacher)
    }

    /// The node's own address in its pod subnet.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// MTU of pods attached from now on; those that are attached already get it with [`Attacher::repair`]. None would
    /// learn of a smaller one: what passes by a firewall is not routed, and so never too large for the kernel to say
    /// so.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Gives the pod its address, if it has none: [`Attacher::pods`] tells of it before its link is made.
    pub fn reserve(&self, pod_uid: &str) -> Result<Ipv4Addr, AttachError> {
        self.allocate(pod_uid).map_err(|source| failed("give the pod an address", source))
    }

    /// Whether the pod has its link, whole: then everything that comes before it was done once.
    pub async fn has_link(&self, pod_uid: &str, netns: &Path) -> Result<bool, AttachError> {
        let address = self.reserve(pod_uid)?;
        let inside = enter(netns).await?;
        let held = self.held_veth(&pod_link::host_end(pod_uid), address, &inside).await;
        Ok(held.map_err(|e| failed("look at the pod's link", e))?.whole().is_some())
    }

    /// See [`super::PodNetwork::attach`].
    pub async fn attach(&self, pod_uid: &str, netns: &Path) -> Result<Attached, AttachError> {
        let address = self.reserve(pod_uid)?;
        let inside = enter(netns).await?;
        let Veth { host, pod, is_new } =
            self.veth(pod_uid, address, &inside, open(netns)?).await.map_err(|e| failed("make the pod's link", e))?;
        self.set_mtu_of(&inside, &host, &pod).await.map_err(|e| failed("set the MTU of the pod's link", e))?;
        self.namespaces.lock().insert(host.name.clone(), netns.to_owned());
        self.configure_pod(&inside, pod.index, address).await.map_err(|e| failed("set up the pod's side", e))?;
        self.configure_host(&host, address).await.map_err(|e| failed("set up the node's side", e))?;
        Ok(Attached { address, is_new })
    }

    /// See [`super::PodNetwork::detach`].
    pub async fn detach(&self, pod_uid: &str) -> Result<(), AttachError> {
        let removed = self.remove_link(pod_uid).await;
        removed.map_err(|e| failed("delete the pod's link", e))?;
        self.namespaces.lock().remove(&pod_link::host_end(pod_uid));
        self.records.remove(pod_uid).map_err(|e| failed("forget the pod's address", e))?;
        self.subnet.lock().release(pod_uid);
        Ok(())
    }

    /// See [`super::PodNetwork::retain`].
    pub async fn retain(&self, keep: &[String]) -> Result<(), AttachError> {
        let known: Vec<String> = self.subnet.lock().pods().map(str::to_owned).collect();
        for pod_uid in known.iter().filter(|uid| !keep.contains(uid)) {
            self.detach(pod_uid).await?;
        }
        self.remove_strays().await.map_err(|e| failed("delete links of forgotten pods", e))
    }

    /// Takes every pod's link away; the records stay for the caller to delete with the rest of its state.
    pub async fn remove_all(&self) -> Result<(), NetlinkError> {
        let known: Vec<String> = self.subnet.lock().pods().map(str::to_owned).collect();
        for pod_uid in known {
            self.remove_link(&pod_uid).await?;
            self.subnet.lock().release(&pod_uid);
        }
        self.remove_strays().await
    }

    /// The record is on disk before the kernel knows the address: a crash in between leaves no link without a record.
    fn allocate(&self, pod_uid: &str) -> Result<Ipv4Addr, Box<dyn Error + Send + Sync>> {
        let mut subnet = self.subnet.lock();
        if let Some(address) = subnet.address_of(pod_uid) {
            return Ok(address);
        }
        let address = subnet.allocate(pod_uid)?;
        if let Err(error) = self.records.write(pod_uid, address) {
            subnet.release(pod_uid);
            return Err(error.into());
        }
        Ok(address)
    }

    /// Both ends of the pod's veth pair. Links of an earlier sandbox of the same pod are removed first.
    async fn veth(
        &self,
        pod_uid: &str,
        address: Ipv4Addr,
        inside: &Netlink,
        netns: File,
    ) -> Result<Veth, NetlinkError> {
        let name = pod_link::host_end(pod_uid);
        let held = self.held_veth(&name, address, inside).await?;
        if let Some((host, pod)) = held.whole() {
            return Ok(Veth { host, pod, is_new: false });
        }
        let HeldVeth { host, pod, .. } = held;
        if let Some(host) = host {
            self.netlink.delete_link(host.index).await?;
        }
        if let Some(pod) = pod {
            inside.delete_link(pod.index).await?;
        }
        let mtu = self.mtu.load(Ordering::Relaxed);
        let here = VethEnd { name: &name, mac: pod_link::host_mac(address), mtu };
        let there = VethEnd { name: POD_END, mac: pod_link::pod_mac(address), mtu };
        self.netlink.add_veth(here, there, &netns).await?;
        let host = self.netlink.link(&name).await?.ok_or(NetlinkError::NoLink { name })?;
        let pod = inside.link(POD_END).await?.ok_or_else(|| NetlinkError::NoLink { name: POD_END.into() })?;
        Ok(Veth { host, pod, is_new: true })
    }

    async fn held_veth(&self, name: &str, address: Ipv4Addr, inside: &Netlink) -> Result<HeldVeth, NetlinkError> {
        Ok(HeldVeth { host: self.netlink.link(name).await?, pod: inside.link(POD_END).await?, address })
    }

    /// Gives both ends of a pod's link the MTU that links get now. The pod's first: the node's shows whether it was
    /// done.
    async fn set_mtu_of(&self, inside: &Netlink, host: &Link, pod: &Link) -> Result<(), NetlinkError> {
        let mtu = self.mtu.load(Ordering::Relaxed);
        if pod.mtu != mtu {
            inside.set_mtu(pod.index, mtu).await?;
        }
        if host.mtu != mtu {
            self.netlink.set_mtu(host.index, mtu).await?;
        }
        Ok(())
    }

    /// The same for a pod that is attached, where it has another.
    async fn repair_mtu(&self, host: &Link, address: Ipv4Addr) -> Result<(), Box<dyn Error + Send + Sync>> {
        if host.mtu == self.mtu.load(Ordering::Relaxed) {
            return Ok(());
        }
        // One that an earlier agent attached gets it as this one does.
        let Some(namespace) = self.namespaces.lock().get(&host.name).cloned() else { return Ok(()) };
        let inside = match File::open(&namespace) {
            Ok(netns) => Netlink::open_in(netns).await?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // The process may have ended, and another have its number.
        match self.held_veth(&host.name, address, &inside).await?.whole() {
            Some((host, pod)) => Ok(self.set_mtu_of(&inside, &host, &pod).await?),
            None => Ok(()),
        }
    }

    async fn configure_pod(&self, inside: &Netlink, link: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        inside.set_up(inside.loopback().await?).await?;
        inside.disable_ipv6_addresses(link).await?;
        inside.set_up(link).await?;
        inside.ensure_address(link, address).await?;
        inside.set_neighbour(link, self.gateway, pod_link::host_mac(address)).await?;
        inside.replace_route(&Route::default_through(link, self.gateway)).await
    }

    async fn configure_host(&self, host: &Link, address: Ipv4Addr) -> Result<(), Box<dyn Error + Send + Sync>> {
        // Of our own link, which takes them with it when it goes: nothing to record.
        for setting in SETTINGS {
            tokio::fs::write(setting_of(&host.name, setting), ON).await?;
        }
        self.netlink.disable_ipv6_addresses(host.index).await?;
        self.netlink.set_up(host.index).await?;
        self.netlink.set_neighbour(host.index, address, pod_link::pod_mac(address)).await?;
        // Without the source the node would speak to its pods from whatever address its first link has.
        Ok(self.netlink.replace_route(&Route::to_pod(address, host.index, self.node_ip)).await?)
    }

    /// All links, and which of them are pods'.
    pub async fn links<E: From<NetlinkError>>(&self) -> Result<PresentLinks, E> {
        let links = self.netlink.links().await?;
        let indices: BTreeMap<String, u32> = links.into_iter().map(|link| (link.name, link.index)).collect();
        let pods = self.pods().into_iter().map(|(name, address)| (address, name));
        Ok(PresentLinks { pods: pods.filter(|(_, name)| indices.contains_key(name)).collect(), indices })
    }

    /// Names of the pods' links, with their addresses.
    pub fn pods(&self) -> Vec<(String, Ipv4Addr)> {
        let subnet = self.subnet.lock();
        subnet.pods().filter_map(|uid| Some((pod_link::host_end(uid), subnet.address_of(uid)?))).collect()
    }

    /// Restores what somebody took from pods whose links are still there: that these are up, their settings, their
    /// routes; and gives them the MTU that links get now. Each pod for itself; the error is the first one's.
    pub async fn repair(&self) -> Result<(), RepairError> {
        let pods = self.pods();
        if pods.is_empty() {
            return Ok(());
        }
        let (links, routes) = (self.netlink.links().await?, self.netlink.routes().await?);
        let mut repaired = Ok(());
        for (name, address) in pods {
            let Some(link) = links.iter().find(|link| link.name == name) else { continue };
            let wanted = Route::to_pod(address, link.index, self.node_ip);
            let mut done = self.repair_mtu(link, address).await;
            if !link.up || !routes.contains(&wanted) || !has_settings(&name) {
                tracing::info!(%address, link = name, "setting up the node's side of a pod's link again");
                done = done.and(self.configure_host(link, address).await);
            }
            if let Err(source) = done
                // It may have gone with its pod.
                && self.netlink.link(&name).await?.is_some()
            {
                repaired = repaired.and(Err(RepairError::Link { link: name, source }));
            }
        }
        repaired
    }

    async fn remove_link(&self, pod_uid: &str) -> Result<(), NetlinkError> {
        match self.netlink.link(&pod_link::host_end(pod_uid)).await? {
            Some(link) => self.netlink.delete_link(link.index).await,
            None => Ok(()),
        }
    }

    /// Links of pods whose records are lost: recognised by their name and by our route through them into this subnet.
    async fn remove_strays(&self) -> Result<(), NetlinkError> {
        let links = self.netlink.links().await?;
        for route in self.netlink.routes().await? {
            let address = route.destination.ip();
            let (known, inside) = {
                let subnet = self.subnet.lock();
                (subnet.holds(address), subnet.contains(address))
            };
            if known || !inside || !route.ours || route.destination.prefix() != 32 {
                continue;
            }
            if let Some(link) = links.iter().find(|link| route.link == Some(link.index) && link.is_ours()) {
                tracing::info!(link = link.name, %address, "deleting the link of a pod that nobody knows");
                self.netlink.delete_link(link.index).await?;
            }
        }
        Ok(())
    }
}

/// A pod that has its link.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    /// The pod's.
    pub address: Ipv4Addr,
    /// The link was made in this call; otherwise the pod had it already.
    pub is_new: bool,
}

fn open(netns: &Path) -> Result<File, AttachError> {
    File::open(netns).map_err(|e| failed(format!("open network namespace {}", netns.display()), e))
}

async fn enter(netns: &Path) -> Result<Netlink, AttachError> {
    Netlink::open_in(open(netns)?).await.map_err(|e| failed("enter the pod's network namespace", e))
}

/// The ends that there are of a link of the pod with this address.
struct HeldVeth {
    host: Option<Link>,
    pod: Option<Link>,
    address: Ipv4Addr,
}

impl HeldVeth {
    /// Both ends, where they belong together and to the address.
    fn whole(&self) -> Option<(Link, Link)> {
        let (host, pod) = self.host.as_ref().zip(self.pod.as_ref())?;
        let is_pair = pod.peer == Some(host.index) && host.peer == Some(pod.index);
        (is_pair && pod.mac == Some(pod_link::pod_mac(self.address))).then(|| (host.clone(), pod.clone()))
    }
}

/// Both ends of a pod's link.
struct Veth {
    host: Link,
    pod: Link,
    is_new: bool,
}

/// Why a pod's link is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Links and routes could not be looked at.
    #[error("cannot look at the pods' links")]
    Look(#[from] NetlinkError),
    /// The node's side of one.
    #[error("cannot set up {link}")]
    Link { link: String, source: Box<dyn Error + Send + Sync> },
}

/// What the kernel does with packets of a pod's link. It forwards them. And it drops what the pod sends from another
/// address than its own, to which alone a route leads through its link (RFC 3704, section 2.2): a pod cannot pass for
/// another, nor for who answers its names. The host's settings can weaken this: see [`super::source_filter`].
const SETTINGS: [&str; 2] = ["forwarding", "rp_filter"];
const ON: &str = "1";

fn setting_of(link: &str, setting: &str) -> PathBuf {
    ["/proc/sys/net/ipv4/conf", link, setting].iter().collect()
}

/// Whether the kernel has the settings.
fn has_settings(link: &str) -> bool {
    let is_on = |setting| std::fs::read_to_string(setting_of(link, setting)).is_ok_and(|value| value.trim() == ON);
    SETTINGS.into_iter().all(is_on)
}

fn failed(operation: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> AttachError {
    AttachError { operation: operation.into(), source: source.into() }
}
