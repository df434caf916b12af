//! Puts the programs into the kernel and keeps them there: loads, attaches and pins them, and finds them again after a restart.
//!
//! Pins live in `PINS/vN/{maps,links}`, N being the layout version: programs of one layout share the maps, so a new agent continues
//! with what the old one wrote. A hook is changed over by pinning the new link before the old one goes: there is no moment without.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSockAddr,
        links::{FdLink, PinnedLink},
    },
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use proxy_ebpf::LAYOUT_VERSION;

use super::maps::{KernelMaps, MapError};

static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.bpf.o"));

/// Maps that outlive the agent.
const PINNED_MAPS: [&str; 10] = [
    "SERVICES",
    "SLOTS",
    "MEMBERS",
    "BACKENDS",
    "AFFINITY",
    "NODE_ADDRESSES",
    "CLIENTS",
    "COUNTERS",
    "SETTINGS",
    "SOCKETS",
];

/// The hooks on the cgroup; the programs have their names. Those that show an address come before those that replace one: a
/// socket is never led to a backend whose reverse hook is missing.
const SOCKET_HOOKS: [&str; 8] =
    ["recvmsg4", "recvmsg6", "getpeername4", "getpeername6", "sendmsg4", "sendmsg6", "connect4", "connect6"];

/// A directory that marks a bpffs mounted by fairlead (files cannot be made there).
const MOUNT_MARK: &str = "mounted";

/// The programs, loaded; attached once [`Programs::attach`] was called.
pub struct Programs {
    ebpf: Ebpf,
    pins: PathBuf,
    cgroup: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("no cgroup2 file system is mounted; mount one, or name its directory with --cgroup")]
    NoCgroup,
    #[error("{operation} {}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("load the BPF programs (root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed)")]
    Load(#[source] Box<aya::EbpfError>),
    #[error("load program {name}")]
    Program { name: &'static str, source: Box<aya::programs::ProgramError> },
    #[error("attach program {name} to {}", target.display())]
    Attach { name: &'static str, target: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("detach {}", path.display())]
    Detach { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
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
        for name in PINNED_MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
        let mut ebpf = loader.load(PROGRAMS).map_err(|source| LoadError::Load(source.into()))?;
        for name in SOCKET_HOOKS {
            socket_hook(&mut ebpf, name)?
                .load()
                .map_err(|source| LoadError::Program { name, source: source.into() })?;
        }
        Ok(Self { ebpf, pins: pins.to_owned(), cgroup })
    }

    pub fn maps(&mut self) -> Result<KernelMaps, LoadError> {
        Ok(KernelMaps::take(&mut self.ebpf)?)
    }

    /// Attaches every hook and pins it in the place of an earlier agent's, whose layout then goes.
    pub fn attach(&mut self) -> Result<(), LoadError> {
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
}

/// Takes everything out of the kernel: pins, and the bpffs where fairlead mounted it and nobody else uses it.
pub fn remove(pins: &Path) -> Result<(), LoadError> {
    if !pins.is_dir() {
        return Ok(());
    }
    // Links before maps: the hooks stop before what they read goes.
    for layout in directories(pins)? {
        detach(&layout.join("links"))?;
    }
    let marked = pins.join(MOUNT_MARK).is_dir();
    for directory in directories(pins)? {
        remove_dir(&directory)?;
    }
    let mountpoint = mountpoint(pins);
    if mountpoint != pins {
        remove_dir(pins)?;
    }
    if marked && directories(mountpoint)?.is_empty() {
        umount2(mountpoint, MntFlags::empty()).map_err(|source| file("unmount", mountpoint, source.into()))?;
        if mountpoint == pins {
            remove_dir(pins)?;
        }
    }
    Ok(())
}

/// Pins `link` where an earlier one may be. The earlier one is let go by the rename, after the new one is in force.
fn pin_over(link: FdLink, path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // No dot: a bpffs refuses names with one.
    let new = path.with_file_name(format!("{}-new", path.file_name().unwrap_or_default().to_string_lossy()));
    if new.exists() {
        // An agent ended between the two steps; its newer link is in force and takes its place.
        fs::rename(&new, path)?;
    }
    link.pin(&new)?;
    fs::rename(&new, path)?;
    Ok(())
}

/// Unpins every link of a directory. When this returns the hooks are off: the last hold on a link is ours to close, while the
/// kernel would let go of one that only a pin held some time later.
fn detach(links: &Path) -> Result<(), LoadError> {
    if !links.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(links).map_err(|source| file("read", links, source))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Detach { path: path.clone(), source };
        let link = PinnedLink::from_pin(&path).map_err(|source| failed(source.into()))?;
        drop(link.unpin().map_err(|source| failed(source.into()))?);
    }
    Ok(())
}

fn socket_hook<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, LoadError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Maps(MapError::Missing { map: name }))
}

fn layout(pins: &Path) -> PathBuf {
    pins.join(format!("v{LAYOUT_VERSION}"))
}

fn remove_other_layouts(pins: &Path) -> Result<(), LoadError> {
    for directory in directories(pins)? {
        if directory != layout(pins) && !directory.ends_with(MOUNT_MARK) {
            detach(&directory.join("links"))?;
            remove_dir(&directory)?;
        }
    }
    Ok(())
}

/// Makes sure that `pins` is on a bpffs: mounts one where none is, and marks that.
fn ensure_bpffs(pins: &Path) -> Result<(), LoadError> {
    let mountpoint = mountpoint(pins);
    create_dir(mountpoint)?;
    let is_bpffs =
        statfs(mountpoint).map_err(|source| file("stat", mountpoint, source.into()))?.filesystem_type() == BPF_FS_MAGIC;
    if is_bpffs {
        return create_dir(pins);
    }
    mount(Some("bpf"), mountpoint, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|source| file("mount a bpffs at", mountpoint, source.into()))?;
    create_dir(&pins.join(MOUNT_MARK))
}

/// Where the bpffs of `pins` is mounted: at the usual place, or at `pins` itself.
fn mountpoint(pins: &Path) -> &Path {
    let usual = Path::new("/sys/fs/bpf");
    if pins.starts_with(usual) { usual } else { pins }
}

pub(super) fn cgroup2_root() -> Result<PathBuf, LoadError> {
    let path = Path::new("/proc/self/mounts");
    let mounts = fs::read_to_string(path).map_err(|source| file("read", path, source))?;
    let mountpoint = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (mountpoint, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(mountpoint))
    };
    mounts.lines().find_map(mountpoint).ok_or(LoadError::NoCgroup)
}

fn directories(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let entries = fs::read_dir(path).map_err(|source| file("read", path, source))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

fn create_dir(path: &Path) -> Result<(), LoadError> {
    fs::create_dir_all(path).map_err(|source| file("create", path, source))
}

fn remove_dir(path: &Path) -> Result<(), LoadError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(file("remove", path, source)),
        _ => Ok(()),
    }
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> LoadError {
    LoadError::File { operation, path: path.to_owned(), source }
}
