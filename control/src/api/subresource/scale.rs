//! `/scale`: the replicas of an object, in the shape that all scalable kinds share (`autoscaling/v1` Scale).

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Effect, Responder, Subresource, SubresourceKind, View};
use crate::{
    api::{
        Api, Status, Subject,
        request::{Call, body, configuration::configuration},
        response, write,
    },
    custom,
    kinds::{FieldError, Kind, field::go_value, reading::text},
    patch,
    request::content_type::ContentType,
    schema::Schema,
};

const FORM: SubresourceKind =
    SubresourceKind { group: "autoscaling", version: "v1", kind: "Scale", schema: "io.k8s.api.autoscaling.v1.Scale" };

/// The declaration of this subresource.
pub static SCALE: Subresource = Subresource {
    segment: "scale",
    verbs: &["get", "patch", "update"],
    form: Some(FORM),
    effect: Effect::Update,
    view: Some(&View { of: scale_of, put: scaled }),
    responder: Responder::Api(|api, call, body| {
        Box::pin(async move {
            match call.method {
                Method::PUT | Method::PATCH => set(api, call, body).await,
                _ => get(api, call),
            }
        })
    }),
    ..Subresource::PLAIN
};

fn get(api: &Api, call: &Call) -> Result<Response, Status> {
    let place = api.place(&call.target)?;
    let name = call.target.name.as_deref().unwrap_or_default();
    let snapshot = api.store().snapshot();
    let object = snapshot.get(&place.resource, &place.key).ok_or_else(|| Status::not_found(place.subject(name)))?;
    let object = serde_json::from_slice(&object.json()).map_err(|e| Status::internal(e.to_string()))?;
    Ok(response::json(StatusCode::OK, scale_of(&call.target.kind, &object)?.to_string()))
}

/// Sets the replicas, by a whole Scale or by a patch of one.
async fn set(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let place = api.place(&call.target)?;
    let given = match &call.content_type {
        ContentType::JsonPatch | ContentType::MergePatch | ContentType::StrategicMergePatch => {
            write::patch_instructions(&call.content_type, text)?
        }
        ContentType::ApplyPatch => return apply(api, call, text).await,
        other => body::form(&FORM, other, text, call.query.field_validation)?.value,
    };
    let make = |old: &Value| {
        let kind = &call.target.kind;
        let current = scale_of(kind, old)?;
        let scale = match &call.content_type {
            ContentType::JsonPatch => rechecked(call, patch::json(kind, &current, &given)?, &given)?,
            // A Scale has no lists, so a strategic patch of it is a merge patch.
            ContentType::MergePatch | ContentType::StrategicMergePatch => {
                rechecked(call, patch::merge(kind, &current, &given)?, &given)?
            }
            _ => given.clone(),
        };
        scaled(kind, old, &scale).map(write::Made::from)
    };
    let change = write::ObjectUpdate { subresource: Some(&SCALE), make: &make };
    let outcome = write::change(api, call, &place, change).await?;
    Ok(response::json(StatusCode::OK, scale_of(&call.target.kind, &outcome.value()?)?.to_string()))
}

/// What `patch` made of a Scale, if that is one. If not, it is held against the patch, as that of an object is.
fn rechecked(call: &Call, scale: Value, patch: &Value) -> Result<Value, Status> {
    let shown = match call.content_type {
        ContentType::StrategicMergePatch => go_value(patch),
        _ => scale.to_string(),
    };
    let decoded = body::recheck_form(&FORM, scale, call.query.field_validation);
    Ok(decoded.map_err(|why| write::unreadable_result(&shown, &why.to_string()))?.tell())
}

/// Applies a Scale: what it says of the replicas, as a configuration of the object itself.
async fn apply(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let scale = configuration(text, call.query.field_validation)?.tell();
    let given = |field: &str| scale[field].as_str().unwrap_or_default();
    if (given("apiVersion"), given("kind")) != ("autoscaling/v1", "Scale") {
        let (version, kind) = (given("apiVersion"), given("kind"));
        return Err(Status::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    let kind = &call.target.kind;
    let mut config = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": scale["metadata"]});
    if let Some(replicas) = scale["spec"].get("replicas") {
        config["spec"] = json!({"replicas": replicas});
    }
    let applied = write::apply_config(api, call, &config, Some(&SCALE)).await?;
    Ok(response::json(StatusCode::OK, scale_of(kind, &applied.outcome.value()?)?.to_string()))
}

fn scale_of(kind: &Kind, object: &Value) -> Result<Value, Status> {
    let (replicas, ready, selector) = match kind.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        None => (
            object["spec"]["replicas"].as_i64().unwrap_or(1),
            object["status"]["replicas"].as_i64().unwrap_or(0),
            selector_text(&object["spec"]["selector"]),
        ),
        Some(paths) => {
            let number = |path: &str| custom::kinds::at(object, path).and_then(Value::as_i64);
            let replicas = number(&paths.spec_replicas).ok_or_else(|| {
                Status::internal(format!("the spec replicas field {:?} does not exist", paths.spec_replicas))
            })?;
            let selector = paths.label_selector.as_ref().and_then(|path| custom::kinds::at(object, path)?.as_str());
            (replicas, number(&paths.status_replicas).unwrap_or(0), selector.unwrap_or_default().to_owned())
        }
    };
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": replicas},
        "status": {"replicas": ready},
    });
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    if let Some(schema) = Schema::builtin(FORM.schema) {
        schema.write_zeros(&mut scale);
    }
    Ok(scale)
}

/// `old` with the replicas of `scale`, at its resource version if it names one. Refuses the Scale of another object.
fn scaled(kind: &Kind, old: &Value, scale: &Value) -> Result<Value, Status> {
    let name = text(&old["metadata"], "name");
    let mut metadata = scale["metadata"].as_object().cloned().unwrap_or_default();
    write::must_be_named(&mut metadata, old["metadata"]["namespace"].as_str(), name)?;
    let (uid, stored) = (text(&scale["metadata"], "uid"), text(&old["metadata"], "uid"));
    if !uid.is_empty() && uid != stored {
        let resource = format!("{}/scale", kind.plural);
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(Status::conflict(Subject { group: &kind.group, resource: &resource, name }, &why));
    }
    let replicas = &scale["spec"]["replicas"];
    let count = match replicas {
        Value::Null => 0,
        other => other.as_i64().ok_or_else(|| {
            Status::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: spec.replicas: {other}"))
        })?,
    };
    if !(0..=i64::from(i32::MAX)).contains(&count) {
        let subject = Subject { group: "autoscaling", resource: "Scale", name };
        let why = "must be greater than or equal to 0";
        return Err(Status::invalid(subject, &[FieldError::invalid("spec.replicas", replicas, why)]));
    }
    let mut new = old.clone();
    match kind.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        None => new["spec"]["replicas"] = count.into(),
        Some(paths) => {
            let mut at = &mut new;
            for name in paths.spec_replicas.trim_start_matches('.').split('.') {
                if !at.is_object() {
                    *at = json!({});
                }
                at = &mut at[name];
            }
            *at = count.into();
        }
    }
    new["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    Ok(new)
}

/// A LabelSelector object, or the labels that are one of a ReplicationController, as the text of a label selector.
fn selector_text(selector: &Value) -> String {
    let is_map = selector.as_object().is_some_and(|map| !map.is_empty() && map.values().all(Value::is_string));
    let equal = if is_map { selector } else { &selector["matchLabels"] };
    let equal = equal.as_object().into_iter().flatten();
    let equal = equal.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let set = selector["matchExpressions"].as_array().into_iter().flatten().map(|expression| {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        }
    });
    equal.chain(set).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_the_selector_as_text() {
        let object = json!({"metadata": {"name": "a", "resourceVersion": "4"}, "status": {"replicas": 2},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]}}});
        let kind = Kind::from(&crate::kinds::deployment::KIND);
        let scale = scale_of(&kind, &object).unwrap();
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web,tier in (a,b)"}));
        let controller = json!({"spec": {"selector": {"app": "web", "tier": "x"}}});
        assert_eq!(scale_of(&kind, &controller).unwrap()["status"]["selector"], "app=web,tier=x");
        let mut wanted = scale;
        wanted["spec"]["replicas"] = json!(5);
        let new = scaled(&kind, &object, &wanted).unwrap();
        assert_eq!((&new["spec"]["replicas"], &new["metadata"]["resourceVersion"]), (&json!(5), &json!("4")));
        wanted["spec"]["replicas"] = json!(-1);
        assert_eq!(scaled(&kind, &object, &wanted).unwrap_err().code, 422);
    }

    #[test]
    fn a_scale_is_of_the_object_that_it_names() {
        let kind = Kind::from(&crate::kinds::deployment::KIND);
        let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": {"replicas": 1}});
        let refused = |metadata: Value| {
            let scale = json!({"metadata": metadata, "spec": {"replicas": 2}});
            scaled(&kind, &object, &scale).unwrap_err().message
        };
        let words = "the name of the object (b) does not match the name on the URL (a)";
        assert_eq!(refused(json!({"name": "b"})), words);
        let words = "the name of the object (a based on URL) was undeterminable: name must be provided";
        assert_eq!(refused(json!({})), words);
        let words = "the namespace of the provided object does not match the namespace sent on the request";
        assert_eq!(refused(json!({"name": "a", "namespace": "b"})), words);
        let words = "Operation cannot be fulfilled on deployments/scale.apps \"a\": Precondition failed: UID in \
                     precondition: v, UID in object meta: u";
        assert_eq!(refused(json!({"name": "a", "uid": "v"})), words);
    }
}
