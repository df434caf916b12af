//! The scheduler's two watches, read down to what it needs before they reach its loop.

use std::collections::BTreeSet;

use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{node::SeenNode, pod::SeenPod};
use crate::controllers::informers::all;

/// What a watch tells. `Listed` ends the first and every later listing with the names of all that is there.
#[derive(Debug)]
pub enum Seen {
    Pod(Box<SeenPod>),
    PodGone { uid: String },
    PodsListed { uids: BTreeSet<String> },
    Node(Box<SeenNode>),
    NodeGone { name: String },
    NodesListed { names: BTreeSet<String> },
}

/// How many events may wait for the loop.
const PENDING: usize = 4096;

/// Follows pods and nodes until `stop`.
pub fn start(client: &Client, stop: CancellationToken) -> (mpsc::Receiver<Seen>, [BoxFuture<'static, ()>; 2]) {
    let (to, seen) = mpsc::channel(PENDING);
    let pods = Words {
        identity: |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default(),
        seen: |pod: &Pod| Seen::Pod(Box::new(SeenPod::read(pod))),
        gone: |uid| Seen::PodGone { uid },
        listed: |uids| Seen::PodsListed { uids },
    };
    let nodes = Words {
        identity: |node: &Node| node.metadata.name.clone().unwrap_or_default(),
        seen: |node: &Node| Seen::Node(Box::new(SeenNode::read(node))),
        gone: |name| Seen::NodeGone { name },
        listed: |names| Seen::NodesListed { names },
    };
    let pods = follow(Api::all(client.clone()), pods, to.clone(), stop.clone());
    let nodes = follow(Api::all(client.clone()), nodes, to, stop);
    (seen, [Box::pin(pods), Box::pin(nodes)])
}

/// How the objects of one kind are told.
struct Words<K> {
    identity: fn(&K) -> String,
    seen: fn(&K) -> Seen,
    gone: fn(String) -> Seen,
    listed: fn(BTreeSet<String>) -> Seen,
}

async fn follow<K>(api: Api<K>, words: Words<K>, to: mpsc::Sender<Seen>, stop: CancellationToken)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, all()).default_backoff());
    let mut listed = BTreeSet::new();
    loop {
        let event = tokio::select! {
            biased;
            _ = stop.cancelled() => return,
            event = events.next() => event,
        };
        let seen = match event {
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listed.insert((words.identity)(&object));
                (words.seen)(&object)
            }
            Some(Ok(watcher::Event::InitDone)) => (words.listed)(std::mem::take(&mut listed)),
            Some(Ok(watcher::Event::Apply(object))) => (words.seen)(&object),
            Some(Ok(watcher::Event::Delete(object))) => (words.gone)((words.identity)(&object)),
            Some(Err(error)) => {
                tracing::debug!(%error, "watch interrupted");
                continue;
            }
            None => return,
        };
        tokio::select! {
            _ = stop.cancelled() => return,
            sent = to.send(seen) => if sent.is_err() { return },
        }
    }
}
