//! The names of Services, as pods on three nodes resolve them.

use crate::{
    kit::{
        Result,
        cluster::{Cluster, PATIENCE},
        wait,
    },
    three_nodes::{ask, cluster_ip},
};

/// From every node, in each form that a name may have.
pub fn a_service_answers_by_its_dns_name(cluster: &Cluster) -> Result {
    for client in 1..=3 {
        for name in ["web", "web.default", "web.default.svc.cluster.local"] {
            ask(cluster, &format!("client-{client}"), &format!("http://{name}/"), 3)?;
        }
    }
    Ok(())
}

/// A headless Service has the addresses of all its pods; an external name is an alias.
pub fn headless_and_external_names_resolve(cluster: &Cluster) -> Result {
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: each}\n\
         spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {name: alias}\n\
         spec: {type: ExternalName, externalName: web.default.svc.cluster.local}\n",
    )?;
    let mut addresses = Vec::new();
    for pod in cluster.get(&["pods", "-l", "app=web"])?["items"].as_array().into_iter().flatten() {
        addresses.push(pod["status"]["podIP"].as_str().unwrap_or_default().to_owned());
    }
    wait::until("all pods in the headless name", PATIENCE, || {
        let answer = cluster.in_pod("client-3", "nslookup -type=a each.default.svc.cluster.local")?;
        match addresses.iter().find(|address| !answer.contains(address.as_str())) {
            None => Ok(()),
            Some(missing) => Err(format!("{missing} is missing in {answer}").into()),
        }
    })?;
    wait::until("the alias", PATIENCE, || {
        let answer = cluster.in_pod("client-3", "nslookup -type=cname alias.default.svc.cluster.local")?;
        if answer.contains("web.default.svc.cluster.local") { Ok(()) } else { Err(answer.into()) }
    })
}

/// SRV names the port, PTR the Service.
pub fn service_records_have_srv_and_ptr(cluster: &Cluster) -> Result {
    let srv = cluster.in_pod("client-1", "nslookup -type=srv _http._tcp.web.default.svc.cluster.local")?;
    if !srv.contains("80 web.default.svc.cluster.local") {
        return Err(srv.into());
    }
    let address = cluster_ip(cluster, "web")?;
    let ptr = cluster.in_pod("client-1", &format!("nslookup {address}"))?;
    if ptr.contains("web.default.svc.cluster.local") { Ok(()) } else { Err(ptr.into()) }
}
