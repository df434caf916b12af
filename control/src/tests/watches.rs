//! Informers over the real API.

use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::json;
use tokio::sync::watch;

use super::{Cluster, PATIENCE, create};
use crate::engine::Tasks;
use fairlead_controllers::objects::informers::Informers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_created_while_an_informer_starts_is_lost_or_seen_twice() {
    let cluster = Cluster::start(0).await;
    let (informers, tasks) = (Informers::default(), Tasks::default());
    let (seen, mut all) = watch::channel(BTreeSet::new());
    informers.endpoints.on_change(move |change| {
        let first = seen.send_if_modified(|seen: &mut BTreeSet<String>| seen.insert(change.key.name.clone()));
        assert!(first && change.old.is_none() && change.new.is_some());
    });
    let client = cluster.client.clone();
    let creating = tokio::spawn(async move {
        let names = (0..200).map(|n| json!({"metadata": {"name": format!("e{n}")}}));
        join_all(names.map(|object| create::<Endpoints>(&client, "default", object))).await
    });
    informers.run(&cluster.client, &tasks);
    creating.await.expect("created");
    let complete = all.wait_for(|seen| seen.len() == 200);
    tokio::time::timeout(PATIENCE, complete).await.expect("in time").expect("the informer lives");
    assert_eq!(informers.endpoints.handler_panics(), 0);
    tasks.shutdown().await;
    cluster.stop().await;
}
