//! The parameters of operations: what stands in a path, and the options in a query.

use serde_json::{Value, json};

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    name: &'static str,
    r#type: &'static str,
    description: &'static str,
}

const fn text(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, r#type: "string", description }
}

const fn flag(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, r#type: "boolean", description }
}

const fn integer(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, r#type: "integer", description }
}

/// In the path of what belongs to a namespace.
pub const NAMESPACE: Parameter = text("namespace", "object name and auth scope, such as for teams and projects");
/// Of every path.
pub const PRETTY: Parameter =
    text("pretty", "If 'true', the answer is indented. That is the default for browsers, curl and wget.");

const CONTINUE: Parameter =
    text("continue", "Where the list goes on: the token of the page before, with the same other options.");
const FIELD_SELECTOR: Parameter = text("fieldSelector", "Selects objects by some of their fields. Default: all.");
const LABEL_SELECTOR: Parameter = text("labelSelector", "Selects objects by their labels. Default: all.");
const LIMIT: Parameter = integer("limit", "Most objects in one answer; more follow by `continue`, at one revision.");
const RESOURCE_VERSION: Parameter =
    text("resourceVersion", "The state that is asked for; see `resourceVersionMatch`. Default: the latest.");
const RESOURCE_VERSION_MATCH: Parameter =
    text("resourceVersionMatch", "How `resourceVersion` applies to a list: `NotOlderThan` or `Exact`.");
const SEND_INITIAL_EVENTS: Parameter = flag(
    "sendInitialEvents",
    "Whether a watch begins with the objects that are there, followed by a bookmark with the annotation \
     `k8s.io/initial-events-end`. Requires `resourceVersionMatch=NotOlderThan`.",
);
const TIMEOUT_SECONDS: Parameter = integer("timeoutSeconds", "How long a list or a watch may take.");
const DRY_RUN: Parameter = text("dryRun", "`All`: everything but the write itself is done.");
const FIELD_MANAGER: Parameter = text("fieldManager", "Name of who or what makes the change.");
const FIELD_VALIDATION: Parameter = text(
    "fieldValidation",
    "What becomes of unknown and duplicate fields: `Ignore` drops them, `Warn` (the default) also warns, `Strict` \
     refuses the request.",
);

/// Of lists and watches.
pub const LIST: [Parameter; 10] = [
    flag("allowWatchBookmarks", "Whether a watch may be told how far it is by events of type BOOKMARK."),
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    TIMEOUT_SECONDS,
    flag("watch", "Whether the changes are sent as they happen, in place of a list."),
];

/// Of creations and replacements.
pub const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];

/// Of patches.
pub const PATCH: [Parameter; 4] = [
    DRY_RUN,
    FIELD_MANAGER,
    FIELD_VALIDATION,
    flag("force", "Whether server-side apply takes fields that other managers own."),
];

const GRACE_PERIOD_SECONDS: Parameter =
    integer("gracePeriodSeconds", "How long the object may take to end; 0 removes it at once.");
const ORPHAN_DEPENDENTS: Parameter = flag("orphanDependents", "Deprecated: use `propagationPolicy`.");
const PROPAGATION_POLICY: Parameter =
    text("propagationPolicy", "What becomes of dependents: `Orphan`, `Background` or `Foreground`.");

/// Of the deletion of one object.
pub const DELETE: [Parameter; 4] = [DRY_RUN, GRACE_PERIOD_SECONDS, ORPHAN_DEPENDENTS, PROPAGATION_POLICY];

/// Of the deletion of many.
pub const DELETE_COLLECTION: [Parameter; 12] = [
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE_PERIOD_SECONDS,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN_DEPENDENTS,
    PROPAGATION_POLICY,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    TIMEOUT_SECONDS,
];

impl Parameter {
    /// As a part of a path.
    pub fn in_path(self) -> Value {
        in_path(self.name, self.description)
    }

    /// As an option in the query.
    pub fn in_query(self) -> Value {
        json!({"name": self.name, "in": "query", "description": self.description,
            "schema": {"type": self.r#type, "uniqueItems": true}})
    }
}

/// A part of a path.
pub fn in_path(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true}})
}

/// Options in the query.
pub fn of_query(parameters: &[Parameter]) -> Value {
    parameters.iter().map(|parameter| parameter.in_query()).collect()
}
