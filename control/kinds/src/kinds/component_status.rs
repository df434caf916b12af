//! ComponentStatus: how a part of the control service is, as old clients ask (`kubectl get cs`). Made when it is asked
//! for; who tells is `api::component_status`.

use serde_json::Value;

use super::{BuiltIn, Cell, Column, Storage, reading::items, reading::text};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    storage: Storage::Computed,
    columns: &[
        Column::name(),
        Column::text("Status", "Status of the component conditions"),
        Column::text("Message", "Message of the component conditions"),
        Column::text("Error", "Error of the component conditions"),
    ],
    cells,
    schema: "io.k8s.api.core.v1.ComponentStatus",
    ..BuiltIn::PLAIN
};

fn cells(object: &Value) -> Vec<Cell> {
    let healthy = items(&object["conditions"]).find(|condition| condition["type"] == "Healthy");
    let (status, message, error) = match healthy {
        None => ("Unknown", "", ""),
        Some(condition) => {
            let status = if condition["status"] == "True" { "Healthy" } else { "Unhealthy" };
            (status, text(condition, "message"), text(condition, "error"))
        }
    };
    vec![Cell::name(object), Cell::text(status), Cell::text(message), Cell::text(error)]
}
