//! Answers after which a connection speaks another protocol: who serves it then, and what cuts it.

use axum::body::Body;
use http::Response;
use tokio_util::sync::CancellationToken;

/// An extension of answers that switch protocols. Cancelled, it cuts the connection; it is cancelled, too, once the
/// connection has ended, so that nobody watches over its request any more.
#[derive(Clone, Debug)]
pub struct UpgradedAnswer(pub CancellationToken);

/// `answer` with a task that runs `serve`, until that ends or is cut. `held` is dropped then.
pub fn switched<B>(
    answer: Response<B>,
    held: impl Send + 'static,
    serve: impl Future<Output = ()> + Send + 'static,
) -> Response<Body> {
    let stop = CancellationToken::new();
    let mut answer = answer.map(|_| Body::empty());
    answer.extensions_mut().insert(UpgradedAnswer(stop.clone()));
    tokio::spawn(async move {
        let _held = held;
        let _ended = stop.clone().drop_guard();
        if stop.run_until_cancelled(serve).await.is_none() {
            tracing::debug!("an upgraded connection is cut");
        }
    });
    answer
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn stop_of(answer: &Response<Body>) -> CancellationToken {
        answer.extensions().get::<UpgradedAnswer>().unwrap().0.clone()
    }

    #[tokio::test]
    async fn what_is_held_goes_with_the_connection_whether_it_ends_or_is_cut() {
        let (mut held, place) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel::<()>();
        let answer = switched(Response::new(()), place, async { ended.await.unwrap() });
        assert!(!stop_of(&answer).is_cancelled());
        end.send(()).unwrap();
        stop_of(&answer).cancelled().await;
        held.closed().await;
        let (mut held, place) = oneshot::channel::<()>();
        let answer = switched(Response::new(()), place, std::future::pending());
        stop_of(&answer).cancel();
        held.closed().await;
    }
}
