//! A server for tests that answers by a script and remembers what it was asked.

use std::{collections::VecDeque, sync::Arc};

use http::{Request, Response};
use kube::{Client, client::Body};
use parking_lot::Mutex;

/// Method and address of each request, with what it accepts if it says so.
pub type Asked = Arc<Mutex<Vec<String>>>;

/// A client that is given `answers`, code and body, one after the other; later requests are never answered.
pub fn client(answers: impl IntoIterator<Item = (u16, String)>) -> (Client, Asked) {
    let answers: Arc<Mutex<VecDeque<(u16, String)>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
    let asked = Asked::default();
    let record = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let accept = request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
        let accept = accept.map_or_else(String::new, |accept| format!(" {accept}"));
        record.lock().push(format!("{} {}{accept}", request.method(), request.uri()));
        let answer = answers.lock().pop_front();
        async move {
            let Some((code, body)) = answer else { return std::future::pending().await };
            Response::builder().status(code).body(Body::from(body.into_bytes()))
        }
    });
    (Client::new(service, "default"), asked)
}
