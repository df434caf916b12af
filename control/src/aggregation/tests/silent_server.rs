//! A server that takes a request and does not begin to answer.

use super::*;
use crate::flow_control::in_flight::InFlight;

#[tokio::test]
async fn a_watch_has_no_seat_while_its_server_does_not_begin_to_answer() {
    let setting = Setting::available().await;
    let (limits, jane) = (InFlight::new(1, 1), Identity::authenticated("jane".into(), vec![]));
    let path = format!("{ROOT}/flunders?watch=1&silent=1");
    let enter = || limits.enter(&jane, &crate::request::tests::info("GET", &path));
    let mut request = Request::get(&path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Arc::new(enter().unwrap()));
    assert!(enter().is_err());
    let api = setting.server.api.clone();
    let user = jane.clone();
    let watch = tokio::spawn(async move { api.answer_as(user, request).await });
    let sent_on = async {
        while setting.extension.got(&path).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sent_on).await.expect("it is sent on");
    assert!(!watch.is_finished() && enter().is_ok(), "its seat is for others");
    watch.abort();
    setting.stop().await;
}
