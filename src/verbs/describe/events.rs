//! What has happened to an object.

use jiff::Timestamp;
use serde_json::Value;

use super::page::{Page, word};
use crate::{
    cluster::{Cluster, ResourceType, field_equals, resource_path, with_query},
    output::age,
};

/// The events that name `object`, oldest first.
pub async fn of(cluster: &Cluster, kind: &ResourceType, object: &Value) -> anyhow::Result<Vec<Value>> {
    let Some(events) = cluster.resources().await?.by_kind("v1", "Event") else { return Ok(Vec::new()) };
    let metadata = &object["metadata"];
    let name = field_equals("involvedObject.name", &word(&metadata["name"]));
    let mut field = format!("involvedObject.kind={},{name}", kind.kind);
    // A Node's events carry its name instead of its uid.
    if let Some(uid) = metadata["uid"].as_str().filter(|_| kind.kind != "Node") {
        field.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let path = resource_path(events, metadata["namespace"].as_str());
    let mut found = super::items(cluster, &with_query(&path, &[("fieldSelector", &field)])).await?;
    found.sort_by_key(|event| last_seen(event).unwrap_or_default().to_owned());
    Ok(found)
}

/// The events as a table.
pub fn describe(page: &mut Page, events: &[Value]) {
    if events.is_empty() {
        page.field("Events", "<none>");
        return;
    }
    let now = Timestamp::now();
    page.section("Events", |page| {
        let row = |event: &Value| {
            let last = age(last_seen(event), now);
            let count = event["count"].as_u64().or(event["series"]["count"].as_u64()).unwrap_or(1);
            let seen = match count {
                0 | 1 => last,
                times => format!("{last} (x{times} over {})", age(first_seen(event), now)),
            };
            let from = [&event["source"]["component"], &event["reportingComponent"]];
            let from =
                from.into_iter().find_map(|value| value.as_str().filter(|text| !text.is_empty())).unwrap_or_default();
            [
                word(&event["type"]),
                word(&event["reason"]),
                seen,
                from.to_owned(),
                word(&event["message"]).trim().to_owned(),
            ]
        };
        page.table(["Type", "Reason", "Age", "From", "Message"], events.iter().map(row));
    });
}

fn last_seen(event: &Value) -> Option<&str> {
    [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ]
    .into_iter()
    .find_map(Value::as_str)
}

fn first_seen(event: &Value) -> Option<&str> {
    [&event["firstTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]]
        .into_iter()
        .find_map(Value::as_str)
}
