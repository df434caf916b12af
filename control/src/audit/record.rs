//! What is known of one request so far: from it the event of each stage is made.
//!
//! Decides what the level lets in; never writes an event anywhere.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::{
    event::{AuditEvent, ResponseStatus},
    managed_fields::without_managed_fields,
    memory::{AuditMemory, HeldMemory, MemoryClass, NoMemory},
    rules::{AuditDecision, AuditLevel, AuditStage},
};
use crate::{identity::Identity, status::Status};

/// The record of one request. Whoever handles the request adds to it: see [`current`](super::current).
#[derive(Debug)]
pub struct AuditRecord {
    decision: AuditDecision,
    event: Mutex<AuditEvent>,
    panicked: Mutex<Option<String>>,
    /// Whether it is known what is answered.
    is_answered: AtomicBool,
    memory: Arc<AuditMemory>,
    held: Arc<HeldMemory>,
}

/// What the answer to a write may take beside what was sent, before it is known: memory is taken before the write is
/// begun, and what the answer takes beyond it is counted once it is there.
const ANSWER_OF_WRITE: usize = 64 << 10;

impl AuditRecord {
    /// `event` has what is known before anything is done.
    pub fn new(decision: AuditDecision, event: AuditEvent, memory: Arc<AuditMemory>) -> Self {
        let (panicked, is_answered, held) = (Mutex::default(), AtomicBool::default(), Arc::default());
        Self { decision, event: Mutex::new(event), panicked, is_answered, memory, held }
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

    /// The memory that its events take, until the last of them is written.
    pub fn held(&self) -> &Arc<HeldMemory> {
        &self.held
    }

    /// Takes memory for all that is known of the request before it is handled.
    ///
    /// # Errors
    /// That there is none.
    pub async fn take_memory(&self, class: MemoryClass) -> Result<(), NoMemory> {
        let (user, bytes) = {
            let event = self.event.lock();
            (event.user.name().to_owned(), event.fact_bytes())
        };
        self.memory.take_facts(&self.held, &user, bytes, class).await
    }

    /// Takes memory for the objects of a write with a body of so many bytes, before it is begun.
    ///
    /// # Errors
    /// That there is none.
    pub async fn take_memory_for_write(&self, body: usize) -> Result<(), NoMemory> {
        let bytes = match self.decision.level {
            AuditLevel::None | AuditLevel::Metadata => return Ok(()),
            AuditLevel::Request => body,
            AuditLevel::RequestResponse => body.saturating_mul(2).saturating_add(ANSWER_OF_WRITE),
        };
        let user = self.event.lock().user.name().to_owned();
        self.memory.take_objects(&self.held, &user, bytes).await
    }

    /// Takes memory for so many more bytes of an answer, if there is any.
    pub fn grow_by(&self, bytes: usize) -> bool {
        let user = self.event.lock().user.name().to_owned();
        self.memory.grow_objects(&self.held, &user, bytes)
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
        self.change(|event| match event.annotations.get(key) {
            None => drop(event.annotations.insert(key.to_owned(), value)),
            Some(noted) if *noted == value => {}
            Some(noted) => {
                tracing::warn!(key, value, noted, audit_id = event.audit_id, "an audit annotation was set before");
            }
        });
    }

    /// Whether a key was noted.
    pub fn is_annotated(&self, key: &str) -> bool {
        self.event.lock().annotations.contains_key(key)
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
        let text = self.records_request().then(|| self.shown(raw(object))).flatten();
        self.change(|event| {
            if let Some(of) = &mut event.object_ref {
                of.complete(object);
            }
            event.request_object = text.or_else(|| event.request_object.take());
        });
    }

    /// A patch or configuration was sent, as it was read.
    pub fn request_patch(&self, patch: &Value) {
        if self.records_request() {
            let patch = raw(patch).map(Arc::from);
            self.change(|event| event.request_object = patch);
        }
    }

    /// What was sent cannot be read: it is recorded as a text.
    pub fn request_text(&self, text: &[u8]) {
        if self.records_request() {
            let text = to_raw_value(&*String::from_utf8_lossy(text)).ok().map(Arc::from);
            self.change(|event| event.request_object = text);
        }
    }

    /// The request is refused.
    pub fn refused(&self, status: &Status) {
        self.is_answered.store(true, Ordering::Relaxed);
        let text = self.records_response().then(|| raw(&status.to_json())).flatten().map(Arc::from);
        self.change(|event| {
            event.response_status = Some(ResponseStatus::of_refusal(status));
            event.response_object = text;
        });
    }

    /// A `Status` or an object is answered: `text` is its JSON.
    pub fn answered(&self, code: u16, text: &[u8]) {
        self.is_answered.store(true, Ordering::Relaxed);
        let status = is_status(text).then(|| serde_json::from_slice::<Value>(text).ok()).flatten();
        let read = |text| serde_json::from_slice::<Box<RawValue>>(text).ok();
        let object = self.records_response().then(|| self.shown(read(text))).flatten();
        self.change(|event| {
            if let Some(status) = status {
                event.response_status = Some(ResponseStatus::of_status(&status, code));
            }
            event.response_object = object;
        });
    }

    /// Whether it is known what is answered.
    pub fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
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

    /// Changes the event, and counts what it takes by then.
    fn change(&self, change: impl FnOnce(&mut AuditEvent)) {
        let bytes = {
            let mut event = self.event.lock();
            change(&mut event);
            event.added_bytes()
        };
        self.memory.cover_objects(&self.held, bytes);
    }

    /// The text without managed fields where the policy omits them.
    fn shown(&self, text: Option<Box<RawValue>>) -> Option<Arc<RawValue>> {
        let text = text?;
        let shown = match self.decision.omit_managed_fields {
            true => without_managed_fields(text.get()).ok()?,
            false => text,
        };
        Some(shown.into())
    }
}

fn raw(value: &Value) -> Option<Box<RawValue>> {
    to_raw_value(value).ok()
}

/// Whether the text of an object that this service made is that of a `Status`.
fn is_status(text: &[u8]) -> bool {
    text.starts_with(br#"{"kind":"Status","#)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::{event::tests::event, memory::MemoryLimits, rules::AuditStages};

    fn record(level: AuditLevel, omit_managed_fields: bool) -> AuditRecord {
        let omit_stages = [AuditStage::RequestReceived].into_iter().collect::<AuditStages>();
        let mut event = event(AuditStage::RequestReceived);
        event.response_status = None;
        let memory = Arc::new(AuditMemory::new(MemoryLimits::default(), true));
        AuditRecord::new(AuditDecision { level, omit_stages, omit_managed_fields }, event, memory)
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
    fn what_cannot_be_read_is_recorded_as_a_text() {
        let record = record(AuditLevel::Request, false);
        record.request_text(b"a: 'b\n\xff");
        assert_eq!(at_end(&record)["requestObject"], "a: 'b\n\u{fffd}");
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
