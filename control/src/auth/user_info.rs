//! A user as objects tell of them: `UserInfo` of Kubernetes.

use serde_json::{Value, json};

use crate::identity::Identity;

/// Name and groups, and uid and extra fields where the user has any.
pub fn user_info(identity: &Identity) -> Value {
    let mut info = json!({"username": identity.name});
    if !identity.uid.is_empty() {
        info["uid"] = json!(identity.uid);
    }
    info["groups"] = json!(identity.groups);
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}
