//! Looks names up: once for all who ask for the same name at the same time, and not again for a moment.
//!
//! A lookup blocks a thread of the system's resolver. A server of names that does not answer must not take all of them,
//! so there are few at a time, and who waits for the same name waits for the same lookup.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

/// How long an answer is good. Names of webhooks change with the address of a load balancer, minutes at the soonest.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// How long others wait for a lookup that has begun: then the next one begins another.
const LONGEST: Duration = Duration::from_secs(30);
/// Lookups at a time.
const AT_ONCE: usize = 16;
/// Names that are remembered; more are forgotten all at once.
const MOST: usize = 1024;

/// What a lookup came to. Errors are shared, so they are told by kind and text.
type LookupResult = Result<Arc<[SocketAddr]>, (io::ErrorKind, String)>;

/// A lookup that many wait for.
type Lookup = Shared<BoxFuture<'static, LookupResult>>;

/// Looks a name up.
type Resolve = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Lookups under way, and those that have just ended.
pub struct Lookups {
    resolve: Box<Resolve>,
    by_name: Mutex<HashMap<(String, u16), (Instant, Lookup)>>,
    seats: Arc<Semaphore>,
    good_for: Duration,
}

impl Lookups {
    /// Through `resolve`.
    pub fn new(
        resolve: impl Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            resolve: Box::new(resolve),
            by_name: Mutex::default(),
            seats: Arc::new(Semaphore::new(AT_ONCE)),
            good_for: GOOD_FOR,
        }
    }

    /// Through the system's resolver.
    pub fn of_system() -> Self {
        Self::new(|host, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) })
        })
    }

    /// The addresses of a name.
    pub async fn get(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let answer = self.lookup(host, port).await;
        match answer {
            Ok(addresses) => Ok(addresses.to_vec()),
            Err((kind, why)) => {
                // A failure is shared by those who wait for it, and by nobody after them.
                self.by_name.lock().remove(&(host.to_owned(), port));
                Err(io::Error::new(kind, why))
            }
        }
    }

    fn lookup(&self, host: &str, port: u16) -> Lookup {
        let key = (host.to_owned(), port);
        let mut by_name = self.by_name.lock();
        if let Some((begun, lookup)) = by_name.get(&key) {
            // One that nobody waited for is not known to have ended.
            let shared_for = if lookup.peek().is_none() { LONGEST } else { self.good_for };
            if begun.elapsed() < shared_for {
                return lookup.clone();
            }
        }
        let (resolved, seats) = ((self.resolve)(key.0.clone(), port), self.seats.clone());
        // In a task of its own: who asked first may give up, and the others go on waiting.
        let task = tokio::spawn(async move {
            let _seat = seats.acquire_owned().await;
            resolved.await
        });
        let answer = async move {
            match task.await {
                Ok(Ok(addresses)) => Ok(addresses.into()),
                Ok(Err(error)) => Err((error.kind(), error.to_string())),
                Err(error) => Err((io::ErrorKind::Other, error.to_string())),
            }
        };
        let lookup = answer.boxed().shared();
        if by_name.len() >= MOST {
            by_name.clear();
        }
        by_name.insert(key, (Instant::now(), lookup.clone()));
        lookup
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    fn address(host: &str) -> Vec<SocketAddr> {
        vec![if host == "a" { "192.0.2.1:443" } else { "192.0.2.2:443" }.parse().unwrap()]
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_a_lookup_and_the_answer_is_good_for_a_moment() {
        let (count, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, waiting) = (count.clone(), go.clone());
        let mut lookups = Lookups::new(move |host, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            let waiting = waiting.clone();
            Box::pin(async move {
                waiting.notified().await;
                Ok(address(&host))
            })
        });
        go.notify_one();
        let all = join_all((0..50).map(|_| lookups.get("a", 443))).await;
        assert!(all.into_iter().all(|found| found.unwrap() == address("a")));
        assert_eq!(lookups.get("a", 443).await.unwrap(), address("a"));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        go.notify_one();
        assert_eq!(lookups.get("b", 443).await.unwrap(), address("b"));
        lookups.good_for = Duration::ZERO;
        go.notify_one();
        lookups.get("a", 443).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn few_lookups_run_at_a_time_and_a_failure_is_not_remembered() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, greatest) = (running.clone(), most.clone());
        let lookups = Lookups::new(move |_, _| {
            let (now, greatest) = (now.clone(), greatest.clone());
            Box::pin(async move {
                greatest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Err(io::Error::new(io::ErrorKind::NotFound, "no such host"))
            })
        });
        let all: Vec<_> = (0..100).map(|n| lookups.lookup(&format!("h{n}"), 443)).collect();
        assert!(join_all(all).await.iter().all(Result::is_err));
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        let error = lookups.get("h1", 443).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, "no such host".to_owned()));
        assert!(!lookups.by_name.lock().contains_key(&("h1".to_owned(), 443)));
    }
}
