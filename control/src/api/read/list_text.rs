//! The JSON text of a list, whole or in parts. A part ends where an item ends, or the list.

use std::{io, sync::Arc, vec::IntoIter};

use serde_json::Value;

use super::{Managers, show, show_metadata, table};
use crate::{
    api::{piecewise::Piecewise, request::Call},
    kinds::Kind,
    request::accept::ResponseForm,
    store::Object,
};

/// The text of a list, made in parts.
pub struct ListText {
    kind: Arc<Kind>,
    objects: IntoIter<Arc<Object>>,
    form: ResponseForm,
    rows: Option<table::Rows>,
    managers: Managers,
    metadata: String,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    FirstItem,
    Items,
    Ended,
}

impl ListText {
    /// The list of `objects` with `metadata`, in the form that `call` takes.
    pub fn new(call: &Call, objects: Vec<Arc<Object>>, metadata: &Value) -> Self {
        let form = call.accepted.form;
        let rows = match form {
            ResponseForm::Table(version) => {
                Some(table::Rows { include: call.query.include_object, version, now: jiff::Timestamp::now() })
            }
            _ => None,
        };
        let (kind, metadata) = (call.target.kind.clone(), metadata.to_string());
        let managers = Managers::of(call);
        Self { kind, objects: objects.into_iter(), form, rows, managers, metadata, stage: Stage::Start }
    }

    /// All of the text at once. It may be made more than once of the same objects.
    pub fn whole(call: &Call, objects: &[Arc<Object>], metadata: &Value) -> Vec<u8> {
        let size = objects.iter().map(|object| object.size()).sum::<usize>();
        let mut out = Vec::with_capacity(size.saturating_add(4096));
        Self::new(call, objects.to_vec(), metadata).add_to(&mut out, usize::MAX);
        out
    }

    /// Adds what comes next: whole items, until `out` has `enough` bytes or the list has ended.
    fn add_to(&mut self, out: &mut Vec<u8>, enough: usize) {
        if self.stage == Stage::Ended {
            return;
        }
        if self.stage == Stage::Start {
            self.begin(out);
            self.stage = Stage::FirstItem;
        }
        while out.len() < enough {
            let Some(object) = self.objects.next() else {
                self.end(out);
                self.stage = Stage::Ended;
                return;
            };
            if self.stage == Stage::FirstItem {
                self.stage = Stage::Items;
            } else {
                out.push(b',');
            }
            self.item(out, &object);
        }
    }

    fn begin(&self, out: &mut Vec<u8>) {
        let (version, list_kind) = match self.form {
            ResponseForm::Table(version) => return table::begin(out, Some(&self.kind), version, &self.metadata),
            ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version) => {
                (version.api_version().to_owned(), "PartialObjectMetadataList".to_owned())
            }
            ResponseForm::Object => (self.kind.api_version(), self.kind.list_kind().into_owned()),
        };
        let metadata = &self.metadata;
        let start = format!(r#"{{"kind":"{list_kind}","apiVersion":"{version}","metadata":{metadata},"items":["#);
        out.extend_from_slice(start.as_bytes());
    }

    fn end(&self, out: &mut Vec<u8>) {
        match self.rows {
            Some(_) => table::end(out),
            None => out.extend_from_slice(b"]}\n"),
        }
    }

    fn item(&self, out: &mut Vec<u8>, object: &Object) {
        match (&self.rows, self.form) {
            (Some(rows), _) => rows.row(out, object, |object, out| show(&self.kind, object, self.managers, out)),
            (_, ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version)) => {
                show_metadata(object, version, self.managers, out);
            }
            _ => show(&self.kind, object, self.managers, out),
        }
    }
}

impl Piecewise for ListText {
    fn write(&mut self, out: &mut Vec<u8>, enough: usize) -> io::Result<bool> {
        self.add_to(out, enough);
        Ok(self.stage != Stage::Ended)
    }

    fn held_bytes(&self) -> usize {
        self.objects.as_slice().iter().fold(0, |sum, object| sum.saturating_add(object.held_bytes()))
    }
}
