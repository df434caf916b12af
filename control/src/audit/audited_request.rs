//! One request from its first event to its last.
//!
//! ```text
//!  begin ──▶ received: memory, RequestReceived ──▶ (handled) ──▶ answered ──▶ ResponseStarted, of what lasts
//!                                                      │                └──▶ ResponseComplete, once all is sent
//!                                                      └ panic ──▶ Panic;  client gone ──▶ ResponseComplete
//! ```
//!
//! The request belongs to whoever works on it, not to its connection: a write that goes on without its client holds it,
//! and it ends when the last of them is done.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use fairlead_serving::guarded_body::GuardedBody;
use http::Response;
use http_body::Body as _;
use jiff::Timestamp;

use super::{
    current::{self, EarlyNotes},
    memory::{MemoryClass, NoMemory},
    metrics::AuditMetrics,
    record::AuditRecord,
    rules::AuditStage,
    sink::AuditSink,
};
use crate::{status::Status, upgrade::UpgradedAnswer};

/// A request that is audited, as its connection has it.
pub struct AuditedRequest(Arc<OpenRequest>);

/// A request that is audited and under way. Dropped, it ends: its last event is made.
pub struct OpenRequest {
    record: AuditRecord,
    sink: Arc<AuditSink>,
    metrics: Arc<AuditMetrics>,
    /// Whether its answer may have no end.
    lasts: AtomicBool,
    /// Whether a node shows by it that it lives.
    is_heartbeat: AtomicBool,
    /// Whether it has begun, and its last event was not made.
    is_open: AtomicBool,
}

/// From how long on the time that a request took is noted.
const SLOW: Duration = Duration::from_millis(500);
const LATENCY: &str = "apiserver.latency.k8s.io/total";

impl AuditedRequest {
    pub(super) fn new(record: AuditRecord, sink: Arc<AuditSink>, metrics: Arc<AuditMetrics>) -> Self {
        let (lasts, is_heartbeat, is_open) = Default::default();
        Self(Arc::new(OpenRequest { record, sink, metrics, lasts, is_heartbeat, is_open }))
    }

    /// The answer may have no end: there is an event when it begins.
    pub fn lasting(self, lasts: bool) -> Self {
        self.0.lasts.store(lasts, Ordering::Relaxed);
        self
    }

    /// A node shows by it that it lives: its events have memory of their own.
    pub fn of_heartbeat(self, is_heartbeat: bool) -> Self {
        self.0.is_heartbeat.store(is_heartbeat, Ordering::Relaxed);
        self
    }

    /// What was noted before it was known that the request is audited.
    pub fn noted(self, notes: EarlyNotes) -> Self {
        for (key, value) in notes {
            self.0.record.annotate(&key, value);
        }
        self
    }

    /// Takes memory for the request's events, and makes the first of them, if its sender is known. Of a request that is
    /// given up before nothing is recorded: nothing was done for it.
    ///
    /// # Errors
    /// A 500 where the event must be written and is not, a 429 where there is no memory: the request is not handled.
    pub async fn received(&self, is_known: bool) -> Result<(), Status> {
        let Self(request) = self;
        if let Err(none) = request.record.take_memory(request.memory_class()).await {
            request.metrics.rejected();
            return Err(none.to_status());
        }
        if !is_known {
            return Ok(());
        }
        request.is_open.store(true, Ordering::Relaxed);
        match request.emit(AuditStage::RequestReceived).await {
            true => Ok(()),
            false => {
                // As in Kubernetes, it has no other event.
                request.is_open.store(false, Ordering::Relaxed);
                request.metrics.rejected();
                Err(Status::internal("failed to store audit event"))
            }
        }
    }

    /// Handles the request, whose handlers add to its record.
    pub async fn scope<T>(&self, handle: impl Future<Output = T>) -> T {
        current::scope(self.0.clone(), handle).await
    }

    /// The answer as it is sent: the last event is made when that has been done.
    pub async fn answered(self, response: Response<Body>) -> Response<Body> {
        let Self(request) = self;
        request.record.set_code(response.status().as_u16());
        if request.lasts() {
            request.emit(AuditStage::ResponseStarted).await;
        }
        if let Some(UpgradedAnswer(ended)) = response.extensions().get::<UpgradedAnswer>().cloned() {
            let sink = request.sink.clone();
            sink.track(async move {
                ended.cancelled().await;
                request.complete().await;
            });
            return response;
        }
        // One whose length is known is complete: requests that wait for their events wait for this one, too.
        if response.body().size_hint().exact().is_some() {
            request.complete().await;
            return response;
        }
        response.map(|body| Body::new(GuardedBody::new(body, request)))
    }

    /// The sender is not known: there is one event alone.
    pub async fn unauthenticated(self, response: Response<Body>) -> Response<Body> {
        self.0.record.set_code(response.status().as_u16());
        self.0.emit(AuditStage::ResponseStarted).await;
        response
    }
}

impl OpenRequest {
    /// What is known of it.
    pub(super) fn record(&self) -> &AuditRecord {
        &self.record
    }

    /// An object is answered: `text` is its JSON.
    pub fn answered(&self, code: u16, text: &[u8]) {
        self.record.answered(code, text);
    }

    fn lasts(&self) -> bool {
        self.lasts.load(Ordering::Relaxed)
    }

    fn memory_class(&self) -> MemoryClass {
        match (self.lasts(), self.is_heartbeat.load(Ordering::Relaxed)) {
            (true, _) => MemoryClass::Lasting,
            (false, true) => MemoryClass::Heartbeat,
            (false, false) => MemoryClass::Ending,
        }
    }

    async fn complete(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        self.note_latency();
        let stage = self.record.last_stage(false);
        self.emit(stage).await;
    }

    /// Makes an event; `false` where a request must not go on without it. Whoever gives up waiting leaves it to be
    /// written.
    async fn emit(&self, stage: AuditStage) -> bool {
        match self.record.event_at(stage, Timestamp::now()) {
            Some(event) => self.sink.hand_over(event, self.record.held()).await.written().await,
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

impl Drop for OpenRequest {
    /// The client has all of the answer, or went away and what was done for it has ended, or the handler panicked.
    fn drop(&mut self) {
        if !*self.is_open.get_mut() {
            return;
        }
        let stage = self.record.last_stage(std::thread::panicking());
        let began = stage == AuditStage::ResponseComplete && self.record.close_early() && self.lasts();
        self.note_latency();
        let stages = [began.then_some(AuditStage::ResponseStarted), Some(stage)].into_iter().flatten();
        let events = stages.filter_map(|stage| self.record.event_at(stage, Timestamp::now())).collect();
        self.sink.hand_over_unawaited(events, self.record.held());
    }
}

impl NoMemory {
    /// The 429: the client comes again.
    pub(super) fn to_status(self) -> Status {
        Status::too_many_requests("Too many requests, please try again later.", 1, "TooManyRequests", &self.to_string())
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
