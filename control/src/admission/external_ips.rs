//! DenyServiceExternalIPs: Services get no external addresses beside those that they have.
//!
//! Source: `plugin/pkg/admission/network/denyserviceexternalips`, whose words these are.

use std::collections::HashSet;

use serde_json::Value;

use super::plugins::{AdmissionContext, Plugin, Validate};
use crate::{
    admission_plugins::PluginName,
    kinds::reading::{as_text, items},
    status::Status,
};

/// New external addresses are refused.
pub static PLUGIN: Plugin =
    Plugin { validate: Some(Validate::Now(validate)), ..Plugin::named(PluginName::DenyServiceExternalIPs) };

fn validate(context: &AdmissionContext<'_>, service: &Value) -> Result<(), Status> {
    match context.puts(("", "Service")) && adds_addresses(service, context.request.old.unwrap_or(&Value::Null)) {
        true => Err(context.forbidden("Use of external IPs is denied by admission control")),
        false => Ok(()),
    }
}

pub(super) fn adds_addresses(new: &Value, old: &Value) -> bool {
    let (new, old) = (&new["spec"]["externalIPs"], &old["spec"]["externalIPs"]);
    let known: HashSet<&str> = items(old).map(as_text).collect();
    !items(new).map(as_text).all(|address| known.contains(address))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_may_stay_and_go_and_none_may_come() {
        let service = |addresses: Value| json!({"spec": {"externalIPs": addresses}});
        let two = service(json!(["192.0.2.1", "192.0.2.2"]));
        assert!(!adds_addresses(&json!({"spec": {}}), &Value::Null));
        assert!(!adds_addresses(&two, &two) && !adds_addresses(&service(json!(["192.0.2.2"])), &two));
        assert!(adds_addresses(&two, &Value::Null) && adds_addresses(&service(json!(["192.0.2.3"])), &two));
    }
}
