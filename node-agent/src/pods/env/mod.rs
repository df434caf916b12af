//! The environment of a container: pure, from its spec and what that refers to.
//!
//! Order and precedence are the kubelet's: `envFrom`, then `env`, each over what came before; Service variables only
//! where nothing else set them.

mod services;

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
pub use services::service_variables;

use super::{
    downward::Downward,
    expand::{LONGEST, MOST_TOGETHER, TooLong, expand},
    objects::{ObjectKey, ObjectKind, Payload},
    outcome::Failure,
    spec,
};

/// The objects a container's environment refers to, as they are; `None` for one that does not exist.
pub type Sources = BTreeMap<ObjectKey, Option<std::sync::Arc<Payload>>>;

/// What has to be read before [`resolve`] can answer.
pub fn references(pod: &Pod, container: &Container) -> Vec<ObjectKey> {
    let namespace = spec::pod_ref(pod).namespace;
    let key = |kind, name: &str| ObjectKey { kind, namespace: namespace.clone(), name: name.to_owned() };
    let from = container.env_from.iter().flatten().flat_map(|from| {
        let config_map = from.config_map_ref.as_ref().map(|reference| key(ObjectKind::ConfigMap, &reference.name));
        let secret = from.secret_ref.as_ref().map(|reference| key(ObjectKind::Secret, &reference.name));
        config_map.into_iter().chain(secret)
    });
    let env = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()).flat_map(|from| {
        let config_map = from.config_map_key_ref.as_ref().map(|reference| key(ObjectKind::ConfigMap, &reference.name));
        let secret = from.secret_key_ref.as_ref().map(|reference| key(ObjectKind::Secret, &reference.name));
        config_map.into_iter().chain(secret)
    });
    from.chain(env).collect()
}

/// The variables, in order; `services` are those of [`service_variables`].
pub fn resolve(
    container: &Container,
    namespace: &str,
    sources: &Sources,
    downward: &Downward<'_>,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, Failure> {
    let services_by_name = services.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut variables = Variables::default();
    for from in container.env_from.iter().flatten() {
        let reference = match (&from.config_map_ref, &from.secret_ref) {
            (Some(reference), _) => (ObjectKind::ConfigMap, &reference.name, reference.optional),
            (None, Some(reference)) => (ObjectKind::Secret, &reference.name, reference.optional),
            (None, None) => continue,
        };
        let (kind, name, optional) = reference;
        let key = ObjectKey { kind, namespace: namespace.to_owned(), name: name.clone() };
        let Some(payload) = sources.get(&key).cloned().flatten() else {
            if optional == Some(true) {
                continue;
            }
            return Err(not_found(&key));
        };
        for (name, value) in &payload.data {
            let name = format!("{}{name}", from.prefix.as_deref().unwrap_or_default());
            // What no environment can carry is left out, as the kubelet does.
            if let Ok(value) = String::from_utf8(value.clone())
                && !name.contains('=')
                && !value.contains('\0')
            {
                variables.set(name, value)?;
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(variable, namespace, sources, downward, &variables, &services_by_name)? {
            variables.set(variable.name.clone(), value)?;
        }
    }
    for (name, value) in services {
        variables.set_if_absent(name, value)?;
    }
    Ok(variables.list)
}

/// The value of one variable; `None` where it is optional and absent.
fn value(
    variable: &EnvVar,
    namespace: &str,
    sources: &Sources,
    downward: &Downward<'_>,
    variables: &Variables,
    services: &HashMap<&str, &str>,
) -> Result<Option<String>, Failure> {
    let Some(from) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        let known = |name: &str| variables.get(name).or_else(|| services.get(name).copied());
        return expand(text, known).map(Some).map_err(|error| too_long(&variable.name, error));
    };
    if let Some(field) = &from.field_ref {
        let value = downward.field(&field.field_path);
        let message = || format!("unsupported fieldPath {:?}", field.field_path);
        return value.map(Some).ok_or_else(|| config_error(message()));
    }
    if let Some(resource) = &from.resource_field_ref {
        let value = downward.resource(resource);
        return value.map(Some).ok_or_else(|| config_error(format!("unsupported resource {:?}", resource.resource)));
    }
    let (kind, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(reference), _) => (ObjectKind::ConfigMap, &reference.name, &reference.key, reference.optional),
        (None, Some(reference)) => (ObjectKind::Secret, &reference.name, &reference.key, reference.optional),
        (None, None) => return Ok(Some(String::new())),
    };
    let object = ObjectKey { kind, namespace: namespace.to_owned(), name: name.clone() };
    let optional = optional == Some(true);
    match sources.get(&object).cloned().flatten() {
        None if optional => Ok(None),
        None => Err(not_found(&object)),
        Some(payload) => match payload.data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => {
                let kind = if kind == ObjectKind::Secret { "Secret" } else { "ConfigMap" };
                let message = format!("couldn't find key {key} in {kind} {namespace}/{name}");
                Err(Failure { awaits: Some(object), ..config_error(message) })
            }
        },
    }
}

/// The failure of a container that refers to an object that does not exist.
pub fn not_found(key: &ObjectKey) -> Failure {
    Failure { awaits: Some(key.clone()), ..Failure::new("CreateContainerConfigError", format!("{key} not found")) }
}

fn config_error(message: String) -> Failure {
    Failure::new("CreateContainerConfigError", message)
}

fn too_long(name: &str, error: TooLong) -> Failure {
    let shown: String = name.chars().take(253).collect();
    config_error(format!("environment variable {shown:?} is {error}"))
}

/// In the order they were first set.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    index: HashMap<String, usize>,
    /// As a process is given them: `NAME=value` with a zero.
    bytes: usize,
}

impl Variables {
    fn set(&mut self, name: String, value: String) -> Result<(), Failure> {
        let bytes = |value: &str| name.len().saturating_add(value.len()).saturating_add(2);
        if bytes(&value) > LONGEST {
            return Err(too_long(&name, TooLong));
        }
        let at = self.index.get(&name).copied();
        let before = at.map_or(0, |at| bytes(&self.list[at].1));
        self.bytes = self.bytes.saturating_sub(before).saturating_add(bytes(&value));
        if self.bytes > MOST_TOGETHER {
            let why =
                format!("the environment is longer than {MOST_TOGETHER} bytes, the most that a process can be given");
            return Err(config_error(why));
        }
        match at {
            Some(at) => self.list[at].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
        Ok(())
    }

    fn set_if_absent(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        if self.index.contains_key(name) { Ok(()) } else { self.set(name.to_owned(), value.to_owned()) }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|at| self.list[*at].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn resolved(container: serde_json::Value, sources: &Sources) -> Result<Vec<(String, String)>, Failure> {
        let container: Container = serde_json::from_value(container).unwrap();
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "a", "labels": { "x": "1" } } }))
                .unwrap();
        let downward = Downward {
            pod: &pod,
            container: Some(&container),
            pod_ip: None,
            node_ip: "10.0.0.1".parse().unwrap(),
            cpus: 2,
            memory: 1 << 30,
        };
        let services = [("WEB_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())];
        resolve(&container, "a", sources, &downward, &services)
    }

    fn sources() -> Sources {
        let key = ObjectKey { kind: ObjectKind::ConfigMap, namespace: "a".into(), name: "c".into() };
        let data = BTreeMap::from([("K".to_owned(), b"v".to_vec()), ("L".to_owned(), b"w".to_vec())]);
        Sources::from([(key, Some(Arc::new(Payload { data, ..Default::default() })))])
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn env_overrides_env_from_and_sees_what_came_before() {
        let container = json!({ "name": "app",
            "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "c" } }],
            "env": [
                { "name": "P_L", "value": "own" },
                { "name": "A", "value": "$(P_K)/$(LATER)/$(WEB_SERVICE_HOST)" },
                { "name": "LATER", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "L" } } },
                { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            ] });
        let expected = [
            ("P_K", "v"),
            ("P_L", "own"),
            ("A", "v/$(LATER)/10.96.0.1"),
            ("LATER", "w"),
            ("NAME", "p"),
            ("WEB_SERVICE_HOST", "10.96.0.1"),
        ];
        assert_eq!(resolved(container, &sources()).unwrap(), pairs(&expected));
    }

    #[test]
    fn variables_of_variables_have_an_end() {
        let doubling =
            |name: usize| json!({ "name": format!("V{name}"), "value": format!("$(V{0})$(V{0})", name - 1) });
        let env: Vec<_> = std::iter::once(json!({ "name": "V0", "value": "x" })).chain((1..60).map(doubling)).collect();
        let failure = resolved(json!({ "name": "app", "env": env }), &sources()).unwrap_err();
        assert_eq!(failure.reason, "CreateContainerConfigError");
        assert!(failure.message.starts_with("environment variable \"V17\" is longer than"), "{}", failure.message);

        let long = json!({ "name": "L", "value": "x".repeat(100 << 10) });
        let copy = |name: usize| json!({ "name": format!("V{name}"), "value": "$(L)" });
        let few: Vec<_> = std::iter::once(long.clone()).chain((0..50).map(copy)).collect();
        assert_eq!(resolved(json!({ "name": "app", "env": few }), &sources()).unwrap().len(), 52);
        let many: Vec<_> = std::iter::once(long).chain((0..100).map(copy)).collect();
        let failure = resolved(json!({ "name": "app", "env": many }), &sources()).unwrap_err();
        assert!(failure.message.starts_with("the environment is longer than"), "{}", failure.message);
    }

    #[test]
    fn very_many_variables_cost_little() {
        let env: Vec<_> = (0..40_000).map(|n| json!({ "name": format!("V{n}"), "value": "$(V0)" })).collect();
        let began = std::time::Instant::now();
        assert_eq!(resolved(json!({ "name": "app", "env": env }), &sources()).unwrap().len(), 40_001);
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn what_is_missing_is_an_error_unless_it_is_optional() {
        let env = |optional: bool, name: &str, key: &str| json!({ "name": "app", "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": name, "key": key, "optional": optional } } }] });
        let failure = resolved(env(false, "none", "K"), &sources()).unwrap_err();
        assert_eq!(
            (failure.reason, failure.message.as_str()),
            ("CreateContainerConfigError", "configmap \"none\" not found")
        );
        let failure = resolved(env(false, "c", "none"), &sources()).unwrap_err();
        assert_eq!(failure.message, "couldn't find key none in ConfigMap a/c");
        for (name, key) in [("none", "K"), ("c", "none")] {
            assert_eq!(
                resolved(env(true, name, key), &sources()).unwrap(),
                pairs(&[("WEB_SERVICE_HOST", "10.96.0.1")])
            );
        }
    }
}
