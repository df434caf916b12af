//! Hosts joined by links: one namespace is the wire (a bridge a link, and a router between the links).

use std::{net::Ipv4Addr, process::Command};

use super::{Result, host::Host, run};

/// The network of one test cluster. Link 1 is `172.31.1.0/24`, link 2 `172.31.2.0/24`; the wire routes between them at
/// `.254`.
pub struct Lab {
    pub name: String,
    wire: Host,
    links: Vec<u8>,
}

/// MTU of the links.
const MTU: u32 = 1500;

impl Lab {
    /// `name` and this process's id start the names of everything that the lab makes on this machine: runs do not meet.
    pub fn new(name: &str) -> Result<Self> {
        let name = &format!("{name}-{}", std::process::id());
        let wire = Host::new(name, "wire")?;
        wire.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")?;
        Ok(Self { name: name.to_owned(), wire, links: Vec::new() })
    }

    /// A new host on link `link` with the address `172.31.LINK.NUMBER`, its default route at the wire.
    pub fn host(&mut self, name: &str, link: u8, number: u8) -> Result<Host> {
        if !self.links.contains(&link) {
            self.wire.ip(&format!("link add link{link} type bridge"))?;
            self.wire.ip(&format!("addr add 172.31.{link}.254/24 dev link{link}"))?;
            self.wire.ip(&format!("link set link{link} up"))?;
            self.links.push(link);
        }
        let host = Host::new(&self.name, name)?;
        let port = format!("p{link}-{number}");
        run(Command::new("ip")
            .args(["-n", &self.wire.name, "link", "add", &port, "mtu", &MTU.to_string(), "type", "veth"])
            .args(["peer", "name", "eth0", "mtu", &MTU.to_string(), "netns", &host.name]))?;
        self.wire.ip(&format!("link set {port} master link{link} up"))?;
        host.ip(&format!("addr add {}/24 dev eth0", Self::address(link, number)))?;
        host.ip("link set eth0 up")?;
        host.ip(&format!("route add default via 172.31.{link}.254"))?;
        Ok(host)
    }

    /// Adds or replaces a route where the links meet.
    pub fn route(&self, route: &str) -> Result {
        self.wire.ip(&format!("route replace {route}")).map(|_| ())
    }

    pub fn address(link: u8, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, link, number)
    }
}
