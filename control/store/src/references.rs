//! Which text an object's is told by (see `delta.rs`): the most similar one of a few recent texts of its resource, or
//! itself, and then later ones may be told by it.
//!
//! A reference lives as long as an object is told by it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::delta::{self, Reference};

/// Recent references by resource, the one used last in front.
#[derive(Debug, Default)]
pub struct References(HashMap<Arc<str>, VecDeque<Reference>>);

/// A text told by another.
#[derive(Debug)]
pub struct Told {
    /// The other one.
    pub by: Arc<[u8]>,
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
    /// Tells the text of an object of `resource` by another. Nothing where that is not worth it.
    pub fn tell(&mut self, resource: &Arc<str>, text: &[u8]) -> Option<Told> {
        if !SIZES.contains(&text.len()) {
            return None;
        }
        let anchors = delta::anchors(text);
        let known = match self.0.get_mut(resource) {
            Some(known) => known,
            None => self.0.entry(resource.clone()).or_default(),
        };
        if let Some(told) = by_known(known, text, &anchors) {
            return Some(told);
        }
        let reference = Reference::new(text.into(), &anchors);
        let told = Told { by: reference.text().clone(), delta: reference.encode(text, &anchors) };
        known.truncate(MAX.saturating_sub(1));
        known.push_front(reference);
        Some(told)
    }
}

/// The text told by the reference that has most of it. Nothing where that would be more than half of it, or the
/// reference much larger: it may be held for this text alone.
fn by_known(known: &mut VecDeque<Reference>, text: &[u8], anchors: &[u32]) -> Option<Told> {
    let step = anchors.len().div_ceil(SAMPLES).max(1);
    let sampled = anchors.len().div_ceil(step);
    let enough = sampled.saturating_sub(sampled / 8);
    let mut best = None;
    for (n, reference) in known.iter().enumerate() {
        if reference.text().len() / 2 > text.len() {
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
    let told = Told { by: reference.text().clone(), delta: reference.encode(text, anchors) };
    known.push_front(reference);
    (told.delta.len() <= text.len() / 2).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: &str, n: usize) -> Vec<u8> {
        let members: Vec<String> = (0..20).map(|at| format!(r#""{kind} member {at}":"its value""#)).collect();
        format!(r#"{{"number":"{n}",{}}}"#, members.join(",")).into_bytes()
    }

    #[test]
    fn texts_of_a_few_kinds_are_each_told_by_one_of_theirs() {
        let (mut references, resource) = (References::default(), Arc::from("pods"));
        let mut used: HashMap<*const u8, usize> = HashMap::new();
        for n in 0..1000 {
            let text = text(["a", "b", "c"][n % 3], n);
            let told = references.tell(&resource, &text).expect("it is large enough");
            assert!(told.delta.len() < 40, "{n}: {}", told.delta.len());
            *used.entry(told.by.as_ptr()).or_default() += 1;
        }
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn a_text_unlike_all_others_is_its_own_reference_and_few_are_held() {
        let (mut references, resource) = (References::default(), Arc::from("pods"));
        for n in 0..100 {
            let text = text(&format!("{n}th"), n);
            let told = references.tell(&resource, &text).expect("it is large enough");
            assert_eq!(*told.by, *text);
        }
        assert_eq!(references.0[&resource].len(), MAX);
        assert!(references.tell(&resource, b"{}").is_none());
    }
}
