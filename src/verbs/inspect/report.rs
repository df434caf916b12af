//! An inspection as text: what is equal on all nodes once, what differs by node. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::output::Grid;

/// The text of `fairlead inspect service`.
pub fn render(inspection: &Value) -> String {
    let service = &inspection["service"];
    let mut text = line("Service", &format!("{}/{}", word(&service["namespace"]), word(&service["name"])));
    let headless = if service["clusterIP"] == "None" { ", headless" } else { "" };
    text.push_str(&line("Type", &format!("{}{headless}", word(&service["type"]))));
    let nodes = list(&inspection["nodes"]);
    let own_name = |node: &Value| node["dns"]["records"][0]["name"].as_str().map(str::to_owned);
    let mut names: Vec<String> = nodes.iter().filter_map(own_name).collect();
    names.sort();
    names.dedup();
    text.push_str(&line("DNS", &names.join(", ")));
    for node in nodes {
        text.push('\n');
        text.push_str(&node_text(node));
    }
    for node in list(&inspection["unreachable"]) {
        writeln!(text, "\nNode {}: {}", word(&node["node"]), word(&node["error"])).ok();
    }
    text
}

/// The text of `fairlead inspect pod`.
pub fn render_pod(inspection: &Value) -> String {
    let pod = &inspection["pod"];
    let mut text = line("Pod", &format!("{}/{}", word(&pod["namespace"]), word(&pod["name"])));
    text.push_str(&line("Address", &word(&pod["podIP"])));
    for node in list(&inspection["nodes"]) {
        text.push('\n');
        text.push_str(&node_text(node));
    }
    text
}

fn line(title: &str, value: &str) -> String {
    format!("{:<10} {value}\n", format!("{title}:"))
}

fn node_text(node: &Value) -> String {
    let mut text = format!("Node {} ({}", word(&node["node"]), word(&node["datapath"]));
    if let Some(reason) = node["datapathReason"].as_str() {
        write!(text, ", since {reason}").ok();
    }
    let (applied, table) = (node["appliedRevision"].as_u64(), node["tableRevision"].as_u64());
    match (applied, table) {
        (Some(applied), Some(table)) if applied < table => {
            write!(text, "; the kernel is at revision {applied}, {table} is on its way").ok();
        }
        (Some(applied), _) => {
            write!(text, "; revision {applied} is in the kernel").ok();
        }
        _ => {}
    }
    text.push_str(")\n");
    if let Some(seconds) = node["sessionAffinitySeconds"].as_u64() {
        writeln!(text, "  Session affinity: ClientIP, {seconds} s").ok();
    }
    for problem in list(&node["problems"]) {
        writeln!(text, "  Problem: {}", word(problem)).ok();
    }
    if let Some(reason) = node["noFrontendsBecause"].as_str() {
        writeln!(text, "  Nothing for the datapath to do: {reason}").ok();
        text.push_str(&names_text(&node["dns"]));
    }
    for frontend in list(&node["frontends"]) {
        text.push_str(&frontend_text(frontend));
    }
    for port in list(&node["unservedPorts"]) {
        writeln!(text, "  Port {} is not served: {}", word(&port["portName"]), word(&port["reason"])).ok();
    }
    text
}

fn frontend_text(frontend: &Value) -> String {
    let everywhere = if frontend["kind"] == "HostPort" { "this node" } else { "every node" };
    let address = frontend["address"].as_str().unwrap_or(everywhere);
    let mut text =
        format!("  {} {address}:{}/{}", word(&frontend["kind"]), word(&frontend["port"]), word(&frontend["protocol"]));
    if let Some(name) = frontend["portName"].as_str().filter(|name| !name.is_empty()) {
        write!(text, " \"{name}\"").ok();
    }
    write!(text, ", {} clients, policy {}", word(&frontend["scope"]), word(&frontend["policy"])).ok();
    if frontend["held"] == false {
        text.push_str(", NOT IN THE KERNEL");
    }
    text.push('\n');
    let backends = list(&frontend["backends"]);
    if backends.is_empty() {
        text.push_str("    no backends: connections are refused\n");
    } else {
        let mut grid = Grid::default();
        grid.row(["BACKEND", "POD", "NODE", "STATE", "PICKS"]);
        for backend in backends {
            let place = format!("{}:{}", word(&backend["address"]), word(&backend["port"]));
            let picks = backend["picks"].as_u64().unwrap_or_default();
            let affine = backend["affinePicks"].as_u64().unwrap_or_default();
            let picks = if affine > 0 { format!("{picks} ({affine} by affinity)") } else { picks.to_string() };
            grid.row([place, word(&backend["pod"]), word(&backend["node"]), state(backend).to_owned(), picks]);
        }
        text.push_str(&indented(&grid));
    }
    text.push_str(&excluded_text(list(&frontend["excluded"])));
    if let Some(unserved) = frontend["unserved"].as_u64().filter(|count| *count > 0) {
        writeln!(text, "    {unserved} connections found no backend").ok();
    }
    text
}

/// Where the names lead, with the endpoints behind them.
fn names_text(names: &Value) -> String {
    let mut grid = Grid::default();
    grid.row(["NAME", "TYPE", "LEADS TO"]);
    for record in list(&names["records"]) {
        let data: Vec<String> = list(&record["data"]).iter().map(word).collect();
        let leads_to = if data.is_empty() { "nothing: there is no such name now".into() } else { data.join(", ") };
        grid.row([word(&record["name"]), word(&record["type"]), leads_to]);
    }
    let mut text = indented(&grid);
    let endpoints = list(&names["endpoints"]);
    if !endpoints.is_empty() {
        let mut grid = Grid::default();
        grid.row(["ENDPOINT", "POD", "NODE"]);
        for endpoint in endpoints {
            grid.row([word(&endpoint["address"]), word(&endpoint["pod"]), word(&endpoint["node"])]);
        }
        text.push_str(&indented(&grid));
    }
    text + &excluded_text(list(&names["excluded"]))
}

fn excluded_text(excluded: &[Value]) -> String {
    if excluded.is_empty() {
        return String::new();
    }
    let mut grid = Grid::default();
    grid.row(["LEFT OUT", "POD", "NODE", "WHY"]);
    for endpoint in excluded {
        let port = endpoint["port"].as_u64().map_or(String::new(), |port| format!(":{port}"));
        let place = format!("{}{port}", word(&endpoint["address"]));
        grid.row([place, word(&endpoint["pod"]), word(&endpoint["node"]), word(&endpoint["reason"])]);
    }
    indented(&grid)
}

fn state(backend: &Value) -> &'static str {
    match (backend["held"] == true, backend["wanted"] == true, backend["terminating"] == true) {
        (true, true, false) => "in the kernel",
        (true, true, true) => "in the kernel, terminating",
        (true, false, _) => "in the kernel, NOT WANTED",
        (false, _, _) => "NOT IN THE KERNEL",
    }
}

fn indented(grid: &Grid) -> String {
    grid.render().lines().map(|line| format!("    {line}\n")).collect()
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_inspection_names_every_backend_and_every_exclusion() {
        let inspection = json!({"service": {"namespace": "default", "name": "web", "type": "ClusterIP"},
            "unreachable": [],
            "nodes": [{"node": "a", "datapath": "ebpf", "appliedRevision": 7, "tableRevision": 7,
                "dns": {"records": [{"name": "web.default.svc.cluster.local", "type": "A", "data": ["10.96.0.20"]}]},
                "frontends": [{"kind": "ClusterIP", "address": "10.96.0.20", "port": 80, "portName": "http",
                    "protocol": "TCP",
                    "scope": "internal", "policy": "Cluster", "held": true, "unserved": 2,
                    "backends": [{"address": "10.244.0.5", "port": 8080, "pod": "default/web-1", "node": "a", "held": true,
                        "wanted": true, "picks": 12, "affinePicks": 0}],
                    "excluded": [{"address": "10.244.0.6", "port": 8080, "pod": "default/web-2", "node": "a", "reason": "not ready"}]}]}]});
        assert_eq!(
            render(&inspection),
            "Service:   default/web\n\
             Type:      ClusterIP\n\
             DNS:       web.default.svc.cluster.local\n\
             \n\
             Node a (ebpf; revision 7 is in the kernel)\n\
             \x20 ClusterIP 10.96.0.20:80/TCP \"http\", internal clients, policy Cluster\n\
             \x20   BACKEND           POD             NODE   STATE           PICKS\n\
             \x20   10.244.0.5:8080   default/web-1   a      in the kernel   12\n\
             \x20   LEFT OUT          POD             NODE   WHY\n\
             \x20   10.244.0.6:8080   default/web-2   a      not ready\n\
             \x20   2 connections found no backend\n"
        );
    }

    #[test]
    fn an_inspection_of_a_headless_service_shows_where_its_names_lead() {
        let records = json!([{"name": "db.default.svc.cluster.local", "type": "A", "data": ["10.244.0.5"]},
            {"name": "db-0.db.default.svc.cluster.local", "type": "A", "data": ["10.244.0.5"]}]);
        let dns = json!({"revision": 7, "records": records,
            "endpoints": [{"address": "10.244.0.5", "pod": "default/db-0", "node": "a"}],
            "excluded": [{"address": "10.244.0.6", "pod": "default/db-1", "node": "b", "reason": "not ready"}]});
        let inspection = json!({"service": {"namespace": "default", "name": "db", "type": "ClusterIP",
            "clusterIP": "None"},
            "unreachable": [], "nodes": [{"node": "a", "datapath": "ebpf", "appliedRevision": 7, "tableRevision": 7,
                "frontends": [],
                "noFrontendsBecause": "the Service is headless", "dns": dns}]});
        assert_eq!(
            render(&inspection),
            "Service:   default/db\n\
             Type:      ClusterIP, headless\n\
             DNS:       db.default.svc.cluster.local\n\
             \n\
             Node a (ebpf; revision 7 is in the kernel)\n\
             \x20 Nothing for the datapath to do: the Service is headless\n\
             \x20   NAME                                TYPE   LEADS TO\n\
             \x20   db.default.svc.cluster.local        A      10.244.0.5\n\
             \x20   db-0.db.default.svc.cluster.local   A      10.244.0.5\n\
             \x20   ENDPOINT     POD            NODE\n\
             \x20   10.244.0.5   default/db-0   a\n\
             \x20   LEFT OUT     POD            NODE   WHY\n\
             \x20   10.244.0.6   default/db-1   b      not ready\n"
        );
    }

    #[test]
    fn a_name_without_ready_endpoints_leads_to_nothing() {
        let names = json!({"records": [{"name": "db.default.svc.cluster.local", "type": "A", "data": []}]});
        assert!(names_text(&names).contains("A      nothing: there is no such name now\n"));
    }

    #[test]
    fn an_inspection_of_a_pod_names_its_host_ports() {
        let backend = json!({"address": "10.244.0.5", "port": 80, "pod": "default/web", "node": "a", "held": true,
            "wanted": true,
            "picks": 1, "affinePicks": 0});
        let frontend = json!({"kind": "HostPort", "port": 8080, "portName": "", "protocol": "TCP", "scope": "external",
            "policy": "the pod itself", "held": true, "unserved": 0, "backends": [backend], "excluded": []});
        let inspection = json!({"pod": {"namespace": "default", "name": "web", "podIP": "10.244.0.5"},
            "nodes": [{"node": "a", "datapath": "ebpf", "appliedRevision": 7, "tableRevision": 7,
                "frontends": [frontend]}]});
        let text = render_pod(&inspection);
        assert!(text.starts_with("Pod:       default/web\nAddress:   10.244.0.5\n\nNode a "), "{text}");
        assert!(text.contains("HostPort this node:8080/TCP, external clients, policy the pod itself\n"), "{text}");
    }
}
