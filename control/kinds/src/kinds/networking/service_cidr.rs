//! ServiceCIDR: a range from which Services get their addresses (KEP 1880).
//!
//! The one named `kubernetes` is the range that the control service was started with; see `bootstrap`.

use serde_json::Value;

use super::GROUP;
use crate::kinds::{BuiltIn, Cell, Column, FieldError, cidr};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    subresources: &["status"],
    validate,
    columns: &[Column::name(), Column::text("CIDRs", "The ranges, one of each IP family at most."), Column::age()],
    cells: |object| {
        let ranges = object["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        vec![Cell::name(object), Cell::text(ranges.collect::<Vec<_>>().join(",")), Cell::age(object)]
    },
    schema: "io.k8s.api.networking.v1.ServiceCIDR",
    ..BuiltIn::PLAIN
};

fn list(object: &Value) -> &[Value] {
    object["spec"]["cidrs"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(old) = old.map(list) else { return ranges(new) };
    let new_list = list(new);
    let changed = |(i, (old, new)): (usize, (&Value, &Value))| {
        (old != new).then(|| FieldError::immutable(format!("spec.cidrs[{i}]"), new))
    };
    let mut errors: Vec<FieldError> = old.iter().zip(new_list).enumerate().filter_map(changed).collect();
    match (old.len(), new_list.len()) {
        (a, b) if a == b => {}
        // A range of the other family may be added.
        (1, 2) => errors.extend(ranges(new)),
        _ => errors = vec![FieldError::immutable("spec.cidrs", &new["spec"]["cidrs"])],
    }
    errors
}

fn ranges(object: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.cidrs";
    let list = list(object);
    match list.len() {
        0 => return vec![FieldError::required(PATH, "at least one CIDR required")],
        1 | 2 => {}
        _ => {
            let spec = serde_json::json!({"CIDRs": object["spec"]["cidrs"]});
            return vec![FieldError::invalid(PATH, &spec, "may only hold up to 2 values")];
        }
    }
    let each = list.iter().enumerate();
    let mut errors: Vec<FieldError> =
        each.flat_map(|(i, range)| cidr::canonical(&format!("{PATH}[{i}]"), range)).collect();
    let is_v6 = |range: &Value| cidr::lenient(PATH, range).ok().map(|range| range.is_ipv6());
    if let [first, second] = list
        && is_v6(first).is_some()
        && is_v6(first) == is_v6(second)
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(PATH, &object["spec"]["cidrs"], why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(new: &[&str], old: Option<&[&str]>) -> Vec<String> {
        let of = |list: &[&str]| json!({"spec": {"cidrs": list}});
        let errors = validate(&of(new), old.map(of).as_ref());
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn one_range_of_each_family_at_most() {
        assert!(words(&["10.96.0.0/12"], None).is_empty());
        assert!(words(&["10.96.0.0/12", "fd00::/112"], None).is_empty());
        assert_eq!(words(&[], None), ["spec.cidrs: Required value: at least one CIDR required"]);
        assert!(words(&["10.96.0.0/12", "10.0.0.0/24"], None)[0].contains("no more than one IP for each IP family"));
        assert!(words(&["10.0.0.0/24", "fd00::/112", "10.1.0.0/24"], None)[0].contains("up to 2 values"));
        assert!(words(&["10.0.0.1/24"], None)[0].starts_with("spec.cidrs[0]: Invalid value: \"10.0.0.1/24\""));
    }

    #[test]
    fn a_range_stays_and_another_family_may_come() {
        let old: &[&str] = &["10.96.0.0/12"];
        assert!(words(&["10.96.0.0/12", "fd00::/112"], Some(old)).is_empty());
        assert_eq!(
            words(&["10.0.0.0/24"], Some(old)),
            ["spec.cidrs[0]: Invalid value: \"10.0.0.0/24\": field is immutable"]
        );
        assert_eq!(words(&[], Some(old)), ["spec.cidrs: Invalid value: []: field is immutable"]);
    }
}
