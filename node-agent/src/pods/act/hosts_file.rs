//! Writes a pod's hosts file.

use std::{fs, io, net::Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;

use super::uid;
use crate::pods::{Context, mounted_file, names};

/// Brings the hosts file to what a pod with this address should know. Fails with [`io::ErrorKind::WouldBlock`] while
/// the pod holds a lease on it.
pub async fn write(context: &Context, pod: &Pod, ip: Ipv4Addr) -> io::Result<()> {
    let (directory, pod) = (context.pod_dir(&uid(pod)), pod.clone());
    let cluster_domain = context.config.cluster_domain.clone();
    let write = move || {
        fs::create_dir_all(&directory)?;
        let host = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let text = names::hosts(&pod, ip, &cluster_domain, &host);
        mounted_file::replace(&directory.join("hosts"), text.as_bytes())
    };
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
