//! Controllers that work on all kinds, with kinds that another server has.

use http::{Request, header};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams, runtime::wait::await_condition};
use serde_json::{Value, json};

use super::{Cluster, PATIENCE, create};
use crate::aggregation::tests::{API_SERVICES, aggregate, api_service, extension_server::ROOT, service};

async fn post(cluster: &Cluster, path: &str, object: Value) {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(object.to_string().into_bytes()).expect("a request");
    cluster.client.request::<Value>(request).await.expect("created");
}

fn condition<'n>(namespace: Option<&'n Namespace>, name: &str) -> (&'n str, &'n str) {
    let conditions = namespace.and_then(|namespace| namespace.status.as_ref()?.conditions.as_ref());
    let found = conditions.into_iter().flatten().find(|condition| condition.type_ == name);
    found.map_or(("", ""), |one| (one.status.as_str(), one.message.as_deref().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_keeps_its_finalizer_until_other_servers_have_emptied_it() {
    let cluster = Cluster::start(0).await;
    for name in ["kube-system", "wardle", "doomed"] {
        create::<Namespace>(&cluster.client, "", json!({"metadata": {"name": name}})).await;
    }
    let (extension, _, _, supervisor, _authorities) = aggregate(&cluster.api).await;
    extension.manner.lock().flunders.push("left".into());
    // Its Service does not exist yet: nobody can tell what it has.
    post(&cluster, API_SERVICES, api_service(&extension.bundle)).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let stale = tokio::time::timeout(PATIENCE, async {
        while !cluster.api.published().versions().iter().any(|one| one.found.as_ref().is_some_and(|f| !f.current)) {
            tokio::task::yield_now().await;
        }
    });
    stale.await.expect("known to be stale");
    namespaces.delete("doomed", &DeleteParams::default()).await.expect("deleted");
    let told = await_condition(namespaces.clone(), "doomed", |namespace: Option<&Namespace>| {
        condition(namespace, "NamespaceDeletionDiscoveryFailure").0 == "True"
    });
    let told = tokio::time::timeout(PATIENCE, told).await.expect("in time").expect("a watch");
    let message = condition(told.as_ref(), "NamespaceDeletionDiscoveryFailure").1;
    let version = "wardle.example.com/v1alpha1";
    assert_eq!(
        message,
        format!(
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
             {version}: stale GroupVersion discovery: {version}"
        )
    );

    for (path, object) in service() {
        post(&cluster, path, object).await;
    }
    let gone = await_condition(namespaces, "doomed", |namespace: Option<&Namespace>| namespace.is_none());
    tokio::time::timeout(PATIENCE, gone).await.expect("in time").expect("a watch");
    let emptied = extension.got(&format!("{ROOT}/namespaces/doomed/flunders"));
    assert!(emptied.iter().any(|got| got.method == http::Method::DELETE), "{emptied:?}");
    assert!(extension.manner.lock().flunders.is_empty());
    supervisor.shutdown().await;
    cluster.stop().await;
}
