//! What an autoscaler measures and aims at, as one cell of a table: `cpu: 35%/80%`.

use serde_json::Value;

use crate::kinds::{
    quantity::Quantity,
    reading::{items, text},
};

/// How many metrics are shown.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

/// The text of all metrics, beside their present values.
pub fn text_of(metrics: &Value, current: &Value) -> String {
    let count = items(metrics).len();
    if count == 0 {
        return "<none>".to_owned();
    }
    let shown = items(metrics).take(SHOWN).enumerate().map(|(i, metric)| one(metric, &current[i]));
    let shown = shown.collect::<Vec<_>>().join(", ");
    if count > SHOWN { format!("{shown} + {} more...", count - SHOWN) } else { shown }
}

fn one(metric: &Value, current: &Value) -> String {
    let field = match text(metric, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (source, now) = (&metric[field], &current[field]["current"]);
    let target = &source["target"];
    let average = !target["averageValue"].is_null();
    match field {
        "resource" | "containerResource" if average => {
            let (now, target) = (quantity(&now["averageValue"]), quantity(&target["averageValue"]));
            format!("{}: {now}/{target}", text(source, "name"))
        }
        "resource" | "containerResource" => {
            let percent = |value: &Value, otherwise: &str| {
                value.as_i64().map_or_else(|| otherwise.to_owned(), |percent| format!("{percent}%"))
            };
            let now = percent(&now["averageUtilization"], UNKNOWN);
            format!("{}: {now}/{}", text(source, "name"), percent(&target["averageUtilization"], "<auto>"))
        }
        "pods" => format!("{}/{}", quantity(&now["averageValue"]), quantity(&target["averageValue"])),
        _ if average => format!("{}/{} (avg)", quantity(&now["averageValue"]), quantity(&target["averageValue"])),
        _ => format!("{}/{}", quantity(&now["value"]), quantity(&target["value"])),
    }
}

fn quantity(value: &Value) -> String {
    Quantity::of(value).map_or_else(|| UNKNOWN.to_owned(), |quantity| quantity.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_metric_is_shown_beside_its_target() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "1500m"}}});
        let queue = json!({"type": "External", "external": {"target": {"averageValue": "30"}}});
        let current = json!([{"resource": {"current": {"averageUtilization": 35}}}]);
        assert_eq!(text_of(&json!([cpu]), &current), "cpu: 35%/80%");
        assert_eq!(text_of(&json!([cpu, pods]), &Value::Null), "cpu: <unknown>/80%, <unknown>/1500m");
        assert_eq!(text_of(&json!([queue, pods, cpu]), &json!([])), "<unknown>/30 (avg), <unknown>/1500m + 1 more...");
        assert_eq!(text_of(&Value::Null, &Value::Null), "<none>");
    }
}
