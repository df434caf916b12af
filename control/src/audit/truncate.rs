//! Events that are larger than a backend takes: without the objects, and if that is not enough, with their texts cut.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/truncate`. There the size is that of the event as JSON, whatever the
//! format; here it is that of its text. There an event is left out that is too large without its objects, and so who
//! sends a long request leaves no trace; here it is cut.

use bytes::Bytes;

use super::{backend::AuditBackend, event::AuditEvent, options::TruncateOptions};

/// An event is larger than its backend takes, however much is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event is too large even after truncating")]
pub struct EventTooLarge;

/// How many bytes of a text are left, at first and where that is still too much.
const LONGEST: [usize; 3] = [4096, 512, 64];

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
    let without_objects = (event.object_bytes() > 0).then(|| event.without_objects());
    let smaller = without_objects.into_iter().chain(LONGEST.into_iter().map(|longest| event.cut(longest)));
    smaller.map(|event| backend.encode(&event)).find(|text| text.len() <= most).ok_or(EventTooLarge)
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
        event::{ResponseStatus, tests::event},
        log::AuditLog,
        options::{AuditLogOptions, AuditLogTarget},
        rules::{AuditLevel, AuditStage},
    };

    const TRUNCATED: &str = "audit.k8s.io/truncated";

    fn encoded(event: &AuditEvent, max_event_size: usize) -> Result<Value, EventTooLarge> {
        let log = AuditLog::open(&AuditLogOptions::new(AuditLogTarget::Stdout), Arc::default()).unwrap();
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

    #[test]
    fn a_long_request_leaves_its_trace_at_any_level() {
        for level in [AuditLevel::Metadata, AuditLevel::RequestResponse] {
            let mut event = event(AuditStage::ResponseComplete);
            event.level = level;
            event.request_uri = format!("/api?x={}", "\u{e9}".repeat(60_000));
            event.annotations.insert("long".into(), "x".repeat(100_000));
            event.annotations.extend((0..10_000).map(|number| (format!("note-{number}"), String::new())));
            let mut status = json!({"message": "x".repeat(100_000), "reason": "NotFound"});
            status["details"] = json!({"name": "x".repeat(100_000)});
            event.response_status = Some(ResponseStatus::of_status(&status, 404));
            for most in [100 << 10, 10 << 10, 2 << 10] {
                let cut = encoded(&event, most).unwrap();
                assert_eq!((&cut["auditID"], &cut["user"]["username"]), (&json!("a-1"), &json!("joe")));
                assert_eq!((&cut["responseStatus"]["code"], &cut["objectRef"]["name"]), (&json!(404), &json!("b")));
                assert_eq!((&cut["annotations"][TRUNCATED], &cut["annotations"]["k"]), (&json!("true"), &json!("v")));
                let uri = cut["requestURI"].as_str().unwrap();
                assert!(uri.starts_with("/api?x=\u{e9}") && uri.ends_with("\u{e9}...TRUNCATED"), "{uri}");
            }
        }
    }
}
