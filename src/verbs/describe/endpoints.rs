//! Endpoints.

use serde_json::Value;

use super::{
    metadata,
    page::{Page, list, word},
};

/// Addresses and ports of an Endpoints object.
pub fn describe(page: &mut Page, endpoints: &Value) {
    metadata::name(page, endpoints);
    metadata::labels_and_annotations(page, endpoints);
    page.section("Subsets", |page| {
        for subset in list(&endpoints["subsets"]) {
            let addresses = |field: &str| {
                let all: Vec<String> = list(&subset[field]).iter().map(|address| word(&address["ip"])).collect();
                if all.is_empty() { "<none>".into() } else { all.join(",") }
            };
            page.field("Addresses", addresses("addresses"));
            page.field("NotReadyAddresses", addresses("notReadyAddresses"));
            page.section("Ports", |page| {
                let row = |port: &Value| {
                    [
                        port["name"].as_str().unwrap_or("<unset>").to_owned(),
                        word(&port["port"]),
                        port["protocol"].as_str().unwrap_or("TCP").to_owned(),
                    ]
                };
                page.table(["Name", "Port", "Protocol"], list(&subset["ports"]).iter().map(row));
            });
        }
    });
}
