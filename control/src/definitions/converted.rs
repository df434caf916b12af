//! What a webhook made of stored objects, kept for the others who want the same: a change of an object is converted
//! once for all watchers of a version, and those who come while that happens wait for it. A call that several wait for
//! has as long as any call of the webhook: how long each of them waits is a matter of their own request.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{deadline, status::Status};

/// Conversions that were made, or are being made. Bounded: the oldest go first.
#[derive(Default)]
pub struct Converted {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    kept: HashMap<Digest, Slot>,
    /// The digests of what was made, the oldest first, with the size of the object that it was made of.
    order: VecDeque<(Digest, usize)>,
    bytes: usize,
    /// How many batches there were.
    batches: u64,
}

/// Of the object's text and the wanted version: one resource version may have several texts, for a watch that ceases to
/// select an object tells its last state at the revision of the change.
pub type Digest = [u8; 32];

/// A call of the webhook for several objects.
type Batch = Shared<BoxFuture<'static, Result<Arc<Vec<Value>>, Status>>>;

#[derive(Clone)]
enum Slot {
    Made(Arc<Value>),
    /// The object is the one at this place of the batch with this number.
    InBatch(Batch, usize, u64),
}

/// How many bytes of objects are kept.
const MAX_BYTES: usize = 16 << 20;

impl Converted {
    /// Objects in another version; `convert` makes those that nobody has made or makes. A failure is told to all who
    /// wait for it, and forgotten.
    pub async fn get<F>(
        &self,
        objects: Vec<Value>,
        version: &str,
        convert: impl FnOnce(Vec<Value>) -> F,
    ) -> Result<Vec<Value>, Status>
    where
        F: Future<Output = Result<Vec<Value>, Status>> + Send + 'static,
    {
        let digests: Vec<(Digest, usize)> = objects.iter().map(|object| digest(object, version)).collect();
        let slots = self.claim(&digests, objects, convert);
        let mut all = Vec::with_capacity(slots.len());
        for slot in slots {
            let made = match slot {
                Slot::Made(made) => made,
                Slot::InBatch(batch, at, _) => {
                    let missing = || Status::internal("a conversion answered with too few objects");
                    deadline::wait_for(batch).await?.get(at).cloned().map(Arc::new).ok_or_else(missing)?
                }
            };
            all.push((*made).clone());
        }
        Ok(all)
    }

    /// What is known of each object; begins to convert the others.
    fn claim<F>(
        &self,
        digests: &[(Digest, usize)],
        objects: Vec<Value>,
        convert: impl FnOnce(Vec<Value>) -> F,
    ) -> Vec<Slot>
    where
        F: Future<Output = Result<Vec<Value>, Status>> + Send + 'static,
    {
        let mut inner = self.inner.lock();
        let (mut lacked, mut places) = (Vec::new(), Vec::new());
        for (place, object) in digests.iter().zip(objects) {
            if !inner.kept.contains_key(&place.0) {
                places.push(*place);
                lacked.push(object);
            }
        }
        if !lacked.is_empty() {
            let number = inner.batches;
            inner.batches = number.saturating_add(1);
            // In a task of its own, which has no request's deadline: others may wait for it who have more time.
            let calling = tokio::spawn(convert(lacked));
            let (kept, claimed) = (self.inner.clone(), places.clone());
            let batch = async move {
                let failed =
                    |error: tokio::task::JoinError| Err(Status::internal(format!("a conversion failed: {error}")));
                let made = calling.await.unwrap_or_else(failed).map(Arc::new);
                kept.lock().settle(number, &claimed, made.as_deref().map_or(&[], Vec::as_slice));
                made
            };
            let batch: Batch = batch.boxed().shared();
            for (at, (digest, _)) in places.into_iter().enumerate() {
                inner.kept.entry(digest).or_insert_with(|| Slot::InBatch(batch.clone(), at, number));
            }
            // It ends, and is settled, even if all who wait for it go away.
            tokio::spawn(batch.map(drop));
        }
        digests.iter().filter_map(|(digest, _)| inner.kept.get(digest).cloned()).collect()
    }
}

impl Inner {
    /// Keeps what a batch has made, and forgets that it tried the rest.
    fn settle(&mut self, number: u64, claimed: &[(Digest, usize)], made: &[Value]) {
        for (at, (digest, size)) in claimed.iter().enumerate() {
            let is_open =
                matches!(self.kept.get(digest), Some(Slot::InBatch(_, own, of)) if *of == number && *own == at);
            if !is_open {
                continue;
            }
            let Some(made) = made.get(at) else {
                self.kept.remove(digest);
                continue;
            };
            self.kept.insert(*digest, Slot::Made(Arc::new(made.clone())));
            self.order.push_back((*digest, *size));
            self.bytes = self.bytes.saturating_add(*size);
        }
        while self.bytes > MAX_BYTES
            && let Some((oldest, size)) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

/// The digest of an object that is wanted in a version, and how many bytes its text has.
pub fn digest(object: &Value, version: &str) -> (Digest, usize) {
    let text = object.to_string();
    let digest = Sha256::new().chain_update(version).chain_update([0]).chain_update(&text).finalize();
    (digest.into(), text.len())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use serde_json::json;
    use tokio::sync::Semaphore;

    use super::*;

    /// Converts to the object's name, once it is let; counts the calls.
    struct Webhook {
        calls: Arc<AtomicUsize>,
        permits: Arc<Semaphore>,
    }

    impl Webhook {
        fn new() -> Self {
            Self { calls: Arc::default(), permits: Arc::new(Semaphore::new(0)) }
        }

        async fn get(&self, kept: &Converted, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
            let (calls, permits) = (self.calls.clone(), self.permits.clone());
            let convert = |objects: Vec<Value>| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                permits.acquire().await.unwrap().forget();
                match objects.iter().any(|object| object["name"] == "bad") {
                    true => Err(Status::internal("no")),
                    false => Ok(objects.iter().map(|object| object["name"].clone()).collect()),
                }
            };
            kept.get(objects, "v2", convert).await
        }
    }

    #[tokio::test]
    async fn all_who_want_the_same_share_one_call() {
        let (kept, webhook) = (Converted::default(), Webhook::new());
        let (a, b) = (json!({"name": "a"}), json!({"name": "b"}));
        let watchers = (0..5).map(|_| webhook.get(&kept, vec![a.clone()]));
        let other = webhook.get(&kept, vec![a.clone(), b.clone(), b.clone()]);
        webhook.permits.add_permits(2);
        let (all, other) = tokio::join!(futures::future::join_all(watchers), other);
        assert!(all.into_iter().all(|made| made.unwrap() == [json!("a")]));
        assert_eq!(other.unwrap(), [json!("a"), json!("b"), json!("b")]);
        assert_eq!(webhook.calls.load(Ordering::SeqCst), 2);
        assert_eq!(webhook.get(&kept, vec![b, a]).await.unwrap(), [json!("b"), json!("a")]);
        assert_eq!(webhook.calls.load(Ordering::SeqCst), 2, "it is kept");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_and_forgotten() {
        let (kept, webhook) = (Converted::default(), Webhook::new());
        let bad = || webhook.get(&kept, vec![json!({"name": "bad"})]);
        let (one, two, ()) = tokio::join!(bad(), bad(), async { webhook.permits.add_permits(2) });
        assert!(one.is_err() && two.is_err());
        assert_eq!(webhook.calls.load(Ordering::SeqCst), 1);
        assert!(bad().await.is_err());
        assert_eq!(webhook.calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_request_that_is_over_ends_for_itself_and_not_for_those_who_wait_with_it() {
        let kept = Converted::default();
        let permits = Arc::new(Semaphore::new(0));
        let get = || {
            let permits = permits.clone();
            kept.get(vec![json!({"name": "a"})], "v2", |objects| async move {
                permits.acquire().await.unwrap().forget();
                deadline::must_not_be_over().map(|()| objects)
            })
        };
        assert_eq!(deadline::within(Duration::ZERO, get()).await.unwrap_err().code, 504);
        let other = deadline::within(Duration::from_secs(60), get());
        let (other, ()) = tokio::join!(other, async { permits.add_permits(1) });
        assert_eq!(other.unwrap(), [json!({"name": "a"})]);
    }

    #[tokio::test]
    async fn a_batch_that_failed_is_forgotten_whole() {
        let (kept, webhook) = (Converted::default(), Webhook::new());
        webhook.permits.add_permits(9);
        let [a, bad, c] = ["a", "bad", "c"].map(|name| json!({"name": name}));
        assert!(webhook.get(&kept, vec![a.clone(), bad, c.clone()]).await.is_err());
        assert_eq!(webhook.get(&kept, vec![a, c]).await.unwrap(), [json!("a"), json!("c")]);
    }

    #[tokio::test]
    async fn a_batch_ends_without_those_who_asked_for_it() {
        let (kept, webhook) = (Converted::default(), Webhook::new());
        let asked = webhook.get(&kept, vec![json!({"name": "a"})]);
        assert!(asked.now_or_never().is_none(), "it waits");
        webhook.permits.add_permits(1);
        while !matches!(kept.inner.lock().kept.values().next(), Some(Slot::Made(_))) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let (kept, webhook) = (Converted::default(), Webhook::new());
        webhook.permits.add_permits(100);
        for at in 0..40 {
            let large = json!({"name": format!("n{at}"), "text": "x".repeat(1 << 20)});
            webhook.get(&kept, vec![large]).await.unwrap();
        }
        let inner = kept.inner.lock();
        assert!(inner.bytes <= MAX_BYTES && inner.kept.len() == inner.order.len());
        assert_eq!(inner.kept.len(), 15);
    }
}
