//! The datapath that serves, eBPF or userspace, behind one interface. Makes the active datapath match the table.

use std::collections::BTreeSet;

use proxy_ebpf::ServiceKey;
use tracing::warn;

use super::{
    Datapath, HeldFrontend, MapUsage, ProxyConfig, ProxyError,
    kernel::Kernel,
    load, service_netns,
    table::{FrontendOwner, ServiceTable},
    userspace::Userspace,
};
use crate::{Teardown, config::DatapathChoice};

/// One of the two datapaths.
pub enum ActiveDatapath {
    /// Programs and maps in the kernel.
    Ebpf(Box<Kernel>),
    /// Listeners in a network namespace.
    Userspace(Box<Userspace>),
}

/// What became of a table.
pub struct ApplyOutcome {
    /// Every frontend of the table's Services is served.
    pub served: bool,
    /// What is wrong: parts that are not served, or interfaces where nothing is.
    pub problems: Vec<String>,
}

impl ActiveDatapath {
    /// Starts what the configuration asks for. `auto` is eBPF where that can be loaded and attached.
    pub async fn start(config: &ProxyConfig) -> Result<Self, ProxyError> {
        let reason = match config.datapath {
            DatapathChoice::Ebpf => return Self::ebpf(Kernel::start(config)?, config).await,
            DatapathChoice::Userspace => "it was asked for".to_owned(),
            DatapathChoice::Auto => match Kernel::start(config) {
                Ok(kernel) => return Self::ebpf(kernel, config).await,
                Err(error) => crate::error_chain(&error),
            },
        };
        // Otherwise old hooks keep serving stale maps.
        if let Err(error) = load::remove(&config.bpf_pins, &config.uplinks) {
            warn!(error = crate::error_chain(&error), "an earlier agent's eBPF datapath may still be in the kernel");
        }
        if let Err(error) = service_netns::stop_refusing().await {
            warn!(
                error = crate::error_chain(&error),
                "an earlier agent's route for what is refused may still be there"
            );
        }
        Ok(Self::Userspace(Box::new(Userspace::start(config, reason).await?)))
    }

    async fn ebpf(mut kernel: Kernel, config: &ProxyConfig) -> Result<Self, ProxyError> {
        kernel.make_refusing_address(config.node_ips.first().copied()).await;
        Ok(Self::Ebpf(Box::new(kernel)))
    }

    /// Which datapath serves, and why it is not eBPF.
    pub fn datapath(&self) -> Datapath {
        match self {
            Self::Ebpf(_) => Datapath::Ebpf,
            Self::Userspace(userspace) => Datapath::Userspace { reason: userspace.reason().to_owned() },
        }
    }

    /// Whether it serves nothing: no earlier agent left anything that a table made too early could remove.
    pub fn holds_nothing(&self) -> bool {
        match self {
            Self::Ebpf(kernel) => kernel.holds_nothing(),
            Self::Userspace(_) => true,
        }
    }

    /// Serves `table`, of which `changed` differs from the last.
    pub async fn apply(&mut self, table: &ServiceTable, changed: &BTreeSet<FrontendOwner>) -> ApplyOutcome {
        match self {
            Self::Ebpf(kernel) => kernel.apply(table, changed),
            Self::Userspace(userspace) => userspace.apply(table, changed).await,
        }
    }

    /// What serves each frontend at this moment.
    pub fn held(&self, keys: &[ServiceKey]) -> Result<Vec<Option<HeldFrontend>>, ProxyError> {
        match self {
            Self::Ebpf(kernel) => kernel.held(keys),
            Self::Userspace(userspace) => Ok(userspace.held(keys)),
        }
    }

    /// How full the maps are; empty where there are none.
    pub fn usage(&self) -> Result<Vec<MapUsage>, ProxyError> {
        match self {
            Self::Ebpf(kernel) => kernel.usage(),
            Self::Userspace(_) => Ok(Vec::new()),
        }
    }

    /// Waits until the programs report clients of an unknown address, and stores their addresses. Pending for ever in
    /// userspace.
    pub async fn resolve_unknown_clients(&mut self) {
        match self {
            Self::Ebpf(kernel) => kernel.resolve_unknown_clients().await,
            Self::Userspace(_) => std::future::pending().await,
        }
    }

    /// Userspace ends with the agent in any case.
    pub async fn shutdown(self, teardown: Teardown) -> Result<(), ProxyError> {
        match self {
            Self::Ebpf(kernel) => kernel.shutdown(teardown).await,
            Self::Userspace(userspace) => userspace.shutdown().await,
        }
    }
}
