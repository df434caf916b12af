//! TTL after finished: deletes Jobs, with their pods, so long after they have finished as they ask for
//! (`ttlSecondsAfterFinished`). Source: KEP-592.

use std::{sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{api::batch::v1::Job, jiff::Timestamp};
use kube::{
    Client,
    api::{DeleteParams, Preconditions},
};

use super::{Context, job::conditions::finished};
use crate::engine::{Failure, Informer, Key, Outcome, Startup, Tasks, is_gone_or_taken};

const COMPONENT: &str = "ttl-after-finished-controller";
const CONCURRENCY: usize = 8;

struct Controller {
    client: Client,
    jobs: Arc<Informer<Job>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let jobs = &context.informers.jobs;
    Startup::new(COMPONENT, Controller { client: context.client.clone(), jobs: jobs.clone() })
        .on(jobs, |_, change, queue| {
            if change.new.as_deref().is_some_and(|job| remaining(job, Timestamp::now()).is_some()) {
                queue.add(change.key.clone());
            }
        })
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(job) = self.jobs.get(&key) else { return Ok(Outcome::Done) };
        match remaining(&job, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(rest) if !rest.is_zero() => return Ok(Outcome::After(rest)),
            Some(_) => {}
        }
        // The time may have been changed since: what is stored decides.
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let live = jobs.get_opt(&key.name).await.map_err(Failure::request("read the Job again"))?;
        let Some(live) = live else { return Ok(Outcome::Done) };
        match remaining(&live, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(rest) if !rest.is_zero() => return Ok(Outcome::After(rest)),
            Some(_) => {}
        }
        let same = Preconditions { uid: live.metadata.uid, resource_version: live.metadata.resource_version };
        match jobs.delete(&key.name, &DeleteParams::foreground().preconditions(same)).await {
            Err(error) if !is_gone_or_taken(&error) => Err(Failure::request("delete a Job")(error)),
            _ => Ok(Outcome::Done),
        }
    }
}

/// How long the Job is still kept; `None` for one that is not to be deleted, or not yet finished.
fn remaining(job: &Job, now: Timestamp) -> Option<Duration> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let kept = u64::try_from(job.spec.as_ref()?.ttl_seconds_after_finished?).unwrap_or(0);
    let at = finished(job)?.last_transition_time.as_ref()?.0;
    // One that will have finished, by a clock that is ahead, is kept for longer.
    let since = now.duration_since(at);
    let ahead = Duration::try_from(since.checked_neg()?).unwrap_or_default();
    let elapsed = Duration::try_from(since).unwrap_or_default();
    Some(Duration::from_secs(kept).saturating_add(ahead).saturating_sub(elapsed))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decide(ttl: Value, conditions: Value, deleted: Value) -> Option<u64> {
        let job = json!({"metadata": {"deletionTimestamp": deleted},
            "spec": {"template": {}, "ttlSecondsAfterFinished": ttl}, "status": {"conditions": conditions}});
        let job: Job = serde_json::from_value(job).expect("a valid Job");
        remaining(&job, "2026-01-01T00:00:10Z".parse().expect("a valid time")).map(|rest| rest.as_secs())
    }

    #[test]
    fn a_finished_job_is_kept_as_long_as_it_asks_for() {
        let ended =
            |kind: &str, status: &str, at: Value| json!([{"type": kind, "status": status, "lastTransitionTime": at}]);
        let at = || json!("2026-01-01T00:00:03Z");
        for (ttl, conditions, expected) in [
            (Value::Null, ended("Complete", "True", at()), None),
            (json!(5), json!([]), None),
            (json!(5), ended("Complete", "False", at()), None),
            (json!(5), ended("FailureTarget", "True", at()), None),
            (json!(5), ended("Complete", "True", Value::Null), None),
            (json!(0), ended("Complete", "True", at()), Some(0)),
            (json!(5), ended("Complete", "True", at()), Some(0)),
            (json!(10), ended("Failed", "True", at()), Some(3)),
            (json!(10), ended("Complete", "True", json!("2026-01-01T00:00:30Z")), Some(30)),
        ] {
            assert_eq!(decide(ttl.clone(), conditions.clone(), Value::Null), expected, "{ttl} {conditions}");
        }
        assert_eq!(decide(json!(0), ended("Complete", "True", at()), at()), None, "it goes already");
    }
}
