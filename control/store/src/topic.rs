//! The changes of one resource for those who watch it: all of them, or those with one indexed value.
//!
//! A feed for an indexed value is made by its first reader, and holds the topic's events of that value, no more and no
//! fewer. So readers wake only for their own events, and never scan those of others.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{Event, Expired, History};

/// The changes of one resource.
#[derive(Debug)]
pub struct Topic {
    all: Arc<Feed>,
    /// By index name and value. Held while events are added or dropped, so that each feed agrees with `all`.
    by_value: Mutex<Feeds>,
    wakes: AtomicU64,
}

type Feeds = HashMap<Cow<'static, str>, HashMap<Arc<str>, Arc<Feed>>>;

/// A history with those who wait for more of it.
#[derive(Debug)]
struct Feed {
    history: RwLock<History>,
    latest: watch::Sender<u64>,
}

impl Topic {
    /// A topic that knows nothing of changes up to `revision`.
    pub fn new(revision: u64) -> Self {
        Self::of(History::new(revision))
    }

    /// A topic that begins with a history.
    pub fn of(history: History) -> Self {
        let latest = history.latest();
        let all = Arc::new(Feed::new(history, latest));
        Self { all, by_value: Mutex::default(), wakes: AtomicU64::new(0) }
    }

    /// All changes after a revision that are known now.
    pub fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Expired> {
        self.all.history.read().after(revision)
    }

    /// Adds a batch of changes and wakes each watcher that they concern once.
    pub fn publish(&self, events: Vec<Arc<Event>>) {
        let Some(last) = events.last().map(|event| event.object.revision) else { return };
        let now = Instant::now();
        let mut changed: Vec<Arc<Feed>> = vec![self.all.clone()];
        {
            let mut feeds = self.by_value.lock();
            for event in &events {
                for_each_feed(&mut feeds, event, |feed| {
                    feed.history.write().push(now, event.clone());
                    changed.push(feed.clone());
                });
            }
            let mut history = self.all.history.write();
            for event in events {
                history.push(now, event);
            }
            history.trim(now, |dropped| forget(&mut feeds, dropped));
        }
        changed.sort_unstable_by_key(Arc::as_ptr);
        changed.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for feed in changed {
            self.wakes.fetch_add(feed.latest.receiver_count() as u64, Ordering::Relaxed);
            feed.latest.send_replace(last);
        }
    }

    /// Forgets the changes up to `revision`.
    pub fn forget(&self, revision: u64) {
        let feeds = self.by_value.lock();
        self.all.history.write().forget(revision);
        for feed in feeds.values().flat_map(HashMap::values) {
            feed.history.write().forget(revision);
        }
    }

    /// Drops what is too old at `now`, and the feeds without readers. Returns how many bytes of objects that was.
    pub fn trim(&self, now: Instant) -> usize {
        let mut feeds = self.by_value.lock();
        for by_value in feeds.values_mut() {
            by_value.retain(|_, feed| feed.has_readers());
        }
        feeds.retain(|_, by_value| !by_value.is_empty());
        let mut history = self.all.history.write();
        let before = history.bytes();
        history.trim(now, |dropped| forget(&mut feeds, dropped));
        before - history.bytes()
    }

    /// All changes after a revision.
    pub fn subscribe(&self, after: u64) -> Result<Subscription, Expired> {
        Subscription::to(self.all.clone(), after)
    }

    /// The changes after a revision of objects that have `value` under `index`, or had it before the change.
    pub fn subscribe_by(&self, index: &str, value: &str, after: u64) -> Result<Subscription, Expired> {
        let mut feeds = self.by_value.lock();
        let all = self.all.history.read();
        all.must_know(after)?;
        let by_value = feeds.entry(Cow::Owned(index.to_owned())).or_default();
        // A new feed knows nothing; its history begins where its first reader does, or an earlier one.
        let feed = by_value.entry(Arc::from(value)).or_insert_with(|| Arc::new(Feed::new(History::new(u64::MAX), 0)));
        feed.history.write().begin_at(after, &all, |event| event.terms().any(|term| term == (index, value)));
        Subscription::to(feed.clone(), after)
    }

    /// How often a change was told to a watcher.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// How many watchers there are.
    pub fn readers(&self) -> usize {
        let feeds = self.by_value.lock();
        let by_value = feeds.values().flat_map(HashMap::values).map(|feed| feed.latest.receiver_count());
        self.all.latest.receiver_count() + by_value.sum::<usize>()
    }
}

/// Calls `visit` with each feed that the event belongs to. Feeds that have lost their readers are removed.
fn for_each_feed(feeds: &mut Feeds, event: &Event, mut visit: impl FnMut(&Arc<Feed>)) {
    if feeds.is_empty() {
        return;
    }
    for (index, value) in event.terms() {
        let Some(by_value) = feeds.get_mut(index) else { continue };
        match by_value.get(value) {
            Some(feed) if feed.has_readers() => visit(feed),
            Some(_) => drop(by_value.remove(value)),
            None => {}
        }
    }
}

/// Forgets an event that the topic dropped.
fn forget(feeds: &mut Feeds, event: &Event) {
    for_each_feed(feeds, event, |feed| feed.history.write().forget(event.object.revision));
}

impl Feed {
    fn new(history: History, latest: u64) -> Self {
        Self { history: RwLock::new(history), latest: watch::Sender::new(latest) }
    }

    fn has_readers(&self) -> bool {
        self.latest.receiver_count() > 0
    }
}

/// A reader of changes. It takes them in batches of bounded size, and holds none: what it did not take yet may be
/// dropped.
#[derive(Debug)]
pub struct Subscription {
    feed: Arc<Feed>,
    latest: watch::Receiver<u64>,
    seen: u64,
    is_behind: bool,
}

impl Subscription {
    fn to(feed: Arc<Feed>, after: u64) -> Result<Self, Expired> {
        let latest = feed.latest.subscribe();
        feed.history.read().must_know(after)?;
        Ok(Self { feed, latest, seen: after, is_behind: false })
    }

    /// The next changes: at least one, in order. Cancel safe: changes not returned are returned by the next call.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        loop {
            self.latest.mark_unchanged();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.latest.changed().await.is_err() {
                // The feed lives as long as this subscription, so its sender does.
                std::future::pending::<()>().await;
            }
        }
    }

    /// How many readers wait for the same changes.
    pub fn readers(&self) -> usize {
        self.feed.latest.receiver_count()
    }

    /// The changes that are there already, maybe none; not all of them where [`Self::is_behind`] says so.
    pub fn ready(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        let (events, is_behind) = self.feed.history.read().batch_after(self.seen)?;
        self.is_behind = is_behind;
        if let Some(last) = events.last() {
            self.seen = last.object.revision;
        }
        Ok(events)
    }

    /// Whether the last batch left changes that were there already.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// The revision up to which it has seen all changes. `published` was published before its last look for changes.
    pub fn seen_up_to(&self, published: u64) -> u64 {
        if self.is_behind { self.seen } else { self.seen.max(published) }
    }
}
