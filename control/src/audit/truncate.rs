//! Events that are larger than a backend takes: without the objects, and if that is not enough, not at all.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/truncate`. There the size is that of the event as JSON, whatever the
//! format; here it is that of its text.

use bytes::Bytes;

use super::{backend::AuditBackend, event::AuditEvent, options::TruncateOptions, rules::AuditLevel};

/// An event is larger than its backend takes, even without objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event is too large even after truncating")]
pub struct EventTooLarge;

/// What an event notes whose objects were left out.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// The text of an event, which is no longer than `options` say.
pub fn encode(
    event: &AuditEvent,
    backend: &dyn AuditBackend,
    options: Option<TruncateOptions>,
) -> Result<Bytes, EventTooLarge> {
    let most = options.map_or(usize::MAX, |options| options.max_event_size);
    // What is sure to be too large is not written first.
    let is_large = event.object_bytes() > most;
    if !is_large {
        let text = backend.encode(event);
        if text.len() <= most {
            return Ok(text);
        }
    }
    if event.level < AuditLevel::Request {
        return Err(EventTooLarge);
    }
    let text = backend.encode(&without_objects(event));
    if text.len() <= most { Ok(text) } else { Err(EventTooLarge) }
}

fn without_objects(event: &AuditEvent) -> AuditEvent {
    let mut event = AuditEvent { request_object: None, response_object: None, ..event.clone() };
    event.annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
    event
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{
        Value, json,
        value::{RawValue, to_raw_value},
    };

    use super::*;
    use crate::audit::{
        event::tests::event,
        log::AuditLog,
        options::{AuditLogOptions, AuditLogTarget},
        rules::AuditStage,
    };

    fn encoded(event: &AuditEvent, max_event_size: usize) -> Result<Value, EventTooLarge> {
        let log = AuditLog::open(&AuditLogOptions::new(AuditLogTarget::Stdout)).unwrap();
        let options = TruncateOptions { max_event_size, ..TruncateOptions::default() };
        encode(event, &log, Some(options)).map(|text| serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn what_is_too_large_is_left_out() {
        let object: Arc<RawValue> = to_raw_value(&json!({"data": "x".repeat(2000)})).unwrap().into();
        let mut event = event(AuditStage::ResponseComplete);
        assert_eq!(encoded(&event, 100), Err(EventTooLarge));
        (event.level, event.request_object) = (AuditLevel::Request, Some(object));
        let whole = encoded(&event, 4000).unwrap();
        assert_eq!(
            (&whole["requestObject"]["data"].as_str().unwrap().len(), whole["annotations"].get(TRUNCATED)),
            (&2000, None)
        );
        for most in [1000, 2300] {
            let cut = encoded(&event, most).unwrap();
            assert_eq!((cut.get("requestObject"), &cut["annotations"][TRUNCATED]), (None, &json!("true")));
        }
        assert_eq!(encoded(&event, 100), Err(EventTooLarge));
    }
}
