//! An event that is too large for its backend, as much of it as there is room for.
//!
//! Its sender decides how long most of its texts are: what is too large must not vanish for that. kube-apiserver leaves
//! such an event out.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AuditEvent, AuditUser, ObjectReference, ResponseStatus};

/// What an event notes of which something was left out.
const TRUNCATED: &str = "audit.k8s.io/truncated";
/// What a text ends with that was cut.
const CUT: &str = "...TRUNCATED";
/// How many groups, and how many annotations, an event keeps whose texts are cut.
const MOST: usize = 16;
/// What the keys of the annotations begin with that say whether the request was allowed, and why.
const AUTHORIZATION: &str = "authorization.k8s.io/";

impl AuditEvent {
    /// Without the objects.
    pub fn without_objects(&self) -> Self {
        let mut event = Self { request_object: None, response_object: None, ..self.clone() };
        event.annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        event
    }

    /// Without the objects and whatever may have any number of parts, and with texts of so many bytes at most.
    pub fn cut(&self, longest: usize) -> Self {
        let text = |text: &str| cut(text, longest);
        // What admission notes may come before it in the order of keys, and leave no room for it.
        let (decision, others): (Vec<_>, Vec<_>) =
            self.annotations.iter().partition(|(key, _)| key.starts_with(AUTHORIZATION));
        let kept = decision.into_iter().chain(others).take(MOST);
        let mut annotations: BTreeMap<String, String> = kept.map(|(key, value)| (text(key), text(value))).collect();
        annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        Self {
            level: self.level,
            audit_id: text(&self.audit_id),
            stage: self.stage,
            request_uri: text(&self.request_uri),
            verb: text(&self.verb),
            user: self.user.cut(longest),
            impersonated_user: self.impersonated_user.as_ref().map(|user| user.cut(longest)),
            source_ips: self.source_ips.clone(),
            user_agent: text(&self.user_agent),
            object_ref: self.object_ref.as_ref().map(|object| object.cut(longest)),
            response_status: self.response_status.as_ref().map(|status| status.cut(longest)),
            request_object: None,
            response_object: None,
            request_received_timestamp: self.request_received_timestamp,
            stage_timestamp: self.stage_timestamp,
            annotations,
        }
    }
}

impl AuditUser {
    fn cut(&self, longest: usize) -> Self {
        let groups = self.groups.iter().take(MOST).map(|group| cut(group, longest)).collect();
        let (username, uid) = (cut(&self.username, longest), cut(&self.uid, longest));
        Self { username, uid, groups, extra: BTreeMap::new() }
    }
}

impl ObjectReference {
    fn cut(&self, longest: usize) -> Self {
        let text = |text: &str| cut(text, longest);
        Self {
            resource: text(&self.resource),
            namespace: text(&self.namespace),
            name: text(&self.name),
            uid: text(&self.uid),
            api_group: text(&self.api_group),
            api_version: text(&self.api_version),
            resource_version: text(&self.resource_version),
            subresource: text(&self.subresource),
        }
    }
}

impl ResponseStatus {
    fn cut(&self, longest: usize) -> Self {
        Self {
            metadata: self.metadata.clone(),
            status: cut(&self.status, longest),
            message: cut(&self.message, longest),
            reason: cut(&self.reason, longest),
            details: Value::Null,
            code: self.code,
        }
    }
}

fn cut(text: &str, longest: usize) -> String {
    match text.len() > longest {
        true => format!("{}{CUT}", &text[..text.floor_char_boundary(longest)]),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{AuditStage, tests::event},
        *,
    };

    #[test]
    fn an_event_whose_texts_are_cut_still_tells_whether_the_request_was_allowed() {
        let mut event = event(AuditStage::ResponseComplete);
        for number in 0..40 {
            event.annotations.insert(format!("admission-{number}.example.com/note"), "x".repeat(1000));
        }
        event.annotations.insert("authorization.k8s.io/decision".to_owned(), "allow".to_owned());
        event.annotations.insert("authorization.k8s.io/reason".to_owned(), "y".repeat(1000));
        let cut = event.cut(100);
        assert_eq!(cut.annotations["authorization.k8s.io/decision"], "allow");
        assert!(cut.annotations["authorization.k8s.io/reason"].ends_with(CUT));
        assert_eq!(cut.annotations.len(), MOST + 1, "it is filled up with others, and says that it was cut");
    }
}
