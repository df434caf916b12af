//! A list in protobuf, made in parts. What stands before the items tells how long they are, so that each is encoded
//! before the first is sent: the messages of the first are kept until then, of the others the length alone.

use std::{io, sync::Arc, vec::IntoIter};

use bytes::Bytes;
use serde_json::Value;

use super::{Managers, shown};
use crate::{
    api::{
        piecewise::Piecewise,
        protobuf::{CannotEncode, answer},
        request::Call,
    },
    kinds::Kind,
    request::accept::ResponseForm,
    store::Object,
};

/// How many bytes of messages are kept: enough for all of most lists, which are encoded once then.
const KEPT: usize = 4 << 20;

/// See the module.
pub struct ListProtobuf {
    items: Items,
    /// What stands before the items, until it is written.
    head: Option<Vec<u8>>,
    objects: IntoIter<(Arc<Object>, Message)>,
}

/// The message of an item.
enum Message {
    Kept(Bytes),
    /// To be made anew; it has so many bytes.
    Length(usize),
}

/// What the messages say.
struct Items {
    kind: Arc<Kind>,
    form: ResponseForm,
}

impl Items {
    fn message(&self, object: &Object) -> Result<Bytes, CannotEncode> {
        match self.form {
            ResponseForm::PartialMetadata(_) | ResponseForm::PartialMetadataList(_) => {
                answer::metadata(object).map(Bytes::from)
            }
            ResponseForm::Object | ResponseForm::Table(_) => {
                answer::stored(&self.kind, object, || shown(&self.kind, object, Managers::Shown))
            }
        }
    }
}

impl ListProtobuf {
    /// The list of `objects` with `metadata`, in the form that `call` takes.
    pub fn new(call: &Call, objects: Vec<Arc<Object>>, metadata: &Value) -> Result<Self, CannotEncode> {
        let items = Items { kind: call.target.kind.clone(), form: call.accepted.form };
        let (mut messages, mut lengths, mut kept) = (Vec::with_capacity(objects.len()), Vec::new(), 0_usize);
        for object in objects {
            let message = items.message(&object)?;
            lengths.push(message.len());
            kept = kept.saturating_add(message.len());
            let message = if kept <= KEPT { Message::Kept(message) } else { Message::Length(message.len()) };
            messages.push((object, message));
        }
        let head = match items.form {
            ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version) => {
                answer::list_head(version.api_version(), "PartialObjectMetadataList", metadata, &lengths)?
            }
            ResponseForm::Object | ResponseForm::Table(_) => {
                answer::list_head(&items.kind.api_version(), &items.kind.list_kind(), metadata, &lengths)?
            }
        };
        Ok(Self { items, head: Some(head), objects: messages.into_iter() })
    }
}

impl Piecewise for ListProtobuf {
    fn write(&mut self, out: &mut Vec<u8>, enough: usize) -> io::Result<bool> {
        out.extend(self.head.take().into_iter().flatten());
        while out.len() < enough {
            let Some((object, message)) = self.objects.next() else { return Ok(false) };
            let message = match message {
                Message::Kept(message) => message,
                Message::Length(length) => {
                    let message = self.items.message(&object).map_err(io::Error::other)?;
                    if message.len() != length {
                        return Err(io::Error::other("an object was encoded in two ways"));
                    }
                    message
                }
            };
            answer::list_item(out, &message);
        }
        Ok(self.objects.len() > 0)
    }
}
