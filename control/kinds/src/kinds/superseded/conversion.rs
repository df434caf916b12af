//! Superseded versions of Deployment and ReplicaSet to `apps/v1` and back: what the versions had otherwise, as
//! functions of one object. Which versions there are, and what a client is told, is in the parent.

use serde_json::{Value, json};

use crate::kinds::Kind;

/// `apps/v1beta1` and `extensions/v1beta1` took the selector from the template's labels, kept 2 old ReplicaSets and all
/// of them respectively, and `extensions/v1beta1` had no progress deadline and replaced one pod at a time.
pub fn deployment_to_v1(object: &mut Value) {
    let from = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        if let Some(spec) = spec.as_object_mut() {
            spec.shift_remove("rollbackTo");
        }
        let defaults = match from.as_str() {
            "apps/v1beta1" => json!({"revisionHistoryLimit": 2}),
            "extensions/v1beta1" => {
                json!({"revisionHistoryLimit": i32::MAX, "progressDeadlineSeconds": i32::MAX})
            }
            _ => json!({}),
        };
        for (field, value) in defaults.as_object().into_iter().flatten() {
            if spec[field].is_null() {
                spec[field] = value.clone();
            }
        }
        let strategy = spec["strategy"]["type"].as_str().unwrap_or("RollingUpdate");
        if from == "extensions/v1beta1" && strategy == "RollingUpdate" {
            one_at_a_time(spec);
        }
        if from != "apps/v1beta2" {
            selector_from_template(spec);
        }
    }
    object["apiVersion"] = "apps/v1".into();
}

/// A ReplicaSet of a superseded version becomes one of `apps/v1`.
pub fn replica_set_to_v1(object: &mut Value) {
    if object["apiVersion"] == "extensions/v1beta1"
        && let Some(spec) = object.get_mut("spec").filter(|s| s.is_object())
    {
        selector_from_template(spec);
    }
    object["apiVersion"] = "apps/v1".into();
}

/// The fields are the same; only the version's name differs.
pub fn from_v1(object: &mut Value, served: &Kind) {
    object["apiVersion"] = served.api_version().into();
}

fn selector_from_template(spec: &mut Value) {
    let labels = spec["template"]["metadata"]["labels"].clone();
    let unset = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if unset && labels.as_object().is_some_and(|l| !l.is_empty()) {
        spec["selector"] = json!({"matchLabels": labels});
    }
}

fn one_at_a_time(spec: &mut Value) {
    if !spec["strategy"].is_object() {
        spec["strategy"] = json!({});
    }
    let strategy = &mut spec["strategy"];
    strategy["type"] = "RollingUpdate".into();
    if !strategy["rollingUpdate"].is_object() {
        strategy["rollingUpdate"] = json!({});
    }
    for field in ["maxSurge", "maxUnavailable"] {
        if strategy["rollingUpdate"][field].is_null() {
            strategy["rollingUpdate"][field] = json!(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{APPS_V1BETA2_DEPLOYMENT, EXTENSIONS_V1BETA1_DEPLOYMENT},
        *,
    };
    use crate::schema::FieldWarning;

    fn old(version: &str) -> Value {
        json!({"apiVersion": version, "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}}}}})
    }

    #[test]
    fn the_selector_comes_from_the_template_where_the_version_said_so() {
        for (version, selects) in [("apps/v1beta1", true), ("extensions/v1beta1", true), ("apps/v1beta2", false)] {
            let mut object = old(version);
            deployment_to_v1(&mut object);
            assert_eq!(object["apiVersion"], "apps/v1");
            assert_eq!(object["spec"]["selector"]["matchLabels"]["app"] == "web", selects, "{version}");
        }
    }

    #[test]
    fn defaults_that_differed_are_kept() {
        let mut object = old("extensions/v1beta1");
        deployment_to_v1(&mut object);
        assert_eq!(object["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 1}));
        assert_eq!(object["spec"]["progressDeadlineSeconds"], i32::MAX);
        let mut object = old("apps/v1beta1");
        deployment_to_v1(&mut object);
        assert_eq!(object["spec"]["revisionHistoryLimit"], 2);
    }

    #[test]
    fn an_object_comes_back_in_the_version_it_was_asked_in() {
        let mut object = old("apps/v1beta2");
        deployment_to_v1(&mut object);
        from_v1(&mut object, &Kind::from(&APPS_V1BETA2_DEPLOYMENT));
        assert_eq!(object, old("apps/v1beta2"));
    }

    #[test]
    fn a_field_of_the_old_version_alone_is_no_error() {
        let text =
            r#"{"apiVersion":"extensions/v1beta1","kind":"Deployment","spec":{"rollbackTo":{"revision":1},"x":1}}"#;
        let decoded = Kind::from(&EXTENSIONS_V1BETA1_DEPLOYMENT).schema.decode(text.as_bytes()).unwrap();
        assert_eq!(decoded.warnings, [FieldWarning::Unknown { path: "spec.x".into() }]);
    }
}
