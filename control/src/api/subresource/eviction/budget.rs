//! Whether a PodDisruptionBudget lets a pod be evicted, and what is left of it then. Pure.

use serde_json::{Value, json};

use crate::{
    api::{Status, Subject},
    kinds::reading::{entries, items, number, text},
};

/// How many evictions may wait for the budget's controller to see them.
const MAX_DISRUPTED_PODS: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CAUSE: &str = "DisruptionBudget";
const ALLOWED: &str = "DisruptionAllowed";

/// A pod that several budgets guard is never evicted.
pub fn several() -> Status {
    let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    Status::plain_error(message)
}

/// The budget without the disruption that the eviction of `pod` is. Nothing where the pod, being unready, does not
/// count.
pub fn decremented(budget: &Value, pod: &Value, now: &str) -> Result<Option<Value>, Status> {
    let status = &budget["status"];
    if !is_ready(pod) && lets_unready_go(budget) {
        return Ok(None);
    }
    let name = text(&budget["metadata"], "name");
    let allowed = number(status, "disruptionsAllowed");
    let forbidden =
        |why| Err(Status::forbidden(Subject { group: "policy", resource: "poddisruptionbudget", name }, why));
    if number(status, "observedGeneration") < number(&budget["metadata"], "generation") {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(Status::too_many_requests(REFUSED, 10, CAUSE, &why));
    }
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if entries(&status["disruptedPods"]).count() > MAX_DISRUPTED_PODS {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(Status::too_many_requests(REFUSED, 0, CAUSE, &why_none(name, status)));
    }
    let mut budget = budget.clone();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    budget["status"]["disruptedPods"][text(&pod["metadata"], "name")] = now.into();
    if allowed == 1 {
        exhaust(&mut budget["status"], now);
    }
    Ok(Some(budget))
}

fn is_ready(pod: &Value) -> bool {
    items(&pod["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Whether the budget leaves unready pods to be evicted without asking: by its policy, or as long as it has enough
/// ready ones.
fn lets_unready_go(budget: &Value) -> bool {
    let desired = number(&budget["status"], "desiredHealthy");
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (desired > 0 && number(&budget["status"], "currentHealthy") >= desired)
}

fn why_none(name: &str, status: &Value) -> String {
    let (desired, current) = (number(status, "desiredHealthy"), number(status, "currentHealthy"));
    let condition = items(&status["conditions"]).find(|condition| condition["type"] == ALLOWED);
    let told = condition.filter(|c| c["status"] == "False" && !text(c, "message").is_empty());
    let told = told.map(|condition| (text(condition, "reason"), text(condition, "message")));
    match told {
        // Its numbers mean nothing where it could not be computed.
        Some(("SyncFailed", message)) => {
            format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
            )
        }
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some((reason, message)) => {
            format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
        }
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// Says in the status that no disruption is left.
fn exhaust(status: &mut Value, now: &str) {
    let observed = status["observedGeneration"].clone();
    let condition = json!({"type": ALLOWED, "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": observed, "lastTransitionTime": now});
    let conditions = &mut status["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|known| known["type"] == ALLOWED) {
        Some(known) => {
            let since = Some(known["lastTransitionTime"].take()).filter(|_| known["status"] == "False");
            *known = condition;
            if let Some(since) = since {
                known["lastTransitionTime"] = since;
            }
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2024-01-01T00:00:00Z";

    fn budget(status: Value) -> Value {
        let mut budget = json!({"metadata": {"name": "b", "generation": 1}, "spec": {}, "status": status});
        budget["status"]["observedGeneration"] = json!(1);
        budget
    }

    fn pod(ready: &str) -> Value {
        json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn cause(result: Result<Option<Value>, Status>) -> (u16, String) {
        let status = result.unwrap_err();
        let cause = status.details.as_ref().map(|details| details["causes"][0]["message"].clone());
        (status.code, cause.and_then(|cause| cause.as_str().map(str::to_owned)).unwrap_or(status.message))
    }

    #[test]
    fn each_eviction_costs_the_budget_one_disruption() {
        let two = budget(json!({"disruptionsAllowed": 2}));
        let one = decremented(&two, &pod("True"), NOW).unwrap().unwrap();
        assert_eq!(one["status"]["disruptionsAllowed"], 1);
        assert_eq!(one["status"]["disruptedPods"], json!({"p": NOW}));
        assert_eq!(one["status"]["conditions"], Value::Null);
        let none = decremented(&one, &pod("True"), NOW).unwrap().unwrap();
        assert_eq!(none["status"]["conditions"][0]["reason"], "InsufficientPods");
        assert_eq!(cause(decremented(&none, &pod("True"), NOW)).0, 429);
    }

    #[test]
    fn a_refusal_tells_why() {
        let refused = |status: Value| cause(decremented(&budget(status), &pod("True"), NOW));
        let why = |text: &str| (429, format!("The disruption budget b {text}"));
        assert_eq!(
            refused(json!({"desiredHealthy": 2, "currentHealthy": 2})),
            why("needs 2 healthy pods and has 2 currently")
        );
        assert_eq!(refused(json!({"currentHealthy": 1})), why("does not allow evicting pods currently"));
        let condition = |reason| json!([{"type": ALLOWED, "status": "False", "reason": reason, "message": "m"}]);
        assert_eq!(
            refused(json!({"conditions": condition("SyncFailed")})),
            why("does not allow evicting pods currently because it failed sync: m")
        );
        assert_eq!(
            refused(json!({"currentHealthy": 1, "conditions": condition("Other")})),
            why("does not allow evicting pods currently (Other): m")
        );
        let mut unseen = budget(json!({"disruptionsAllowed": 1}));
        unseen["metadata"]["generation"] = json!(2);
        assert_eq!(cause(decremented(&unseen, &pod("True"), NOW)), why("is still being processed by the server."));
        assert_eq!(
            refused(json!({"disruptionsAllowed": -1})),
            (403, "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative".to_owned())
        );
    }

    #[test]
    fn unready_pods_go_where_the_policy_or_enough_others_let_them() {
        let enough = budget(json!({"desiredHealthy": 1, "currentHealthy": 1}));
        assert_eq!(decremented(&enough, &pod("False"), NOW).unwrap(), None);
        let mut short = budget(json!({"desiredHealthy": 1, "currentHealthy": 0}));
        assert_eq!(cause(decremented(&short, &pod("False"), NOW)).0, 429);
        short["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        assert_eq!(decremented(&short, &pod("False"), NOW).unwrap(), None);
        assert_eq!(cause(decremented(&short, &pod("True"), NOW)).0, 429);
    }

    #[test]
    fn too_many_unseen_evictions_are_refused() {
        let pods: serde_json::Map<String, Value> =
            (0..=MAX_DISRUPTED_PODS).map(|i| (format!("p{i}"), NOW.into())).collect();
        let full = budget(json!({"disruptionsAllowed": 1, "disruptedPods": pods}));
        assert_eq!(cause(decremented(&full, &pod("True"), NOW)).0, 403);
    }
}
