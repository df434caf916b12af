//! A server that is measured: fairlead's control service, or the real kube-apiserver with its etcd.

use fairlead_control::auth::pki::Authority;
use nix::unistd::Pid;

use crate::{fairlead_server::FairleadServer, kit::Result, kube_apiserver::KubeApiServer};

/// A server that is measured.
pub enum Server {
    Fairlead(FairleadServer),
    /// The same, where every request is allowed and no role is asked about.
    FairleadAllowingAll(FairleadServer),
    Kubernetes(KubeApiServer),
}

impl Server {
    /// Its column in a report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fairlead(_) => "fairlead",
            Self::FairleadAllowingAll(_) => "no RBAC",
            Self::Kubernetes(_) => "Kubernetes",
        }
    }

    /// Whether it asks no role about any request.
    pub fn allows_all(&self) -> bool {
        matches!(self, Self::FairleadAllowingAll(_))
    }

    /// How its administrator reaches it.
    pub fn config(&self) -> &kube::Config {
        match self {
            Self::Fairlead(server) | Self::FairleadAllowingAll(server) => &server.config,
            Self::Kubernetes(server) => &server.config,
        }
    }

    /// What a part of it that has ended said last.
    pub fn ended(&mut self) -> Option<String> {
        match self {
            Self::Fairlead(server) | Self::FairleadAllowingAll(server) => server.ended(),
            Self::Kubernetes(server) => server.ended(),
        }
    }

    /// Ends it; its data stay.
    pub fn stop(&mut self) {
        match self {
            Self::Fairlead(server) | Self::FairleadAllowingAll(server) => drop(server.process.take()),
            Self::Kubernetes(server) => server.stop(),
        }
    }

    /// Starts it anew over its data. Does not wait for an answer.
    pub fn start(&mut self) -> Result {
        match self {
            Self::Fairlead(server) | Self::FairleadAllowingAll(server) => server.start_process(),
            Self::Kubernetes(server) => server.start_processes(),
        }
    }

    fn pids(&self) -> Vec<Pid> {
        match self {
            Self::Fairlead(server) | Self::FairleadAllowingAll(server) => {
                server.process.iter().map(|process| process.pid()).collect()
            }
            Self::Kubernetes(server) => server.processes().iter().map(|process| process.pid()).collect(),
        }
    }

    /// Processor time that all its processes have taken, in seconds.
    pub fn processor_seconds(&self) -> Result<f64> {
        self.pids().into_iter().map(processor_seconds).sum()
    }

    /// Resident memory of all its processes in MiB.
    pub fn resident_mib(&self) -> Result<f64> {
        self.pids().into_iter().map(resident_mib).sum()
    }

    /// Resident memory of the process that serves the API, in MiB.
    pub fn api_resident_mib(&self) -> Result<f64> {
        resident_mib(self.api_pid()?)
    }

    /// Files and sockets that the process that serves the API has open.
    pub fn api_descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.api_pid()?))?.count())
    }

    /// The last that was started: kube-apiserver comes after its store.
    fn api_pid(&self) -> Result<Pid> {
        Ok(self.pids().pop().ok_or("the server is stopped")?)
    }
}

fn resident_mib(pid: Pid) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Processor time that a process has taken, in seconds.
fn processor_seconds(pid: Pid) -> Result<f64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the call writes to `clock` alone.
    match unsafe { libc::clock_getcpuclockid(pid.as_raw(), &mut clock) } {
        0 => {}
        code => return Err(std::io::Error::from_raw_os_error(code).into()),
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time` alone.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// A server, and who vouches for its clients.
pub struct Contestant {
    pub server: Server,
    pub authority: Authority,
}
