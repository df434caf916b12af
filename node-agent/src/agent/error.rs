//! Why the agent could not start, or could not stop as it should.

use std::path::PathBuf;

use crate::{
    dns, https::HttpsError, last_known::LastKnownError, network, pods, proxy, register::RegisterError, runtime,
};

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Name another directory with `--data-dir`, or give this one to the agent's user.
    #[error("cannot make the data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Docker does not run, or its socket is not where `--docker-host` says.
    #[error("cannot use the container runtime")]
    Runtime(#[source] runtime::Error),
    /// Whoever started the agent wants it no more.
    #[error("stopped before the node had joined")]
    Stopped,
    /// The join token, the kubeconfig or the server's address is wrong.
    #[error("cannot become a member of the cluster")]
    Register(#[from] RegisterError),
    /// The API is there, and this node's credentials do not suffice.
    #[error("the control service refuses to {what}")]
    Refused {
        /// What was tried: `register this node`…
        what: &'static str,
        /// The API's answer.
        source: Box<crate::deadline::AnswerError>,
    },
    /// The watch of this node's own Node object ended.
    #[error("cannot learn this node's pod subnet")]
    PodCidr(#[source] kube::runtime::watcher::Error),
    /// Name the node's address with `--node-ip`.
    #[error("cannot find this node's address")]
    Uplink(#[from] network::UplinkError),
    /// Routes, veth pairs or firewall tables need privileges that are missing.
    #[error("cannot set up the pod network")]
    Network(#[source] network::NetworkError),
    /// Another program has the DNS port of the node's pod address.
    #[error("cannot serve names")]
    Dns(#[source] dns::DnsError),
    /// `--datapath ebpf` was asked for, and this kernel or container forbids BPF.
    #[error("cannot load-balance Services")]
    Proxy(#[source] proxy::ProxyError),
    /// What an earlier agent left cannot be taken over.
    #[error("cannot run pods")]
    Pods(#[source] pods::PodsError),
    /// The API did not sign the certificate of the agent's HTTPS server.
    #[error("cannot get a serving certificate")]
    Certificate(#[source] RegisterError),
    /// Name a `certificate-authority` in the kubeconfig.
    #[error("the kubeconfig names no certificate authority, so nobody who calls this agent could be verified")]
    NoCa,
    /// Another program has the agent's port.
    #[error("cannot serve logs and inspection")]
    Https(#[from] HttpsError),
}

/// What could not be left as it should be.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Containers or their files are still there.
    #[error("cannot stop the pods")]
    Pods(#[source] pods::PodsError),
    /// The next agent would start pods from a state that no longer holds: delete the file.
    #[error("cannot forget what this node last knew")]
    LastKnown(#[source] LastKnownError),
    /// Programs or pins are still in the kernel.
    #[error("cannot stop the datapath")]
    Proxy(#[source] proxy::ProxyError),
    /// Links, routes or tables are still in the kernel.
    #[error("cannot stop the pod network")]
    Network(#[source] network::NetworkError),
}
