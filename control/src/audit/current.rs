//! The record of the request that a task handles, for whoever has something to add to it. Nothing is added where the
//! request is not audited.

use std::{cell::RefCell, sync::Arc};

use serde_json::Value;

use super::{audited_request::OpenRequest, memory::NoMemory, record::AuditRecord};
use crate::{identity::Identity, status::Status};

tokio::task_local! {
    static REQUEST: Arc<OpenRequest>;
    static EARLY: RefCell<EarlyNotes>;
}

/// What is noted before it is known whether the request is audited: while its sender is authenticated.
pub type EarlyNotes = Vec<(String, String)>;

/// What `read` answers with, and what it notes.
pub async fn gather<T>(read: impl Future<Output = T>) -> (T, EarlyNotes) {
    let reading = async {
        let read = read.await;
        (read, EARLY.with(RefCell::take))
    };
    EARLY.scope(RefCell::default(), reading).await
}

/// Handles a request with its record.
pub async fn scope<T>(request: Arc<OpenRequest>, handle: impl Future<Output = T>) -> T {
    REQUEST.scope(request, handle).await
}

/// The request, if it is audited. A task that goes on with it has to be given it: the request ends when nobody holds
/// it any more.
pub fn request() -> Option<Arc<OpenRequest>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// Whether the request is audited.
pub fn is_audited() -> bool {
    REQUEST.try_with(|_| ()).is_ok()
}

/// Whether what is answered is recorded.
pub fn records_response() -> bool {
    REQUEST.try_with(|request| request.record().records_response()).unwrap_or(false)
}

/// Whether it is known by now what is answered.
pub fn is_answered() -> bool {
    REQUEST.try_with(|request| request.record().is_answered()).unwrap_or(false)
}

/// Takes memory for what is recorded of a write with a body of so many bytes. To be called before it is begun: events
/// that a request waits for are never lost.
///
/// # Errors
/// A 429 where there is none.
pub async fn begin_write(body: usize) -> Result<(), Status> {
    match request() {
        Some(request) => request.record().take_memory_for_write(body).await.map_err(NoMemory::to_status),
        None => Ok(()),
    }
}

/// Takes memory for so many more bytes of an answer that is recorded; `false` where there is none.
pub fn grow_by(bytes: usize) -> bool {
    REQUEST.try_with(|request| request.record().grow_by(bytes)).unwrap_or(true)
}

/// Notes a key and its value.
pub fn annotate(key: &str, value: impl FnOnce() -> String) {
    match request() {
        Some(request) => request.record().annotate(key, value()),
        // Outside of a request there is nobody to note it.
        None => drop(EARLY.try_with(|early| early.borrow_mut().push((key.to_owned(), value())))),
    }
}

/// The same of what may be noted several times, of which the first is kept.
pub fn annotate_first(key: &str, value: impl FnOnce() -> String) {
    with(|record| {
        if !record.is_annotated(key) {
            record.annotate(key, value());
        }
    });
}

/// Notes a key and the value of what only the level `Request` and above records.
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

/// A patch or configuration was sent.
pub fn request_patch(patch: &Value) {
    with(|record| record.request_patch(patch));
}

/// What was sent cannot be read.
pub fn request_text(text: &[u8]) {
    with(|record| record.request_text(text));
}

/// The request is refused.
pub fn refused(status: &Status) {
    with(|record| record.refused(status));
}

/// The request has come to an answer with this code, whether its client takes it or not.
pub fn set_code(code: u16) {
    with(|record| record.set_code(code));
}

/// The handler panicked in a task of its own.
pub fn panicked(why: &str) {
    with(|record| record.panicked(why.to_owned()));
}

/// What is not audited has no record.
fn with(add: impl FnOnce(&AuditRecord)) {
    if let Some(request) = request() {
        add(request.record());
    }
}
