//! A request that waits: its turn, its end, its memory, and what holds a seat at all.

use std::{pin::pin, task::Poll};

use http_body_util::BodyExt;

use super::*;
use crate::{
    flow_control::memory::{
        AllWaitingMemory, WAITING, WAITING_HEARTBEATS, WAITING_REQUEST, WaitingMemory, WaitingShare,
    },
    request::tests::info,
};

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).expect("a request")
}

fn held(uri: &str) -> Request<Body> {
    Request::get(uri).header(HOLD, "").body(Body::empty()).expect("a request")
}

/// Requests of a user that take all seats that the user may have.
async fn hold_all(guarded: &Guarded, identity: &Identity) -> Vec<tokio::task::JoinHandle<Response<Body>>> {
    let mut held_requests = Vec::new();
    while guarded.counts("global-default").waiting == 0 {
        let before = guarded.counts("global-default");
        held_requests.push(tokio::spawn(guarded.ask(identity, held("/api/v1/namespaces/a/pods"))));
        until("it has come", || guarded.counts("global-default") != before).await;
    }
    held_requests
}

#[tokio::test]
async fn what_waits_is_served_in_its_turn_and_told_by_whom_it_was_classified() {
    let guarded = Guarded::start(20).await;
    let joe = user("joe");
    let held_requests = hold_all(&guarded, &joe).await;
    let waiting = guarded.ask(&joe, get("/api/v1/namespaces/a/pods"));
    let mut waiting = pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let page = guarded.control.page("dump_requests", true).expect("a page");
    let row = page.lines().find(|line| line.contains("-1,") && line.contains("global-default")).expect("one executes");
    assert!(row.contains("joe") && row.contains("/api/v1/namespaces/a/pods"), "{page}");
    assert!(guarded.control.page("dump_queues", false).expect("a page").lines().count() > 1);
    guarded.handler.released.add_permits(100);
    let answer = waiting.await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-kubernetes-pf-flowschema-uid"], "uid-of-global-default");
    assert_eq!(answer.headers()["x-kubernetes-pf-prioritylevel-uid"], "uid-of-global-default");
    for held in held_requests {
        assert_eq!(held.await.expect("no panic").status(), 200);
    }
    assert_eq!(guarded.counts("global-default"), Counts { executing: 0, waiting: 0, refused: 0 });
}

#[tokio::test]
async fn clients_of_a_level_that_drops_many_are_to_come_again_later() {
    let guarded = Guarded::start(20).await;
    let joe = user("joe");
    let held_requests = hold_all(&guarded, &joe).await;
    let level = {
        let policy = guarded.control.inner.policy.load();
        policy.schemas.iter().find(|schema| &*schema.name == "global-default").expect("a schema").level.clone()
    };
    let now = jiff::Timestamp::now().as_second();
    for second in now - 20..now {
        (0..100).for_each(|_| level.record_dropped_at(second));
    }
    let late = guarded.ask(&joe, get("/api/v1/namespaces/a/pods?timeout=40ms")).await;
    assert_eq!(late.status(), 429);
    assert!(level.retry_after() > 1);
    assert_eq!(late.headers()["retry-after"], level.retry_after().to_string().as_str());
    guarded.handler.released.add_permits(100);
    for held in held_requests {
        assert_eq!(held.await.expect("no panic").status(), 200);
    }
}

#[tokio::test]
async fn what_waits_for_a_quarter_of_its_time_is_refused_and_who_goes_leaves_its_queue() {
    let guarded = Guarded::start(20).await;
    let joe = user("joe");
    let held_requests = hold_all(&guarded, &joe).await;
    let late = guarded.ask(&joe, get("/api/v1/namespaces/a/pods?timeout=40ms")).await;
    assert_eq!((late.status().as_u16(), &late.headers()["retry-after"]), (429, &http::HeaderValue::from_static("1")));
    assert_eq!(late.headers()["x-kubernetes-pf-prioritylevel-uid"], "uid-of-global-default");
    let text = late.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(text, "Too many requests, please try again later.\n");

    let before = guarded.counts("global-default");
    {
        let gone = guarded.ask(&joe, get("/api/v1/namespaces/a/pods"));
        let mut gone = pin!(gone);
        assert!(futures::poll!(gone.as_mut()).is_pending());
        assert_eq!(guarded.counts("global-default").waiting, before.waiting + 1);
    }
    let after = guarded.counts("global-default");
    assert_eq!(after, Counts { refused: before.refused + 1, ..before });
    for held in &held_requests {
        held.abort();
    }
    let is_idle = || guarded.control.inner.levels.lock().by_name.values().all(|running| running.level.is_idle());
    until("all have gone", is_idle).await;
    assert_eq!(guarded.counts("global-default").executing, 0);
}

#[test]
fn a_request_waits_for_a_quarter_of_its_time() {
    let longest = |uri: &str| longest_wait(&info("GET", uri));
    assert_eq!(longest("/api/v1/pods"), Duration::from_secs(15));
    assert_eq!(longest("/api/v1/pods?timeout=20s"), Duration::from_secs(5));
    assert_eq!(longest("/api/v1/pods?timeout=1h"), Duration::from_secs(15));
    assert_eq!(longest("/api/v1/pods?timeout=nonsense"), Duration::from_secs(15));
    assert_eq!(longest("/api/v1/pods?timeout=-3s"), Duration::from_secs(15));
    assert_eq!(longest("/api/v1/pods?watch=1&timeout=4s"), Duration::from_secs(15));
}

#[tokio::test]
async fn a_body_that_does_not_come_takes_no_seat_in_a_level() {
    let guarded = Guarded::start(20).await;
    let joe = user("joe");
    let post = info("POST", "/api/v1/namespaces/a/pods");
    let (parts, ()) = Request::post("/api/v1/namespaces/a/pods").body(()).expect("a request").into_parts();
    let (_, seat) = guarded.control.enter(&joe, &post, &parts).await;
    let seat = seat.expect("a seat");
    assert_eq!(seat.read(async { Ok(1) }).await.expect("it is there"), 1);
    assert_eq!(guarded.counts("global-default").executing, 1);

    let (send, body) = tokio::sync::oneshot::channel::<()>();
    let mut read = Box::pin(seat.read(async { Ok(body.await.is_ok()) }));
    assert!(futures::poll!(read.as_mut()).is_pending());
    assert_eq!(guarded.counts("global-default").executing, 0, "it has no seat while the body does not come");
    let held_requests = hold_all(&guarded, &joe).await;
    send.send(()).expect("it is waited for");
    assert!(futures::poll!(read.as_mut()).is_pending(), "it waits for a seat");
    // One other waits, perhaps in another queue of the user's hand, and it may be the turn of either.
    assert_eq!(guarded.counts("global-default").waiting, 2);
    guarded.handler.released.add_permits(2);
    assert!(read.as_mut().await.expect("it has its seat again"));
    drop(read);
    drop(seat);
    guarded.handler.released.add_permits(100);
    for held in held_requests {
        assert_eq!(held.await.expect("no panic").status(), 200);
    }
}

#[tokio::test]
async fn a_watch_has_a_seat_until_it_has_begun_and_other_streams_need_none() {
    let guarded = Guarded::start(20).await;
    let joe = user("joe");
    let mut beginning = pin!(guarded.ask(&joe, held("/api/v1/namespaces/a/pods?watch=1")));
    assert_eq!(futures::poll!(beginning.as_mut()).map(drop), Poll::Pending);
    assert_eq!(guarded.counts("global-default").executing, 1);
    guarded.handler.released.add_permits(1);
    let watch = beginning.await;
    assert_eq!((watch.status().as_u16(), guarded.counts("global-default").executing), (200, 0));
    assert!(watch.headers().contains_key("x-kubernetes-pf-flowschema-uid"));

    let mut streaming = pin!(guarded.ask(&joe, held("/api/v1/namespaces/a/pods/p/exec")));
    assert_eq!(futures::poll!(streaming.as_mut()).map(drop), Poll::Pending);
    assert_eq!(guarded.counts("global-default").executing, 0);
    guarded.handler.released.add_permits(1);
    assert!(!streaming.await.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
}

#[test]
fn the_memory_of_what_waits_is_bounded_for_each_user_and_apart_for_heartbeats() {
    let memory = WaitingMemory::new("level".into(), Arc::<AllWaitingMemory>::default());
    let keep_all = |is_heartbeat: bool, user: &str| -> Vec<WaitingShare> {
        std::iter::from_fn(|| memory.keep(is_heartbeat, user, 1 << 10)).collect()
    };
    let joe = keep_all(false, "joe");
    assert!((1000..8192).contains(&joe.len()), "{}", joe.len());
    assert!(memory.keep(false, "ann", 1 << 20).is_some());
    let others: Vec<Vec<WaitingShare>> = (0..500).map(|user| keep_all(false, &format!("user-{user}"))).collect();
    let stolen = keep_all(true, "system:node:stolen");
    assert!((10..200).contains(&stolen.len()), "{}", stolen.len());
    assert!(memory.keep(true, "system:node:n", 1 << 10).is_some(), "heartbeats have memory of their own");
    drop((joe, others, stolen));
}

#[tokio::test]
async fn the_overload_of_one_level_takes_no_memory_of_what_waits_in_another() {
    let guarded = Guarded::start(600).await;
    let policy = guarded.control.inner.policy.load();
    let memory = |schema: &str| {
        let schema = policy.schemas.iter().find(|of| &*of.name == schema).expect("a schema");
        &schema.level.waiting_memory
    };
    let users = (0..1000).map(|user| format!("user-{user}"));
    let full: Vec<WaitingShare> =
        users.flat_map(|user| std::iter::from_fn(move || memory("global-default").keep(false, &user, 0))).collect();
    assert!(memory("global-default").keep(false, "joe", 1 << 20).is_none());
    for (is_heartbeat, schema) in [(false, "service-accounts"), (false, "system-nodes"), (true, "system-node-high")] {
        assert!(memory(schema).keep(is_heartbeat, "system:node:n", 1 << 18).is_some(), "{schema}");
    }
    drop(full);
}

#[test]
fn the_memory_of_what_waits_is_bounded_however_many_levels_there_are() {
    let all = Arc::<AllWaitingMemory>::default();
    let levels: Vec<WaitingMemory> =
        (0..100).map(|level| WaitingMemory::new(format!("level-{level}").into(), all.clone())).collect();
    let fill = |level: &WaitingMemory, is_heartbeat: bool| -> Vec<WaitingShare> {
        let users = (0..200).map(|user| format!("user-{user}"));
        users.flat_map(|user| std::iter::from_fn(move || level.keep(is_heartbeat, &user, 0))).collect()
    };
    let full: Vec<WaitingShare> = levels.iter().flat_map(|level| fill(level, false)).collect();
    assert!(full.len() * WAITING_REQUEST <= WAITING, "{}", full.len());
    assert!(full.len() * WAITING_REQUEST > WAITING / 2, "{}", full.len());
    assert!(levels[0].keep(true, "system:node:n", 1 << 10).is_some(), "heartbeats have memory of their own");
    let beats: Vec<WaitingShare> = levels.iter().flat_map(|level| fill(level, true)).collect();
    assert!(beats.len() * WAITING_REQUEST <= WAITING_HEARTBEATS, "{}", beats.len());
    drop((full, beats));
    assert!(levels[99].keep(false, "joe", 1 << 20).is_some());
}
