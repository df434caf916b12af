//! Pods that an earlier agent left, on a kernel that refuses what it did not know.

use parking_lot::Mutex;

use super::*;
use crate::network::{
    nft::{self as nft_program, NftError},
    source_filter::{RunScript, SourceFilter},
    start_filtering,
};

/// nft of a kernel that refuses a family, for as long as there is one here.
struct Without(Arc<Mutex<Option<&'static str>>>);

#[async_trait::async_trait]
impl RunScript for Without {
    async fn apply(&self, script: &str) -> Result<(), NftError> {
        if self.0.lock().is_some_and(|family| script.contains(&format!("table {family}"))) {
            return Err(NftError::Refused("Operation not supported".into()));
        }
        nft_program::apply(script).await
    }
}

#[test]
fn a_kernel_that_refuses_the_filter_keeps_the_pods_that_run_and_starts_no_others() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let pod = TestMachine::new();
    let earlier = start_on(&node, config(dir.path()));
    let address = attach(&node, &earlier, "a", &pod);
    shutdown(&node, &earlier, Teardown::Keep);
    drop(earlier);
    nft(&node, "delete table inet fairlead");

    let (_world, seen) = watch::channel(Arc::new(World::default()));
    let refused = Arc::new(Mutex::new(Some("inet")));
    let (config, filter) = (config(dir.path()), SourceFilter::new(Arc::new(Without(refused.clone()))));
    let network = Arc::new(node.wait(async move { start_filtering(config, seen, filter).await.unwrap() }));
    let says = || network.problem().is_some_and(|problem| problem.contains("keep pods to their own addresses"));
    assert!(says());
    assert_eq!(attach(&node, &network, "a", &pod), address);
    pod.serve_who_am_i(80);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());
    let new = TestMachine::new();
    // However often it is tried: it has no link that a later attempt could find.
    for _ in 0..2 {
        let (attaching, path) = (network.clone(), new.path());
        let error = node.wait(async move { attaching.attach("b", &path).await.unwrap_err() });
        assert_eq!(error.operation, "filter what the pod sends");
    }
    assert!(!new.inventory().contains("eth0"));

    *refused.lock() = None;
    assert_eq!(attach(&node, &network, "a", &pod), address);
    wait_until("the problem to be over", || !says());
}
