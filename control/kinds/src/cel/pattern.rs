//! Regular expressions of clients, in CEL and in the schemas of custom resources: compiled once for all who use the
//! same text, within a bound of memory for all of them together.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};

/// A compiled regular expression.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    /// About how many bytes it takes: the first of [`SIZES`] that is enough.
    size: usize,
}

/// Why a text is no regular expression, in the words of the compiler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

/// The sizes that are tried for a pattern. One that needs more than the last is refused.
const SIZES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// What each pattern is taken to need beside its program.
const OVERHEAD: usize = 16 << 10;
/// Most bytes of the table that a search fills as it goes on.
const MAX_TABLE: usize = 256 << 10;
/// Most bytes of all patterns that are kept compiled.
const MAX_KEPT: usize = 128 << 20;

impl Pattern {
    /// The compiled pattern.
    pub fn regex(&self) -> &Regex {
        &self.regex
    }

    /// What its compilation costs in CEL: a unit is about 100 ns.
    pub fn cost(&self) -> u64 {
        cost_of(self.size)
    }

    /// How many times the usual a search costs with it: repetitions make a short text a large program.
    pub fn factor(&self) -> u64 {
        (self.size / SIZES[0]) as u64
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// What it costs in CEL to try to compile a pattern that then is refused.
pub const COST_OF_REFUSAL: u64 = cost_of(SIZES[SIZES.len() - 1]);

const fn cost_of(size: usize) -> u64 {
    (size / 16) as u64
}

/// The compiled pattern of this text.
pub fn compile(text: &str) -> Result<Arc<Pattern>, PatternError> {
    static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);
    if let Some(known) = CACHE.lock().get(text) {
        return known;
    }
    // Without the lock: two that compile the same text at once are rare.
    let made = build(text);
    CACHE.lock().put(text, made.clone());
    made
}

fn build(text: &str) -> Result<Arc<Pattern>, PatternError> {
    let mut refusal = None;
    for size in SIZES {
        match RegexBuilder::new(text).size_limit(size).dfa_size_limit(MAX_TABLE).build() {
            Ok(regex) => return Ok(Arc::new(Pattern { regex, size })),
            Err(error @ regex::Error::CompiledTooBig(_)) => refusal = Some(error.to_string()),
            Err(error) => return Err(PatternError(error.to_string())),
        }
    }
    Err(PatternError(refusal.unwrap_or_default()))
}

type Compiled = Result<Arc<Pattern>, PatternError>;

/// What was compiled lately, in two generations: the older one goes as a whole.
#[derive(Default)]
struct Cache {
    young: HashMap<Box<str>, Compiled>,
    old: HashMap<Box<str>, Compiled>,
    /// Bytes of the younger generation.
    size: usize,
}

impl Cache {
    fn get(&mut self, text: &str) -> Option<Compiled> {
        if let Some(known) = self.young.get(text) {
            return Some(known.clone());
        }
        let known = self.old.remove(text)?;
        self.put(text, known.clone());
        Some(known)
    }

    fn put(&mut self, text: &str, compiled: Compiled) {
        let size = match &compiled {
            Ok(pattern) => pattern.size,
            Err(PatternError(message)) => message.len(),
        };
        let size = size.saturating_add(text.len()).saturating_add(OVERHEAD);
        if self.size.saturating_add(size) > MAX_KEPT / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
        if self.young.insert(text.into(), compiled).is_none() {
            self.size = self.size.saturating_add(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_pattern() {
        let (a, b) = (compile("^shared[0-9]+$").unwrap(), compile("^shared[0-9]+$").unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        assert!(a.regex().is_match("shared1"));
        assert_eq!(compile("(").unwrap_err(), compile("(").unwrap_err());
    }

    #[test]
    fn a_large_pattern_is_known_to_be_large_and_a_too_large_one_is_refused() {
        assert_eq!(compile("^[a-z]+$").unwrap().factor(), 1);
        assert!(compile("(a{50}){50}").unwrap().factor() > 1);
        assert!(compile("(((a{100}){100}){100}){100}").unwrap_err().to_string().contains("size limit"));
    }

    #[test]
    fn patterns_are_kept_within_a_bound() {
        let mut cache = Cache::default();
        let large = compile("(a{100}){50}").unwrap();
        for n in 0..10_000 {
            cache.put(&n.to_string(), Ok(large.clone()));
        }
        let kept = cache.young.len() + cache.old.len();
        assert!(kept * large.size <= MAX_KEPT, "{kept}");
        assert!(cache.get("9999").is_some() && cache.get("0").is_none());
    }
}
