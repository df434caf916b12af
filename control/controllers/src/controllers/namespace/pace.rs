//! When a terminating namespace is looked at again. Pure: the clock is an argument.
//!
//! A pass lists what is left, so passes over a large namespace are long, and each object that goes asks for one. The
//! pause after a pass is a multiple of its length: small namespaces are gone at once, large ones take a small share of
//! the control service.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::engine::Key;

/// A pause is so many times as long as the pass before it.
const PAUSE_FACTOR: u32 = 5;
/// The shortest pause: what goes together is looked at together.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The last pass over each terminating namespace.
#[derive(Default)]
pub struct Passes {
    namespaces: HashMap<Key, Pass>,
}

enum Pass {
    /// Under way.
    Running { since: Instant, removed: bool },
    /// The next may begin then.
    Ended { next: Instant },
}

impl Passes {
    /// A pass begins.
    pub fn begin(&mut self, namespace: &Key, now: Instant) {
        self.namespaces.insert(namespace.clone(), Pass::Running { since: now, removed: false });
    }

    /// The pass ended. Returns after which pause the next has to follow, where something was removed meanwhile.
    pub fn end(&mut self, namespace: &Key, now: Instant) -> Option<Duration> {
        let Some(Pass::Running { since, removed }) = self.namespaces.get(namespace) else { return None };
        let length = now.saturating_duration_since(*since);
        let pause = length.saturating_mul(PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let removed = *removed;
        let next = now.checked_add(pause).unwrap_or(now);
        self.namespaces.insert(namespace.clone(), Pass::Ended { next });
        removed.then_some(pause)
    }

    /// An object of the namespace is gone. Returns when the next pass may begin; `None` while one is under way, whose
    /// end decides.
    pub fn removed(&mut self, namespace: &Key, now: Instant) -> Option<Instant> {
        match self.namespaces.get_mut(namespace) {
            None => Some(now),
            Some(Pass::Ended { next }) => Some(now.max(*next)),
            Some(Pass::Running { removed, .. }) => {
                *removed = true;
                None
            }
        }
    }

    /// Forgets a namespace that is gone.
    pub fn forget(&mut self, namespace: &Key) {
        self.namespaces.remove(namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_removals_ask_for_one_pass_after_a_pause() {
        let (mut passes, namespace, start) = (Passes::default(), Key::cluster("a"), Instant::now());
        assert_eq!(passes.removed(&namespace, start), Some(start));
        passes.begin(&namespace, start);
        for _ in 0..10_000 {
            assert_eq!(passes.removed(&namespace, start), None);
        }
        let ended = start + Duration::from_millis(300);
        assert_eq!(passes.end(&namespace, ended), Some(Duration::from_millis(1500)));
        let next = ended + Duration::from_millis(1500);
        assert_eq!(passes.removed(&namespace, ended), Some(next));
        let later = next + Duration::from_secs(1);
        assert_eq!(passes.removed(&namespace, later), Some(later));
    }

    #[test]
    fn a_pause_is_never_long_and_a_quiet_pass_asks_for_none() {
        let (mut passes, namespace, start) = (Passes::default(), Key::cluster("a"), Instant::now());
        for (length, pause) in [(0, 100), (40, 200), (60_000, 15_000)] {
            passes.begin(&namespace, start);
            let ended = start + Duration::from_millis(length);
            assert_eq!(passes.end(&namespace, ended), None);
            assert_eq!(passes.removed(&namespace, ended), Some(ended + Duration::from_millis(pause)));
        }
        passes.forget(&namespace);
        assert!(passes.namespaces.is_empty());
    }
}
