//! What containers and pods ask of a node: requests, limits and claims.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::kinds::{
    FieldError, FieldErrorReason, error_budget,
    field::{child, entry, item},
    names,
    quantity::Quantity,
    reading::{entries, is_empty, items, text},
    resource_name::{self, allows_overcommit, is_huge_page},
};

/// Reasons against the resources of a container. `claims` are the names of the pod's claims; `None` where there are no
/// pods.
pub fn of_container(path: &str, resources: &Value, claims: Option<&BTreeSet<&str>>) -> Vec<FieldError> {
    let mut errors = requirements(path, resources, resource_name::of_container);
    errors.extend(claim_names(&child(path, "claims"), &resources["claims"], claims));
    errors
}

/// Reasons against the resources that a pod says for all of its containers.
pub fn of_pod(path: &str, spec: &Value) -> Vec<FieldError> {
    let resources = &spec["resources"];
    if resources.is_null() {
        return Vec::new();
    }
    if spec["os"]["name"] == "windows" {
        return vec![FieldError::forbidden(path, "may not be set for a windows pod")];
    }
    let mut errors = Vec::new();
    if !resources["claims"].is_null() {
        let why = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(child(path, "claims"), why));
    }
    errors.extend(requirements(path, resources, resource_name::of_pod));
    let claims: BTreeSet<&str> = items(&spec["resourceClaims"]).map(|claim| text(claim, "name")).collect();
    errors.extend(claim_names(&child(path, "claims"), &resources["claims"], Some(&claims)));
    errors.extend(consistency(path, spec));
    errors
}

fn requirements(path: &str, resources: &Value, name_check: fn(&str, &str) -> Vec<FieldError>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (mut compute, mut pages) = (false, false);
    for list in ["limits", "requests"] {
        for (name, value) in entries(&resources[list]) {
            let path_of_amount = entry(&child(path, list), name);
            errors.extend(name_check(&path_of_amount, name));
            errors.extend(resource_name::amount(&path_of_amount, name, value));
            let Some(amount) = Quantity::of(value) else { continue };
            if list == "requests" {
                errors.extend(request_beside_limit(path, name, amount, &resources["limits"][name.as_str()]));
            }
            if is_huge_page(name) {
                pages = true;
                errors.extend(resource_name::whole_pages(&path_of_amount, name, amount));
            }
            compute |= matches!(name.as_str(), "cpu" | "memory");
        }
    }
    if pages && !compute {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    errors
}

fn request_beside_limit(path: &str, name: &str, request: Quantity, limit: &Value) -> Option<FieldError> {
    let Some(limit) = Quantity::of(limit) else {
        let why = "Limit must be set for non overcommitable resources";
        return (!allows_overcommit(name)).then(|| FieldError::required(child(path, "limits"), why));
    };
    let why = if request != limit && !allows_overcommit(name) {
        format!("must be equal to {name} limit of {limit}")
    } else if request > limit {
        format!("must be less than or equal to {name} limit of {limit}")
    } else {
        return None;
    };
    Some(FieldError::invalid(child(path, "requests"), &json!(request.to_string()), why))
}

fn claim_names(path: &str, claims: &Value, pod_claims: Option<&BTreeSet<&str>>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let known = pod_claims.map(|claims| claims.iter().copied().collect::<Vec<_>>().join(", ")).unwrap_or_default();
    for (i, claim) in items(claims).enumerate() {
        let path = item(path, i);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if seen.contains(name) {
            errors.push(FieldError::duplicate(&path, &json!(name)));
        } else {
            let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            if !request.is_empty() {
                errors.extend(FieldError::each(child(&path, "request"), &claim["request"], names::label));
            }
            let part = format!("{name}/");
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(&path, &json!(key)));
            } else if request.is_empty()
                && seen.range(part.clone()..).next().is_some_and(|other| other.starts_with(&part))
            {
                errors.push(FieldError::duplicate(&path, &json!(name)));
            }
            seen.insert(key);
        }
        if !pod_claims.is_some_and(|claims| claims.contains(name)) {
            errors.push(unknown_claim(path, name, &known));
        }
    }
    errors
}

/// `known` are the names of the pod's claims, in one text.
fn unknown_claim(path: String, name: &str, known: &str) -> FieldError {
    error_budget::reason(path, FieldErrorReason::NotFound, || {
        let known = if known.is_empty() { " which is empty".to_owned() } else { format!(": {known}") };
        let names = "must be one of the names in pod.spec.resourceClaims";
        format!("{}: {names}{known}", FieldError::not_found("", &json!(name)).message)
    })
}

/// What all containers together may need must fit in what the pod says.
fn consistency(path: &str, spec: &Value) -> Vec<FieldError> {
    let own = |list: &str, name: &str| Quantity::of(&spec["resources"][list][name]);
    let mut errors = Vec::new();
    for (name, needed) in aggregate(spec, "requests") {
        if let Some(own) = own("requests", &name).filter(|own| needed > *own) {
            let why = format!("must be greater than or equal to aggregate container requests of {needed}");
            errors.push(FieldError::invalid(format!("{path}.requests[{name}]"), &json!(own.to_string()), why));
        }
    }
    for (name, needed) in aggregate(spec, "limits").into_iter().filter(|(name, _)| is_huge_page(name)) {
        if let Some(own) = own("limits", &name).filter(|own| needed > *own) {
            let why = format!("must be greater than or equal to aggregate container limits of {needed}");
            errors.push(FieldError::invalid(format!("{path}.limits[{name}]"), &json!(own.to_string()), why));
        }
    }
    for (i, container) in items(&spec["containers"]).enumerate() {
        for (name, limit) in entries(&container["resources"]["limits"]) {
            let Some(limit) = Quantity::of(limit) else { continue };
            if let Some(own) = own("limits", name).filter(|own| limit > *own) {
                let why = format!("must be less than or equal to pod limits of {own}");
                let path = format!("{path}.containers[{i}][{name}].limits");
                errors.push(FieldError::invalid(path, &json!(limit.to_string()), why));
            }
        }
    }
    errors
}

/// The most that the containers of a pod have at one time, by resource: the app containers and sidecars together, or
/// one init container with the sidecars that were started before it.
///
/// Source: `AggregateContainerRequests` of component-helpers.
pub fn aggregate(spec: &Value, list: &str) -> Vec<(String, Quantity)> {
    #[derive(Clone, Copy)]
    struct Needed {
        apps: Quantity,
        sidecars: Quantity,
        init: Quantity,
    }
    const NOTHING: Needed = Needed { apps: Quantity::ZERO, sidecars: Quantity::ZERO, init: Quantity::ZERO };
    let mut names: Vec<&String> = Vec::new();
    let mut needed: HashMap<&String, Needed> = HashMap::new();
    let containers = items(&spec["containers"]).map(|container| (container, false));
    // A container changes nothing of what it does not name: each is looked at once, and not for every name.
    for (container, is_init) in containers.chain(items(&spec["initContainers"]).map(|container| (container, true))) {
        for (name, amount) in entries(&container["resources"][list]) {
            let amount = Quantity::of(amount).unwrap_or(Quantity::ZERO);
            let all = needed.entry(name).or_insert_with(|| {
                names.push(name);
                NOTHING
            });
            match is_init {
                false => all.apps = all.apps.saturating_add(amount),
                true if container["restartPolicy"] == "Always" => {
                    all.sidecars = all.sidecars.saturating_add(amount);
                    all.init = all.init.max(all.sidecars);
                }
                true => all.init = all.init.max(all.sidecars.saturating_add(amount)),
            }
        }
    }
    let most = |name: &String| {
        let Needed { apps, sidecars, init } = needed.get(name).copied().unwrap_or(NOTHING);
        (name.clone(), apps.saturating_add(sidecars).max(init))
    };
    names.into_iter().map(most).collect()
}

/// The pod's claims of devices.
pub fn pod_claims(path: &str, metadata: Option<&Value>, claims: &Value) -> Vec<FieldError> {
    let is_static = metadata.is_some_and(|m| !m["annotations"][super::annotations::MIRROR].is_null());
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, claim) in items(claims).enumerate() {
        let path = item(path, i);
        if is_static {
            errors.push(FieldError::forbidden("", "static pods do not support resource claims"));
            continue;
        }
        let name = text(claim, "name");
        if name.is_empty() {
            errors.push(FieldError::required(child(&path, "name"), ""));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(child(&path, "name"), &claim["name"]));
        } else {
            errors.extend(FieldError::each(child(&path, "name"), &claim["name"], names::label));
        }
        let (claimed, template) = (&claim["resourceClaimName"], &claim["resourceClaimTemplateName"]);
        // Of Kubernetes' internal type, whose names of fields are others.
        let shown = || json!({"Name": name, "ResourceClaimName": claimed, "ResourceClaimTemplateName": template});
        match (claimed.is_null(), template.is_null()) {
            (false, false) => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(&path, &shown(), why));
            }
            (true, true) => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(&path, &shown(), why));
            }
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if !claim[field].is_null() {
                errors.extend(FieldError::each(child(&path, field), &claim[field], names::subdomain));
            }
        }
    }
    errors
}

/// Rounds each amount up to thousandths, as Kubernetes does where it fills in defaults.
pub fn round(resources: &mut Value) {
    round_lists(resources, &["limits", "requests"]);
}

/// The same for the amounts of these fields of an object.
pub fn round_lists(object: &mut Value, lists: &[&str]) {
    for list in lists {
        for (_, value) in object.get_mut(*list).and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(amount) = Quantity::of(value).filter(|amount| *amount != amount.rounded_to_millis()) {
                *value = amount.rounded_to_millis().to_string().into();
            }
        }
    }
}

/// Fills in the requests of a whole pod from those of its containers, or else from its limits.
pub fn default_of_pod(spec: &mut Value) {
    let limits = spec["resources"]["limits"].clone();
    if !is_empty(&limits) || !is_empty(&spec["resources"]["requests"]) {
        for (name, amount) in aggregate(spec, "limits") {
            let said = !spec["resources"]["requests"][&name].is_null() || !limits[&name].is_null();
            if is_huge_page(&name) && !said {
                set(&mut spec["resources"], "limits", &name, amount.to_string().into());
            }
        }
    }
    if is_empty(&limits) {
        return;
    }
    let supported = |name: &str| matches!(name, "cpu" | "memory") || is_huge_page(name);
    for (name, amount) in aggregate(spec, "requests") {
        let said = !spec["resources"]["requests"][&name].is_null();
        if !said && supported(&name) && allows_overcommit(&name) {
            set(&mut spec["resources"], "requests", &name, amount.to_string().into());
        }
    }
    for (name, limit) in entries(&limits) {
        if spec["resources"]["requests"][name].is_null() && supported(name) {
            set(&mut spec["resources"], "requests", name, limit.clone());
        }
    }
}

fn set(resources: &mut Value, list: &str, name: &str, value: Value) {
    if !resources[list].is_object() {
        resources[list] = json!({});
    }
    resources[list][name] = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(resources: Value) -> Vec<String> {
        let claims = BTreeSet::from(["gpu"]);
        let errors = of_container("r", &resources, Some(&claims));
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_claim_of_nothing_is_shown_with_the_names_of_kubernetes_internal_type() {
        let errors = pod_claims("c", None, &json!([{"name": "gpu"}]));
        assert_eq!(
            errors[0].message,
            "Invalid value: {\"Name\":\"gpu\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify \
            one of: `resourceClaimName`, `resourceClaimTemplateName`"
        );
    }

    #[test]
    fn requests_are_not_above_limits() {
        assert_eq!(words(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1000m"}})), Vec::<String>::new());
        assert_eq!(
            words(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}})),
            ["r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1500m"]
        );
        assert_eq!(
            words(json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"}})),
            ["r.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2"]
        );
        assert_eq!(
            words(json!({"requests": {"example.com/gpu": "1"}})),
            ["r.limits: Required value: Limit must be set for non overcommitable resources"]
        );
        assert_eq!(
            words(json!({"limits": {"hugepages-2Mi": "3Mi"}})),
            [
                "r.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                "r: Forbidden: HugePages require cpu or memory"
            ]
        );
        assert_eq!(
            words(json!({"limits": {"cpu": "-1"}})),
            ["r.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
    }

    #[test]
    fn claims_are_those_of_the_pod() {
        let spec = json!({"resourceClaims": [{"name": "gpu"}], "containers": [],
            "resources": {"claims": [{"name": "gpu"}, {"name": "gpu"}, {"name": "tpu"}]}});
        let told: Vec<String> = of_pod("r", &spec).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(
            told,
            [
                "r.claims: Forbidden: claims may not be set for Resources at pod-level",
                "r.claims[1]: Duplicate value: \"gpu\"",
                "r.claims[2]: Not found: \"tpu\": must be one of the names in pod.spec.resourceClaims: gpu",
            ]
        );
        assert_eq!(words(json!({"claims": [{"name": "gpu"}]})), Vec::<String>::new());
        assert_eq!(
            words(json!({"claims": [{"name": "gpu", "request": "a"}, {"name": "gpu"}, {"name": "tpu"}]})),
            [
                "r.claims[1]: Duplicate value: \"gpu\"",
                "r.claims[2]: Not found: \"tpu\": must be one of the names in pod.spec.resourceClaims: gpu"
            ]
        );
    }

    #[test]
    fn a_pod_has_room_for_its_containers() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}});
        let mut spec = json!({"containers": [container("1"), container("2")], "initContainers": [container("5")],
            "resources": {"limits": {"cpu": "4"}}});
        assert_eq!(aggregate(&spec, "requests"), [("cpu".to_owned(), Quantity::of_units(5))]);
        default_of_pod(&mut spec);
        assert_eq!(spec["resources"]["requests"], json!({"cpu": "5"}));
        spec["resources"]["requests"]["cpu"] = "4".into();
        assert_eq!(
            of_pod("r", &spec)[0].message,
            "Invalid value: \"4\": must be greater than or equal to aggregate container requests of 5"
        );
    }
}
