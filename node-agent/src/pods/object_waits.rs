//! Wakes the pods that wait for an object when that object changes. One watch serves all pods of the node that wait for
//! the same object, however often each of them has tried; it ends with the last of them.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Context,
    objects::ObjectKey,
    worker::{Input, send},
};

/// Who waits for which object. Cloning shares it.
#[derive(Clone, Default)]
pub struct ObjectWaits(Arc<Mutex<HashMap<ObjectKey, Waiting>>>);

struct Waiting {
    /// Pods by uid.
    pods: HashMap<String, mpsc::Sender<Input>>,
    _watch: AbortOnDropHandle<()>,
}

impl ObjectWaits {
    /// The waits of the pod `uid`; its worker is told of changes through `sender`.
    pub fn of(&self, uid: &str, sender: mpsc::Sender<Input>) -> Waits {
        Waits { all: self.clone(), uid: uid.to_owned(), sender }
    }

    /// Objects that are waited for, with the number of pods that wait.
    #[cfg(test)]
    pub fn counts(&self) -> Vec<(String, usize)> {
        self.0.lock().iter().map(|(key, waiting)| (key.to_string(), waiting.pods.len())).collect()
    }
}

/// What one pod waits for; nothing more once dropped.
pub struct Waits {
    all: ObjectWaits,
    uid: String,
    sender: mpsc::Sender<Input>,
}

impl Waits {
    /// Sends the pod's worker [`Input::ObjectChanged`] at the next change of `key`.
    pub fn add(&self, context: &Arc<Context>, key: &ObjectKey) {
        let mut all = self.all.0.lock();
        let waiting = all.entry(key.clone()).or_insert_with(|| {
            let watch = watch(Arc::downgrade(context), self.all.clone(), key.clone());
            Waiting { pods: HashMap::new(), _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
        });
        waiting.pods.insert(self.uid.clone(), self.sender.clone());
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.all.0.lock().retain(|_, waiting| {
            waiting.pods.remove(&self.uid);
            !waiting.pods.is_empty()
        });
    }
}

/// Waits for the next change of `key`, and then wakes all who wait for it.
async fn watch(context: Weak<Context>, all: ObjectWaits, key: ObjectKey) {
    let Some(watched) = context.upgrade().map(|context| context.objects.watch(&key)) else { return };
    // The first answer is no change: it is what the pods failed with.
    if let Err(error) = watched.read().await {
        tracing::debug!(%key, %error, "an object that pods wait for cannot be read");
    }
    watched.changes().await;
    // Dropped at the end: its watch is this task.
    let waiting = all.0.lock().remove(&key);
    for (_, pod) in waiting.iter().flat_map(|waiting| &waiting.pods) {
        send(pod, Input::ObjectChanged).await;
    }
}
