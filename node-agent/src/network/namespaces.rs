//! Network namespaces that act as machines in tests. They are removed with their last handle and leave nothing on the
//! host.

use std::{
    fs::File,
    future::Future,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::PathBuf,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::{Builder, Runtime};

use super::{
    host_links::HostLinks,
    netlink::{Netlink, VethEnd},
};

/// False, with the reason printed, where this process may not make namespaces.
pub fn can_make_namespaces() -> bool {
    let made = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().expect("the probing thread ends");
    if let Err(error) = made {
        crate::skipped::skipped(format_args!("network namespaces cannot be made: {error}"));
    }
    made.is_ok()
}

/// A network namespace with a runtime whose threads all live in it.
pub struct TestMachine {
    netns: File,
    runtime: Option<Runtime>,
}

impl TestMachine {
    /// With a fresh namespace, in which only a loopback is.
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("may make namespaces");
            let netns = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
            (netns, runtime)
        };
        let (netns, runtime) = std::thread::spawn(make).join().expect("the namespace is made");
        let machine = Self { netns, runtime: Some(runtime) };
        machine.wait(async {
            let netlink = Netlink::open().unwrap();
            netlink.set_up(netlink.loopback().await.unwrap()).await.unwrap();
        });
        machine
    }

    /// The namespace as a path, as a container runtime gives it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.netns.as_raw_fd()))
    }

    /// Runs `work` on a thread inside.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let netns = self.netns.try_clone().unwrap();
        let enter = move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::spawn(enter).join().expect("the work inside does not panic")
    }

    /// Runs `future` on the runtime inside.
    pub fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (done, result) = std::sync::mpsc::channel();
        let runtime = self.runtime.as_ref().expect("alive until dropped");
        let task = runtime.spawn(async move { done.send(future.await).unwrap() });
        let result = result.recv_timeout(Duration::from_secs(60));
        match result {
            Ok(value) => value,
            Err(_) => {
                task.abort();
                panic!("the work inside panicked or hung");
            }
        }
    }

    /// Joins two machines by a link with the given addresses and prefix length, with up links named `name` on both
    /// sides.
    pub fn join(&self, name: &'static str, here: (Ipv4Addr, u8), other: &TestMachine, there: (Ipv4Addr, u8)) {
        let netns = other.netns.try_clone().unwrap();
        self.wait(async move {
            let netlink = Netlink::open().unwrap();
            let end = |address: (Ipv4Addr, u8)| {
                let [a, b, c, d] = address.0.octets();
                VethEnd { name, mac: [0x02, 0x11, a, b, c, d], mtu: 1500 }
            };
            netlink.add_veth(end(here), end(there), &netns).await.unwrap();
        });
        for (machine, (address, prefix)) in [(self, here), (other, there)] {
            machine.wait(async move {
                let netlink = Netlink::open().unwrap();
                let link = netlink.link(name).await.unwrap().unwrap();
                netlink.add_address(link.index, address, prefix).await.unwrap();
                netlink.set_up(link.index).await.unwrap();
            });
        }
    }

    /// Makes this machine a switch and router, itself at `address` of the switched subnet.
    pub fn become_switch(&self, address: Ipv4Addr, prefix: u8) {
        self.wait(async move {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            handle.link().add(rtnetlink::LinkBridge::new(BRIDGE).up().build()).execute().await.unwrap();
            let netlink = Netlink::open().unwrap();
            let bridge = netlink.link(BRIDGE).await.unwrap().unwrap();
            netlink.add_address(bridge.index, address, prefix).await.unwrap();
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
    }

    /// Plugs `machine` into this switch by its link `uplink`.
    pub fn plug(&self, port: &'static str, machine: &TestMachine, address: Ipv4Addr, prefix: u8) {
        let netns = machine.netns.try_clone().unwrap();
        self.wait(async move {
            let netlink = Netlink::open().unwrap();
            let end = |name, side| VethEnd { name, mac: [0x02, side, 1, 1, 1, address.octets()[3]], mtu: 1500 };
            netlink.add_veth(end(port, 1), end(UPLINK, 2), &netns).await.unwrap();
            let port = netlink.link(port).await.unwrap().unwrap().index;
            let bridge = netlink.link(BRIDGE).await.unwrap().unwrap().index;
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let enslave = rtnetlink::LinkUnspec::new_with_index(port).controller(bridge).up().build();
            handle.link().change(enslave).execute().await.unwrap();
        });
        machine.wait(async move {
            let netlink = Netlink::open().unwrap();
            let link = netlink.link(UPLINK).await.unwrap().unwrap();
            netlink.add_address(link.index, address, prefix).await.unwrap();
            netlink.set_up(link.index).await.unwrap();
        });
    }

    /// Takes the link `name` up or down, as pulling its cable would.
    pub fn set_link(&self, name: &'static str, up: bool) {
        self.wait(async move {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let link = Netlink::open().unwrap().link(name).await.unwrap().unwrap();
            let message = rtnetlink::LinkUnspec::new_with_index(link.index);
            let message = if up { message.up() } else { message.down() };
            handle.link().change(message.build()).execute().await.unwrap();
        });
    }

    /// Everything else through `gateway`, as an administrator would say it.
    pub fn default_route(&self, gateway: Ipv4Addr) {
        self.wait(async move {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
            handle.route().add(route).execute().await.unwrap();
        });
    }

    /// Serves TCP on `port` of every address: answers with the client's address as seen here, and then with more than
    /// any path's MTU holds.
    pub fn serve_who_am_i(&self, port: u16) {
        let listener = self.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { return };
                let answer = connection.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
                let padded = answer + &" ".repeat(100_000);
                std::thread::spawn(move || connection.write_all(padded.as_bytes()).ok());
            }
        });
    }

    /// Connects to `serve_who_am_i` from here and returns the address that was seen there.
    pub fn ask_who_am_i(&self, server: Ipv4Addr, port: u16) -> std::io::Result<String> {
        self.inside(move || {
            let address = SocketAddr::V4(SocketAddrV4::new(server, port));
            let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
            connection.set_read_timeout(Some(Duration::from_secs(3)))?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer.trim_end().to_owned())
        })
    }

    /// Everything that could be left behind: links, addresses, routes.
    pub fn inventory(&self) -> String {
        self.wait(async {
            let netlink = Netlink::open().unwrap();
            let host = HostLinks::read(&netlink).await.unwrap();
            let links: Vec<_> = host.links.iter().map(|link| (&link.name, link.mtu, link.up)).collect();
            format!("{links:?}\n{:?}\n{:?}", host.addresses, netlink.routes().await.unwrap())
        })
    }
}

/// Name of the device that leads to the other machines.
pub const UPLINK: &str = "uplink";
const BRIDGE: &str = "br0";

impl Drop for TestMachine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
