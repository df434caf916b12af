//! IPAddress: that one address of the service range is taken, and by which Service (KEP 1880).
//!
//! Made and removed with the Service by [`crate::allocation`].

use std::net::IpAddr;

use serde_json::Value;

use super::{
    BuiltIn, Cell, Column, FieldError, Naming, names,
    reading::{same, text},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    object_name,
    naming: Naming::BaseAlone,
    validate,
    columns: &[Column::name(), Column::text("ParentRef", "The object that has the address.")],
    cells: |object| {
        let parent = &object["spec"]["parentRef"];
        let text = |field: &str| parent[field].as_str().filter(|text| !text.is_empty());
        let resource = match (text("group"), text("resource")) {
            (Some(group), Some(resource)) => format!("{resource}.{group}"),
            (None, Some(resource)) => resource.to_owned(),
            (_, None) => String::new(),
        };
        let parts = [Some(resource.as_str()), text("namespace"), text("name")];
        vec![Cell::name(object), Cell::text(parts.into_iter().flatten().collect::<Vec<_>>().join("/"))]
    },
    schema: "io.k8s.api.networking.v1.IPAddress",
    ..BuiltIn::PLAIN
};

/// The name is the address, in the one form that Go's `netip` prints.
fn object_name(name: &str) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form ({ip:?})")],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let parent = &new["spec"]["parentRef"];
    let mut errors = parent_errors("spec.parentRef", parent);
    if old.is_some_and(|old| !same(&old["spec"]["parentRef"], parent)) {
        errors.push(FieldError::immutable("spec.parentRef", parent));
    }
    errors
}

fn parent_errors(path: &str, parent: &Value) -> Vec<FieldError> {
    if !parent.is_object() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if !text(parent, "group").is_empty() {
        errors.extend(FieldError::each(format!("{path}.group"), &parent["group"], names::subdomain));
    }
    for (field, is_required) in [("resource", true), ("name", true), ("namespace", false)] {
        let path = format!("{path}.{field}");
        match text(parent, field) {
            "" if is_required => errors.push(FieldError::required(path, "")),
            "" => {}
            _ => errors.extend(FieldError::each(path, &parent[field], names::path_segment)),
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_an_address_in_its_one_form() {
        for name in ["10.96.0.1", "2001:db8::1"] {
            assert!(object_name(name).is_empty(), "{name}");
        }
        for name in ["web", "010.96.0.1", "2001:DB8::1", "2001:db8:0::1", ""] {
            assert!(!object_name(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn an_address_says_who_has_it_and_keeps_to_it() {
        let of = |name: &str| json!({"spec": {"parentRef": {"resource": "services", "namespace": "a", "name": name}}});
        assert_eq!(validate(&of("web"), None), []);
        assert_eq!(validate(&json!({"spec": {}}), None).len(), 1);
        assert_eq!(validate(&of(""), None).len(), 1);
        assert_eq!(validate(&of("db"), Some(&of("web"))).len(), 1);
        let paths = |parent: Value| -> Vec<String> {
            validate(&json!({"spec": {"parentRef": parent}}), None).into_iter().map(|e| e.path).collect()
        };
        let bad = json!({"group": "A", "resource": "a/b", "name": "..", "namespace": "%"});
        assert_eq!(paths(bad), ["group", "resource", "name", "namespace"].map(|f| format!("spec.parentRef.{f}")));
    }
}
