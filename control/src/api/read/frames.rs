//! The frames of a watch for one client: what a change is to it, in the form and encoding that it takes.
//!
//! A frame of a plain watch is the bytes that the write made. All watchers share those of a change that comes alone; of
//! many objects each watcher copies its own, where there are many watchers from memory that they share. In protobuf a
//! frame is made by the first who asks for it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Managers, show, show_metadata, shown, table, takes};
use crate::{
    api::{
        Status,
        protobuf::{CannotEncode, answer},
    },
    definitions::conversion,
    kinds::{Kind, Storage},
    metrics::WatchEvents,
    request::{
        accept::{Accepted, Encoding, MetaVersion, ResponseForm},
        query::IncludeObject,
        selector::{FieldSelector, LabelSelector},
    },
    schema::Types,
    store::{Event, EventType, Object},
};

/// From so many watchers of the same changes on, frames are made once for all.
const MANY: usize = 8;

/// How changes become frames for one client.
pub struct Frames {
    /// The served kind.
    pub kind: Arc<Kind>,
    pub accepted: Accepted,
    pub managers: Managers,
    /// What a Table's rows carry.
    pub include: IncludeObject,
    /// What the keys of the objects start with.
    pub prefix: String,
    pub select: Select,
    /// Whether a Table's columns were sent: they are named once.
    pub columns_sent: bool,
    /// Counts what is sent.
    pub sent: WatchEvents,
}

/// Which objects the client wants.
pub struct Select {
    /// The served kind.
    pub kind: Arc<Kind>,
    pub labels: LabelSelector,
    /// Named as the stored kind names them.
    pub fields: FieldSelector,
    /// Of a watch of one object by its path.
    pub name: Option<String>,
}

impl Select {
    fn takes(&self, object: &Object) -> bool {
        let header = object.header();
        self.labels.matches(header)
            && takes(&self.kind, &self.fields, object)
            && self.name.as_deref().is_none_or(|name| name == header.name())
    }
}

impl Frames {
    /// The same as [`Self::chunk`], with the objects in the version that the client asked for.
    pub async fn converted(&mut self, events: &[Arc<Event>], readers: usize) -> Result<Option<Bytes>, Status> {
        let kind = self.kind.clone();
        let columns_sent = self.columns_sent;
        conversion::read(&kind, || {
            self.columns_sent = columns_sent;
            self.chunk(events, readers)
        })
        .await
    }

    /// The frames of the changes that the client selects, if there are any. `readers` is how many watchers see the same
    /// changes.
    fn chunk(&mut self, events: &[Arc<Event>], readers: usize) -> Option<Bytes> {
        let mut seen = events.iter().filter_map(|event| self.seen_as(event));
        let first = seen.next()?;
        let rest: Vec<(EventType, Arc<Object>)> = seen.collect();
        self.sent.inc_by(1 + rest.len() as u64);
        if rest.is_empty()
            && let Some(frame) = self.shared(first.0, &first.1)
        {
            return Some(frame);
        }
        let size = first.1.size().saturating_add(rest.iter().map(|(_, object)| object.size()).sum());
        let mut out = Vec::with_capacity(size);
        for (event_type, object) in std::iter::once(first).chain(rest) {
            let is_json = self.accepted.encoding != Encoding::Protobuf;
            if is_json && readers >= MANY && self.is_as_written(event_type, &object) {
                object.write_shared_frame(&mut out);
                continue;
            }
            // In protobuf every watcher would encode it. To copy a text costs less than to look for a shared one.
            let shared = if is_json { None } else { self.shared(event_type, &object) };
            match shared {
                Some(frame) => out.extend_from_slice(&frame),
                None => self.write(event_type, &object, &mut out),
            }
        }
        Some(out.into())
    }

    /// What a change is to this client: an object that begins to match is added, one that ceases to is deleted.
    fn seen_as(&self, event: &Event) -> Option<(EventType, Arc<Object>)> {
        if !event.key.name.starts_with(&self.prefix) {
            return None;
        }
        let before = event.previous.as_ref().is_some_and(|previous| self.select.takes(previous));
        let after = event.event_type != EventType::Deleted && self.select.takes(&event.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some((EventType::Added, event.object.clone())),
            (true, true) => Some((EventType::Modified, event.object.clone())),
            (true, false) if event.event_type == EventType::Deleted => Some((EventType::Deleted, event.object.clone())),
            // Its last state that matched, at the revision of the change.
            (true, false) => {
                let previous = event.previous.as_ref()?;
                Some((EventType::Deleted, Arc::new(previous.deleted_at(event.object.revision))))
            }
        }
    }

    /// Whether the client sees the object as the write made it.
    fn is_as_written(&self, event_type: EventType, object: &Object) -> bool {
        let plain = self.accepted.form == ResponseForm::Object && !matches!(self.kind.storage, Storage::As(_));
        plain && self.managers == Managers::Shown && object.event_type() == event_type
    }

    /// The frame that all watchers share, if the client sees the object as the write made it.
    fn shared(&self, event_type: EventType, object: &Object) -> Option<Bytes> {
        if !self.is_as_written(event_type, object) {
            return None;
        }
        match self.accepted.encoding {
            Encoding::Protobuf => match answer::frame(&self.kind, object) {
                Ok(frame) => Some(frame.frame().clone()),
                Err(error) => Some(self.cannot(&error)),
            },
            Encoding::Json | Encoding::Yaml => Some(object.frame()),
        }
    }

    /// One frame among others, of an object that matches. To share the text of each would cost more than to copy it.
    pub fn write(&mut self, event_type: EventType, object: &Object, out: &mut Vec<u8>) {
        if self.accepted.encoding == Encoding::Protobuf {
            if self.is_as_written(event_type, object)
                && let Some(Ok(frame)) = answer::frame_if_room(&self.kind, object)
            {
                out.extend_from_slice(frame.frame());
                return;
            }
            match self.protobuf(event_type, object) {
                Ok(frame) => out.extend_from_slice(&frame),
                Err(error) => out.extend_from_slice(&self.cannot(&error)),
            }
            return;
        }
        if self.is_as_written(event_type, object) {
            object.write_frame(out);
            return;
        }
        out.extend_from_slice(event_type.frame_start());
        match self.accepted.form {
            ResponseForm::Object => show(&self.kind, object, self.managers, out),
            ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version) => {
                show_metadata(object, version, self.managers, out);
            }
            ResponseForm::Table(version) => {
                let columns = (!std::mem::replace(&mut self.columns_sent, true)).then_some(&*self.kind);
                let metadata = format!(r#"{{"resourceVersion":"{}"}}"#, object.revision);
                let mut text = Vec::new();
                table::begin(&mut text, columns, version, &metadata);
                let (kind, managers) = (&self.kind, self.managers);
                let rows = table::Rows { include: self.include, version, now: jiff::Timestamp::now() };
                rows.row(&mut text, object, |object, out| show(kind, object, managers, out));
                table::end(&mut text);
                out.extend_from_slice(&text);
            }
        }
        out.extend_from_slice(b"}\n");
    }

    fn protobuf(&self, event_type: EventType, object: &Object) -> Result<Bytes, CannotEncode> {
        match self.accepted.form {
            ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version) => {
                let message = answer::metadata(object)?;
                Ok(answer::watch_frame(event_type.name(), version.api_version(), "PartialObjectMetadata", &message))
            }
            ResponseForm::Object | ResponseForm::Table(_) => {
                let shown = || shown(&self.kind, object, Managers::Shown);
                let message = answer::stored(&self.kind, object, shown)?.bytes;
                Ok(answer::watch_frame(event_type.name(), &self.kind.api_version(), &self.kind.kind, &message))
            }
        }
    }

    /// A frame that says how far the watch is.
    pub fn bookmark(&mut self, revision: u64, end_of_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let partial = |version: MetaVersion| {
            json!({"kind": "PartialObjectMetadata",
            "apiVersion": version.api_version(), "metadata": metadata})
        };
        let object = match self.accepted.form {
            ResponseForm::Object => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version) => partial(version),
            ResponseForm::Table(version) => {
                // As in Kubernetes, where the annotation stands on the row's object.
                json!({"kind": "Table", "apiVersion": version.api_version(),
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null, "rows": [{"cells": [], "object": partial(version)}]})
            }
        };
        self.other("BOOKMARK", &object)
    }

    /// A frame that tells why the watch ends.
    pub fn error(&self, status: &Status) -> Bytes {
        self.other("ERROR", &status.to_json())
    }

    fn cannot(&self, error: &CannotEncode) -> Bytes {
        self.error(&Status::internal(format!("cannot encode the object: {error}")))
    }

    /// A frame of an object that is not stored.
    fn other(&self, event_type: &str, object: &Value) -> Bytes {
        if self.accepted.encoding != Encoding::Protobuf {
            return Bytes::from(format!("{}\n", json!({"type": event_type, "object": object})));
        }
        let [api_version, kind] = ["apiVersion", "kind"].map(|field| object[field].as_str().unwrap_or_default());
        let types = Types::builtin();
        let id = match kind {
            "Status" => types.of_kind("meta.k8s.io/v1", "Status"),
            // Only its metadata counts.
            _ => types.of_kind("meta.k8s.io/v1", "Unstructured"),
        };
        let message = id.and_then(|id| answer::message(id, object.to_string().as_bytes()).ok()).unwrap_or_default();
        answer::watch_frame(event_type, api_version, kind, &message)
    }
}
