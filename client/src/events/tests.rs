//! Watches against a server that answers by a script.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;
use crate::scripted::client;

fn map(name: &str, version: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "metadata": {"name": name,
        "resourceVersion": version.to_string(), "managedFields": [{"manager": "kubectl"}]}})
}

fn list(version: u32, items: &[Value]) -> (u16, String) {
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "items": items,
        "metadata": {"resourceVersion": version.to_string()}});
    (200, list.to_string())
}

fn frames(frames: &[Value]) -> (u16, String) {
    (200, frames.iter().map(|frame| format!("{frame}\n")).collect())
}

/// The next `count` events: a word for each, with name and version.
async fn next(events: &mut Events<ConfigMap>, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let event = events.next().await.expect("a watch never ends");
        if let Ok(Event::Apply(map) | Event::Delete(map) | Event::InitApply(map)) = &event {
            assert_eq!(map.metadata.managed_fields, None);
            assert_eq!(map.data.as_ref().expect("data")["a"], "b");
        }
        let shown = |word: &str, map: &ConfigMap| {
            let version = map.metadata.resource_version.as_deref().unwrap_or_default();
            format!("{word} {}@{version}", map.metadata.name.as_deref().unwrap_or_default())
        };
        seen.push(match &event {
            Ok(Event::Init) => "list".to_owned(),
            Ok(Event::InitApply(map)) => shown("listed", map),
            Ok(Event::InitDone) => "complete".to_owned(),
            Ok(Event::Apply(map)) => shown("changed", map),
            Ok(Event::Delete(map)) => shown("deleted", map),
            Err(Error::InitialListFailed(_)) => "no list".to_owned(),
            Err(Error::WatchFailed(_)) => "unreadable".to_owned(),
            Err(Error::WatchError(status)) => format!("refused {}", status.code),
            Err(error) => panic!("{error}"),
        });
    }
    seen
}

fn events(client: Client) -> Events<ConfigMap> {
    Events::new(&Api::namespaced(client, "shop"), Config::default())
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_off_is_resumed_after_the_last_object_it_brought() {
    let (client, asked) = client([
        list(5, &[map("a", 3)]),
        frames(&[json!({"type": "MODIFIED", "object": map("a", 6)})]),
        frames(&[json!({"type": "DELETED", "object": map("a", 9)})]),
    ]);
    let mut events = events(client);
    assert_eq!(next(&mut events, 5).await, ["list", "listed a@3", "complete", "changed a@6", "deleted a@9"]);
    let asked = asked.lock().clone();
    assert!(asked[0].starts_with("GET /api/v1/namespaces/shop/configmaps?") && !asked[0].contains("watch="));
    assert!(asked[1].contains("watch=true") && asked[1].ends_with("resourceVersion=5"), "{asked:?}");
    assert!(asked[2].contains("watch=true") && asked[2].ends_with("resourceVersion=6"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_no_longer_remembers_is_listed_again() {
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": "too old", "reason": "Expired", "code": 410}});
    let (client, asked) = client([list(5, &[map("a", 3)]), frames(&[gone]), list(8, &[map("b", 7)]), frames(&[])]);
    let mut events = events(client);
    let expected = ["list", "listed a@3", "complete", "refused 410", "list", "listed b@7", "complete"];
    assert_eq!(next(&mut events, 7).await, expected);
    assert!(!asked.lock()[2].contains("watch="));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_object_stands_before_its_type_is_taken() {
    let frame = format!("{{\"object\": {}, \"type\": \"ADDED\"}}\n", map("a", 6));
    let (client, asked) = client([list(5, &[]), (200, frame), frames(&[])]);
    let mut events = events(client);
    assert_eq!(next(&mut events, 3).await, ["list", "complete", "changed a@6"]);
    tokio::select! {
        biased;
        event = events.next() => panic!("{event:?}"),
        () = async { while asked.lock().len() < 4 { tokio::task::yield_now().await } } => {}
    }
    assert!(asked.lock()[2].ends_with("resourceVersion=6"));
}

#[tokio::test(start_paused = true)]
async fn a_listing_with_an_object_that_cannot_be_read_is_never_complete() {
    let unreadable = json!({"metadata": {"name": "bad", "resourceVersion": "2"}, "data": "text"});
    let (client, _) = client([list(5, &[map("a", 3), unreadable, map("z", 4)]), list(8, &[map("a", 3)])]);
    let mut events = events(client);
    let expected = ["list", "listed a@3", "no list", "list", "listed a@3", "complete"];
    assert_eq!(next(&mut events, 6).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_became_unreadable_is_forgotten_when_it_is_deleted() {
    let unreadable = |version: &str| json!({"metadata": {"name": "a", "resourceVersion": version}, "data": "text"});
    let (client, _) = client([
        list(5, &[map("a", 3)]),
        frames(&[
            json!({"type": "MODIFIED", "object": unreadable("6")}),
            json!({"type": "MODIFIED", "object": map("b", 7)}),
            json!({"type": "DELETED", "object": unreadable("8")}),
        ]),
        list(8, &[map("b", 7)]),
    ]);
    let mut events = events(client);
    let expected = ["list", "listed a@3", "complete", "unreadable", "changed b@7", "unreadable", "list", "listed b@7"];
    assert_eq!(next(&mut events, 8).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_metadata_asks_for_metadata_alone() {
    let (client, asked) = client([list(5, &[map("a", 3)])]);
    let resource = ApiResource::erase::<ConfigMap>(&());
    let mut events = metadata_events(client, &resource, Config::default());
    assert!(matches!(events.next().await, Some(Ok(Event::Init))));
    let Some(Ok(Event::InitApply(object))) = events.next().await else { panic!("an object") };
    assert_eq!((object.metadata.name.as_deref(), object.metadata.managed_fields), (Some("a"), None));
    assert!(asked.lock()[0].contains("as=PartialObjectMetadataList"), "{asked:?}");
}
