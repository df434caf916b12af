//! OwnerReferencesPermissionEnforcement: who gives an object other owners may delete it, since garbage collection will
//! do so; who has the deletion of an owner wait for it may set finalizers on that owner.
//!
//! Source: `plugin/pkg/admission/gc`, whose words these are.

use std::collections::HashMap;

use futures::FutureExt;
use serde_json::Value;

use super::{
    namespace,
    plugins::{AdmissionContext, Plugin, Validate},
};
use crate::{
    admission_plugins::PluginName,
    auth::{
        attributes::{Attributes, Resource},
        authorizer::Verdict,
    },
    kinds::{
        api_version::group_and_version,
        reading::{items, text},
    },
    request::Verb,
    status::Status,
};

/// New and changed owner references need rights.
pub static PLUGIN: Plugin = Plugin {
    validate: Some(Validate::Waiting(|context, object| validate(context, object).boxed())),
    ..Plugin::named(PluginName::OwnerReferencesPermissionEnforcement)
};

/// One owner reference. Two are the same to Kubernetes if all that they say is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerReference<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    uid: &'a str,
    /// To say nothing is another thing than to say no.
    controller: Option<bool>,
    block_owner_deletion: Option<bool>,
}

impl<'a> OwnerReference<'a> {
    pub(super) fn all_of(object: &'a Value) -> Vec<Self> {
        let one = |reference: &'a Value| Self {
            api_version: text(reference, "apiVersion"),
            kind: text(reference, "kind"),
            name: text(reference, "name"),
            uid: text(reference, "uid"),
            controller: reference["controller"].as_bool(),
            block_owner_deletion: reference["blockOwnerDeletion"].as_bool(),
        };
        items(&object["metadata"]["ownerReferences"]).map(one).collect()
    }

    fn blocks(&self) -> bool {
        self.block_owner_deletion == Some(true)
    }
}

/// The references by which the deletion of an owner waits for the object, and did not before.
pub(super) fn newly_blocking<'a>(new: &[OwnerReference<'a>], old: &[OwnerReference<'_>]) -> Vec<OwnerReference<'a>> {
    // Of several old references to one owner, the last counts.
    let did_block: HashMap<&str, bool> = old.iter().map(|old| (old.uid, old.blocks())).collect();
    new.iter().filter(|new| new.blocks() && did_block.get(new.uid) != Some(&true)).copied().collect()
}

async fn validate(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    let request = context.request;
    let kind = request.kind;
    // Old kubelets write statuses with other owners; a status changes none.
    if kind.group.is_empty() && kind.plural == "pods" && request.subresource == Some("status") {
        return Ok(());
    }
    let new = OwnerReference::all_of(object);
    let old = request.old.map(OwnerReference::all_of).unwrap_or_default();
    if new == old {
        return Ok(());
    }
    // Who creates an object has the power not to.
    if request.operation != Verb::Create
        && let Some(why) = refusal(context, own_deletion(context)).await?
    {
        let why = format!("cannot set an ownerRef on a resource you can't delete: {why}, <nil>");
        return Err(context.forbidden(&why));
    }
    let blocking = newly_blocking(&new, &old);
    if blocking.is_empty() || refusal(context, FINALIZE_ANYTHING).await?.is_none() {
        return Ok(());
    }
    for owner in &blocking {
        must_be_finalizable(context, owner).await?;
    }
    Ok(())
}

/// Who may do this may set finalizers on whatever an owner turns out to be.
const FINALIZE_ANYTHING: Resource<'static> = Resource {
    verb: "update",
    group: "*",
    version: "*",
    namespace: "",
    resource: "*",
    subresource: "finalizers",
    name: "*",
    fields: None,
    labels: None,
};

/// The deletion of the object through what it is written through.
fn own_deletion<'a>(context: &AdmissionContext<'a>) -> Resource<'a> {
    let request = context.request;
    Resource {
        verb: "delete",
        group: request.group,
        version: &request.kind.version,
        namespace: namespace_of(context),
        resource: &request.kind.plural,
        subresource: request.subresource.unwrap_or_default(),
        name: request.name,
        fields: None,
        labels: None,
    }
}

/// The namespace that rules see: that of a namespace is itself, once it is there.
fn namespace_of<'a>(context: &AdmissionContext<'a>) -> &'a str {
    let request = context.request;
    let is_namespace = request.kind.group.is_empty() && request.kind.plural == namespace::RESOURCE;
    match request.namespace {
        None if is_namespace && request.operation != Verb::Create => request.name,
        namespace => namespace.unwrap_or_default(),
    }
}

/// Refuses an owner on which the writer may not set finalizers. One that belongs to a namespace is in the object's own.
async fn must_be_finalizable(context: &AdmissionContext<'_>, owner: &OwnerReference<'_>) -> Result<(), Status> {
    let OwnerReference { api_version, kind, name, .. } = owner;
    let (group, version) = group_and_version(api_version);
    let resources = context.kinds.resources_of(group, version, kind);
    if resources.is_empty() {
        return Err(context.forbidden(&format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} \
             Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
        )));
    }
    for resource in &resources {
        let asked = Resource {
            verb: "update",
            group: &resource.group,
            version: &resource.version,
            namespace: if resource.namespaced { namespace_of(context) } else { "" },
            resource: &resource.plural,
            subresource: "finalizers",
            name,
            fields: None,
            labels: None,
        };
        if let Some(why) = refusal(context, asked).await? {
            return Err(context.forbidden(&format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: \
                 {why}, <nil>"
            )));
        }
    }
    Ok(())
}

/// Why the writer may not do this, which may be no word; nothing if they may.
async fn refusal(context: &AdmissionContext<'_>, asked: Resource<'_>) -> Result<Option<String>, Status> {
    let verdict = context.authorizer.decide(context.request.identity, &Attributes::Resource(asked)).await;
    Ok(match verdict.map_err(|error| error.to_status())? {
        Verdict::Allowed { .. } => None,
        Verdict::Refused { reason, .. } => Some(reason),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(references: Value) -> Value {
        json!({"metadata": {"ownerReferences": references}})
    }

    #[test]
    fn references_are_the_same_only_if_all_that_they_say_is() {
        let same = |a: Value, b: Value| {
            let (a, b) = (object(json!([a])), object(json!([b])));
            OwnerReference::all_of(&a) == OwnerReference::all_of(&b)
        };
        assert!(same(json!({"uid": "u", "name": "a"}), json!({"name": "a", "uid": "u", "controller": null})));
        assert!(!same(json!({"uid": "u"}), json!({"uid": "u", "controller": false})));
        assert!(!same(json!({"uid": "u", "kind": "A"}), json!({"uid": "u", "kind": "B"})));
        assert!(OwnerReference::all_of(&json!({"metadata": {}})).is_empty());
    }

    #[test]
    fn a_reference_that_blocked_before_is_not_asked_about_again() {
        let uids = |new: Value, old: Value| {
            let (new, old) = (object(new), object(old));
            let found = newly_blocking(&OwnerReference::all_of(&new), &OwnerReference::all_of(&old));
            found.iter().map(|owner| owner.uid.to_owned()).collect::<Vec<_>>()
        };
        let (blocks, silent) = (|uid| json!({"uid": uid, "blockOwnerDeletion": true}), |uid| json!({"uid": uid}));
        assert_eq!(uids(json!([blocks("a"), silent("b")]), json!([])), ["a"]);
        assert_eq!(uids(json!([blocks("a"), blocks("b"), blocks("c")]), json!([silent("a"), blocks("b")])), ["a", "c"]);
        let no = json!({"uid": "a", "blockOwnerDeletion": false});
        assert_eq!(uids(json!([blocks("a")]), json!([no])), ["a"]);
        assert_eq!(uids(json!([no]), json!([blocks("a")])), [""; 0]);
        let twice = json!([blocks("a"), no]);
        assert_eq!(uids(json!([blocks("a")]), twice), ["a"], "the last of an owner's references counts");
    }
}
