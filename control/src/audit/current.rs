//! The record of the request that a task handles, for whoever has something to add to it. Nothing is added where the
//! request is not audited.

use std::sync::Arc;

use serde_json::Value;

use super::record::AuditRecord;
use crate::{identity::Identity, status::Status};

tokio::task_local! {
    static RECORD: Arc<AuditRecord>;
}

/// Handles a request with this record.
pub async fn scope<T>(record: Arc<AuditRecord>, handle: impl Future<Output = T>) -> T {
    RECORD.scope(record, handle).await
}

/// The record of the request, if it is audited: a task that goes on with the request has to be given it.
pub fn record() -> Option<Arc<AuditRecord>> {
    RECORD.try_with(Arc::clone).ok()
}

/// Whether what is answered is recorded.
pub fn records_response() -> bool {
    RECORD.try_with(|record| record.records_response()).unwrap_or(false)
}

/// Notes a key and its value.
pub fn annotate(key: &str, value: impl FnOnce() -> String) {
    with(|record| record.annotate(key, value()));
}

/// The same of what only the level `Request` and above records.
pub fn annotate_request(key: &str, value: impl FnOnce() -> String) {
    with(|record| record.annotate_request(key, value));
}

/// The request is made as somebody else.
pub fn impersonated(user: &Identity) {
    with(|record| record.impersonated(user));
}

/// An object was sent.
pub fn request_object(object: &Value) {
    with(|record| record.request_object(object));
}

/// A patch was sent; `read` makes JSON of it, if it is any.
pub fn request_patch(read: impl FnOnce() -> Option<Value>) {
    with(|record| record.request_patch(read));
}

/// The request is refused.
pub fn refused(status: &Status) {
    with(|record| record.refused(status));
}

/// A `Status` or an object is answered: `text` is its JSON.
pub fn answered(code: u16, text: &[u8]) {
    with(|record| record.answered(code, text));
}

/// The handler panicked in a task of its own.
pub fn panicked(why: &str) {
    with(|record| record.panicked(why.to_owned()));
}

/// What is not audited has no record.
fn with(add: impl FnOnce(&AuditRecord)) {
    if let Some(record) = record() {
        add(&record);
    }
}
