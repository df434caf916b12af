//! Puts the programs into the kernel and keeps them there: loads, attaches and pins them, and finds them again after a
//! restart.
//!
//! Pins live in `PINS/vN/{maps,links}`, N being the layout version: programs of one layout share the maps, so a new
//! agent continues with what the old one wrote. The new link is pinned before the old one is removed, so a hook stays
//! attached throughout.

mod pins;
mod uplinks;

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};
pub(super) use pins::layout;
use pins::{create_dir, ensure_bpffs, file, pin_over, remove_other_layouts};

use super::{
    maps::{KernelMaps, MapError},
    sockets::RedirectedSockets,
};
use crate::mount_table;

static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.bpf.o"));

/// Maps that outlive the agent.
const PINNED_MAPS: [&str; 13] = [
    "SERVICES",
    "SLOTS",
    "MEMBERS",
    "BACKENDS",
    "AFFINITY",
    "NODE_ADDRESSES",
    "CLIENTS",
    "COUNTERS",
    "CONNECTED_DATAGRAMS",
    "FLOWS",
    "FRAGMENTS",
    "SETTINGS",
    "SOCKETS",
];

/// The hooks on the cgroup, by program name. Hooks that report an address are attached before hooks that replace one: a
/// socket is never redirected to a backend while its reverse hook is missing.
const SOCKET_HOOKS: [&str; 8] =
    ["recvmsg4", "recvmsg6", "getpeername4", "getpeername6", "sendmsg4", "sendmsg6", "connect4", "connect6"];

/// The programs, loaded; attached once [`Programs::attach`] was called.
pub struct Programs {
    ebpf: Ebpf,
    pins: PathBuf,
    cgroup: PathBuf,
}

/// Why programs or maps are not in the kernel. Remedy: privileges or mounts as the message names them.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Socket hooks attach to a cgroup2 directory.
    #[error("no cgroup2 file system is mounted; mount one, or name its directory with --cgroup")]
    NoCgroup,
    /// A pin, its directory or the bpffs.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's verifier or a missing capability.
    #[error("cannot load the BPF programs (root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed)")]
    Load(#[source] Box<aya::EbpfError>),
    /// One program; the source has the verifier's words.
    #[error("cannot load program {name}")]
    Program {
        /// As in `proxy-ebpf/programs`.
        name: &'static str,
        /// The verifier's words, where it refused.
        source: Box<aya::programs::ProgramError>,
    },
    /// The hook exists in newer kernels only, or is forbidden.
    #[error("cannot attach program {name} to {}", target.display())]
    Attach {
        /// As in `proxy-ebpf/programs`.
        name: &'static str,
        /// The cgroup or the interface.
        target: PathBuf,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An uplink that went away.
    #[error("cannot find interface {interface}")]
    Interface {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The packet hooks read Ethernet headers.
    #[error("interface {interface} is not an Ethernet device: NodePorts do not answer there")]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// A hook stays attached; remove the pin that is named.
    #[error("cannot detach {}", path.display())]
    Detach {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map is missing in the programs.
    #[error(transparent)]
    Maps(#[from] MapError),
}

impl Programs {
    /// Loads the programs on the pinned maps, making those that are missing. What is attached stays as it is.
    pub fn load(pins: &Path, cgroup: Option<&Path>) -> Result<Self, LoadError> {
        let cgroup = match cgroup {
            Some(cgroup) => cgroup.to_owned(),
            None => cgroup2_root()?,
        };
        ensure_bpffs(pins)?;
        let maps = layout(pins).join("maps");
        create_dir(&maps)?;
        create_dir(&layout(pins).join("links"))?;
        let mut loader = EbpfLoader::new();
        // The programs have no CO-RE relocations, so the kernel's own BTF is not needed: its 8 MiB are freed before the
        // heap grows beyond them.
        loader.btf(None);
        for name in PINNED_MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
        let mut ebpf = loader.load(PROGRAMS).map_err(|source| LoadError::Load(source.into()))?;
        for name in SOCKET_HOOKS {
            socket_hook(&mut ebpf, name)?
                .load()
                .map_err(|source| LoadError::Program { name, source: source.into() })?;
        }
        uplinks::load(&mut ebpf)?;
        Ok(Self { ebpf, pins: pins.to_owned(), cgroup })
    }

    /// The maps that the agent writes; taken once.
    pub fn maps(&mut self) -> Result<KernelMaps, LoadError> {
        Ok(KernelMaps::take(&mut self.ebpf)?)
    }

    /// The maps that record to which backend each socket was redirected.
    pub fn redirected_sockets(&mut self) -> Result<RedirectedSockets, LoadError> {
        let missing = |map| LoadError::Maps(MapError::Missing { map });
        let streams = match self.ebpf.map("SOCKETS") {
            Some(Map::SkStorage(data)) => data
                .fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| file("duplicate", Path::new("SOCKETS"), source))?,
            _ => return Err(missing("SOCKETS")),
        };
        const DATAGRAMS: &str = "CONNECTED_DATAGRAMS";
        let datagrams = self.ebpf.take_map(DATAGRAMS).and_then(|map| map.try_into().ok()).ok_or(missing(DATAGRAMS))?;
        Ok(RedirectedSockets { streams, datagrams })
    }

    /// The cgroup whose processes the socket hooks see.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The queue of network namespaces whose clients are not known yet.
    pub fn unknown_clients(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        const NAME: &str = "UNKNOWN_CLIENTS";
        let map = self.ebpf.take_map(NAME).and_then(|map| RingBuf::try_from(map).ok());
        map.ok_or(LoadError::Maps(MapError::Missing { map: NAME }))
    }

    /// Attaches and at once detaches a hook that changes nothing, to learn at the start whether the kernel or a
    /// container forbids it.
    pub fn try_attaching(&mut self) -> Result<(), LoadError> {
        const HARMLESS: &str = "getpeername6";
        let cgroup = fs::File::open(&self.cgroup).map_err(|source| file("open", &self.cgroup, source))?;
        let failed = |source: aya::programs::ProgramError| LoadError::Attach {
            name: HARMLESS,
            target: self.cgroup.clone(),
            source: source.into(),
        };
        let program = socket_hook(&mut self.ebpf, HARMLESS)?;
        let link = program.attach(&cgroup, CgroupAttachMode::Single).map_err(&failed)?;
        program.detach(link).map_err(&failed)
    }

    /// Attaches every socket hook and pins it in the place of an earlier agent's, whose layout then goes.
    pub fn attach_socket_hooks(&mut self) -> Result<(), LoadError> {
        let cgroup = fs::File::open(&self.cgroup).map_err(|source| file("open", &self.cgroup, source))?;
        let links = layout(&self.pins).join("links");
        for name in SOCKET_HOOKS {
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Attach {
                name,
                target: self.cgroup.clone(),
                source,
            };
            let program = socket_hook(&mut self.ebpf, name)?;
            let id = program.attach(&cgroup, CgroupAttachMode::Single).map_err(|source| failed(source.into()))?;
            let link = program.take_link(id).map_err(|source| failed(source.into()))?;
            let link = FdLink::try_from(link).map_err(|source| failed(source.into()))?;
            pin_over(link, &links.join(name)).map_err(failed)?;
        }
        remove_other_layouts(&self.pins)
    }

    /// Attaches the packet hooks to an interface through which clients outside this node come.
    pub fn attach_uplink(&mut self, interface: &str) -> Result<(), LoadError> {
        uplinks::attach(&mut self.ebpf, interface, &layout(&self.pins).join("links"))
    }
}

/// Takes everything out of the kernel: packet hooks of `uplinks`, pins, and the bpffs where fairlead mounted it and
/// nobody else uses it.
pub fn remove(pins: &Path, uplinks: &[String]) -> Result<(), LoadError> {
    pins::remove(pins)?;
    uplinks.iter().try_for_each(|interface| uplinks::detach_filters(interface))
}

fn socket_hook<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, LoadError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Maps(MapError::Missing { map: name }))
}

/// Where the cgroup2 file system is mounted.
pub(super) fn cgroup2_root() -> Result<PathBuf, LoadError> {
    let mounts = mount_table::read().map_err(|source| file("read", Path::new(mount_table::PATH), source))?;
    let cgroup = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
    cgroup.map(|mount| mount.mount_point).ok_or(LoadError::NoCgroup)
}
