//! What is known of one request so far: from it the event of each stage is made.
//!
//! Decides what the level lets in; never writes an event anywhere.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::{
    event::{AuditEvent, ResponseStatus},
    rules::{AuditDecision, AuditLevel, AuditStage},
};
use crate::{identity::Identity, status::Status};

/// The record of one request. Whoever handles the request adds to it: see [`current`](super::current).
#[derive(Debug)]
pub struct AuditRecord {
    decision: AuditDecision,
    event: Mutex<AuditEvent>,
    panicked: Mutex<Option<String>>,
}

impl AuditRecord {
    /// `event` has what is known before anything is done.
    pub fn new(decision: AuditDecision, event: AuditEvent) -> Self {
        Self { decision, event: Mutex::new(event), panicked: Mutex::default() }
    }

    /// The event of a stage, unless the policy omits it.
    pub fn event_at(&self, stage: AuditStage, now: Timestamp) -> Option<AuditEvent> {
        if self.decision.omit_stages.contain(stage) {
            return None;
        }
        let mut event = self.event.lock().clone();
        event.stage = stage;
        event.stage_timestamp = match stage {
            AuditStage::RequestReceived => event.request_received_timestamp,
            AuditStage::ResponseStarted | AuditStage::ResponseComplete | AuditStage::Panic => now,
        };
        Some(event)
    }

    /// When the request came.
    pub fn received_at(&self) -> Timestamp {
        self.event.lock().request_received_timestamp
    }

    /// Whether what is answered is recorded.
    pub fn records_response(&self) -> bool {
        self.decision.level >= AuditLevel::RequestResponse
    }

    fn records_request(&self) -> bool {
        self.decision.level >= AuditLevel::Request
    }

    /// Notes a key and its value. What was noted first stays.
    pub fn annotate(&self, key: &str, value: String) {
        let mut event = self.event.lock();
        match event.annotations.get(key) {
            None => drop(event.annotations.insert(key.to_owned(), value)),
            Some(noted) if *noted == value => {}
            Some(noted) => {
                tracing::warn!(key, value, noted, audit_id = event.audit_id, "an audit annotation was set before");
            }
        }
    }

    /// The same of what only the level `Request` and above records.
    pub fn annotate_request(&self, key: &str, value: impl FnOnce() -> String) {
        if self.records_request() {
            self.annotate(key, value());
        }
    }

    /// The request is made as somebody else.
    pub fn impersonated(&self, user: &Identity) {
        self.event.lock().impersonated_user = Some(user.into());
    }

    /// An object was sent. As it was read: before conversion, defaults and admission.
    pub fn request_object(&self, object: &Value) {
        let text = self.records_request().then(|| raw(&self.shown(object)));
        let mut event = self.event.lock();
        if let Some(of) = &mut event.object_ref {
            of.complete(object);
        }
        event.request_object = text.flatten().or_else(|| event.request_object.take());
    }

    /// A patch was sent; `read` makes JSON of it, if it is any.
    pub fn request_patch(&self, read: impl FnOnce() -> Option<Value>) {
        if self.records_request() {
            let patch = read().and_then(|patch| raw(&patch));
            self.event.lock().request_object = patch;
        }
    }

    /// The request is refused.
    pub fn refused(&self, status: &Status) {
        let text = self.records_response().then(|| raw(&status.to_json())).flatten();
        let mut event = self.event.lock();
        event.response_status = Some(ResponseStatus::of_refusal(status));
        event.response_object = text;
    }

    /// A `Status` or an object is answered: `text` is its JSON.
    pub fn answered(&self, code: u16, text: &[u8]) {
        let status = is_status(text).then(|| serde_json::from_slice::<Value>(text).ok()).flatten();
        let object = self.records_response().then(|| self.raw_response(text)).flatten();
        let mut event = self.event.lock();
        if let Some(status) = status {
            event.response_status = Some(ResponseStatus::of_status(&status, code));
        }
        event.response_object = object;
    }

    /// The answer has this code.
    pub fn set_code(&self, code: u16) {
        self.event.lock().response_status.get_or_insert_with(|| ResponseStatus::of_code(code)).set_code(code);
    }

    /// Whether it is known how the request ended; if not, its client went away.
    pub fn close_early(&self) -> bool {
        let mut event = self.event.lock();
        let was_open = event.response_status.is_none();
        event.response_status.get_or_insert_with(ResponseStatus::closed_early);
        was_open
    }

    /// The handler panicked in a task of its own.
    pub fn panicked(&self, why: String) {
        *self.panicked.lock() = Some(why);
    }

    /// The last stage of the request, given whether this thread panics.
    pub fn last_stage(&self, is_panicking: bool) -> AuditStage {
        let why = self.panicked.lock().take().or_else(|| is_panicking.then(|| "see the log".to_owned()));
        match why {
            None => AuditStage::ResponseComplete,
            Some(why) => {
                self.event.lock().response_status = Some(ResponseStatus::of_panic(&why));
                AuditStage::Panic
            }
        }
    }

    /// The text without line breaks around it, and without managed fields where the policy omits them.
    fn raw_response(&self, text: &[u8]) -> Option<Arc<RawValue>> {
        match self.decision.omit_managed_fields {
            true => raw(&without_managed_fields(serde_json::from_slice(text).ok()?)),
            false => serde_json::from_slice::<Box<RawValue>>(text).ok().map(Arc::from),
        }
    }

    fn shown(&self, object: &Value) -> Value {
        match self.decision.omit_managed_fields {
            true => without_managed_fields(object.clone()),
            false => object.clone(),
        }
    }
}

fn raw(value: &Value) -> Option<Arc<RawValue>> {
    to_raw_value(value).ok().map(Arc::from)
}

/// Whether the text of an object that this service made is that of a `Status`.
fn is_status(text: &[u8]) -> bool {
    text.starts_with(br#"{"kind":"Status","#)
}

/// Takes `metadata.managedFields` out of an object, of each item of a list, and of each object in a Table.
fn without_managed_fields(mut value: Value) -> Value {
    let remove = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
    };
    remove(&mut value);
    for (list, member) in [("items", None), ("rows", Some("object"))] {
        for item in value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            match member {
                None => remove(item),
                Some(member) => item.get_mut(member).into_iter().for_each(remove),
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::{event::tests::event, rules::AuditStages};

    fn record(level: AuditLevel, omit_managed_fields: bool) -> AuditRecord {
        let omit_stages = [AuditStage::RequestReceived].into_iter().collect::<AuditStages>();
        let mut event = event(AuditStage::RequestReceived);
        event.response_status = None;
        AuditRecord::new(AuditDecision { level, omit_stages, omit_managed_fields }, event)
    }

    fn at_end(record: &AuditRecord) -> Value {
        let stage = record.last_stage(false);
        serde_json::from_slice(&record.event_at(stage, Timestamp::now()).unwrap().to_json()).unwrap()
    }

    #[test]
    fn a_level_records_what_it_lets_in() {
        let object = json!({"metadata": {"name": "x", "uid": "u", "managedFields": [1]}, "data": {"a": "b"}});
        let status = json!({"kind": "Status", "status": "Success", "details": {"name": "b"}});
        for (level, has_request, has_response) in [
            (AuditLevel::Metadata, false, false),
            (AuditLevel::Request, true, false),
            (AuditLevel::RequestResponse, true, true),
        ] {
            let record = record(level, false);
            record.request_object(&object);
            record.answered(200, status.to_string().as_bytes());
            let event = at_end(&record);
            assert_eq!(event.get("requestObject"), has_request.then_some(&object));
            assert_eq!(event.get("responseObject"), has_response.then_some(&status));
            assert_eq!(event["objectRef"]["uid"], "u");
            assert_eq!(event["objectRef"]["name"], "b", "that of the path stays");
            let told = json!({"metadata": {}, "status": "Success", "details": {"name": "b"}, "code": 200});
            assert_eq!(event["responseStatus"], told);
        }
    }

    #[test]
    fn managed_fields_are_left_out_of_objects_lists_and_tables() {
        let object = json!({"metadata": {"name": "x", "managedFields": [1]}});
        let plain = json!({"metadata": {"name": "x"}});
        for (answer, expected) in [
            (object.clone(), plain.clone()),
            (json!({"items": [object, object]}), json!({"items": [plain, plain]})),
            (json!({"rows": [{"cells": [], "object": object}]}), json!({"rows": [{"cells": [], "object": plain}]})),
        ] {
            let record = record(AuditLevel::RequestResponse, true);
            record.request_object(&object);
            record.answered(200, answer.to_string().as_bytes());
            let event = at_end(&record);
            assert_eq!((&event["requestObject"], &event["responseObject"]), (&plain, &expected));
        }
    }

    #[test]
    fn omitted_stages_have_no_event_and_a_panic_has_its_own() {
        let record = record(AuditLevel::Metadata, false);
        assert!(record.event_at(AuditStage::RequestReceived, Timestamp::now()).is_none());
        record.panicked("no luck".to_owned());
        let event = at_end(&record);
        assert_eq!(event["stage"], "Panic");
        let told = json!({"metadata": {}, "status": "Failure", "message": "APIServer panic'd: no luck",
            "reason": "InternalError", "code": 500});
        assert_eq!(event["responseStatus"], told);
    }

    #[test]
    fn the_first_value_of_an_annotation_stays() {
        let record = record(AuditLevel::Metadata, false);
        for (key, value) in [("a", "1"), ("a", "2"), ("b", "1")] {
            record.annotate(key, value.to_owned());
        }
        record.annotate_request("c", || "1".to_owned());
        assert_eq!(at_end(&record)["annotations"], json!({"a": "1", "b": "1", "k": "v"}));
    }
}
