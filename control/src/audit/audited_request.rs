//! One request from its first event to its last.
//!
//! ```text
//!  begin ──▶ received: RequestReceived ──▶ (handled) ──▶ answered ──▶ ResponseStarted, of what lasts
//!                                              │                └──▶ ResponseComplete, once all is sent
//!                                              └ panic ──▶ Panic;  client gone ──▶ ResponseComplete
//! ```

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use fairlead_serving::guarded_body::GuardedBody;
use http::Response;
use http_body::Body as _;
use jiff::Timestamp;

use super::{current, metrics::AuditMetrics, record::AuditRecord, rules::AuditStage, sink::AuditSink};
use crate::{status::Status, upgrade::UpgradedAnswer};

/// A request that is audited. Dropped, it ends: its last event is made.
pub struct AuditedRequest {
    record: Arc<AuditRecord>,
    sink: Arc<AuditSink>,
    metrics: Arc<AuditMetrics>,
    /// Whether its answer may have no end.
    lasts: bool,
    ended: bool,
}

/// From how long on the time that a request took is noted.
const SLOW: Duration = Duration::from_millis(500);
const LATENCY: &str = "apiserver.latency.k8s.io/total";

impl AuditedRequest {
    pub(super) fn new(record: AuditRecord, sink: Arc<AuditSink>, metrics: Arc<AuditMetrics>) -> Self {
        Self { record: Arc::new(record), sink, metrics, lasts: false, ended: false }
    }

    /// The answer may have no end: there is an event when it begins.
    pub fn lasting(mut self, lasts: bool) -> Self {
        self.lasts = lasts;
        self
    }

    /// Makes the first event.
    ///
    /// # Errors
    /// A 500 where the event must be written and is not: the request is not handled.
    pub async fn received(&mut self) -> Result<(), Status> {
        match self.emit(AuditStage::RequestReceived).await {
            true => Ok(()),
            false => {
                // As in Kubernetes, it has no other event.
                self.ended = true;
                self.metrics.rejected();
                Err(Status::internal("failed to store audit event"))
            }
        }
    }

    /// Handles the request, whose handlers add to its record.
    pub async fn scope<T>(&self, handle: impl Future<Output = T>) -> T {
        current::scope(self.record.clone(), handle).await
    }

    /// The answer as it is sent: the last event is made when that has been done.
    pub async fn answered(self, response: Response<Body>) -> Response<Body> {
        self.record.set_code(response.status().as_u16());
        if self.lasts {
            self.emit(AuditStage::ResponseStarted).await;
        }
        if let Some(UpgradedAnswer(ended)) = response.extensions().get::<UpgradedAnswer>().cloned() {
            let sink = self.sink.clone();
            sink.track(async move {
                ended.cancelled().await;
                self.complete().await;
            });
            return response;
        }
        // One whose length is known is complete: requests that wait for their events wait for this one, too.
        if response.body().size_hint().exact().is_some() {
            self.complete().await;
            return response;
        }
        response.map(|body| Body::new(GuardedBody::new(body, self)))
    }

    /// The sender is not known: there is one event alone.
    pub async fn unauthenticated(mut self, response: Response<Body>) -> Response<Body> {
        self.ended = true;
        self.record.set_code(response.status().as_u16());
        self.emit(AuditStage::ResponseStarted).await;
        response
    }

    async fn complete(mut self) {
        self.ended = true;
        self.note_latency();
        let stage = self.record.last_stage(false);
        self.emit(stage).await;
    }

    async fn emit(&self, stage: AuditStage) -> bool {
        match self.record.event_at(stage, Timestamp::now()) {
            Some(event) => self.sink.process(event).await,
            None => true,
        }
    }

    /// How long a slow request took, as Go writes durations.
    fn note_latency(&self) {
        let took = Timestamp::now().duration_since(self.record.received_at()).unsigned_abs();
        if took > SLOW {
            self.record.annotate(LATENCY, go_seconds(took));
        }
    }
}

impl Drop for AuditedRequest {
    /// The client has all of the answer, or went away, or the handler panicked.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let stage = self.record.last_stage(std::thread::panicking());
        let began = stage == AuditStage::ResponseComplete && self.record.close_early() && self.lasts;
        self.note_latency();
        for stage in [began.then_some(AuditStage::ResponseStarted), Some(stage)].into_iter().flatten() {
            if let Some(event) = self.record.event_at(stage, Timestamp::now()) {
                self.sink.process_later(event);
            }
        }
    }
}

/// `1.25s`, `1m2.5s`, `2h0m0s`.
fn go_seconds(time: Duration) -> String {
    let (seconds, nanoseconds) = (time.as_secs(), time.subsec_nanos());
    let fraction = format!("{nanoseconds:09}");
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let rest = format!("{}{point}{fraction}s", seconds % 60);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) if seconds == 0 => format!("{}ms", time.as_secs_f64() * 1000.0),
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let of = |millis| go_seconds(Duration::from_millis(millis));
        assert_eq!([of(512), of(1250), of(62_500), of(7_200_000)], ["512ms", "1.25s", "1m2.5s", "2h0m0s"]);
    }
}
