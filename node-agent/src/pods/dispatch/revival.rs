//! Restarts workers that panicked: after a back-off, from what the runtime then has of their pods.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::{task::JoinSet, time::Instant};

use crate::{pods::Context, runtime::Container};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A worker that lasted this long starts from the first wait again.
const STEADY: Duration = Duration::from_secs(600);

/// Pods whose worker panicked.
#[derive(Default)]
pub(super) struct Revivals {
    /// By uid: those that have no worker now.
    waiting: HashMap<String, Revival>,
    /// By uid: the wait after the latest panic, and when that was.
    waits: HashMap<String, (Duration, Instant)>,
    tasks: JoinSet<(String, Vec<Container>)>,
}

/// A pod without a worker.
pub(super) struct Revival {
    /// As last seen.
    pub(super) pod: Arc<Pod>,
    /// It went from the API meanwhile.
    pub(super) gone: bool,
}

impl Revivals {
    /// The revival of this pod, if its worker is to be restarted.
    pub(super) fn get_mut(&mut self, uid: &str) -> Option<&mut Revival> {
        self.waiting.get_mut(uid)
    }

    /// Begins the back-off of a pod whose worker panicked; returns how long it is.
    pub(super) fn begin(&mut self, context: Arc<Context>, uid: String, pod: Arc<Pod>) -> Duration {
        let now = Instant::now();
        let wait = match self.waits.get(&uid) {
            Some((wait, since)) if now.saturating_duration_since(*since) < STEADY => (*wait * 2).min(LONGEST_WAIT),
            _ => FIRST_WAIT,
        };
        self.waits.insert(uid.clone(), (wait, now));
        self.waiting.insert(uid.clone(), Revival { pod, gone: false });
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let found = containers(&context, &uid).await;
            (uid, found)
        });
        wait
    }

    /// The next pod whose back-off is over, with the containers that the runtime has of it. Never where there is none.
    pub(super) async fn next(&mut self) -> (String, Vec<Container>) {
        loop {
            match self.tasks.join_next().await {
                None => return std::future::pending().await,
                Some(Ok(revived)) => return revived,
                Some(Err(error)) => tracing::error!(%error, "a pod's containers were not looked for"),
            }
        }
    }

    /// Takes the pod out: it gets a worker now.
    pub(super) fn take(&mut self, uid: &str) -> Option<Revival> {
        self.waiting.remove(uid)
    }

    /// The pod has ended: its panics are past.
    pub(super) fn forget(&mut self, uid: &str) {
        self.waits.remove(uid);
    }
}

/// The containers of the pod `uid`, once the runtime answers.
async fn containers(context: &Context, uid: &str) -> Vec<Container> {
    let found = list(context, uid).await;
    found.into_iter().filter(|container| container.owner.pod.uid == uid).collect()
}

/// All containers of this node, once the runtime answers. `whose` is for the log.
pub(super) async fn list(context: &Context, whose: &str) -> Vec<Container> {
    let mut wait = FIRST_WAIT;
    loop {
        match context.runtime.list().await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(whose, error = error.chain(), "the containers cannot be listed; trying again")
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
