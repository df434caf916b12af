//! Which address of the node's pod subnet each pod has. Pure: it neither stores nor configures anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;

/// Why a subnet cannot serve pods, or cannot serve one more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Give nodes larger subnets: `--node-cidr-mask-size` of the control service.
    #[error("{cidr} has no room for a gateway and pods: at most /30 is needed")]
    TooSmall { cidr: Ipv4Network },
    /// Every address has a pod: no pod more fits on this node.
    #[error("all {capacity} addresses of {cidr} are taken")]
    Exhausted { cidr: Ipv4Network, capacity: usize },
}

/// The addresses of one node's pods. The network's own address, the first (gateway) and the last (broadcast) are never
/// given out.
#[derive(Clone, Debug)]
pub struct Subnet {
    cidr: Ipv4Network,
    by_pod: BTreeMap<String, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
    /// The search starts after the address that was given last, so that a freed address is reused late: connections
    /// of a deleted pod do not reach a new one.
    last: Ipv4Addr,
}

impl Subnet {
    /// All addresses of `cidr` but its first two and its last are for pods.
    pub fn new(cidr: Ipv4Network) -> Result<Self, SubnetError> {
        if cidr.prefix() > 30 {
            return Err(SubnetError::TooSmall { cidr });
        }
        let gateway = Ipv4Addr::from(u32::from(cidr.network()) + 1);
        Ok(Self { cidr, by_pod: BTreeMap::new(), taken: BTreeSet::new(), last: gateway })
    }

    /// First address of the subnet, which the node holds itself.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + 1)
    }

    /// The pod's address; `None` where it has none.
    pub fn address_of(&self, pod_uid: &str) -> Option<Ipv4Addr> {
        self.by_pod.get(pod_uid).copied()
    }

    /// The pods that have an address.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.by_pod.keys().map(String::as_str)
    }

    /// Whether a pod has `address`.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        self.taken.contains(&address)
    }

    /// Whether `address` lies in the subnet, given out or not.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.cidr.contains(address)
    }

    /// The pod's address, given now unless it has one. Cost O(log n) while the subnet is not crowded.
    pub fn allocate(&mut self, pod_uid: &str) -> Result<Ipv4Addr, SubnetError> {
        if let Some(address) = self.address_of(pod_uid) {
            return Ok(address);
        }
        let (first, last) = self.usable();
        let start = u32::from(self.last);
        let free = (start + 1..=last).chain(first..=start).map(Ipv4Addr::from).find(|a| !self.taken.contains(a));
        let Some(address) = free.filter(|a| (first..=last).contains(&u32::from(*a))) else {
            return Err(SubnetError::Exhausted { cidr: self.cidr, capacity: (last - first + 1) as usize });
        };
        self.insert(pod_uid, address);
        Ok(address)
    }

    /// Takes over an allocation made earlier. False where the address is not a usable one of this subnet, or another
    /// pod's.
    pub fn adopt(&mut self, pod_uid: &str, address: Ipv4Addr) -> bool {
        let (first, last) = self.usable();
        if !(first..=last).contains(&u32::from(address)) || self.holds(address) || self.by_pod.contains_key(pod_uid) {
            return false;
        }
        self.insert(pod_uid, address);
        true
    }

    /// Takes the pod's address back and returns it.
    pub fn release(&mut self, pod_uid: &str) -> Option<Ipv4Addr> {
        let address = self.by_pod.remove(pod_uid)?;
        self.taken.remove(&address);
        Some(address)
    }

    fn insert(&mut self, pod_uid: &str, address: Ipv4Addr) {
        self.by_pod.insert(pod_uid.to_owned(), address);
        self.taken.insert(address);
        self.last = address;
    }

    /// First and last address for pods.
    fn usable(&self) -> (u32, u32) {
        (u32::from(self.cidr.network()) + 2, u32::from(self.cidr.broadcast()) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(cidr: &str) -> Subnet {
        Subnet::new(cidr.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_pod_keeps_its_address_and_no_two_share_one() {
        let mut subnet = subnet("10.244.1.0/24");
        let a = subnet.allocate("a").unwrap();
        assert_eq!(a, Ipv4Addr::new(10, 244, 1, 2));
        assert_eq!(subnet.allocate("b").unwrap(), Ipv4Addr::new(10, 244, 1, 3));
        assert_eq!(subnet.allocate("a").unwrap(), a);
    }

    #[test]
    fn a_freed_address_is_given_out_last() {
        let mut subnet = subnet("10.244.1.0/29");
        let given: Vec<_> = (0..5).map(|i| subnet.allocate(&format!("pod-{i}")).unwrap()).collect();
        assert_eq!(given.last(), Some(&Ipv4Addr::new(10, 244, 1, 6)));
        subnet.release("pod-1");
        assert_eq!(subnet.allocate("next").unwrap(), given[1]);
        assert_eq!(
            subnet.allocate("one-too-many"),
            Err(SubnetError::Exhausted { cidr: "10.244.1.0/29".parse().unwrap(), capacity: 5 })
        );
    }

    #[test]
    fn adoption_refuses_what_is_not_free_in_this_subnet() {
        let mut subnet = subnet("10.244.1.0/24");
        assert!(subnet.adopt("a", Ipv4Addr::new(10, 244, 1, 9)));
        assert!(!subnet.adopt("b", Ipv4Addr::new(10, 244, 1, 9)), "another pod's");
        assert!(!subnet.adopt("c", Ipv4Addr::new(10, 244, 1, 1)), "the gateway");
        assert!(!subnet.adopt("d", Ipv4Addr::new(10, 244, 1, 255)), "the broadcast address");
        assert!(!subnet.adopt("e", Ipv4Addr::new(10, 245, 1, 9)), "another subnet");
    }

    #[test]
    fn a_subnet_without_room_is_refused() {
        assert!(Subnet::new("10.244.1.0/31".parse().unwrap()).is_err());
    }
}
