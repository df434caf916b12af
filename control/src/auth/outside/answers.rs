//! Answers from outside, kept for a while. Their keys are digests with a secret of this process, so that no token
//! stands in memory for longer than its request, and nobody can choose keys that collide.
//!
//! Answers that let somebody in and answers that do not are kept apart: whoever makes up tokens can only drive out
//! what others were refused. Who asks the same at the same time waits for one answer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use rand::RngExt;
use ring::hmac;
use tokio::time::Instant;

use super::{known_questions::KnownQuestions, places::NoPlace};

/// The digest of a question.
pub type AnswerKey = [u8; 32];

/// What came of a question.
#[derive(Clone, Debug)]
pub struct Answer<V> {
    /// What is answered.
    pub value: V,
    /// Whether it lets somebody in.
    pub is_good: bool,
    /// For how long it holds; not at all, if it is no answer.
    pub keep_for: Duration,
    /// About how much memory it takes.
    pub bytes: usize,
}

/// Answers of one webhook. Clones share them.
pub struct Answers<V: Clone> {
    secret: Arc<hmac::Key>,
    state: Arc<Mutex<State<V>>>,
}

struct State<V: Clone> {
    good: Kept<V>,
    bad: Kept<V>,
    known: KnownQuestions,
    under_way: HashMap<AnswerKey, Shared<BoxFuture<'static, Option<V>>>>,
}

/// Answers of one kind, the one that was not used for the longest time first.
struct Kept<V> {
    most_bytes: usize,
    bytes: usize,
    next: u64,
    by_key: HashMap<AnswerKey, KeptAnswer<V>>,
    by_use: BTreeMap<u64, AnswerKey>,
}

struct KeptAnswer<V> {
    value: V,
    until: Instant,
    bytes: usize,
    used: u64,
}

/// What an answer takes beside its value.
const OVERHEAD: usize = 256;

impl<V: Clone> Clone for Answers<V> {
    fn clone(&self) -> Self {
        Self { secret: self.secret.clone(), state: self.state.clone() }
    }
}

impl<V: Clone + Send + Sync + 'static> Answers<V> {
    /// That take so many bytes: those that let somebody in, and the others.
    pub fn new(most_good: usize, most_bad: usize) -> Self {
        let secret: [u8; 32] = rand::rng().random();
        let state = State {
            good: Kept::new(most_good),
            bad: Kept::new(most_bad),
            known: KnownQuestions::default(),
            under_way: HashMap::new(),
        };
        Self { secret: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)), state: Arc::new(Mutex::new(state)) }
    }

    /// The key of a question that consists of these parts.
    pub fn key<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> AnswerKey {
        let mut digest = hmac::Context::with_key(&self.secret);
        for part in parts {
            // With its length: "ab" and "c" are not "a" and "bc".
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The answer that is kept.
    pub fn kept(&self, key: &AnswerKey) -> Option<V> {
        self.state.lock().kept(key, Instant::now())
    }

    /// The answer that is kept, or that `ask` gets. It runs in a task of its own, in a place that `place` gives, which
    /// is told whether the question was answered well before: who asked first may give up, and others go on waiting.
    /// `None` if the task ended without an answer.
    pub async fn ask<P, F>(
        &self,
        key: AnswerKey,
        place: impl FnOnce(bool) -> Result<P, NoPlace>,
        ask: impl FnOnce() -> F,
    ) -> Result<Option<V>, NoPlace>
    where
        P: Send + 'static,
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let waiting = {
            let (now, mut state) = (Instant::now(), self.state.lock());
            if let Some(known) = state.kept(&key, now) {
                return Ok(Some(known));
            }
            match state.under_way.get(&key) {
                Some(under_way) => under_way.clone(),
                None => {
                    let place = place(state.known.contains(&key))?;
                    let (answers, asked) = (self.clone(), ask());
                    let task = tokio::spawn(async move {
                        let _under_way = UnderWay { answers: answers.clone(), key };
                        let answer = asked.await;
                        drop(place);
                        answers.keep(key, &answer, Instant::now());
                        answer.value
                    });
                    let waiting = async move { task.await.ok() }.boxed().shared();
                    state.under_way.insert(key, waiting.clone());
                    waiting
                }
            }
        };
        Ok(waiting.await)
    }

    fn keep(&self, key: AnswerKey, answer: &Answer<V>, now: Instant) {
        let mut state = self.state.lock();
        if answer.is_good {
            state.known.add(key);
        }
        let Some(until) = now.checked_add(answer.keep_for).filter(|until| *until > now) else { return };
        // What is not kept at all may be no answer.
        if !answer.is_good {
            state.known.forget(&key);
        }
        let kept = if answer.is_good { &mut state.good } else { &mut state.bad };
        kept.insert(key, answer.value.clone(), until, answer.bytes);
    }
}

/// A question that is under way until this is dropped, even by a panic.
struct UnderWay<V: Clone> {
    answers: Answers<V>,
    key: AnswerKey,
}

impl<V: Clone> Drop for UnderWay<V> {
    fn drop(&mut self) {
        self.answers.state.lock().under_way.remove(&self.key);
    }
}

impl<V: Clone> State<V> {
    fn kept(&mut self, key: &AnswerKey, now: Instant) -> Option<V> {
        self.good.get(key, now).or_else(|| self.bad.get(key, now))
    }
}

impl<V: Clone> Kept<V> {
    fn new(most_bytes: usize) -> Self {
        Self { most_bytes, bytes: 0, next: 0, by_key: HashMap::new(), by_use: BTreeMap::new() }
    }

    fn get(&mut self, key: &AnswerKey, now: Instant) -> Option<V> {
        if self.by_key.get(key)?.until <= now {
            self.remove(key);
            return None;
        }
        let used = self.tick();
        let kept = self.by_key.get_mut(key)?;
        self.by_use.remove(&std::mem::replace(&mut kept.used, used));
        self.by_use.insert(used, *key);
        Some(kept.value.clone())
    }

    fn insert(&mut self, key: AnswerKey, value: V, until: Instant, bytes: usize) {
        let bytes = bytes.saturating_add(OVERHEAD);
        if bytes > self.most_bytes {
            return;
        }
        self.remove(&key);
        while self.bytes.saturating_add(bytes) > self.most_bytes {
            let Some(oldest) = self.by_use.first_key_value().map(|(_, key)| *key) else { break };
            self.remove(&oldest);
        }
        let used = self.tick();
        self.bytes = self.bytes.saturating_add(bytes);
        self.by_use.insert(used, key);
        self.by_key.insert(key, KeptAnswer { value, until, bytes, used });
    }

    fn remove(&mut self, key: &AnswerKey) {
        if let Some(kept) = self.by_key.remove(key) {
            self.bytes = self.bytes.saturating_sub(kept.bytes);
            self.by_use.remove(&kept.used);
        }
    }

    fn tick(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::auth::outside::places::{Asker, OutsideLimits, OutsidePlaces};

    fn answer(value: usize, is_good: bool) -> Answer<usize> {
        Answer { value, is_good, keep_for: Duration::from_secs(10), bytes: 100 }
    }

    #[tokio::test]
    async fn an_answer_holds_for_its_time_and_is_asked_for_once() {
        let (answers, places) = (Answers::new(1 << 20, 1 << 20), OutsidePlaces::default());
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (answers, places, asked) = (answers.clone(), places.clone(), asked.clone());
            async move {
                let key = answers.key([b"a".as_slice()]);
                let asking = || async move { answer(asked.fetch_add(1, Ordering::SeqCst), true) };
                answers.ask(key, |_| places.take(Asker::Known), asking).await
            }
        };
        let (first, second) = tokio::join!(ask(), ask());
        assert_eq!((first, second), (Ok(Some(0)), Ok(Some(0))));
        assert_eq!(ask().await, Ok(Some(0)));
        let in_seconds = |seconds| Instant::now() + Duration::from_secs(seconds);
        let kept = |at| answers.state.lock().kept(&answers.key([b"a".as_slice()]), at);
        assert_eq!((kept(in_seconds(9)), kept(in_seconds(11))), (Some(0), None));
        assert_eq!(ask().await, Ok(Some(1)));
        let limits = OutsideLimits { of_strangers: 0, of_one_address: 0, of_known: 0, of_reviewers: 0 };
        let none = OutsidePlaces::new(limits);
        let key = answers.key([b"b".as_slice()]);
        let full = answers.ask(key, |_| none.take(Asker::Known), || async { answer(0, true) }).await;
        assert_eq!(full, Err(NoPlace));
    }

    #[tokio::test]
    async fn a_question_that_was_answered_well_is_known_until_it_is_answered_otherwise() {
        let answers = Answers::new(1 << 20, 1 << 20);
        let key = answers.key([b"a".as_slice()]);
        let unkept = |is_good, keep_for| Answer { value: 0, is_good, keep_for, bytes: 0 };
        let mut told = Vec::new();
        for (is_good, keep_for) in [
            (false, Duration::ZERO),
            (true, Duration::ZERO),
            (false, Duration::ZERO),
            (false, Duration::from_nanos(1)),
            (false, Duration::ZERO),
        ] {
            let place = |is_known| {
                told.push(is_known);
                Ok(())
            };
            answers.ask(key, place, || async move { unkept(is_good, keep_for) }).await.unwrap();
        }
        assert_eq!(told, [false, false, true, true, false]);
    }

    #[tokio::test]
    async fn answers_are_bounded_and_refusals_drive_out_no_others() {
        let answers = Answers::new(10 * (100 + OVERHEAD), 10 * (100 + OVERHEAD));
        let key = |name: String| answers.key([name.as_bytes()]);
        let now = Instant::now();
        let kept = |name: &str| answers.state.lock().kept(&key(name.to_owned()), now);
        for at in 0..10 {
            answers.keep(key(format!("good{at}")), &answer(at, true), now);
        }
        for at in 0..100 {
            answers.keep(key(format!("bad{at}")), &answer(at, false), now);
        }
        assert_eq!(kept("good0"), Some(0));
        assert_eq!((kept("bad0"), kept("bad99")), (None, Some(99)));
        answers.keep(key("good10".into()), &answer(10, true), now);
        assert_eq!(kept("good1"), None, "it was not used for the longest time");
        assert_eq!(kept("good0"), Some(0));
        let state = answers.state.lock();
        assert_eq!((state.good.by_key.len(), state.good.by_use.len(), state.bad.by_key.len()), (10, 10, 10));
        assert_ne!(answers.key([b"ab".as_slice(), b"c"]), answers.key([b"a".as_slice(), b"bc"]));
    }
}
