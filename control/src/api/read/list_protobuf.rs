//! A list in protobuf, made in parts. What stands before the items tells how long they are, so that each is encoded
//! before the first is sent, some at a time so that other requests get their turn. Messages that are kept beside their
//! objects for all readers are held until they are sent; of others, those of the first objects are, and of the rest the
//! length alone.

use std::{io, sync::Arc, vec::IntoIter};

use bytes::Bytes;
use serde_json::Value;

use super::{Managers, shown};
use crate::{
    api::{
        piecewise::Piecewise,
        protobuf::{
            CannotEncode,
            answer::{self, StoredMessage},
        },
        request::Call,
    },
    kinds::Kind,
    request::accept::ResponseForm,
    store::Object,
};

/// How many bytes of messages are kept that nobody shares: enough for all of most lists, which are encoded once then.
const KEPT: usize = 4 << 20;
/// After so many bytes of messages, other tasks get their turn.
const ENCODED_AT_ONCE: usize = 256 << 10;

/// See the module.
pub struct ListProtobuf {
    items: Items,
    /// What stands before the items, until it is written.
    head: Option<Vec<u8>>,
    objects: IntoIter<(Arc<Object>, Message)>,
    held_bytes: usize,
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
    fn message(&self, object: &Object) -> Result<StoredMessage, CannotEncode> {
        match self.form {
            ResponseForm::PartialMetadata(_) | ResponseForm::PartialMetadataList(_) => {
                answer::metadata(object).map(|message| StoredMessage { bytes: message.into(), is_shared: false })
            }
            ResponseForm::Object | ResponseForm::Table(_) => {
                answer::stored(&self.kind, object, || shown(&self.kind, object, Managers::Shown))
            }
        }
    }
}

impl ListProtobuf {
    /// The list of `objects` with `metadata`, in the form that `call` takes.
    pub async fn new(call: &Call, objects: Vec<Arc<Object>>, metadata: &Value) -> Result<Self, CannotEncode> {
        let items = Items { kind: call.target.kind.clone(), form: call.accepted.form };
        let count = objects.len();
        let (mut messages, mut lengths) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut kept, mut held_bytes, mut since_turn) = (0_usize, 0_usize, 0_usize);
        for object in objects {
            let StoredMessage { bytes, is_shared } = items.message(&object)?;
            lengths.push(bytes.len());
            held_bytes = held_bytes.saturating_add(object.held_bytes());
            since_turn = since_turn.saturating_add(bytes.len());
            kept = kept.saturating_add(if is_shared { 0 } else { bytes.len() });
            let message = match is_shared || kept <= KEPT {
                true => Message::Kept(bytes),
                false => Message::Length(bytes.len()),
            };
            messages.push((object, message));
            if since_turn >= ENCODED_AT_ONCE {
                since_turn = 0;
                tokio::task::yield_now().await;
            }
        }
        let held_bytes = held_bytes.saturating_add(kept.min(KEPT));
        let head = match items.form {
            ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version) => {
                answer::list_head(version.api_version(), "PartialObjectMetadataList", metadata, &lengths)?
            }
            ResponseForm::Object | ResponseForm::Table(_) => {
                answer::list_head(&items.kind.api_version(), &items.kind.list_kind(), metadata, &lengths)?
            }
        };
        Ok(Self { items, head: Some(head), objects: messages.into_iter(), held_bytes })
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
                    let message = self.items.message(&object).map_err(io::Error::other)?.bytes;
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

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}
