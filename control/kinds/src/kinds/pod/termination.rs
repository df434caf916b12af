//! How long a pod may take to end.

use serde_json::Value;

/// Seconds that a pod gets which does not say.
const DEFAULT_GRACE: i64 = 30;

/// The grace of a deletion: what was asked for, or else what the pod says. Only a pod that has a node and still runs
/// there has to be waited for.
pub fn grace_seconds(pod: &Value, asked: Option<i64>) -> i64 {
    let bound = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !bound || over {
        return 0;
    }
    let own = || pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(DEFAULT_GRACE);
    // Less than nothing means as soon as possible, but not by force.
    match asked.unwrap_or_else(own) {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}
