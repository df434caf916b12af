//! Which tokens the agent of a node gets: for pods of its own alone, and for audiences that they use.
//!
//! A pod uses the audiences of the tokens in its projected volumes, and those that the CSI drivers of its volumes ask
//! for. For others the node needs the verb `request-serviceaccounts-token-audience`.
//!
//! Source: NodeRestriction's `admitServiceAccount`, whose words these are, with the feature
//! `ServiceAccountNodeAudienceRestriction`.

use std::collections::HashSet;

use serde_json::Value;

use super::token::{find, other_uid, target_name};
use crate::{
    api::{Api, Status, Subject, request::Call, write},
    auth::{
        attributes::{Attributes, Resource},
        authorizer::Verdict,
    },
    kinds::reading::{items, text},
    store::{Object, Snapshot},
};

/// Refuses a request for a token that the node may not have.
pub async fn may_request(
    api: &Api,
    call: &Call,
    snapshot: &Snapshot,
    node: &str,
    request: &Value,
) -> Result<(), Status> {
    let (name, namespace) = (target_name(call), call.target.namespace.as_deref().unwrap_or_default());
    let refused = |why: &str| Status::forbidden(Subject { group: "", resource: "serviceaccounts", name }, why);
    let to = &request["spec"]["boundObjectRef"];
    let pod_name = text(to, "name");
    if text(to, "apiVersion") != "v1" || text(to, "kind") != "Pod" || pod_name.is_empty() {
        return Err(refused("node requested token not bound to a pod"));
    }
    let uid = text(to, "uid");
    if uid.is_empty() {
        return Err(refused("node requested token with a pod binding without a uid"));
    }
    let found = find(snapshot, "pods", namespace, pod_name)?;
    if uid != found.header().uid() {
        return Err(refused(&other_uid(uid)));
    }
    let pod = write::parse(found)?;
    if text(&pod["spec"], "nodeName") != node {
        return Err(refused("node requested token bound to a pod scheduled on a different node"));
    }
    let audiences: Vec<&str> = items(&request["spec"]["audiences"]).filter_map(Value::as_str).collect();
    let audience = match audiences[..] {
        [] => "",
        [audience] => audience,
        _ => return Err(refused("node may only request 0 or 1 audiences")),
    };
    let used = PodAudiences { snapshot, namespace, pod: &pod };
    match used.have(audience) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(why) => return Err(refused(&format!("error validating audience {audience:?}: {why}"))),
    }
    let asked = Attributes::Resource(Resource {
        verb: "request-serviceaccounts-token-audience",
        version: "v1",
        namespace,
        resource: audience,
        name,
        ..Resource::default()
    });
    let user = &call.identity.name;
    let undecided = |why: &dyn std::fmt::Display| {
        refused(&format!(
            "audience {audience:?} not found in pod spec volume, error authorizing {user} to request tokens for this \
             audience: {why}"
        ))
    };
    match api.authorizer().decide(&call.identity, &asked).await {
        Ok(Verdict::Allowed { .. }) => Ok(()),
        Ok(Verdict::Refused { error: Some(error), .. }) => Err(undecided(&error)),
        Ok(Verdict::Refused { error: None, .. }) => Err(refused(&format!(
            "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this \
             audience"
        ))),
        Err(error) => Err(undecided(&error)),
    }
}

/// Where the audiences of a pod are looked up.
#[derive(Clone, Copy)]
struct PodAudiences<'a> {
    snapshot: &'a Snapshot,
    namespace: &'a str,
    pod: &'a Value,
}

/// Why it is not known which audiences a pod uses.
#[derive(Debug, thiserror::Error)]
enum AudienceError {
    /// Something on the way from a volume to its CSI driver is not there.
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(Status),
    /// Several volumes have such errors.
    #[error("[{}]", .0.iter().map(Self::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<AudienceError>),
}

impl PodAudiences<'_> {
    /// Whether the pod uses an audience. What is not there counts only if it is not found elsewhere.
    fn have(self, audience: &str) -> Result<bool, AudienceError> {
        let (mut errors, mut known) = (Vec::new(), HashSet::new());
        for volume in items(&self.pod["spec"]["volumes"]) {
            let is_for = |token: &Value| token.is_object() && text(token, "audience") == audience;
            if items(&volume["projected"]["sources"]).any(|source| is_for(&source["serviceAccountToken"])) {
                return Ok(true);
            }
            match self.volume_has(volume, audience, &mut known) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        match errors.pop() {
            None => Ok(false),
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(AudienceError::Several(errors))
            }
        }
    }

    /// Whether the CSI driver of a volume asks for tokens for an audience. Those that are `known` do not, and are not
    /// looked at again.
    fn volume_has(self, volume: &Value, audience: &str, known: &mut HashSet<String>) -> Result<bool, AudienceError> {
        let driver = match volume {
            _ if volume["ephemeral"]["volumeClaimTemplate"].is_object() => {
                let claim = format!("{}-{}", text(&self.pod["metadata"], "name"), text(volume, "name"));
                self.driver_of_claim(&claim)?
            }
            _ if volume["persistentVolumeClaim"].is_object() => {
                self.driver_of_claim(text(&volume["persistentVolumeClaim"], "claimName"))?
            }
            _ if volume["csi"].is_object() => Some(text(&volume["csi"], "driver").to_owned()),
            _ => migrated_driver(volume).map(str::to_owned),
        };
        let Some(driver) = driver.filter(|driver| !driver.is_empty()) else { return Ok(false) };
        if !known.insert(driver.clone()) {
            return Ok(false);
        }
        let driver = self.find("csidrivers.storage.k8s.io", "csidriver.storage.k8s.io", &driver, &driver)?;
        Ok(items(&driver["spec"]["tokenRequests"]).any(|request| text(request, "audience") == audience))
    }

    fn driver_of_claim(self, name: &str) -> Result<Option<String>, AudienceError> {
        let key = format!("{}/{name}", self.namespace);
        let claim = self.find("persistentvolumeclaims", "persistentvolumeclaim", &key, name)?;
        let volume = text(&claim["spec"], "volumeName");
        let volume = self.find("persistentvolumes", "persistentvolume", volume, volume)?;
        let spec = &volume["spec"];
        Ok(match spec["csi"].is_object() {
            true => Some(text(&spec["csi"], "driver").to_owned()),
            false => migrated_driver(spec).map(str::to_owned),
        })
    }

    fn find(self, resource: &str, kind: &'static str, key: &str, name: &str) -> Result<Value, AudienceError> {
        let found: Option<&Object> = self.snapshot.get(resource, key).map(|found| &**found);
        let found = found.ok_or_else(|| AudienceError::NotFound { kind, name: name.to_owned() })?;
        write::parse(found).map_err(AudienceError::Unreadable)
    }
}

/// The CSI driver that took a kind of volume over which Kubernetes once had built in. Source: `csi-translation-lib`.
fn migrated_driver(source: &Value) -> Option<&'static str> {
    let drivers = [
        ("awsElasticBlockStore", "ebs.csi.aws.com"),
        ("azureDisk", "disk.csi.azure.com"),
        ("azureFile", "file.csi.azure.com"),
        ("cinder", "cinder.csi.openstack.org"),
        ("gcePersistentDisk", "pd.csi.storage.gke.io"),
        ("portworxVolume", "pxd.portworx.com"),
        ("vsphereVolume", "csi.vsphere.vmware.com"),
    ];
    drivers.into_iter().find(|(field, _)| source[*field].is_object()).map(|(_, driver)| driver)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        encode,
        kinds::Kinds,
        store::{EventType, Key},
    };

    fn cluster() -> Snapshot {
        let volume = |name: &str, source: Value| ("", "persistentvolumes", name.to_owned(), json!({"spec": source}));
        let claim = |name: &str, volume: &str| {
            let object = json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"volumeName": volume}});
            ("", "persistentvolumeclaims", format!("a/{name}"), object)
        };
        let driver = |name: &str, audience: &str| {
            let object = json!({"spec": {"tokenRequests": [{"audience": "other"}, {"audience": audience}]}});
            ("storage.k8s.io", "csidrivers", name.to_owned(), object)
        };
        let mut snapshot = Snapshot::default();
        for (group, plural, key, mut object) in [
            driver("csi.example.com", "vault"),
            driver("ebs.csi.aws.com", "cloud"),
            volume("pv", json!({"csi": {"driver": "csi.example.com", "volumeHandle": "h"}})),
            volume("old", json!({"awsElasticBlockStore": {"volumeID": "v"}})),
            volume("local", json!({"hostPath": {"path": "/x"}})),
            claim("claim", "pv"),
            claim("p-scratch", "pv"),
            claim("old", "old"),
            claim("local", "local"),
            claim("unbound", ""),
        ] {
            if object["metadata"]["name"].is_null() {
                object["metadata"]["name"] = key.as_str().into();
            }
            let kind = Kinds::built_in().by_path(group, "v1", plural).unwrap();
            let resource = kind.resource();
            let object = Object::new(encode::draft(&kind, &object), 1, EventType::Added);
            snapshot.load(Key { resource: resource.into(), name: key.into() }, Arc::new(object));
        }
        snapshot
    }

    #[test]
    fn the_drivers_of_a_pods_volumes_ask_for_tokens_for_their_audiences() {
        let snapshot = cluster();
        let have = |volumes: Value, audience: &str| {
            let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"volumes": volumes}});
            let audiences = PodAudiences { snapshot: &snapshot, namespace: "a", pod: &pod };
            audiences.have(audience).map_err(|error| error.to_string())
        };
        let of_claim = |claim: &str| json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
        let inline = json!({"name": "v", "csi": {"driver": "csi.example.com"}});
        let ephemeral = json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        let projected =
            json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}});
        for volume in [&projected, &inline, &of_claim("claim"), &ephemeral] {
            assert_eq!(have(json!([volume]), "vault"), Ok(true), "{volume}");
            assert_eq!(have(json!([volume]), "nobody"), Ok(false), "{volume}");
        }
        let disk = json!({"name": "v", "awsElasticBlockStore": {"volumeID": "v"}});
        for volume in [&disk, &of_claim("old")] {
            assert_eq!(have(json!([volume]), "cloud"), Ok(true), "{volume}");
            assert_eq!(have(json!([volume]), "vault"), Ok(false), "{volume}");
        }
        assert_eq!(have(json!([of_claim("local"), {"name": "e", "emptyDir": {}}]), "vault"), Ok(false));

        let absent = || Err("persistentvolumeclaim \"x\" not found".to_owned());
        assert_eq!(have(json!([of_claim("x")]), "vault"), absent());
        assert_eq!(have(json!([of_claim("x"), inline]), "vault"), Ok(true), "another volume has it");
        let driver = json!({"name": "v", "csi": {"driver": "d"}});
        let several = "[persistentvolume \"\" not found, csidriver.storage.k8s.io \"d\" not found]";
        assert_eq!(have(json!([of_claim("unbound"), driver]), "vault"), Err(several.to_owned()));
        let once = "csidriver.storage.k8s.io \"d\" not found";
        assert_eq!(have(json!([driver, driver, driver]), "vault"), Err(once.to_owned()), "a driver is looked at once");
        assert_eq!(have(json!([driver, inline, inline]), "vault"), Ok(true));
    }
}
