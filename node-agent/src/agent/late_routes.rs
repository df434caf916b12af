//! Routes of what starts later than the server: until then they answer 503.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tower::ServiceExt;

/// Routes that are set once, after they are served. Clones share them.
#[derive(Clone, Default)]
pub struct LateRoutes(Arc<OnceLock<Router>>);

impl LateRoutes {
    /// Passes every request to the routes.
    pub fn router(&self) -> Router {
        let late = self.clone();
        Router::new().fallback(move |request: Request| {
            let late = late.clone();
            async move { late.answer(request).await }
        })
    }

    /// From now on these answer. Later calls change nothing.
    pub fn set(&self, routes: Router) {
        self.0.get_or_init(|| routes);
    }

    async fn answer(&self, request: Request) -> Response {
        match self.0.get() {
            Some(routes) => routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {}),
            None => (StatusCode::SERVICE_UNAVAILABLE, "the pods of this node are not started yet\n").into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};

    use super::*;

    #[tokio::test]
    async fn what_starts_later_answers_once_it_has_started() {
        let late = LateRoutes::default();
        let served = late.router().merge(Router::new().route("/readyz", get(|| async { "ok" })));
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            served.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!((ask("/readyz").await, ask("/pods").await), (200, 503));
        late.set(Router::new().route("/pods", get(|| async { "none" })));
        assert_eq!((ask("/readyz").await, ask("/pods").await, ask("/nothing").await), (200, 200, 404));
    }
}
