//! What the control service assigned to this node, kept so that the node can start without it.

use std::sync::Arc;

use fairlead_client::{Api, Events};
use futures::TryStreamExt;
use ipnetwork::Ipv4Network;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client,
    runtime::watcher::{self, Event},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{last_known::LastKnown, world::World};

/// What a start needs from the API and the runtime, kept for starts without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Addresses of this node's pods.
    pub pod_cidr: Ipv4Network,
    /// `docker://20.10.24`, for the Node object while the runtime is away.
    pub runtime_version: String,
}

impl Assignment {
    /// Raise it with every change of the JSON form.
    pub const VERSION: u32 = 1;
}

/// Waits until the control service has given the node its pod subnet.
pub async fn pod_cidr(client: &Client, name: &str) -> Result<ipnetwork::Ipv4Network, watcher::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut nodes = Events::new(&api, config);
    loop {
        match nodes.try_next().await {
            Ok(Some(Event::InitApply(node) | Event::Apply(node))) => {
                let Some(cidr) = node.spec.and_then(|spec| spec.pod_cidr) else { continue };
                match cidr.parse() {
                    Ok(cidr) => return Ok(cidr),
                    Err(error) => tracing::warn!(cidr, %error, "the Node's podCIDR is not of the form 10.244.0.0/24"),
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Err(watcher::Error::NoResourceVersion),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "waiting for the pod subnet"),
        }
    }
}

/// Keeps the assignment on disk until `stop`. Publishes a problem while the API gives this node another pod subnet than
/// the one that is in use: it is taken at the next start, since running pods keep their addresses.
pub async fn follow(
    node_name: String,
    in_use: Assignment,
    kept: LastKnown<Assignment>,
    mut world: watch::Receiver<Arc<World>>,
    problem: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut stored = None;
    loop {
        let assigned = assigned_subnet(&world.borrow_and_update(), &node_name).unwrap_or(in_use.pod_cidr);
        problem.send_replace(other_subnet(assigned, in_use.pod_cidr));
        if stored != Some(assigned) {
            store(&kept, Assignment { pod_cidr: assigned, ..in_use.clone() }).await;
            stored = Some(assigned);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = world.changed() => if changed.is_err() { return stop.cancelled().await },
        }
    }
}

/// What the API says now; `None` while it is away.
fn assigned_subnet(world: &World, node_name: &str) -> Option<Ipv4Network> {
    world.allows_removal().then(|| world.nodes.get(node_name)?.pod_cidr).flatten()
}

fn other_subnet(assigned: Ipv4Network, in_use: Ipv4Network) -> Option<String> {
    (assigned != in_use).then(|| {
        format!(
            "the pod subnet of this node is now {assigned}, but {in_use} is in use: restart the node agent to take it"
        )
    })
}

async fn store(kept: &LastKnown<Assignment>, assignment: Assignment) {
    let kept = kept.clone();
    match tokio::task::spawn_blocking(move || kept.store(&assignment)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "this node cannot start again while the API is away");
        }
        Err(error) => tracing::error!(%error, "storing the assignment ended abnormally"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Node;

    fn world(pod_cidr: &str) -> World {
        let node = Node { name: "a".into(), pod_cidr: Some(pod_cidr.parse().unwrap()), revision: 1, ..Node::default() };
        World { nodes: imbl::OrdMap::unit("a".into(), Arc::new(node)), synced: true, ..World::default() }
    }

    #[tokio::test]
    async fn another_subnet_is_a_problem_now_and_taken_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let kept = LastKnown::<Assignment>::new(directory.path(), "assignment", Assignment::VERSION);
        let in_use = Assignment { pod_cidr: "10.244.0.0/24".parse().unwrap(), runtime_version: "docker://1".into() };
        let (publish, snapshots) = watch::channel(Arc::new(World::default()));
        let (problem, mut problems) = watch::channel(None);
        let stop = CancellationToken::new();
        let following =
            tokio::spawn(follow("a".into(), in_use.clone(), kept.clone(), snapshots, problem, stop.clone()));
        problems.changed().await.unwrap();
        assert_eq!(*problems.borrow_and_update(), None, "the API is away");
        publish.send_replace(Arc::new(world("10.244.7.0/24")));
        problems.wait_for(Option::is_some).await.unwrap();
        stop.cancel();
        following.await.unwrap();
        assert_eq!(kept.load().unwrap().unwrap().pod_cidr, "10.244.7.0/24".parse().unwrap());
    }
}
