//! What is filled in and refused of a PersistentVolume.

use super::*;

#[test]
fn a_phase_has_the_time_of_its_beginning() {
    let old = json!({"status": {"phase": "Pending", "lastPhaseTransitionTime": "2024-01-01T00:00:00Z"}});
    let mut same = json!({"status": {"phase": "Pending"}});
    time_phase(&mut same, &old);
    assert_eq!(same, old);
    let mut other = json!({"status": {"phase": "Bound", "lastPhaseTransitionTime": "2024-01-01T00:00:00Z"}});
    time_phase(&mut other, &old);
    assert_ne!(other["status"]["lastPhaseTransitionTime"], old["status"]["lastPhaseTransitionTime"]);
    let mut told = json!({"status": {"phase": "Bound", "lastPhaseTransitionTime": "2024-02-01T00:00:00Z"}});
    time_phase(&mut told, &old);
    assert_eq!(told["status"]["lastPhaseTransitionTime"], "2024-02-01T00:00:00Z");
}

fn volume(fields: Value) -> Value {
    let mut object = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}}});
    for (field, value) in fields.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    default(&mut object);
    object
}

fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
    validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
}

#[test]
fn usual_volumes_are_valid() {
    for source in [
        json!({"hostPath": {"path": "/data"}}),
        json!({"nfs": {"server": "s", "path": "/x"}}),
        json!({"csi": {"driver": "d.example.com", "volumeHandle": "h"}, "volumeAttributesClassName": "gold"}),
        json!({"local": {"path": "/d"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}]}}}),
    ] {
        assert_eq!(words(&volume(source.clone()), None), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn what_is_second_is_refused_and_not_looked_at() {
    let two = json!({"hostPath": {"path": "/x"}, "local": {"path": "/d"}, "flexVolume": {"driver": "d"}});
    assert_eq!(words(&volume(two), None), ["spec.local: Forbidden: may not specify more than 1 volume type"]);
    let mut bare = volume(json!({"hostPath": {"path": "/x"}}));
    bare["spec"].as_object_mut().unwrap().shift_remove("capacity");
    assert_eq!(
        words(&bare, None),
        ["spec.capacity: Required value", "spec.capacity: Unsupported value: null: supported values: \"storage\""]
    );
}

#[test]
fn refusals_read_as_in_kubernetes() {
    assert_eq!(
        words(&volume(json!({"accessModes": [], "capacity": {}})), None),
        [
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec.capacity: Unsupported value: {}: supported values: \"storage\"",
            "spec: Required value: must specify a volume type",
        ]
    );
    assert_eq!(
        words(&volume(json!({"local": {"path": "/d"}})), None),
        ["spec.nodeAffinity: Required value: Local volume requires node affinity"]
    );
    let recycled = json!({"hostPath": {"path": "/a/.."}, "persistentVolumeReclaimPolicy": "Recycle"});
    assert_eq!(
        words(&volume(recycled), None)[1],
        "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"
    );
    let csi = json!({"csi": {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"name": "s"}}});
    assert_eq!(words(&volume(csi), None), ["spec.csi.nodePublishSecretRef.namespace: Required value"]);
}

#[test]
fn what_stands_behind_a_volume_stays() {
    let old = volume(json!({"hostPath": {"path": "/data"}}));
    let mut new = old.clone();
    new["spec"]["hostPath"]["path"] = "/other".into();
    assert_eq!(
        words(&new, Some(&old)),
        [
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\nchanged: hostPath"
        ]
    );
    let csi = volume(json!({"csi": {"driver": "d", "volumeHandle": "h"}}));
    let mut expandable = csi.clone();
    expandable["spec"]["csi"]["controllerExpandSecretRef"] = json!({"name": "s", "namespace": "n"});
    assert_eq!(words(&expandable, Some(&csi)), Vec::<String>::new());
}

#[test]
fn labels_of_nodes_may_be_said_under_their_present_names() {
    let zone = |key: &str| {
        let term = json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]});
        volume(json!({"hostPath": {"path": "/d"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}))
    };
    let old = zone("failure-domain.beta.kubernetes.io/zone");
    assert_eq!(words(&zone("topology.kubernetes.io/zone"), Some(&old)), Vec::<String>::new());
    assert!(words(&zone("rack"), Some(&old))[0].ends_with("except for updating from beta label to GA"));
}
