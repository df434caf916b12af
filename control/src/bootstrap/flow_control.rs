//! The default FlowSchemas and PriorityLevelConfigurations: made where they are missing, kept as they are here while
//! their annotation says so, and deleted where a later version has none of that name. The only writer of their specs.
//!
//! Source: package `flowcontrol/ensurer` of Kubernetes.

use std::{collections::BTreeSet, time::Duration};

use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Preconditions},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    BootstrapError,
    kept::{BootstrapRepair, KeptObject, ensure_all},
};
use crate::kinds::flowcontrol::{
    GROUP,
    bootstrap::{AUTO_UPDATE, MANDATORY, objects},
};

/// How often they are looked at, as in Kubernetes.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The default objects.
pub fn defaults() -> impl Iterator<Item = KeptObject> {
    objects().map(|object| KeptObject { object, repair })
}

/// Keeps them until `stop`.
pub async fn keep(client: Client, stop: CancellationToken) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(look(&client, defaults())).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the default objects of priority and fairness are not as they should be yet");
        }
    }
}

/// Makes, repairs and deletes what has to be: each as far as it can be.
async fn look(client: &Client, wanted: impl Iterator<Item = KeptObject>) -> Result<(), BootstrapError> {
    let ensured = ensure_all(client, wanted.collect()).await;
    let removed = remove_superseded(client).await;
    ensured.and(removed)
}

/// Mandatory objects have their spec, others as long as nobody says that they are not to be updated.
fn repair(stored: &Value, wanted: &Value) -> BootstrapRepair {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let annotation = &stored["metadata"]["annotations"][AUTO_UPDATE];
    let said = annotation.as_str().and_then(go_bool);
    // Where the annotation does not say it: an object that was never changed is kept.
    let is_kept = MANDATORY.contains(&name) || said.unwrap_or(stored["metadata"]["generation"] == 1);
    let is_wrong = is_kept && !has_spec(stored, wanted);
    if !is_wrong && said == Some(is_kept) {
        return BootstrapRepair::Nothing;
    }
    let mut repaired = stored.clone();
    if is_wrong {
        repaired["spec"] = wanted["spec"].clone();
    }
    if said != Some(is_kept) {
        repaired["metadata"]["annotations"][AUTO_UPDATE] = json!(is_kept.to_string());
    }
    BootstrapRepair::Replace(repaired)
}

/// Whether the spec is the default one. The shares of the exempt level are for the operator to change.
fn has_spec(stored: &Value, wanted: &Value) -> bool {
    let mut spec = stored["spec"].clone();
    if wanted["kind"] == "PriorityLevelConfiguration"
        && wanted["metadata"]["name"] == "exempt"
        && spec["exempt"].is_object()
    {
        spec["exempt"] = wanted["spec"]["exempt"].clone();
    }
    spec == wanted["spec"]
}

/// As Go's `strconv.ParseBool` reads it.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Deletes what an earlier version made, and this one does not know.
async fn remove_superseded(client: &Client) -> Result<(), BootstrapError> {
    let wanted: BTreeSet<(String, String)> = objects().map(|object| (text(&object["kind"]), name(&object))).collect();
    for (kind, plural) in [("FlowSchema", "flowschemas"), ("PriorityLevelConfiguration", "prioritylevelconfigurations")]
    {
        let resource = ApiResource {
            group: GROUP.to_owned(),
            version: "v1".to_owned(),
            api_version: format!("{GROUP}/v1"),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let failed = |name: &str, source: kube::Error| BootstrapError::of(kind, name, source);
        let stored = api.list(&ListParams::default()).await.map_err(|error| failed("", error))?;
        for object in stored.items {
            let name = object.metadata.name.clone().unwrap_or_default();
            let annotation = object.metadata.annotations.as_ref().and_then(|all| all.get(AUTO_UPDATE));
            let is_kept = annotation.and_then(|text| go_bool(text)) == Some(true);
            if !is_kept || wanted.contains(&(kind.to_owned(), name.clone())) {
                continue;
            }
            let resource_version = object.metadata.resource_version.clone();
            let preconditions = Preconditions { resource_version, uid: object.metadata.uid.clone() };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&name, &params).await {
                Ok(_) => {}
                // It was changed or deleted meanwhile; the next look decides.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(failed(&name, error)),
            }
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all objects of a kind, and the revision of the list.
    async fn names(client: &Client, plural: &str) -> (Vec<String>, String) {
        let request = http::Request::get(format!("/apis/{GROUP}/v1/{plural}")).body(Vec::new()).unwrap();
        let list: Value = client.request(request).await.unwrap();
        let names = list["items"].as_array().unwrap().iter().map(name).collect();
        (names, text(&list["metadata"]["resourceVersion"]))
    }

    #[tokio::test]
    async fn what_is_missing_is_made_again_and_what_no_version_knows_goes() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::Config::new(dir.path());
        let client = super::super::tests::client(dir.path(), &config);
        look(&client, defaults()).await.unwrap();
        let send = async |method: http::Method, path: &str, body: Option<Value>| -> Value {
            let request = http::Request::builder().method(method).uri(format!("/apis/{GROUP}/v1/{path}"));
            let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
            let request = request.header("content-type", "application/json").body(body).unwrap();
            client.request(request).await.unwrap()
        };
        for (name, is_kept) in [("superseded", "true"), ("own", "false")] {
            let mut schema = objects().find(|object| object["metadata"]["name"] == "service-accounts").unwrap();
            schema["metadata"] = json!({"name": name, "annotations": {AUTO_UPDATE: is_kept}});
            send(http::Method::POST, "flowschemas", Some(schema)).await;
        }
        send(http::Method::DELETE, "flowschemas/catch-all", None).await;
        send(http::Method::DELETE, "prioritylevelconfigurations/system", None).await;
        let mut broken = objects().find(|object| object["metadata"]["name"] == "service-accounts").unwrap();
        broken["metadata"]["name"] = json!("Not_a_name");
        let broken = KeptObject { object: broken, repair };
        let error = look(&client, [broken].into_iter().chain(defaults())).await.unwrap_err();
        assert!(
            error.to_string().contains("Not_a_name"),
            "it is told, and keeps nothing else from being done: {error}"
        );
        let (schemas, _) = names(&client, "flowschemas").await;
        assert!(schemas.contains(&"catch-all".to_owned()) && schemas.contains(&"own".to_owned()), "{schemas:?}");
        assert_eq!(schemas.len(), 12, "{schemas:?}");
        let (levels, revision) = names(&client, "prioritylevelconfigurations").await;
        assert!(levels.contains(&"system".to_owned()), "{levels:?}");
        look(&client, defaults()).await.unwrap();
        assert_eq!(names(&client, "prioritylevelconfigurations").await.1, revision, "nothing is written again");
    }

    fn repaired(stored: &Value, wanted: &Value) -> Value {
        match repair(stored, wanted) {
            BootstrapRepair::Replace(object) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mandatory_objects_keep_their_spec_and_suggested_ones_while_they_are_ours() {
        for wanted in objects() {
            assert_eq!(repair(&wanted, &wanted), BootstrapRepair::Nothing);
            let name = wanted["metadata"]["name"].as_str().unwrap();
            let (mut ours, mut theirs) = (wanted.clone(), wanted.clone());
            ours["spec"]["x"] = json!(1);
            theirs["spec"]["x"] = json!(1);
            theirs["metadata"]["annotations"] = json!({AUTO_UPDATE: "false"});
            assert_eq!(repaired(&ours, &wanted), wanted, "{name}");
            if MANDATORY.contains(&name) {
                assert_eq!(repaired(&theirs, &wanted), wanted, "{name}: it is always ours");
            } else {
                assert_eq!(repair(&theirs, &wanted), BootstrapRepair::Nothing, "{name}");
            }
        }
    }

    #[test]
    fn the_annotation_is_written_where_it_does_not_say_whose_an_object_is() {
        let wanted = objects().find(|object| object["metadata"]["name"] == "workload-low").unwrap();
        for (generation, says) in [(1, "true"), (2, "false")] {
            let mut stored = wanted.clone();
            stored["metadata"] = json!({"name": "workload-low", "generation": generation});
            assert_eq!(repaired(&stored, &wanted)["metadata"]["annotations"][AUTO_UPDATE], says);
        }
    }

    #[test]
    fn the_shares_of_the_exempt_level_stay_as_they_are() {
        let is_exempt =
            |object: &Value| object["kind"] == "PriorityLevelConfiguration" && object["metadata"]["name"] == "exempt";
        let wanted = objects().find(is_exempt).unwrap();
        let mut stored = wanted.clone();
        stored["spec"]["exempt"]["nominalConcurrencyShares"] = json!(7);
        assert_eq!(repair(&stored, &wanted), BootstrapRepair::Nothing);
    }
}
