//! `/etc/hosts` of a pod.

use std::{fmt::Write, net::Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;

use crate::pods::spec;

/// The pod's own names and its `hostAliases`; a pod with the host's network gets the host's file (`host`) in the place
/// of the former.
pub fn hosts(pod: &Pod, pod_ip: Ipv4Addr, cluster_domain: &str, host: &str) -> String {
    let mut file = if spec::host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{}\n", host.trim_end())
    } else {
        own(pod, pod_ip, cluster_domain)
    };
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let mut aliases = aliases.peekable();
    if aliases.peek().is_some() {
        file.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        writeln!(file, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"))
            .expect("a string takes any write");
    }
    file
}

fn own(pod: &Pod, pod_ip: Ipv4Addr, cluster_domain: &str) -> String {
    let name = spec::hostname(pod);
    let subdomain =
        pod.spec.as_ref().and_then(|spec| spec.subdomain.as_deref()).filter(|subdomain| !subdomain.is_empty());
    let names = match subdomain {
        Some(subdomain) => format!("{name}.{subdomain}.{}.svc.{cluster_domain}\t{name}", spec::pod_ref(pod).namespace),
        None => name,
    };
    format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n{pod_ip}\t{names}\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_knows_itself_by_its_name_in_its_subdomain_and_its_aliases() {
        let pod = json!({
            "metadata": { "name": "web-0", "namespace": "shop" },
            "spec": { "containers": [], "subdomain": "web", "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["a", "b"] }] },
        });
        let file = hosts(&serde_json::from_value(pod).unwrap(), Ipv4Addr::new(10, 244, 0, 9), "cluster.local", "");
        assert!(file.contains("\n10.244.0.9\tweb-0.web.shop.svc.cluster.local\tweb-0\n"), "{file}");
        assert!(file.ends_with("# Entries added by HostAliases.\n10.1.2.3\ta\tb\n"), "{file}");
    }
}
