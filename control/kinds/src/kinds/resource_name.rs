//! Which names resources may have: `cpu`, `requests.memory`, `hugepages-2Mi`, `example.com/gpu`; and which amounts of
//! them make sense.
//!
//! Source: `validateResourceName` and its neighbours in Kubernetes' core validation, and the core API's helpers.

use serde_json::Value;

use super::{FieldError, names, quantity::Quantity};

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

/// What a quota counts as whole objects.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// What a quota measures.
const MEASURED: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// Whether the resource is memory in pages of one size.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether Kubernetes itself defines the resource.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a vendor defines the resource: `example.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with(REQUESTS) && names::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

/// Whether containers may be promised more of it than there is.
pub fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether a quota knows the resource without a prefix of its own.
pub fn is_standard_for_quota(name: &str) -> bool {
    COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || is_huge_page(name)
        || name.strip_prefix(REQUESTS).is_some_and(is_huge_page)
}

/// Why a text names no resource.
pub fn any(path: &str, name: &str) -> Vec<FieldError> {
    let value = Value::from(name);
    let wrong = FieldError::each(path, &value, names::qualified_name);
    if wrong.is_empty() && !name.contains('/') && !is_standard_for_quota(name) && name != "storage" {
        return vec![FieldError::invalid(path, &value, "must be a standard resource type or fully qualified")];
    }
    wrong
}

/// Why a text names no resource of a container.
pub fn of_container(path: &str, name: &str) -> Vec<FieldError> {
    let mut errors = any(path, name);
    let value = Value::from(name);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            errors.push(FieldError::invalid(path, &value, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(path, &value, "doesn't follow extended resource name standard"));
    }
    errors
}

/// Why a text names no resource of a whole pod.
pub fn of_pod(path: &str, name: &str) -> Vec<FieldError> {
    let errors = any(path, name);
    if errors.is_empty() && !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        let supported = ["cpu", "hugepages-", "memory"];
        return vec![FieldError::not_supported(path, &Value::from(name), &supported)];
    }
    errors
}

/// Why a text names nothing that a quota limits.
pub fn of_quota(path: &str, name: &str) -> Vec<FieldError> {
    let mut errors = any(path, name);
    if !name.contains('/') && !is_standard_for_quota(name) {
        let why = "must be a standard resource for quota";
        errors.push(FieldError::invalid(path, &Value::from(name), why));
    }
    errors
}

/// Why there cannot be that much of a resource.
pub fn amount(path: &str, name: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(quantity) = Quantity::of(value) else { return errors };
    let canonical = Value::from(quantity.to_string());
    if quantity.is_negative() {
        errors.push(FieldError::invalid(path, &canonical, "must be greater than or equal to 0"));
    }
    if (COUNTED.contains(&name) || is_extended(name)) && quantity.millis() % 1_000 != 0 {
        errors.push(FieldError::invalid(path, &canonical, "must be an integer"));
    }
    errors
}

/// Why an amount of huge pages is none: it is no multiple of a page.
pub fn whole_pages(path: &str, name: &str, quantity: Quantity) -> Option<FieldError> {
    let page = Quantity::parse(name.strip_prefix(HUGE_PAGES)?);
    let divides = page
        .is_some_and(|page| page.is_positive() && page.millis() % 1_000 == 0 && quantity.units() % page.units() == 0);
    let why = || format!("{quantity} is not positive integer multiple of {name}");
    (!divides).then(|| FieldError::invalid(path, &Value::from(quantity.to_string()), why()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_place_has_its_resources() {
        for name in ["cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "example.com/gpu", "kubernetes.io/x"] {
            assert_eq!(of_container("p", name), [], "{name}");
        }
        for name in ["cpus", "pods", "storage", "requests.example.com/gpu", "a b", ""] {
            assert!(!of_container("p", name).is_empty(), "{name}");
        }
        assert_eq!(
            of_container("p", "gpu").iter().map(|e| e.message.as_str()).collect::<Vec<_>>(),
            [
                "Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "Invalid value: \"gpu\": must be a standard resource for containers"
            ]
        );
        assert_eq!(of_quota("p", "count/deployments.apps"), []);
        assert_eq!(of_quota("p", "requests.hugepages-1Gi"), []);
        assert_eq!(of_quota("p", "storage").len(), 1);
        assert_eq!((of_pod("p", "cpu").len(), of_pod("p", "example.com/gpu").len()), (0, 1));
        assert!(allows_overcommit("cpu") && !allows_overcommit("example.com/gpu"));
    }

    #[test]
    fn amounts_are_not_negative_and_counts_are_whole() {
        assert_eq!(amount("p", "cpu", &json!("100m")), []);
        assert_eq!(amount("p", "cpu", &json!("-1")).len(), 1);
        assert_eq!(
            amount("p", "example.com/gpu", &json!("500m"))[0].message,
            "Invalid value: \"500m\": must be an integer"
        );
        assert!(whole_pages("p", "hugepages-2Mi", Quantity::of_units(4 << 20)).is_none());
        let error = whole_pages("p", "hugepages-2Mi", Quantity::of_units(3 << 20)).unwrap();
        assert!(error.message.ends_with("is not positive integer multiple of hugepages-2Mi"));
    }
}
