//! Follows the objects of a kind on kube's watcher, which lists, watches from the listing's revision, resumes a broken
//! watch where it ended and lists again when that is no longer possible.
//!
//! The watcher runs over [`RawObject`]s, so it is compiled once; each object is decoded when its event comes out.

use std::{
    any::Any,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::{
    Client,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{Config, Error, Event, Result, watcher},
    },
};

use crate::{Api, Object, raw::RawObject};

/// The events of the objects that a [`Config`] selects, without their `managedFields`. Broken watches are resumed with
/// back-off; the stream never ends.
pub struct Events<K> {
    decoded: BoxStream<'static, Result<Event<Decoded>>>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Object> Events<K> {
    /// Asks nothing before it is polled.
    pub fn new(api: &Api<K>, config: Config) -> Self {
        Self { decoded: decoding(api.raw().clone(), config, decode::<K>), kind: PhantomData }
    }
}

impl<K: Object> Stream for Events<K> {
    type Item = Result<Event<K>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(event) = ready!(self.decoded.poll_next_unpin(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(event.map(|event| match event {
            Event::Apply(object) => Event::Apply(typed(object)),
            Event::Delete(object) => Event::Delete(typed(object)),
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(typed(object)),
            Event::InitDone => Event::InitDone,
        })))
    }
}

/// An object of the kind that the stream was made for.
type Decoded = Box<dyn Any + Send>;
type Decode = fn(&[u8]) -> serde_json::Result<Decoded>;

fn decode<K: Object>(json: &[u8]) -> serde_json::Result<Decoded> {
    let mut object = K::decode(json)?;
    object.meta_mut().managed_fields = None;
    Ok(Box::new(object))
}

fn typed<K: Object>(object: Decoded) -> K {
    *object.downcast().expect("a stream decodes by the function of its own kind")
}

/// A watch whose objects are decoded as they come.
struct Decoding {
    api: kube::Api<RawObject>,
    config: Config,
    decode: Decode,
    raw: BoxStream<'static, Result<Event<RawObject>>>,
}

fn decoding(api: kube::Api<RawObject>, config: Config, decode: Decode) -> BoxStream<'static, Result<Event<Decoded>>> {
    let raw = watcher(api.clone(), config.clone()).boxed();
    Decoding { api, config, decode, raw }.default_backoff().boxed()
}

impl Decoding {
    fn list_again(&mut self) {
        self.raw = watcher(self.api.clone(), self.config.clone()).boxed();
    }

    fn decoded(&mut self, event: Event<RawObject>) -> Result<Event<Decoded>> {
        let decode = |object: RawObject| (self.decode)(object.json()).map_err(kube::Error::SerdeError);
        match event {
            // The next change of the object, or its deletion, is told in any case. To list again would not make it
            // readable, and hold up all others.
            Event::Apply(object) => decode(object).map(Event::Apply).map_err(Error::WatchFailed),
            // Nothing more is told of this object, and what is known of it must go: the listing is without it.
            Event::Delete(object) => decode(object).map(Event::Delete).map_err(|error| {
                self.list_again();
                Error::WatchFailed(error)
            }),
            Event::Init => Ok(Event::Init),
            // Without this object the listing is not complete: it must not end as if it were, but begin again.
            Event::InitApply(object) => decode(object).map(Event::InitApply).map_err(|error| {
                self.list_again();
                Error::InitialListFailed(error)
            }),
            Event::InitDone => Ok(Event::InitDone),
        }
    }
}

impl Stream for Decoding {
    type Item = Result<Event<Decoded>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(event) = ready!(self.raw.poll_next_unpin(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(event.and_then(|event| self.decoded(event))))
    }
}

/// As [`Events`], of the metadata alone, for a kind that need not be known before.
pub fn metadata_events(
    client: Client,
    resource: &ApiResource,
    config: Config,
) -> BoxStream<'static, Result<Event<PartialObjectMeta<DynamicObject>>>> {
    let api = kube::Api::<PartialObjectMeta<DynamicObject>>::all_with(client, resource);
    watcher(api, config).modify(|object| object.metadata.managed_fields = None).default_backoff().boxed()
}

#[cfg(test)]
mod tests;
