//! Masks in an answer what differs by nature: UIDs, revisions, times of now, generated names, allocated addresses.

use std::{net::Ipv4Addr, str::FromStr};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::exchange::Answer;

/// The range both servers give ClusterIPs from.
pub const SERVICE_RANGE: &str = "10.96.0.0/12";

/// The answer without what no two servers have in common.
pub fn normalise(mut answer: Answer) -> Answer {
    let now = Timestamp::now();
    let is_table = answer.body["kind"] == "Table";
    if is_table {
        for row in answer.body["rows"].as_array_mut().into_iter().flatten() {
            row["cells"].as_array_mut().into_iter().flatten().for_each(mask_age);
        }
    }
    mask(&mut answer.body, now);
    for warning in &mut answer.warnings {
        *warning = masked_text(warning, now);
    }
    answer
}

/// `5s` or `2m3s` in a cell.
fn mask_age(cell: &mut Value) {
    let Some(text) = cell.as_str() else { return };
    let is_age = text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h', 'd'])
        && text.chars().all(|c| c.is_ascii_digit() || ['s', 'm', 'h', 'd'].contains(&c));
    if is_age {
        *cell = "<age>".into();
    }
}

fn mask(value: &mut Value, now: Timestamp) {
    match value {
        Value::String(text) => *text = masked_text(text, now),
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, now)),
        Value::Object(map) => {
            // A generated name is its prefix and five characters.
            if let Some(prefix) = map.get("generateName").and_then(Value::as_str).map(str::to_owned)
                && let Some(Value::String(name)) = map.get_mut("name")
                && name.len() == prefix.len() + 5
                && name.starts_with(&prefix)
            {
                *name = format!("{prefix}<generated>");
            }
            for (key, inner) in map.iter_mut() {
                // Their order is that of the seconds in which they wrote.
                if let ("managedFields", Value::Array(managers)) = (key.as_str(), &mut *inner) {
                    managers.sort_by_key(|one| {
                        ["manager", "operation", "apiVersion", "subresource"].map(|field| one[field].to_string())
                    });
                }
                match (key.as_str(), &*inner) {
                    ("resourceVersion", Value::String(text)) if !text.is_empty() && text != "0" => {
                        *inner = "<revision>".into();
                    }
                    ("continue", Value::String(text)) if text.len() > 20 => *inner = "<continue>".into(),
                    ("nodePort" | "healthCheckNodePort", Value::Number(port))
                        if port.as_u64().is_some_and(|port| (30_000..=32_767).contains(&port)) =>
                    {
                        *inner = "<port>".into();
                    }
                    _ => mask(inner, now),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Where a text names the revision of the stored object.
const IN_RECORD: [&str; 2] = ["does not match the ResourceVersion in record (", "ResourceVersion in object meta: "];

/// Each word of a text that is a UID, a time of now, or an allocated address.
fn masked_text(text: &str, now: Timestamp) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ['-', ':', '.', '+'].contains(&c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end == 0 {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
            continue;
        }
        let word = &rest[..end];
        let is_revision =
            IN_RECORD.iter().any(|before| out.ends_with(before)) && word.chars().all(|c| c.is_ascii_digit());
        let mask = if is_revision { Some("<revision>") } else { mask_of(word, now) };
        out.push_str(mask.unwrap_or(word));
        rest = &rest[end..];
    }
    out
}

fn mask_of(word: &str, now: Timestamp) -> Option<&'static str> {
    // UIDs that requests make up stay.
    if word.len() == 36 && uuid_like(word) && !word.contains("-0000-4000-") {
        return Some("<uid>");
    }
    if word.strip_prefix("kube-api-access-").is_some_and(|rest| rest.len() == 5) {
        return Some("kube-api-access-<generated>");
    }
    if let Ok(address) = Ipv4Addr::from_str(word) {
        let [a, b, ..] = address.octets();
        return (a == 10 && (96..112).contains(&b)).then_some("<service address>");
    }
    let time = word.parse::<Timestamp>().ok()?;
    (now.duration_since(time).abs() < SignedDuration::from_hours(2)).then_some("<now>")
}

fn uuid_like(word: &str) -> bool {
    word.char_indices().all(|(at, c)| if [8, 13, 18, 23].contains(&at) { c == '-' } else { c.is_ascii_hexdigit() })
}
