//! What discovery documents hold.

use std::sync::Arc;

use super::*;
use crate::aggregation::RemoteResources;

fn discovery() -> Discovery {
    Discovery::of(&Kinds::built_in(), &[], "10.0.0.1:6443")
}

fn read(bytes: Bytes) -> Value {
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn the_form_is_the_first_acceptable_one() {
    let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
        application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    assert_eq!(DiscoveryForm::of(kubectl), DiscoveryForm::AggregatedV2);
    let protobuf_first = format!("application/vnd.kubernetes.protobuf,{kubectl}");
    assert_eq!(DiscoveryForm::of(&protobuf_first), DiscoveryForm::AggregatedV2);
    assert_eq!(DiscoveryForm::of("application/json"), DiscoveryForm::Plain);
    assert_eq!(DiscoveryForm::of(""), DiscoveryForm::Plain);
}

#[test]
fn the_preferred_version_of_a_group_comes_first() {
    let groups = read(discovery().groups(DiscoveryForm::Plain).bytes);
    let apps = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "apps").unwrap();
    assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
    assert_eq!(apps["versions"].as_array().unwrap().len(), 3);
    assert_eq!(read(discovery().group("apps").unwrap())["kind"], "APIGroup");
}

#[test]
fn groups_and_resources_come_in_the_order_of_kube_apiserver() {
    let groups = read(discovery().groups(DiscoveryForm::Plain).bytes);
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().filter_map(|g| g["name"].as_str()).collect();
    let at = |name: &str| names.iter().position(|other| *other == name).unwrap();
    assert_eq!(names[0], "apiregistration.k8s.io");
    let ordered = [
        "apps",
        "authorization.k8s.io",
        "networking.k8s.io",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "discovery.k8s.io",
        "resource.k8s.io",
        "flowcontrol.apiserver.k8s.io",
    ];
    assert!(ordered.is_sorted_by_key(|name| at(name)), "{names:?}");
    let list = read(discovery().resources("networking.k8s.io", "v1").unwrap());
    let resources: Vec<&str> =
        list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(resources.is_sorted(), "{resources:?}");
}

#[test]
fn a_version_lists_its_resources_and_subresources() {
    let list = read(discovery().resources("apps", "v1").unwrap());
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    let expected = [
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status",
    ];
    assert_eq!(names, expected);
    assert_eq!(list["resources"][4]["group"], "autoscaling");
    let core = read(discovery().resources("", "v1").unwrap());
    let pods = core["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods").unwrap();
    assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=", "as kube-apiserver says it");
    assert!(discovery().resources("", "v1").is_some());
    assert!(discovery().resources("apps", "v2").is_none());
}

#[test]
fn groups_of_other_servers_stand_among_its_own_by_priority() {
    let remote = |group: &str, version: &str, group_priority, version_priority, current: Option<bool>| {
        let resources = Arc::new(vec![json!({"resource": "flunders"})]);
        let (group, version) = (group.to_owned(), version.to_owned());
        let found = current.map(|current| RemoteResources { resources, current });
        RemoteVersion { group, version, group_priority, version_priority, found }
    };
    let all = [
        remote("high.io", "v1alpha1", 17_950, 1, Some(true)),
        remote("low.io", "v1beta1", 100, 10, None),
        remote("low.io", "v1", 100, 10, Some(false)),
        remote("low.io", "v2", 5, 1, Some(true)),
        remote("apps", "v1", 20_000, 1_000, Some(true)),
        remote("apps", "v9", 100, 1, Some(true)),
    ];
    let discovery = Discovery::of(&Kinds::built_in(), &all, "10.0.0.1:6443");
    let plain = read(discovery.groups(DiscoveryForm::Plain).bytes);
    let names: Vec<&str> = plain["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "high.io", "apps"]);
    assert_eq!(names.last(), Some(&"low.io"));
    let low = read(discovery.group("low.io").unwrap());
    let versions = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|v| v["version"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(versions(&low["versions"]), ["v1", "v1beta1", "v2"]);
    assert_eq!(low["preferredVersion"]["groupVersion"], "low.io/v1");
    let apps = read(discovery.group("apps").unwrap());
    assert_eq!(versions(&apps["versions"])[0], "v1");
    assert_eq!(versions(&apps["versions"]).iter().filter(|version| *version == "v1").count(), 1);
    assert!(discovery.resources("high.io", "v1alpha1").is_none(), "its own server answers");

    let list = read(discovery.groups(DiscoveryForm::AggregatedV2).bytes);
    let group = |name: &str| {
        list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name).unwrap().clone()
    };
    assert_eq!(group("low.io")["versions"][0]["freshness"], "Stale");
    assert_eq!(versions(&group("low.io")["versions"]), ["v1", "v1beta1", "v2"]);
    let unasked = &group("low.io")["versions"][1];
    assert_eq!((&unasked["freshness"], &unasked["resources"]), (&json!("Stale"), &Value::Null), "nobody knows yet");
    assert_eq!(group("high.io")["versions"][0]["resources"][0]["resource"], "flunders");
    assert_ne!(group("apps")["versions"][0]["resources"][0]["resource"], "flunders");
}

#[test]
fn the_aggregated_form_says_the_same() {
    let list = read(discovery().core(DiscoveryForm::AggregatedV2).bytes);
    assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
    let pods = list["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = pods.iter().find(|r| r["resource"] == "pods").unwrap();
    assert_eq!(pods["shortNames"], json!(["po"]));
    assert_eq!(pods["scope"], "Namespaced");
    let kinds: Vec<&Value> =
        pods["subresources"].as_array().unwrap().iter().map(|s| &s["responseKind"]["kind"]).collect();
    assert_eq!(kinds[..2], ["PodAttachOptions", "Binding"]);
}
