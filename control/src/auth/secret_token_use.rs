//! The label of a Secret with the day on which its token was last used, written after uses of it.
//!
//! Source: `patchSecretWithLastUsedDate` of `pkg/serviceaccount/legacy.go` of Kubernetes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{Request, header};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use kube::Client;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Failure, Outcome, WorkQueue, is_gone_or_taken, work},
    store::{Object, Store},
};

/// The day on which a Secret's token was last used.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// How long a use of a Secret's token stands for all further ones.
const NOTED_FOR: Duration = Duration::from_secs(60);
/// How many uses are remembered before old ones are looked for.
const NOTED: usize = 1024;
/// How long an answer is waited for: a webhook may be slow to give it. The write goes on without.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many Secrets are labelled at a time, so that one whose webhook hangs does not hold up the others.
const CONCURRENCY: usize = 8;

/// What fails, after "cannot".
const LABEL: &str = "say when a token was last used";

/// The Secrets whose tokens were used, until that is written. Cheap to clone.
#[derive(Clone)]
pub struct UsedSecrets {
    queue: Arc<WorkQueue<String>>,
    /// When uses were noted: a label that cannot be written, or does not stay, is no write for each request.
    noted: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Default for UsedSecrets {
    fn default() -> Self {
        Self { queue: Arc::new(WorkQueue::new("secret-token-use")), noted: Arc::default() }
    }
}

impl UsedSecrets {
    /// Notes that a Secret's token was used now, once a minute. One whose labelling failed waits for its next try.
    pub fn add(&self, key: String) {
        let now = Instant::now();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < NOTED_FOR;
        let mut noted = self.noted.lock();
        if noted.get(&key).is_some_and(is_recent) {
            return;
        }
        if noted.len() >= NOTED {
            noted.retain(|_, at| is_recent(at));
        }
        noted.insert(key.clone(), now);
        drop(noted);
        self.queue.add_if_idle(key);
    }

    /// Labels the Secrets, until `stop`.
    pub async fn run(self, store: Arc<dyn Store>, client: Client, stop: CancellationToken) {
        let label = move |key: String| {
            let (store, client) = (store.clone(), client.clone());
            async move {
                let late = |elapsed| Failure::request(LABEL)(kube::Error::Service(Box::new(elapsed)));
                timeout(PATIENCE, label(&*store, &client, &key)).await.map_err(late)?
            }
        };
        work("secret-token-use", self.queue, CONCURRENCY, stop, label).await;
    }
}

/// The value of a label of a Secret.
pub fn label_of<'o>(secret: &'o Object, name: &str) -> Option<&'o str> {
    secret.header().label(name)
}

/// Whether a Secret is labelled with the day of `now`, or with the next: another server's clock may be ahead.
pub fn is_labelled(secret: &Object, now: Timestamp) -> bool {
    let tomorrow = now.saturating_add(24.hours()).unwrap_or(now);
    label_of(secret, LAST_USED).is_some_and(|day| day == day_of(now) || day == day_of(tomorrow))
}

/// `2026-11-22`
fn day_of(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

async fn label(store: &dyn Store, client: &Client, key: &str) -> Result<Outcome, Failure> {
    let (Some(secret), Some((namespace, name))) = (store.snapshot().get("secrets", key).cloned(), key.split_once('/'))
    else {
        return Ok(Outcome::Done);
    };
    let now = Timestamp::now();
    // By a try whose answer did not come in time.
    if is_labelled(&secret, now) {
        return Ok(Outcome::Done);
    }
    let patch = json!({"metadata": {"uid": secret.header().uid(), "labels": {LAST_USED: day_of(now)}}});
    let request = Request::patch(format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(|error| Failure::Malformed { what: "the request", message: error.to_string() })?;
    match client.request::<IgnoredAny>(request).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
        Err(error) => Err(Failure::request(LABEL)(error)),
    }
}
