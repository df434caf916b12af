//! `/etc/resolv.conf` of a pod, by its `dnsPolicy` and `dnsConfig`.

use std::{fmt, net::Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;

use crate::pods::spec;

/// A resolver configuration, in the file's own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Addresses, as text.
    pub nameservers: Vec<String>,
    /// Domains that are tried behind a name with too few dots.
    pub search: Vec<String>,
    /// Such as `ndots:5`.
    pub options: Vec<String>,
}

/// Domains a search list may hold, and nameservers a resolver asks.
const MAX_SEARCH: usize = 32;
const MAX_NAMESERVERS: usize = 3;

impl ResolvConf {
    /// Reads a file as resolv.conf(5) says: unknown lines are skipped, the last `search` counts.
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => parsed.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => {
                    parsed.search = words.filter(|word| *word != ".").map(str::to_owned).collect()
                }
                Some("options") => parsed.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        parsed
    }

    /// Adds `option`, in the place of one of the same name.
    fn set_option(&mut self, option: String) {
        let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
        self.options.retain(|present| name(present) != name(&option));
        self.options.push(option);
    }
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for nameserver in &self.nameservers {
            writeln!(f, "nameserver {nameserver}")?;
        }
        for (key, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                writeln!(f, "{key} {}", list.join(" "))?;
            }
        }
        Ok(())
    }
}

/// The pod's configuration over the host's.
pub fn resolver(pod: &Pod, cluster_dns: Ipv4Addr, domain: &str, host: &ResolvConf) -> ResolvConf {
    let pod_spec = pod.spec.as_ref();
    let policy = pod_spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut conf = match policy {
        "None" => ResolvConf::default(),
        "Default" => host.clone(),
        // A pod with the host's network asks for the cluster's names by another policy.
        "ClusterFirst" if spec::host_network(pod) => host.clone(),
        _ => {
            let namespace = spec::pod_ref(pod).namespace;
            let cluster = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            ResolvConf {
                nameservers: vec![cluster_dns.to_string()],
                search: cluster.into_iter().chain(host.search.iter().cloned()).collect(),
                options: vec!["ndots:5".to_owned()],
            }
        }
    };
    if let Some(own) = pod_spec.and_then(|spec| spec.dns_config.as_ref()) {
        conf.nameservers.extend(own.nameservers.iter().flatten().cloned());
        conf.search.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            conf.set_option(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    for list in [&mut conf.nameservers, &mut conf.search] {
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|item| seen.insert(item.clone()));
    }
    conf.nameservers.truncate(MAX_NAMESERVERS);
    conf.search.truncate(MAX_SEARCH);
    conf
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(spec: Value) -> String {
        let mut pod = json!({ "metadata": { "namespace": "shop" }, "spec": { "containers": [] } });
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let host = ResolvConf::parse("# c\nnameserver 192.0.2.1\nsearch corp.example\noptions timeout:1\n");
        resolver(&serde_json::from_value(pod).unwrap(), Ipv4Addr::new(10, 96, 0, 10), "cluster.local", &host)
            .to_string()
    }

    #[test]
    fn cluster_names_come_first_and_the_hosts_domains_after_them() {
        let expected = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n";
        assert_eq!(file(json!({})), expected);
        assert_eq!(file(json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" })), expected);
    }

    #[test]
    fn default_policy_and_host_network_hand_on_the_hosts_file() {
        let expected = "nameserver 192.0.2.1\nsearch corp.example\noptions timeout:1\n";
        assert_eq!(file(json!({ "dnsPolicy": "Default" })), expected);
        assert_eq!(file(json!({ "hostNetwork": true })), expected);
    }

    #[test]
    fn a_pods_own_configuration_adds_and_replaces() {
        let own = json!({ "nameservers": ["192.0.2.7"], "searches": ["x.example"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] });
        assert_eq!(
            file(json!({ "dnsPolicy": "None", "dnsConfig": own })),
            "nameserver 192.0.2.7\nsearch x.example\noptions ndots:2 edns0\n"
        );
        assert!(file(json!({ "dnsConfig": own })).ends_with("options ndots:2 edns0\n"));
    }
}
