//! Why the agent could not start, or could not stop as it should.

use std::path::PathBuf;

use crate::{
    dns, https::HttpsError, last_known::LastKnownError, network, pods, proxy, register::RegisterError, runtime,
};

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot make the data directory {}", path.display())]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("cannot use the container runtime")]
    Runtime(#[source] runtime::Error),
    #[error("cannot become a member of the cluster")]
    Register(#[from] RegisterError),
    #[error("the control service refuses to {what}")]
    Refused { what: &'static str, source: Box<kube::Error> },
    #[error("cannot learn this node's pod subnet")]
    PodCidr(#[source] kube::runtime::watcher::Error),
    #[error("cannot find this node's address")]
    Uplink(#[from] network::UplinkError),
    #[error("cannot set up the pod network")]
    Network(#[source] network::NetworkError),
    #[error("cannot serve names")]
    Dns(#[source] dns::DnsError),
    #[error("cannot load-balance Services")]
    Proxy(#[source] proxy::ProxyError),
    #[error("cannot run pods")]
    Pods(#[source] pods::Error),
    #[error("cannot get a serving certificate")]
    Certificate(#[source] RegisterError),
    #[error("the kubeconfig names no certificate authority, so nobody who calls this agent could be verified")]
    NoCa,
    #[error("cannot serve logs and inspection")]
    Https(#[from] HttpsError),
}

/// What could not be left as it should be.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("cannot stop the pods")]
    Pods(#[source] pods::Error),
    #[error("cannot forget what this node last knew")]
    LastKnown(#[source] LastKnownError),
    #[error("cannot stop the datapath")]
    Proxy(#[source] proxy::ProxyError),
    #[error("cannot stop the pod network")]
    Network(#[source] network::NetworkError),
}
