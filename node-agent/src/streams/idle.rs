//! Notices that nothing was sent for a long time, and tells when to send heartbeats.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::deadline;

/// When a session last sent or received a byte. Cloning shares it.
#[derive(Clone)]
pub struct LastActivity(Arc<Mutex<Instant>>);

impl LastActivity {
    /// Now.
    pub fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something was sent or received.
    pub fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Completes when nothing was for `limit`.
    pub async fn idle_for(&self, limit: Duration) {
        loop {
            let last = *self.0.lock();
            let until = deadline::instant_after(last, limit);
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// When to send a client heartbeats: the first time after one interval.
pub fn heartbeats(interval: Duration) -> Interval {
    let mut heartbeats = tokio::time::interval_at(deadline::instant_after(Instant::now(), interval), interval);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_byte_begins_the_wait_anew() {
        const LIMIT: Duration = Duration::from_millis(40);
        let activity = LastActivity::now();
        let touching = activity.clone();
        let touched = tokio::spawn(async move {
            tokio::time::sleep(LIMIT / 2).await;
            touching.touch();
            Instant::now()
        });
        activity.idle_for(LIMIT).await;
        let ended = Instant::now();
        assert!(ended.duration_since(touched.await.unwrap()) >= LIMIT - Duration::from_millis(1));
    }
}
