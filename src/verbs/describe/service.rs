//! A Service with its endpoints.

use serde_json::Value;

use super::{
    metadata,
    page::{Page, list, word},
};

/// A Service, with the endpoints of its slices.
pub fn describe(page: &mut Page, service: &Value, slices: &[Value]) {
    let spec = &service["spec"];
    metadata::name(page, service);
    metadata::labels_and_annotations(page, service);
    page.field("Selector", metadata::selector(&spec["selector"]));
    page.field("Type", word(&spec["type"]));
    page.optional("IP Family Policy", &spec["ipFamilyPolicy"]);
    let several = |value: &Value| list(value).iter().map(word).collect::<Vec<_>>().join(",");
    if !list(&spec["ipFamilies"]).is_empty() {
        page.field("IP Families", several(&spec["ipFamilies"]));
    }
    page.field("IP", word(&spec["clusterIP"]));
    if !list(&spec["clusterIPs"]).is_empty() {
        page.field("IPs", several(&spec["clusterIPs"]));
    }
    if !list(&spec["externalIPs"]).is_empty() {
        page.field("External IPs", several(&spec["externalIPs"]));
    }
    page.optional("External Name", &spec["externalName"]);
    for port in list(&spec["ports"]) {
        let name = port["name"].as_str().unwrap_or("<unset>");
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        page.field("Port", format!("{name}  {}/{protocol}", word(&port["port"])));
        page.field("TargetPort", format!("{}/{protocol}", word(&port["targetPort"])));
        if port["nodePort"].as_u64().is_some_and(|number| number > 0) {
            page.field("NodePort", format!("{name}  {}/{protocol}", word(&port["nodePort"])));
        }
        page.field("Endpoints", endpoints(slices, port["name"].as_str().unwrap_or_default()));
    }
    page.field("Session Affinity", word(&spec["sessionAffinity"]));
    page.optional("External Traffic Policy", &spec["externalTrafficPolicy"]);
    page.optional("Internal Traffic Policy", &spec["internalTrafficPolicy"]);
}

/// The ready addresses behind the port of that name.
fn endpoints(slices: &[Value], port_name: &str) -> String {
    let mut found = Vec::new();
    for slice in slices {
        let ports = list(&slice["ports"]).iter().filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
        for port in ports {
            for endpoint in list(&slice["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false) {
                found.extend(
                    list(&endpoint["addresses"])
                        .iter()
                        .map(|address| format!("{}:{}", word(address), word(&port["port"]))),
                );
            }
        }
    }
    match found.len() {
        0 => "<none>".into(),
        1..=3 => found.join(","),
        more => format!("{} + {} more...", found[..3].join(","), more - 3),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ready_endpoints_of_the_port_are_listed() {
        let slice = json!({"ports": [{"name": "http", "port": 8080}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"],
                "conditions": {"ready": false}}]});
        assert_eq!(endpoints(std::slice::from_ref(&slice), "http"), "10.0.0.1:8080");
        assert_eq!(endpoints(&[slice], "other"), "<none>");
    }
}
