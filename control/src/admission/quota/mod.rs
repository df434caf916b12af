//! ResourceQuota: how much all objects of a namespace may take together.
//!
//! ```text
//! write ──measure──▶ growth ──charge──▶ Amendment of `status.used`, in the transaction of the write
//!                                         │ the committer refuses what exceeds `status.hard`
//! change ──watch──▶ recount ──plan──▶ `status` as it must be, if the quota is still as it was counted
//! ```
//!
//! - **Measure**: what one object takes, and which scopes it is in.
//! - **Charge**: what a write takes more. The committer adds it to the quota as it is at that moment, one transaction
//!   after the other, so that writes at the same time neither conflict nor exceed the quota together.
//! - **Recount**: adds up all objects of a namespace, where something was given back or a quota is new. It counts and
//!   writes at one revision of the quota: each charge changes the quota, so nothing that was charged meanwhile is lost.
//!
//! | file | what it decides |
//! |---|---|
//! | `limits` | what a ResourceQuota says |
//! | `measure` | what an object takes, by `pods`, `services`, `claims`, `device_claims`, or by count |
//! | `charge` | what a write is charged, and why it is refused |
//! | `refusal` | what it says when it does not allow a write |
//! | `recount` | what the status must be |
//! | `watch` | when it is counted anew |
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/resourcequota`, `pkg/quota/v1` and `pkg/controller/resourcequota`,
//! whose words these are. To inspect: `kubectl describe quota`.

mod charge;
mod claims;
mod device_claims;
mod limits;
mod measure;
mod pods;
mod recount;
mod refusal;
mod services;
mod watch;

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::Value;

pub use self::watch::run;
use self::{
    charge::Charged,
    limits::Quota,
    measure::Evaluator,
    refusal::{DamagedObject, QuotaError},
};
use super::amounts::{self, Amounts};
use crate::{
    encode,
    kinds::{Kind, Kinds},
    request::Verb,
    request::WriteRequest,
    status::Status,
    store::{Amendment, Change, Draft, Expect, Key, Object, Write},
};

/// Where ResourceQuotas are stored.
const RESOURCE: &str = "resourcequotas";

static KIND: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Kinds::built_in().by_path("", "v1", RESOURCE).expect("ResourceQuota is a built-in kind"));

/// Whether a write is one into a namespace that has quotas.
pub fn concerns(request: &WriteRequest<'_>) -> bool {
    let is_write = matches!(request.operation, Verb::Create | Verb::Update);
    let Some(namespace) = request.namespace.filter(|_| is_write) else { return false };
    request.snapshot.count(RESOURCE) > 0
        && request.snapshot.list(RESOURCE, &format!("{namespace}/"), None).next().is_some()
}

/// The writes that charge a write to the quotas of its namespace. Refuses what they do not allow as they are now; what
/// others take meanwhile, the committer sees.
pub fn charge(request: &WriteRequest<'_>, object: &Value) -> Result<Vec<Write>, Status> {
    let Some(namespace) = request.namespace.filter(|_| concerns(request)) else { return Ok(Vec::new()) };
    let prefix = format!("{namespace}/");
    let stored = request.snapshot.list(RESOURCE, &prefix, None);
    let Some(evaluator) = Evaluator::of(&request.kind.resource()) else { return Ok(Vec::new()) };
    if !evaluator.handles(request, object) {
        return Ok(Vec::new());
    }
    let refused = |error: QuotaError| Status::forbidden(request.subject(), &error.to_string());
    let mut writes = Vec::new();
    let write = Charged { evaluator: &evaluator, object, old: request.old, now: Timestamp::now().as_second() };
    // What a status says was decided elsewhere.
    let is_bounded = request.subresource != Some("status");
    for (key, found) in stored {
        let quota = Quota::read(&parse(found).map_err(|error| Status::internal(error.to_string()))?);
        let Some(growth) = charge::growth(&quota, &write).map_err(refused)? else { continue };
        quota.used_with(&growth, is_bounded).map_err(refused)?;
        let change = Change::Amend(Amendment::new(move |current| amended(current, &growth, is_bounded)));
        writes.push(Write {
            key: Key { resource: RESOURCE.into(), name: key.clone() },
            expect: Expect::Present,
            change,
        });
    }
    Ok(writes)
}

/// The quota with `growth` added to what is used.
fn amended(current: &Object, growth: &Amounts, is_bounded: bool) -> Result<Draft, QuotaError> {
    let mut value = parse(current)?;
    let used = Quota::read(&value).used_with(growth, is_bounded)?;
    value["status"]["used"] = amounts::to_json(&used);
    Ok(encode::managed_draft(&KIND, &value, &current.managers()))
}

fn parse(object: &Object) -> Result<Value, DamagedObject> {
    serde_json::from_slice(&object.json_without_managers())
        .map_err(|error| DamagedObject { name: object.header().name().to_string(), error })
}
