//! SelfSubjectRulesReview, `kubectl auth can-i --list`: what the caller may do in a namespace.

use serde_json::{Value, json};

use super::Review;
use crate::{auth::rbac::Rule, status::Status};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authorization.k8s.io",
    kind: "SelfSubjectRulesReview",
    answer: |api, call, review| {
        let namespace = review["spec"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.ok_or_else(|| Status::bad_request("no namespace on request"))?;
        let (rules, error) = api.authorizer().rbac().policy().rules_of(&call.identity, namespace);
        // What a node may depends on its pods, and cannot be listed.
        let of_node = call.identity.node().map(|_| "node authorizer does not support user rule resolution".to_owned());
        let errors: Vec<String> = of_node.into_iter().chain(error).collect();
        let mut status = json!({
            "resourceRules": rules.iter().filter(|rule| !rule.resources.is_empty()).map(resource_rule).collect::<Vec<_>>(),
            "nonResourceRules": rules.iter().filter(|rule| !rule.non_resource_urls.is_empty()).map(path_rule)
                .collect::<Vec<_>>(),
            "incomplete": call.identity.node().is_some(),
        });
        match errors.as_slice() {
            [] => {}
            [one] => status["evaluationError"] = one.as_str().into(),
            many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
        }
        Ok(json!({"kind": review["kind"], "apiVersion": review["apiVersion"],
            "metadata": {"creationTimestamp": null}, "spec": {}, "status": status}))
    },
};

fn resource_rule(rule: &Rule) -> Value {
    let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
    if !rule.resource_names.is_empty() {
        shown["resourceNames"] = json!(rule.resource_names);
    }
    shown
}

fn path_rule(rule: &Rule) -> Value {
    json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls})
}
