//! Which text is the base of an object's (see `delta.rs`): the most similar one of a few recent texts of its resource,
//! or itself, and then it may be the base of later ones.
//!
//! A base lives as long as an object is encoded against it, and as long as it is one of the recent ones of a resource
//! that has objects.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    base::Base,
    delta::{self, Reference},
};

/// Recent references by resource, the one used last in front.
#[derive(Debug, Default)]
pub struct References(HashMap<Arc<str>, VecDeque<Reference>>);

/// A text encoded against another.
#[derive(Debug)]
pub struct Encoded {
    /// The other one.
    pub base: Arc<Base>,
    /// See `delta.rs`.
    pub delta: Vec<u8>,
}

/// References of one resource.
const MAX: usize = 8;
/// Smaller texts are not worth a reference, and larger ones would hold too much.
const SIZES: std::ops::RangeInclusive<usize> = 192..=256 << 10;
/// So many places of a text are looked for in each reference, about.
const SAMPLES: usize = 24;

impl References {
    /// Encodes the text of an object of `resource` against another. Nothing where that is not worth it.
    pub fn encode(&mut self, resource: &Arc<str>, text: &[u8]) -> Option<Encoded> {
        if !SIZES.contains(&text.len()) {
            return None;
        }
        let anchors = delta::anchors(text);
        let known = match self.0.get_mut(resource) {
            Some(known) => known,
            None => self.0.entry(resource.clone()).or_default(),
        };
        if let Some(encoded) = encode_against_known(known, text, &anchors) {
            return Some(encoded);
        }
        let reference = Reference::new(Base::new(text), &anchors);
        let encoded = Encoded { base: reference.base().clone(), delta: reference.encode(text, &anchors) };
        known.truncate(MAX.saturating_sub(1));
        known.push_front(reference);
        Some(encoded)
    }

    /// Forgets the texts of a resource that has no objects any more.
    pub fn forget(&mut self, resource: &str) {
        self.0.remove(resource);
    }
}

/// The text encoded against the reference that has most of it. Nothing where that would be more than half of it, or the
/// reference much larger: it may be held for this text alone.
fn encode_against_known(known: &mut VecDeque<Reference>, text: &[u8], anchors: &[u32]) -> Option<Encoded> {
    let step = anchors.len().div_ceil(SAMPLES).max(1);
    let sampled = anchors.len().div_ceil(step);
    let enough = sampled.saturating_sub(sampled / 8);
    let mut best = None;
    for (n, reference) in known.iter().enumerate() {
        if reference.base().text().len() / 2 > text.len() {
            continue;
        }
        let likeness = reference.likeness(text, anchors.iter().copied().step_by(step));
        if best.is_none_or(|(_, most)| likeness > most) {
            best = Some((n, likeness));
        }
        if likeness >= enough {
            break;
        }
    }
    let (n, likeness) = best?;
    if likeness.saturating_mul(2) < sampled {
        return None;
    }
    let reference = known.remove(n)?;
    let encoded = Encoded { base: reference.base().clone(), delta: reference.encode(text, anchors) };
    known.push_front(reference);
    (encoded.delta.len() <= text.len() / 2).then_some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Expect, Key, Snapshot, Write, tests::draft};

    fn text(kind: &str, n: usize) -> Vec<u8> {
        let members: Vec<String> = (0..20).map(|at| format!(r#""{kind} member {at}":"its value""#)).collect();
        format!(r#"{{"number":"{n}",{}}}"#, members.join(",")).into_bytes()
    }

    #[test]
    fn texts_of_a_few_kinds_are_each_encoded_against_one_of_theirs() {
        let (mut references, resource) = (References::default(), Arc::from("pods"));
        let mut used: HashMap<*const Base, usize> = HashMap::new();
        for n in 0..1000 {
            let text = text(["a", "b", "c"][n % 3], n);
            let encoded = references.encode(&resource, &text).expect("it is large enough");
            assert!(encoded.delta.len() < 40, "{n}: {}", encoded.delta.len());
            *used.entry(Arc::as_ptr(&encoded.base)).or_default() += 1;
        }
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn a_text_unlike_all_others_is_its_own_base_and_few_are_held() {
        let (mut references, resource) = (References::default(), Arc::from("pods"));
        for n in 0..100 {
            let text = text(&format!("{n}th"), n);
            let encoded = references.encode(&resource, &text).expect("it is large enough");
            assert_eq!(encoded.base.text(), text);
        }
        assert_eq!(references.0[&resource].len(), MAX);
        assert!(references.encode(&resource, b"{}").is_none());
    }

    #[test]
    fn the_texts_of_a_resource_are_forgotten_with_its_last_object() {
        let (mut state, mut references) = (Snapshot::default(), References::default());
        let mut write = |name: &str, expect, change| {
            let key = Key { resource: "things".into(), name: name.into() };
            let write = Write { key, expect, change };
            state.apply(write.into(), &mut Vec::new(), &mut references).unwrap();
            references.0.values().map(VecDeque::len).sum::<usize>()
        };
        let value = "a text that is long enough to be a base ".repeat(10);
        assert_eq!(write("a", Expect::Absent, Change::Put(draft(&value))), 1);
        assert_eq!(write("b", Expect::Absent, Change::Put(draft(&value))), 1);
        assert_eq!(write("a", Expect::Present, Change::Delete), 1);
        assert_eq!(write("b", Expect::Present, Change::Delete), 0);
    }
}
