//! Services from their pods to their slices, and the objects of a namespace.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use super::{Cluster, create, create_in_default, deployment, patch};

fn addresses(slices: &[EndpointSlice]) -> usize {
    slices
        .iter()
        .map(|slice| {
            slice.endpoints.iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_follows_the_ready_pods_it_selects() {
    let cluster = Cluster::start(2).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}]}});
    create_in_default(&cluster.api::<Service>(), service).await;
    cluster
        .wait_list::<EndpointSlice>("kubernetes.io/service-name=web", "one empty slice", |s| {
            s.len() == 1 && s[0].endpoints.is_empty()
        })
        .await;
    let deployments = cluster.api::<k8s_openapi::api::apps::v1::Deployment>();
    create_in_default(&deployments, deployment("web", 3, "one")).await;
    let slices =
        cluster.wait_list::<EndpointSlice>("kubernetes.io/service-name=web", "three", |s| addresses(s) == 3).await;
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].ports.as_ref().and_then(|p| p[0].port), Some(8080));
    let endpoints = cluster
        .wait::<Endpoints>("web", "three", |e| {
            e.subsets.as_ref().is_some_and(|s| s[0].addresses.as_ref().is_some_and(|a| a.len() == 3))
        })
        .await;
    assert!(endpoints.metadata.labels.is_some_and(|l| l.contains_key("endpoints.kubernetes.io/managed-by")));
    patch(&deployments, "web", json!({"spec": {"replicas": 1}})).await;
    cluster
        .wait_list::<EndpointSlice>("kubernetes.io/service-name=web", "one", |s| {
            s.iter().map(|s| s.endpoints.len()).sum::<usize>() == 1
        })
        .await;
    cluster.api::<Service>().delete("web", &DeleteParams::default()).await.expect("deleted");
    cluster.wait_list::<EndpointSlice>("kubernetes.io/service-name=web", "gone", <[EndpointSlice]>::is_empty).await;
    cluster.wait_list::<Endpoints>("", "gone", <[Endpoints]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_of_the_api_comes_back_when_somebody_deletes_or_changes_it() {
    let cluster = Cluster::start(0).await;
    let service = cluster.wait::<Service>("kubernetes", "made", |_| true).await;
    let services = cluster.api::<Service>();
    services.delete("kubernetes", &DeleteParams::default()).await.expect("deleted");
    let again = cluster.wait::<Service>("kubernetes", "back", |s| s.metadata.uid != service.metadata.uid).await;
    let ports = |service: &Service| service.spec.as_ref().and_then(|spec| spec.ports.clone());
    assert_eq!(ports(&again), ports(&service));
    patch(&services, "kubernetes", json!({"spec": {"ports": [{"port": 443, "protocol": "TCP", "targetPort": 1}]}}))
        .await;
    cluster.wait::<Service>("kubernetes", "repaired", |s| ports(s) == ports(&service)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_made_endpoints_are_mirrored_until_they_go() {
    let cluster = Cluster::start(1).await;
    create_in_default(
        &cluster.api::<Service>(),
        json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    let endpoints = json!({"metadata": {"name": "db"}, "subsets": [{"addresses": [{"ip": "192.0.2.42"}],
        "ports": [{"port": 9376}]}]});
    create_in_default(&cluster.api::<Endpoints>(), endpoints).await;
    let slices =
        cluster.wait_list::<EndpointSlice>("kubernetes.io/service-name=db", "one", |s| addresses(s) == 1).await;
    let manager = slices[0].metadata.labels.as_ref().map(|l| l["endpointslice.kubernetes.io/managed-by"].clone());
    assert_eq!(manager.as_deref(), Some("endpointslicemirroring-controller.k8s.io"));
    cluster.api::<Endpoints>().delete("db", &DeleteParams::default()).await.expect("deleted");
    cluster.wait_list::<EndpointSlice>("kubernetes.io/service-name=db", "gone", <[EndpointSlice]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_goes_with_all_it_holds() {
    let cluster = Cluster::start(1).await;
    cluster.wait::<ServiceAccount>("default", "there", |_| true).await;
    cluster
        .wait::<ConfigMap>("kube-root-ca.crt", "there", |m| {
            m.data.as_ref().is_some_and(|d| d["ca.crt"].starts_with("-----BEGIN CERTIFICATE"))
        })
        .await;
    create::<Namespace>(&cluster.client, "", json!({"metadata": {"name": "shop"}})).await;
    let mut web = deployment("web", 2, "one");
    web["apiVersion"] = json!("apps/v1");
    create::<k8s_openapi::api::apps::v1::Deployment>(&cluster.client, "shop", web).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let two = async {
        while pods.list(&ListParams::default()).await.expect("a list").items.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, two).await.expect("two pods");
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("shop", &DeleteParams::default()).await.expect("deleted");
    let gone = async {
        while namespaces.get_opt("shop").await.expect("an answer").is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, gone).await.expect("the namespace goes");
    assert!(pods.list(&ListParams::default()).await.expect("a list").items.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_room_is_made() {
    let cluster = Cluster::start(1).await;
    let pods = cluster.api::<Pod>();
    let pod = |name: &str, cpu: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "one",
            "resources": {"requests": {"cpu": cpu}}}]}})
    };
    let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    create_in_default(&pods, pod("first", "6")).await;
    cluster.wait::<Pod>("first", "bound", is_bound).await;
    create_in_default(&pods, pod("second", "6")).await;
    cluster
        .wait::<Pod>("second", "told", |pod| {
            let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|c| {
                c.type_ == "PodScheduled"
                    && c.status == "False"
                    && c.message.as_deref()
                        == Some(
                            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No \
                             preemption victims found for incoming pod.",
                        )
            })
        })
        .await;
    cluster
        .wait_list::<Event>("", "an event", |e| e.iter().any(|e| e.reason.as_deref() == Some("FailedScheduling")))
        .await;
    pods.delete("first", &DeleteParams::default()).await.expect("deleted");
    cluster.wait::<Pod>("second", "bound", is_bound).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gets_a_pod_subnet_of_its_own() {
    let cluster = Cluster::start(3).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let subnets = async {
        loop {
            let nodes = nodes.list(&ListParams::default()).await.expect("a list").items;
            let mut cidrs: Vec<_> = nodes.iter().filter_map(|n| n.spec.as_ref()?.pod_cidr.clone()).collect();
            if cidrs.len() == 3 {
                cidrs.sort();
                return cidrs;
            }
            tokio::task::yield_now().await;
        }
    };
    let cidrs = tokio::time::timeout(super::PATIENCE, subnets).await.expect("three subnets");
    assert_eq!(cidrs, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);
    cluster.stop().await;
}
