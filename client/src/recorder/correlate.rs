//! Decides what becomes of one event: a new object, one more count on an old one, or nothing.
//!
//! The rules and figures are those of client-go's `EventCorrelator`: the same event again only counts; ten and more
//! that differ in their message alone are combined; one source may record 25 about one object at once, and one each
//! five minutes after that.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

const REMEMBERED: usize = 4096;
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const COMBINED: &str = "(combined from similar events): ";

/// What happened, without when: events that agree in this are the same event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Occurrence {
    /// Who reports it: `deployment-controller`…
    pub component: &'static str,
    /// uid, or namespace and name where the object has none.
    pub object: String,
    /// The part of the object, such as `spec.containers{app}`; similar events of all its parts are combined.
    pub field_path: Option<String>,
    /// CamelCase: `SuccessfulCreate`…
    pub reason: &'static str,
    /// Type `Warning`, not `Normal`.
    pub warning: bool,
    /// For people.
    pub message: String,
}

/// What is to be done about an occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write a new Event with this message, then pass its name to [`Correlator::written`].
    Create { message: String },
    /// The Event called `name` happened for the `count`th time.
    Count { name: String, count: i32, message: String },
    /// Write nothing: the source has recorded too much about this object.
    Drop,
}

/// What was recorded lately.
#[derive(Default)]
pub struct Correlator {
    buckets: Recent<(&'static str, String), Bucket>,
    similar: Recent<Similar, Group>,
    written: Recent<Occurrence, Written>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Similar {
    component: &'static str,
    object: String,
    reason: &'static str,
    warning: bool,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

struct Group {
    messages: Vec<String>,
    at: Instant,
}

struct Written {
    name: String,
    count: i32,
}

impl Correlator {
    /// Decides on one occurrence, and counts it.
    pub fn decide(&mut self, occurrence: &Occurrence, now: Instant) -> Verdict {
        let (same, message) = self.combine(occurrence, now);
        let written = self.written.get_mut(&same).map(|written| {
            written.count = written.count.saturating_add(1);
            (written.name.clone(), written.count)
        });
        if !self.admit(occurrence, now) {
            return Verdict::Drop;
        }
        match written {
            Some((name, count)) => Verdict::Count { name, count, message },
            None => Verdict::Create { message },
        }
    }

    /// Remembers that `occurrence` was stored as the Event `name`.
    pub fn written(&mut self, occurrence: &Occurrence, name: String, now: Instant) {
        let (same, _) = self.combine(occurrence, now);
        self.written.insert(same, Written { name, count: 1 });
    }

    /// Forgets the Event of `occurrence`, which is no longer there: the next one like it is created.
    pub fn forget(&mut self, occurrence: &Occurrence, now: Instant) {
        let (same, _) = self.combine(occurrence, now);
        self.written.remove(&same);
    }

    /// The occurrence to count under, and the message to write.
    fn combine(&mut self, occurrence: &Occurrence, now: Instant) -> (Occurrence, String) {
        let key = Similar {
            component: occurrence.component,
            object: occurrence.object.clone(),
            reason: occurrence.reason,
            warning: occurrence.warning,
        };
        let group = self.similar.get_or_insert(key, || Group { messages: Vec::new(), at: now });
        if now.saturating_duration_since(group.at) > SIMILAR_WINDOW {
            group.messages.clear();
        }
        group.at = now;
        // client-go combines from the tenth message on.
        if !group.messages.contains(&occurrence.message) && group.messages.len().saturating_add(1) < SIMILAR_LIMIT {
            group.messages.push(occurrence.message.clone());
        }
        if group.messages.contains(&occurrence.message) {
            return (occurrence.clone(), occurrence.message.clone());
        }
        let combined = Occurrence { message: String::new(), field_path: None, ..occurrence.clone() };
        (combined, format!("{COMBINED}{}", occurrence.message))
    }

    fn admit(&mut self, occurrence: &Occurrence, now: Instant) -> bool {
        let key = (occurrence.component, occurrence.object.clone());
        let bucket = self.buckets.get_or_insert(key, || Bucket { tokens: BURST, at: now });
        let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * REFILL_PER_SECOND;
        bucket.tokens = (bucket.tokens + earned).min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// A map that forgets the entry that was not used for the longest time when it is full.
struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// Keys by their last use.
    uses: BTreeMap<u64, K>,
    next_use: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), uses: BTreeMap::new(), next_use: 0 }
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (last_use, value) = self.entries.get_mut(key)?;
        self.uses.remove(last_use);
        self.next_use = self.next_use.saturating_add(1);
        *last_use = self.next_use;
        self.uses.insert(self.next_use, key.clone());
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        if self.entries.len() >= REMEMBERED
            && let Some((_, oldest)) = self.uses.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.next_use = self.next_use.saturating_add(1);
        self.uses.insert(self.next_use, key.clone());
        self.entries.insert(key, (self.next_use, value));
    }

    fn get_or_insert(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.insert(key.clone(), value());
        }
        self.get_mut(&key).expect("it was inserted where it was missing")
    }

    fn remove(&mut self, key: &K) {
        if let Some((last_use, _)) = self.entries.remove(key) {
            self.uses.remove(&last_use);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str) -> Occurrence {
        Occurrence {
            component: "replicaset-controller",
            object: "uid-1".into(),
            field_path: None,
            reason: "SuccessfulCreate",
            warning: false,
            message: message.into(),
        }
    }

    #[tokio::test]
    async fn the_same_event_again_only_counts() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let event = occurrence("created pod a");
        assert!(matches!(correlator.decide(&event, now), Verdict::Create { .. }));
        correlator.written(&event, "web.1".into(), now);
        let again = correlator.decide(&event, now);
        assert_eq!(again, Verdict::Count { name: "web.1".into(), count: 2, message: "created pod a".into() });
        correlator.forget(&event, now);
        assert!(matches!(correlator.decide(&event, now), Verdict::Create { .. }));
    }

    #[tokio::test]
    async fn ten_alike_are_combined_and_more_than_25_dropped() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let mut verdicts = Vec::new();
        for n in 0..30 {
            let event = occurrence(&format!("created pod {n}"));
            let verdict = correlator.decide(&event, now);
            if let Verdict::Create { .. } = verdict {
                correlator.written(&event, format!("web.{n}"), now);
            }
            verdicts.push(verdict);
        }
        assert!(verdicts[..10].iter().all(|v| matches!(v, Verdict::Create { .. })));
        assert_eq!(verdicts[9], Verdict::Create { message: format!("{COMBINED}created pod 9") });
        assert_eq!(
            verdicts[10],
            Verdict::Count { name: "web.9".into(), count: 2, message: format!("{COMBINED}created pod 10") }
        );
        assert!(verdicts[25..].iter().all(|v| *v == Verdict::Drop));
        let later = now + Duration::from_secs(301);
        let message = format!("{COMBINED}created pod 31");
        let counted = Verdict::Count { name: "web.9".into(), count: 22, message };
        assert_eq!(correlator.decide(&occurrence("created pod 31"), later), counted, "what was dropped counts");
    }

    #[tokio::test]
    async fn what_happens_again_and_again_is_remembered_and_the_oldest_forgotten() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let busy = occurrence("back-off");
        correlator.decide(&busy, now);
        correlator.written(&busy, "web.1".into(), now);
        for n in 0..2 * REMEMBERED {
            let other = Occurrence { object: format!("uid-of-{n}"), ..occurrence("created") };
            correlator.decide(&other, now);
            correlator.written(&other, n.to_string(), now);
            if n % 1000 == 0 {
                assert_ne!(correlator.decide(&busy, now), Verdict::Create { message: busy.message.clone() }, "{n}");
            }
        }
        assert_eq!(correlator.written.entries.len(), REMEMBERED);
        assert_eq!(correlator.written.uses.len(), REMEMBERED);
        let oldest = Occurrence { object: "uid-of-0".into(), ..occurrence("created") };
        assert!(matches!(correlator.decide(&oldest, now), Verdict::Create { .. }));
    }

    #[tokio::test]
    async fn the_same_of_two_containers_is_two_events() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        for container in ["a", "b"] {
            let field_path = Some(format!("spec.containers{{{container}}}"));
            let event = Occurrence { field_path, ..occurrence("Started container") };
            assert!(matches!(correlator.decide(&event, now), Verdict::Create { .. }), "{container}");
            correlator.written(&event, container.into(), now);
        }
    }
}
