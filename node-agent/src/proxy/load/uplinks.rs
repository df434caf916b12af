//! The packet hooks of an uplink: TCX links where the kernel has them (6.6), pinned like all links; else filters of the
//! clsact qdisc, which stay by themselves.

use std::{
    io,
    net::UdpSocket,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, links::FdLink, tc},
    util::KernelVersion,
};

use super::{LoadError, pins::pin_over};
use crate::proxy::maps::MapError;

/// Egress first: no client is sent to a backend before replies are rewritten.
const HOOKS: [(&str, TcAttachType); 2] =
    [("uplink_egress", TcAttachType::Egress), ("uplink_ingress", TcAttachType::Ingress)];

/// Loads the programs of the packet hooks into the kernel.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    for (name, _) in HOOKS {
        program(ebpf, name)?.load().map_err(|source| LoadError::Program { name, source: source.into() })?;
    }
    Ok(())
}

/// Attaches both programs to `interface`; links are pinned in `links`.
pub(super) fn attach(ebpf: &mut Ebpf, interface: &str, links: &Path) -> Result<(), LoadError> {
    let index = ethernet_index(interface)?;
    for (name, direction) in HOOKS {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Attach {
            name,
            target: PathBuf::from(interface),
            source,
        };
        let program = program(ebpf, name)?;
        if has_tcx() {
            let id = program.attach(interface, direction).map_err(|source| failed(source.into()))?;
            let link = program.take_link(id).map_err(|source| failed(source.into()))?;
            let link = FdLink::try_from(link).map_err(|source| failed(source.into()))?;
            // By index, since a name may hold a dot, which a bpffs refuses.
            pin_over(link, &links.join(format!("{name}_{index}"))).map_err(failed)?;
        } else {
            attach_filter(program, interface, name, direction).map_err(failed)?;
        }
    }
    Ok(())
}

/// Removes the filters of kernels without TCX; links go with their pins.
pub(super) fn detach_filters(interface: &str) -> Result<(), LoadError> {
    if has_tcx() {
        return Ok(());
    }
    for (name, direction) in HOOKS {
        match tc::qdisc_detach_program(interface, direction, name) {
            Ok(()) => {}
            Err(tc::TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(LoadError::Attach { name, target: PathBuf::from(interface), source: source.into() });
            }
        }
    }
    Ok(())
}

fn attach_filter(
    program: &mut SchedClassifier,
    interface: &str,
    name: &str,
    direction: TcAttachType,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The qdisc may be there already, of an earlier agent or of somebody else; where it cannot be made the attaching
    // says so.
    if let Err(error) = tc::qdisc_add_clsact(interface) {
        tracing::debug!(interface, %error, "clsact qdisc not added");
    }
    let stale = match tc::qdisc_detach_program(interface, direction, name) {
        Err(tc::TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    stale?;
    let id = program.attach(interface, direction)?;
    // Dropping the link would remove the filter, which is to outlive the agent.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// The index of an Ethernet interface: the programs expect its frames. Asked of this thread's network namespace, which
/// /sys may not show.
fn ethernet_index(interface: &str) -> Result<u32, LoadError> {
    let failed = |source| LoadError::Interface { interface: interface.into(), source };
    let index = nix::net::if_::if_nametoindex(interface).map_err(|source| failed(source.into()))?;
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    // SAFETY: zeroes are a valid value of this plain struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    // SAFETY: the request is valid for the call, and its name ends with a zero: the kernel knows an interface of that
    // name.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: the call filled in this member.
    if unsafe { request.ifr_ifru.ifru_hwaddr.sa_family } != libc::ARPHRD_ETHER {
        return Err(LoadError::NotEthernet { interface: interface.into() });
    }
    Ok(index)
}

fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, LoadError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Maps(MapError::Missing { map: name }))
}
