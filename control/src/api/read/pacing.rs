//! How often a watcher wakes: where many wait for the same changes, those that follow one within milliseconds are taken
//! together. To wake a watcher, look at changes, encrypt and write costs far more than a few further frames.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    later::later,
    store::{Event, Expired, Subscription},
};

/// How much of a pause each watcher of the same changes adds between two wakes of a watch: about what a wake takes
/// of a processor, here and in the client. With a quarter of it a thousand watchers take all of two processors for two
/// or three changes at a time; this way a dozen come together, and each takes a third.
const PAUSE_PER_READER: Duration = Duration::from_micros(40);
/// Shorter pauses are not worth a timer.
const MIN_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// When a watch may look for changes again.
pub struct Pacing {
    /// When it saw changes last, whether or not it was to tell of them.
    woken_at: Instant,
    /// Whether it never waits.
    is_exempt: bool,
}

impl Pacing {
    /// Of a watch that begins. Clients in process are exempt: they encrypt and write nothing, and each change that one
    /// of them makes waits for the watches of the next.
    pub fn new(is_in_process: bool) -> Self {
        Self { woken_at: Instant::now(), is_exempt: is_in_process }
    }

    /// The next changes, not too soon after the last ones. The first change after a silence is told at once, and so is
    /// what a full batch left: there is nothing to gather. Cancel safe.
    pub async fn next(&mut self, subscription: &mut Subscription) -> Result<Vec<Arc<Event>>, Expired> {
        if let Some(pause) = pause(subscription.readers()).filter(|_| !self.is_exempt && !subscription.is_behind()) {
            sleep_until(later(self.woken_at, pause)).await;
        }
        let events = subscription.next().await;
        self.woken_at = Instant::now();
        events
    }

    /// The changes that are there already, maybe none: the watch woke because a bookmark is due.
    pub fn ready(&mut self, subscription: &mut Subscription) -> Result<Vec<Arc<Event>>, Expired> {
        self.woken_at = Instant::now();
        subscription.ready()
    }
}

/// The least time between two wakes of a watch that has so many others beside it.
fn pause(readers: usize) -> Option<Duration> {
    let readers = u32::try_from(readers).unwrap_or(u32::MAX);
    Some(PAUSE_PER_READER.saturating_mul(readers).min(MAX_PAUSE)).filter(|pause| *pause >= MIN_PAUSE)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::{
        encode,
        store::{EventType, Key, Object, Topic},
    };

    #[test]
    fn few_watchers_are_told_at_once_and_many_are_paced() {
        assert_eq!((pause(0), pause(1), pause(49)), (None, None, None));
        assert_eq!(pause(1000), Some(Duration::from_millis(40)));
        assert_eq!((pause(100_000), pause(usize::MAX)), (Some(MAX_PAUSE), Some(MAX_PAUSE)));
    }

    fn event(revision: u64) -> Arc<Event> {
        let key = Key { resource: "configmaps".into(), name: "default/a".into() };
        let object = Object::new(encode::unserved(&json!({"metadata": {"name": "a"}})), revision, EventType::Added);
        Arc::new(Event { event_type: EventType::Added, key, object: Arc::new(object), previous: None })
    }

    /// A watch with 999 others beside it, which saw changes last at `woken_at`.
    fn watch(woken_at: Instant, is_exempt: bool) -> (Topic, Vec<Subscription>, Pacing) {
        let topic = Topic::new(0);
        let all = (0..1000).map(|_| topic.subscribe(0).unwrap()).collect();
        (topic, all, Pacing { woken_at, is_exempt })
    }

    #[tokio::test]
    async fn only_the_first_change_after_a_silence_is_told_at_once() {
        let begun = Instant::now();
        let (topic, mut all, mut pacing) = watch(begun.checked_sub(Duration::from_secs(1)).unwrap(), false);
        topic.publish(vec![event(1)]);
        assert_eq!(pacing.next(&mut all[0]).now_or_never().unwrap().unwrap().len(), 1);
        // Whatever the client is told of this one.
        assert!(pacing.woken_at >= begun);
    }

    #[tokio::test]
    async fn a_watch_that_just_woke_waits_and_one_in_process_never_does() {
        let soon = later(Instant::now(), Duration::from_secs(3600));
        for (is_exempt, waits) in [(false, true), (true, false)] {
            let (topic, mut all, mut pacing) = watch(soon, is_exempt);
            topic.publish(vec![event(1)]);
            assert_eq!(pacing.next(&mut all[0]).now_or_never().is_none(), waits);
        }
    }

    #[tokio::test]
    async fn what_a_full_batch_left_does_not_wait() {
        let (topic, mut all, mut pacing) = watch(Instant::now().checked_sub(Duration::from_secs(1)).unwrap(), false);
        topic.publish((1..=1000).map(event).collect());
        let mut seen = pacing.next(&mut all[0]).now_or_never().unwrap().unwrap().len();
        assert!(seen < 1000);
        pacing.woken_at = later(Instant::now(), Duration::from_secs(3600));
        while seen < 1000 {
            seen += pacing.next(&mut all[0]).now_or_never().unwrap().unwrap().len();
        }
        topic.publish(vec![event(1001)]);
        assert!(pacing.next(&mut all[0]).now_or_never().is_none(), "what comes then does");
    }

    #[test]
    fn a_look_for_a_bookmark_counts() {
        let begun = Instant::now();
        let (_topic, mut all, mut pacing) = watch(begun.checked_sub(Duration::from_secs(1)).unwrap(), false);
        assert!(pacing.ready(&mut all[0]).unwrap().is_empty());
        assert!(pacing.woken_at >= begun);
    }
}
