//! Delta encoding: a text as copies from a similar text, its base, and the bytes between them.
//!
//! The objects of a resource repeat most of each other: ten thousand pods of one Deployment differ in names, UIDs and
//! times. As deltas they take a tenth of their texts' memory, and a read copies a few runs of a base that is in the
//! processor's cache, where a whole text would come from memory.
//!
//! A delta is a row of steps: how many bytes are its own, these bytes, how many bytes of the base follow, and how far
//! from the end of the previous copy they begin. Numbers are as in `varint.rs`, the last one in zigzag form.
//!
//! Which text is whose base is decided in `references.rs`.

use std::{ops::Range, sync::Arc};

use crate::{
    base::Base,
    varint::{put_number, take_number},
};

/// A text against which others are encoded.
#[derive(Debug)]
pub struct Reference {
    base: Arc<Base>,
    /// Where its members begin, by the hash of the bytes there: sorted.
    anchors: Box<[(u32, u32)]>,
}

/// Where copies may begin: a quote after a comma or a brace, which is where a member of a JSON text does. So many bytes
/// there must be the same: the names of members repeat within a text.
const ANCHOR: usize = 16;
/// What is shorter costs more as a copy.
const MIN_COPY: usize = 8;
/// So many anchors with the same hash are looked at on each side of the place where a copy is expected. A text of equal
/// members has as many as it has members.
const TRIES: usize = 8;

/// The places in `text` where a copy may begin.
pub fn anchors(text: &[u8]) -> Vec<u32> {
    let mut found = vec![0; text.len() / 2 + 1];
    let mut count = 0;
    // Each place is written, and the next one over it unless a member begins there: the processor cannot foresee where
    // they do, and a wrong guess costs it more than ten bytes.
    for (at, pair) in (1..).zip(text.windows(2).take(text.len().saturating_sub(ANCHOR))) {
        found[count] = at;
        count += usize::from((pair[1] == b'"') & ((pair[0] == b',') | (pair[0] == b'{')));
    }
    found.truncate(count);
    found
}

impl Reference {
    /// With a base, whose anchors are `at`.
    pub fn new(base: Arc<Base>, at: &[u32]) -> Self {
        let text = base.text();
        let mut anchors: Vec<(u32, u32)> = at.iter().filter_map(|at| Some((hash(text, *at)?, *at))).collect();
        anchors.sort_unstable();
        Self { base, anchors: anchors.into() }
    }

    /// The text itself.
    pub fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// How many of these places in `text` are in the reference, too.
    pub fn likeness(&self, text: &[u8], at: impl Iterator<Item = u32>) -> usize {
        at.filter(|at| hash(text, *at).is_some_and(|hash| self.has(hash))).count()
    }

    /// `text`, whose anchors are `at`, as a delta.
    pub fn encode(&self, text: &[u8], at: &[u32]) -> Vec<u8> {
        let base = self.base.text();
        let tail = common_end(text, base);
        let end = text.len().saturating_sub(tail);
        let mut steps = Steps { out: Vec::with_capacity(512), copied_to: 0 };
        // What was encoded already, where the next copy is looked for, and its counterpart in the base.
        let (mut encoded, mut here, mut there) = (0, 0, 0);
        let mut at = at.iter().map(|at| *at as usize).peekable();
        loop {
            let run = common(&text[here..end], &base[there..]);
            if run >= MIN_COPY {
                steps.push(&text[encoded..here], there..there + run);
                (here, there) = (here + run, there + run);
                encoded = here;
            }
            // The next anchor that both have.
            while at.next_if(|at| *at < here.max(encoded)).is_some() {}
            let next =
                at.by_ref().take_while(|at| *at < end).find_map(|at| Some((at, self.counterpart(text, at, there)?)));
            let Some((anchor, counterpart)) = next else { break };
            let before = text[encoded..anchor].iter().rev().zip(base[..counterpart].iter().rev());
            let same = before.take_while(|(a, b)| a == b).count();
            (here, there) = (anchor - same, counterpart - same);
        }
        steps.push(&text[encoded..end], base.len() - tail..base.len());
        steps.out
    }

    /// Where the base has the bytes that `text` has at an anchor: at `there` or behind it if it has them there, else
    /// before it.
    fn counterpart(&self, text: &[u8], at: usize, there: usize) -> Option<usize> {
        let bytes = text.get(at..)?.get(..ANCHOR)?;
        let hash = hash(text, u32::try_from(at).ok()?)?;
        self.candidates(hash, there)
            .find(|place| self.base.text().get(*place..).is_some_and(|rest| rest.starts_with(bytes)))
    }

    /// Some anchors of the base with this hash: those from `there` on, and then those before it, the nearest first.
    fn candidates(&self, hash: u32, there: usize) -> impl Iterator<Item = usize> {
        let middle = self.anchors.partition_point(|(known, at)| (*known, *at as usize) < (hash, there));
        let (before, from) = self.anchors.split_at(middle);
        let same = move |(known, _): &&(u32, u32)| *known == hash;
        let from = from.iter().take_while(same).take(TRIES);
        from.chain(before.iter().rev().take_while(same).take(TRIES)).map(|(_, at)| *at as usize)
    }

    /// Whether the base has an anchor with this hash.
    fn has(&self, hash: u32) -> bool {
        self.anchors.binary_search_by_key(&hash, |(known, _)| *known).is_ok()
    }
}

/// A delta that is being made.
struct Steps {
    out: Vec<u8>,
    copied_to: usize,
}

impl Steps {
    fn push(&mut self, own: &[u8], copy: Range<usize>) {
        put_number(&mut self.out, own.len() as u64);
        self.out.extend_from_slice(own);
        put_number(&mut self.out, copy.len() as u64);
        let distance = copy.start as i64 - self.copied_to as i64;
        put_number(&mut self.out, ((distance << 1) ^ (distance >> 63)).cast_unsigned());
        self.copied_to = copy.end;
    }
}

/// Adds to `out` what stands at `range` of the text that `delta` encodes against `base`. Nothing where the two do not
/// fit.
pub fn decode(base: &[u8], mut delta: &[u8], range: Range<usize>, out: &mut Vec<u8>) -> Option<()> {
    // Where the step begins in the text, and where the last copy ended in the base.
    let (mut at, mut copied_to) = (0_usize, 0_usize);
    let mut piece = |piece: &[u8]| {
        let from = range.start.saturating_sub(at).min(piece.len());
        let to = range.end.saturating_sub(at).min(piece.len()).max(from);
        out.extend_from_slice(&piece[from..to]);
        at = at.saturating_add(piece.len());
        at < range.end
    };
    while !delta.is_empty() {
        let own = usize::try_from(take_number(&mut delta)?).ok()?;
        if !piece(delta.split_off(..own)?) {
            break;
        }
        let copied = take_copy(&mut delta, copied_to)?;
        copied_to = copied.end;
        if !piece(base.get(copied)?) {
            break;
        }
    }
    Some(())
}

/// How many bytes the text has that `delta` encodes against a base of so many. Nothing where the two do not fit.
pub fn decoded_len(base_len: usize, mut delta: &[u8]) -> Option<usize> {
    let (mut len, mut copied_to) = (0_usize, 0_usize);
    while !delta.is_empty() {
        let own = usize::try_from(take_number(&mut delta)?).ok()?;
        delta.split_off(..own)?;
        let copied = take_copy(&mut delta, copied_to)?;
        copied_to = copied.end;
        if copied_to > base_len {
            return None;
        }
        len = len.checked_add(own)?.checked_add(copied.len())?;
    }
    Some(len)
}

/// Takes the part of a step that tells what is copied of the base, after a copy up to `copied_to`.
fn take_copy(delta: &mut &[u8], copied_to: usize) -> Option<Range<usize>> {
    let length = usize::try_from(take_number(delta)?).ok()?;
    let distance = take_number(delta)?;
    let distance = (distance >> 1).cast_signed() ^ (distance & 1).cast_signed().wrapping_neg();
    let start = copied_to.checked_add_signed(isize::try_from(distance).ok()?)?;
    Some(start..start.checked_add(length)?)
}

/// How many bytes two texts begin with alike.
fn common(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let words = a.as_chunks::<WORD>().0.iter().zip(b.as_chunks::<WORD>().0);
    let same = words.take_while(|(a, b)| a == b).count().saturating_mul(WORD);
    let rest = a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count();
    same.saturating_add(rest)
}

/// How many bytes two texts end with alike: most of them, as a rule.
fn common_end(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let words = a.as_rchunks::<WORD>().1.iter().rev().zip(b.as_rchunks::<WORD>().1.iter().rev());
    let same = words.take_while(|(a, b)| a == b).count().saturating_mul(WORD);
    let (a, b) = (&a[..a.len().saturating_sub(same)], &b[..b.len().saturating_sub(same)]);
    let rest = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    same.saturating_add(rest)
}

fn hash(text: &[u8], at: u32) -> Option<u32> {
    let (low, high) = text.get(at as usize..)?.first_chunk::<ANCHOR>()?.split_at(ANCHOR / 2);
    let number = |half: &[u8]| Some(u64::from_le_bytes(*half.first_chunk()?));
    let mixed = number(low)?.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number(high)?.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    Some((mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &[u8], base: &[u8]) -> Vec<u8> {
        Reference::new(Base::new(base), &anchors(base)).encode(text, &anchors(text))
    }

    #[test]
    fn anchors_are_where_members_begin_that_are_long_enough() {
        let text = br#"{"a":"x","b":[{"c":"a value"},"item"],"d":"the end""#;
        let places: Vec<usize> = anchors(text).into_iter().map(|at| at as usize).collect();
        let expected = [r#""a""#, r#""b""#, r#""c""#, r#""item""#];
        assert_eq!(places.len(), expected.len());
        assert!(places.iter().zip(expected).all(|(at, begins)| text[*at..].starts_with(begins.as_bytes())));
        for len in 0..ANCHOR {
            assert!(anchors(&text[..len]).is_empty());
        }
        assert_eq!(anchors(&text[..=ANCHOR]), [1]);
    }

    fn read(base: &[u8], delta: &[u8], range: Range<usize>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(base, delta, range, &mut out)?;
        Some(out)
    }

    fn json() -> impl Strategy<Value = Vec<u8>> {
        let member = prop_oneof![
            Just(r#""name":"a name that is long","value":"#.to_owned()),
            Just(r#""name":"another name","value":"#.to_owned()),
            "[a-c0-1]{0,20}".prop_map(|text| format!("{text:?}")),
        ];
        prop::collection::vec(member, 0..30).prop_map(|members| format!("{{{}}}", members.join(",")).into_bytes())
    }

    proptest! {
        #[test]
        fn a_text_is_encoded_against_any_other(text in json(), base in json(), from in 0..400_usize, len in 0..400_usize) {
            let delta = encoded(&text, &base);
            prop_assert_eq!(read(&base, &delta, 0..text.len()), Some(text.clone()));
            prop_assert_eq!(decoded_len(base.len(), &delta), Some(text.len()));
            let range = from.min(text.len())..from.saturating_add(len).min(text.len());
            prop_assert_eq!(read(&base, &delta, range.clone()), Some(text[range].to_vec()));
            prop_assert!(encoded(&text, &text).len() < 16);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(delta: Vec<u8>, base: Vec<u8>, end in 0..9000_usize) {
            let out = read(&base, &delta, 0..end).unwrap_or_default();
            prop_assert!(out.len() <= end);
            if let Some(len) = decoded_len(base.len(), &delta) {
                prop_assert_eq!(read(&base, &delta, 0..len).map(|text| text.len()), Some(len));
            }
        }
    }

    #[test]
    fn all_that_two_texts_begin_or_end_with_alike_is_found() {
        let text: Vec<u8> = (0..100).collect();
        for same in 0..text.len() {
            let (mut begins, mut ends) = (text.clone(), text.clone());
            (begins[same], ends[99 - same]) = (200, 200);
            assert_eq!((common(&text, &begins), common_end(&text, &ends)), (same, same));
            assert_eq!((common(&text, &text[..same]), common_end(&text, &text[99 - same..])), (same, same + 1));
        }
    }

    #[test]
    fn pods_that_differ_in_a_few_values_are_small() {
        let pod = |name: &str, uid: &str, ip: &str| {
            let env: Vec<String> =
                (0..12).map(|n| format!(r#"{{"name":"SETTING_{n}","value":"of a setting"}}"#)).collect();
            format!(
                r#"{{"metadata":{{"name":"{name}","uid":"{uid}","labels":{{"app":"web"}}}},
                "spec":{{"env":[{}],"ip":"{ip}","restartPolicy":"Always"}}}}"#,
                env.join(",")
            )
        };
        let base = pod("web-1", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "10.0.0.1");
        let text = pod("web-23", "886313e1-3b8a-5372-9b90-0c9aee199e5d", "10.0.17.234");
        let delta = encoded(text.as_bytes(), base.as_bytes());
        assert!(delta.len() < 100, "{} bytes of {}", delta.len(), text.len());
    }

    #[test]
    fn a_text_of_equal_members_is_encoded_without_a_look_at_each_pair() {
        let pod = |every: usize| {
            let arg = |n: usize| if n % every == every - 1 { r#""x""# } else { r#""""# };
            let args: Vec<&str> = (0..86_000).map(arg).collect();
            format!(r#"{{"args":[{}]}}"#, args.join(",")).into_bytes()
        };
        let (base, text) = (pod(usize::MAX), pod(7));
        let (reference, at) = (Reference::new(Base::new(&base), &anchors(&base)), anchors(&text));
        assert!(at.len() > 80_000);
        for at in at.iter().step_by(1000) {
            let hash = hash(&text, *at).unwrap();
            for there in [0, *at as usize, base.len()] {
                assert!(reference.candidates(hash, there).count() <= 2 * TRIES);
            }
        }
        let delta = reference.encode(&text, &at);
        assert_eq!(read(&base, &delta, 0..text.len()), Some(text));
    }
}
