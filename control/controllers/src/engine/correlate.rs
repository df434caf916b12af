//! Decides what becomes of one event: a new object, one more count on an old one, or nothing.
//!
//! The rules and figures are those of client-go's `EventCorrelator`: the same event again only counts; more than ten
//! that differ in their message alone are combined; one source may record 25 about one object at once, and one each
//! five minutes after that.

use std::{
    collections::{HashMap, VecDeque},
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
        if !self.admit(occurrence, now) {
            return Verdict::Drop;
        }
        match self.written.get_mut(&same) {
            Some(written) => {
                written.count = written.count.saturating_add(1);
                Verdict::Count { name: written.name.clone(), count: written.count, message }
            }
            None => Verdict::Create { message },
        }
    }

    /// Remembers that `occurrence` was stored as the Event `name`.
    pub fn written(&mut self, occurrence: &Occurrence, name: String, now: Instant) {
        let (same, _) = self.combine(occurrence, now);
        self.written.insert(same, Written { name, count: 1 });
    }

    /// Forgets an Event that is no longer there, so that the next one like it is created.
    pub fn forget(&mut self, name: &str) {
        self.written.entries.retain(|_, written| written.name != name);
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
        if !group.messages.contains(&occurrence.message) && group.messages.len() < SIMILAR_LIMIT {
            group.messages.push(occurrence.message.clone());
        }
        if group.messages.contains(&occurrence.message) {
            return (occurrence.clone(), occurrence.message.clone());
        }
        let combined = Occurrence { message: String::new(), ..occurrence.clone() };
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

/// A map that forgets its oldest entry when it is full.
struct Recent<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.remember(key);
        }
    }

    fn get_or_insert(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.remember(key.clone());
        }
        self.entries.entry(key).or_insert_with(value)
    }

    fn remember(&mut self, key: K) {
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
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
        correlator.forget("web.1");
        assert!(matches!(correlator.decide(&event, now), Verdict::Create { .. }));
    }

    #[tokio::test]
    async fn more_than_ten_alike_are_combined_and_more_than_25_dropped() {
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
        assert!(verdicts[..11].iter().all(|v| matches!(v, Verdict::Create { .. })));
        assert_eq!(
            verdicts[11],
            Verdict::Count { name: "web.10".into(), count: 2, message: format!("{COMBINED}created pod 11") }
        );
        assert!(verdicts[25..].iter().all(|v| *v == Verdict::Drop));
        let later = now + Duration::from_secs(301);
        assert_ne!(correlator.decide(&occurrence("created pod 31"), later), Verdict::Drop);
    }
}
