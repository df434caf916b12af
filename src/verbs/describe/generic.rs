//! Any other object: its fields as they are.

use serde_json::{Map, Value};

use super::{
    metadata,
    page::{Page, list, map, word},
};

/// All fields of an object of any kind.
pub fn describe(page: &mut Page, object: &Value) {
    metadata::name(page, object);
    metadata::labels_and_annotations(page, object);
    page.field("API Version", word(&object["apiVersion"]));
    page.field("Kind", word(&object["kind"]));
    page.optional("Created", &object["metadata"]["creationTimestamp"]);
    metadata::controlled_by(page, object);
    if !list(&object["metadata"]["finalizers"]).is_empty() {
        page.field(
            "Finalizers",
            list(&object["metadata"]["finalizers"]).iter().map(word).collect::<Vec<_>>().join(", "),
        );
    }
    let body: Map<String, Value> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    fields(page, &body);
}

/// The keys of a Secret with their sizes: what it holds is not for the screen.
pub fn secret(page: &mut Page, secret: &Value) {
    metadata::name(page, secret);
    metadata::labels_and_annotations(page, secret);
    page.field("Type", word(&secret["type"]));
    let typed: Option<k8s_openapi::api::core::v1::Secret> = fairlead_client::from_value(secret).ok();
    page.section("Data", |page| {
        for (key, content) in typed.and_then(|secret| secret.data).into_iter().flatten() {
            page.field(&key, format!("{} bytes", content.0.len()));
        }
    });
}

fn fields(page: &mut Page, fields: &Map<String, Value>) {
    for (key, value) in fields {
        let title = format!(
            "{}{}",
            key.chars().next().map(|c| c.to_uppercase().to_string()).unwrap_or_default(),
            key.chars().skip(1).collect::<String>()
        );
        match value {
            Value::Object(inner) if inner.values().all(|value| !value.is_object() && !value.is_array()) => {
                page.field(&title, map(value, ": "));
            }
            Value::Object(inner) => page.section(&title, |page| self::fields(page, inner)),
            Value::Array(items) if items.iter().any(Value::is_object) => page.section(&title, |page| {
                for (i, item) in items.iter().enumerate() {
                    match item {
                        Value::Object(inner) => page.section(&format!("{}", i + 1), |page| self::fields(page, inner)),
                        other => page.line(&word(other)),
                    }
                }
            }),
            Value::Array(items) => page.field(&title, items.iter().map(word).collect::<Vec<_>>().join(", ")),
            other => page.field(&title, word(other)),
        }
    }
}
