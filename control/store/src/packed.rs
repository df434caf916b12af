//! An object as it is kept, in memory and in the file: its frame, as it stands or as a delta, and where the parts of
//! its text are.

use std::sync::Arc;

use crate::{
    EventType, RESOURCE_VERSION,
    base::Base,
    delta,
    object::{FRAME_END, METADATA_END},
};

/// Where the parts of an object's JSON text are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How many bytes it has up to and with `"resourceVersion":"`.
    pub head_len: u32,
    /// See [`Draft::metadata_at`].
    pub metadata_at: u32,
    /// See [`Draft::managed_len`].
    pub managed_len: u32,
}

/// An object as it is kept, in memory and in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed<'a> {
    /// See [`Object::revision`].
    pub revision: u64,
    /// What the write that made it did.
    pub event_type: EventType,
    /// The text that the frame is encoded against, if it is.
    pub base: Option<&'a Arc<Base>>,
    /// The frame, or how it differs from the base.
    pub frame: &'a [u8],
    /// How many bytes the frame has.
    pub frame_len: u32,
}

impl Packed<'_> {
    /// The object's JSON text. Nothing where frame and base do not fit.
    pub fn json(&self) -> Option<Vec<u8>> {
        let (from, to) = (self.event_type.frame_start().len(), (self.frame_len as usize).checked_sub(FRAME_END.len())?);
        let range = from..to.max(from);
        let Some(base) = self.base else { return self.frame.get(range).map(<[u8]>::to_vec) };
        let mut json = Vec::with_capacity(range.len().min(base.text().len().saturating_mul(4)));
        delta::decode(base.text(), self.frame, range.clone(), &mut json)?;
        (json.len() == range.len()).then_some(json)
    }

    /// Whether the frame can be read to its end, and has this layout.
    pub fn has(&self, layout: Layout) -> bool {
        let len = match self.base {
            None => Some(self.frame.len()),
            Some(base) => delta::decoded_len(base.text().len(), self.frame),
        };
        let digits = self.revision.to_string();
        let place = || {
            let head = self.event_type.frame_start().len().checked_add(layout.head_len as usize)?;
            let from = head.checked_sub(RESOURCE_VERSION.len())?;
            let to = head.checked_add(digits.len())?.checked_add(METADATA_END.len())?;
            let fields_from = (layout.head_len as usize).checked_sub(RESOURCE_VERSION.len())?;
            let fields_from = fields_from.checked_sub(layout.managed_len as usize)?;
            let ends = to.checked_add(FRAME_END.len())? <= self.frame_len as usize;
            (ends && layout.metadata_at as usize <= fields_from).then_some(from..to)
        };
        let Some(place) = place().filter(|_| len == Some(self.frame_len as usize)) else { return false };
        let mut around = Vec::with_capacity(place.len());
        match self.base {
            None => around.extend_from_slice(self.frame.get(place).unwrap_or_default()),
            Some(base) => {
                if delta::decode(base.text(), self.frame, place, &mut around).is_none() {
                    return false;
                }
            }
        }
        around == [RESOURCE_VERSION.as_bytes(), digits.as_bytes(), METADATA_END].concat()
    }
}
