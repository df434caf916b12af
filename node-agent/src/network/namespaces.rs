//! Network namespaces as machines, for tests: made here, gone with their last handle. Nothing of them is on the host.

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
        eprintln!("skipped, because network namespaces cannot be made: {error}");
    }
    made.is_ok()
}

/// A network namespace with a runtime whose threads all live in it.
pub struct Machine {
    netns: File,
    runtime: Option<Runtime>,
}

impl Machine {
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

    /// Joins two machines by a link with the given addresses and prefix length, with up links named `name` on both sides.
    pub fn join(&self, name: &'static str, here: (Ipv4Addr, u8), other: &Machine, there: (Ipv4Addr, u8)) {
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

    /// Serves TCP on `port` of every address: answers with the client's address as seen here.
    pub fn serve_who_am_i(&self, port: u16) {
        let listener = self.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { return };
                let answer = connection.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
                connection.write_all(answer.as_bytes()).ok();
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
            Ok(answer)
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

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
