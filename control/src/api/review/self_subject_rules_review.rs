//! SelfSubjectRulesReview, `kubectl auth can-i --list`: what the caller may do in a namespace.

use serde_json::{Value, json};

use super::Review;
use crate::{
    api::{Api, request::Call},
    auth::{authorizer::ListedRules, rbac::Rule},
    status::Status,
};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authorization.k8s.io",
    kind: "SelfSubjectRulesReview",
    answer: |api, call, review| Box::pin(async move { answer(api, call, &review) }),
};

fn answer(api: &Api, call: &Call, review: &Value) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.ok_or_else(|| Status::bad_request("no namespace on request"))?;
    let ListedRules { rules, is_incomplete, errors } = api.authorizer().list_rules(&call.identity, namespace);
    let mut status = json!({
        "resourceRules": rules.iter().filter(|rule| !rule.resources.is_empty()).map(resource_rule).collect::<Vec<_>>(),
        "nonResourceRules": rules.iter().filter(|rule| !rule.non_resource_urls.is_empty()).map(path_rule)
            .collect::<Vec<_>>(),
        "incomplete": is_incomplete,
    });
    match errors.as_slice() {
        [] => {}
        [one] => status["evaluationError"] = one.as_str().into(),
        many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
    }
    Ok(json!({"kind": review["kind"], "apiVersion": review["apiVersion"],
        "metadata": {"creationTimestamp": null}, "spec": {}, "status": status}))
}

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
