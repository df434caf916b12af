//! The eBPF datapath: the maps and programs of one node, kept as the table says.

use std::{collections::BTreeSet, net::Ipv4Addr, path::PathBuf};

use proxy_ebpf::{ServiceKey, Settings};
use tracing::{debug, warn};

use super::{
    ProxyConfig, ProxyError,
    active_datapath::ApplyOutcome,
    clients::{self, UnknownClients},
    image::address_be,
    load::{self, Programs},
    map_reconciler::MapReconciler,
    maps::{HeldFrontend, KernelMaps, MapUsage},
    netns,
    service_netns::{self, REFUSING_ADDRESS, ServiceNetns},
    sockets::{SocketTerminator, StrandingChanges},
    table::{FrontendOwner, ServiceTable},
};
use crate::Teardown;

/// The eBPF datapath.
pub struct Kernel {
    programs: Programs,
    maps: MapReconciler<KernelMaps>,
    clients: UnknownClients,
    terminator: SocketTerminator,
    /// An address outside the pods, by whose route a pod's own address is found.
    towards: Ipv4Addr,
    settings: Settings,
    /// Where datagrams of sockets go that connected to what nobody serves.
    refusing: Option<ServiceNetns>,
    pins: PathBuf,
    attached: bool,
    uplinks: Vec<String>,
    unattached_uplinks: Vec<String>,
}

impl Kernel {
    /// Loads the programs, and sees that they can be attached.
    pub fn start(config: &ProxyConfig) -> Result<Self, ProxyError> {
        let mut programs = Programs::load(&config.bpf_pins, config.cgroup.as_deref())?;
        programs.try_attaching()?;
        let mut maps = MapReconciler::adopt(programs.maps()?)?;
        let (sockets, cgroup) = (programs.redirected_sockets()?, programs.cgroup().to_owned());
        let settings = settings(config)?;
        if let Some(own) = config.node_ips.first() {
            maps.maps_mut().put_client(settings.host_netns_cookie, address_be(*own))?;
        }
        let clients = UnknownClients::new(programs.unknown_clients()?)
            .map_err(|source| ProxyError::Io { operation: "open the queue of unknown clients", source })?;
        Ok(Self {
            programs,
            maps,
            clients,
            terminator: SocketTerminator::start(sockets, cgroup)
                .map_err(|source| ProxyError::Io { operation: "start the thread that closes sockets", source })?,
            towards: config.node_ips.first().copied().unwrap_or(Ipv4Addr::LOCALHOST),
            settings,
            refusing: None,
            pins: config.bpf_pins.clone(),
            attached: false,
            uplinks: config.uplinks.clone(),
            unattached_uplinks: config.uplinks.clone(),
        })
    }

    /// Makes the namespace that refuses datagrams. Without it, connecting a UDP socket to what nobody serves fails at
    /// once.
    pub async fn make_refusing_address(&mut self, node_ip: Option<Ipv4Addr>) {
        let made = match ServiceNetns::make(None, node_ip).await {
            Ok(netns) => netns.keep_refusing().await.map(|()| netns),
            Err(error) => Err(error),
        };
        match made {
            Ok(netns) => {
                self.refusing = Some(netns);
                self.settings.refusing_address_be = address_be(REFUSING_ADDRESS);
            }
            Err(error) => {
                warn!(error = crate::error_chain(&error), "UDP sockets cannot connect to Services without endpoints");
            }
        }
    }

    /// Whether the maps hold no Service.
    pub fn holds_nothing(&self) -> bool {
        self.maps.holds_nothing()
    }

    /// Serves `table`, of which `changed` differs from the last.
    pub fn apply(&mut self, table: &ServiceTable, changed: &BTreeSet<FrontendOwner>) -> ApplyOutcome {
        let removed = self.maps.apply(table, changed, self.settings);
        let mut problems = self.maps.problems();
        problems.extend(self.attach());
        self.terminator.request(StrandingChanges { removed, served: self.maps.take_served() });
        ApplyOutcome { served: self.attached && self.maps.is_complete(), problems }
    }

    /// What serves each frontend at this moment.
    pub fn held(&self, keys: &[ServiceKey]) -> Result<Vec<Option<HeldFrontend>>, ProxyError> {
        Ok(keys.iter().map(|key| self.maps.maps().frontend(key)).collect::<Result<_, _>>()?)
    }

    /// How full the maps are.
    pub fn usage(&self) -> Result<Vec<MapUsage>, ProxyError> {
        Ok(self.maps.maps().usage()?)
    }

    /// Waits until the programs report clients of an unknown address, and stores their addresses. Cancel safe.
    pub async fn resolve_unknown_clients(&mut self) {
        let unknown = match self.clients.next().await {
            Ok(unknown) => unknown,
            Err(error) => {
                warn!(%error, "session affinity is by namespace from now on: cannot read the queue of unknown clients");
                return std::future::pending().await;
            }
        };
        for client in unknown {
            let found = clients::address(&client, self.towards);
            match found.map(|address| self.maps.maps_mut().put_client(client.netns_cookie, address_be(address))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(error = crate::error_chain(&error), "a client's address is not kept"),
                Err(error) => debug!(%error, process = client.process, "a client's address is not found"),
            }
        }
    }

    /// Leaves the kernel serving, or removes programs and maps from it.
    pub async fn shutdown(self, teardown: Teardown) -> Result<(), ProxyError> {
        let removed = match self.refusing {
            Some(refusing) => refusing.remove().await,
            None => Ok(()),
        };
        if teardown == Teardown::Keep {
            return removed;
        }
        // All of it is removed, whatever fails; the first error is told.
        let from_kernel = load::remove(&self.pins, &self.uplinks).map_err(ProxyError::from);
        let route = service_netns::stop_refusing().await;
        removed.and(from_kernel).and(route)
    }

    /// Attaches what is not yet. The hooks come after the maps are whole: a first start refuses nothing that exists.
    fn attach(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.attached {
            match self.programs.attach_socket_hooks() {
                Ok(()) => self.attached = true,
                Err(error) => problems.push(crate::error_chain(&error)),
            }
        }
        self.unattached_uplinks.retain(|interface| match self.programs.attach_uplink(interface) {
            Ok(()) => false,
            Err(error) => {
                problems.push(crate::error_chain(&error));
                true
            }
        });
        problems
    }
}

fn settings(config: &ProxyConfig) -> Result<Settings, ProxyError> {
    let host_netns_cookie = netns::own_cookie()
        .map_err(|source| ProxyError::Io { operation: "read the cookie of the host's network namespace", source })?;
    let (service_range_be, service_mask_be) =
        config.service_cidr.map_or((0, 0), |range| (address_be(range.network()), address_be(range.mask())));
    Ok(Settings {
        host_netns_cookie,
        service_range_be,
        service_mask_be,
        node_address_be: config.node_ips.first().map_or(0, |address| address_be(*address)),
        refusing_address_be: 0,
    })
}
