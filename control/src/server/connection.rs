//! Serves one connection: the TLS handshake, whose place the connection takes, and its requests, until it ends, has to
//! make room, or the service stops.
//!
//! Decides how long each step may take; what a request may do is decided by the gate.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::body::Body;
use fairlead_serving::{
    guarded_body::GuardedBody,
    http_connection::{Pings, acknowledge_now, http, set_options},
};
use http_body::Body as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    http_connection::{Answered, HttpConnection, RequestService},
    tls::ListenerTls,
};
use crate::{
    auth::{
        arrivals::{SPARED, WaitingConnection},
        client_certificate::ClientCertificates,
        connection_places::{ConnectionPlace, ConnectionPlaces, StrangersRequest},
        gate::{ConnectionCertificate, Gate},
        open_answers::{self, OpenAnswers},
    },
    metrics::{ConnectionMetrics, HandshakeFailure},
    request::{ConnectionPermit, PeerAddress},
};

pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a handshake keeps its turn: several round trips of a client that is near, some of one that is far.
const TURN: Duration = Duration::from_millis(100);
/// How long requests under way may take to end after a stop.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where a stranger has to make room: others wait.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How long a stranger may leave an answer untaken, and stay from the first request on. Their answers are short and
/// made at once. A timer in an answer's body would not do: over HTTP/2 nobody polls it while the client opens no
/// window.
const STRANGERS_TIMES: StrangersTimes =
    StrangersTimes { unanswered: Duration::from_secs(10), stay: Duration::from_secs(60) };

/// How long a connection may stay whose client has not shown who it is.
#[derive(Clone, Copy, Debug)]
pub struct StrangersTimes {
    /// With a request that is not answered, or whose answer is not taken.
    pub unanswered: Duration,
    /// From the first request on.
    pub stay: Duration,
}

/// What all connections of a listener have in common.
pub struct Connections {
    tls: Arc<ListenerTls>,
    clients: Arc<ClientCertificates>,
    gate: Gate,
    http: auto::Builder<TokioExecutor>,
    strangers: StrangersTimes,
    answers_last: Duration,
    metrics: Arc<ConnectionMetrics>,
    pub(super) places: ConnectionPlaces,
    /// Ends them all.
    pub(super) closing: CancellationToken,
}

impl Connections {
    /// Requests of `places` come to `gate`, whose watches end with `closing`.
    pub fn new(
        tls: Arc<ListenerTls>,
        clients: Arc<ClientCertificates>,
        gate: Gate,
        metrics: Arc<ConnectionMetrics>,
        places: ConnectionPlaces,
        closing: CancellationToken,
    ) -> Self {
        let http = http(Pings::default());
        let (strangers, answers_last) = (STRANGERS_TIMES, open_answers::LONGEST);
        Self { tls, clients, gate, http, strangers, answers_last, metrics, places, closing }
    }

    /// With other times.
    #[cfg(test)]
    pub fn pinging(self, pings: Pings) -> Self {
        Self { http: http(pings), ..self }
    }

    /// With other times of strangers.
    #[cfg(test)]
    pub fn bearing_strangers(self, strangers: StrangersTimes) -> Self {
        Self { strangers, ..self }
    }

    /// With another time in which an answer is to be sent.
    #[cfg(test)]
    pub fn sending_for(self, answers_last: Duration) -> Self {
        Self { answers_last, ..self }
    }

    /// Serves one until its end.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        arrival: WaitingConnection,
        permit: OwnedSemaphorePermit,
    ) {
        self.metrics.opened();
        if let Err(e) = set_options(&stream) {
            tracing::debug!(%peer, "cannot set the options of a connection: {e}");
        }
        // What it needs goes with it: connections last, and there may be many.
        let Some((stream, place)) = Box::pin(self.shake_hands(stream, peer, arrival)).await else { return };
        let answers = OpenAnswers::lasting(self.answers_last);
        let mut connection = self.speak_http(stream, peer, &place, &answers, permit);
        let may_take = tokio::select! {
            ended = &mut connection => return log_end(peer, ended),
            never = answers.cut_late() => match never {},
            () = self.closing.cancelled() => DRAIN_TIMEOUT,
            () = place.is_cut() => match place.is_asked() {
                true => LAST_ANSWER,
                false => return tracing::debug!(%peer, "{CUT}"),
            },
            () = place.overstays(self.strangers.unanswered, self.strangers.stay) => LAST_ANSWER,
        };
        connection.graceful_shutdown();
        match tokio::time::timeout(may_take, &mut connection).await {
            Ok(ended) => log_end(peer, ended),
            Err(_) => tracing::debug!(%peer, "cut: it did not end in time"),
        }
    }

    /// The connection after its handshake. No part of [`Connections::serve`], which would keep room for the stream
    /// twice.
    fn speak_http<'c>(
        &'c self,
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
        place: &ConnectionPlace,
        answers: &OpenAnswers,
        permit: OwnedSemaphorePermit,
    ) -> HttpConnection<'c, impl RequestService + use<>> {
        let certificate = Arc::new(connection_certificate(&stream, &self.clients));
        let front_proxy = stream.get_ref().1.peer_certificates();
        let front_proxy = front_proxy.and_then(|chain| self.gate.authenticator().recognise_front_proxy(chain));
        let user = certificate.as_ref().as_ref().map(|c| c.as_ref().map(|c| c.at(SystemTime::now())));
        match (&front_proxy, user) {
            // Its visitors come and go, and some are refused: the connection is the proxy's.
            (Some(front_proxy), _) => place.belongs_to(&front_proxy.holder()),
            (None, Some(Ok(Ok(identity)))) => place.belongs_to(identity),
            (None, _) => {}
        }
        let permit = ConnectionPermit(Arc::new((permit, place.clone())));
        let (gate, place, answers) = (self.gate.clone(), place.clone(), answers.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(PeerAddress(peer));
            if let Some(front_proxy) = front_proxy.clone() {
                request.extensions_mut().insert(front_proxy);
            }
            request.extensions_mut().insert(permit.clone());
            request.extensions_mut().insert(place.clone());
            request.extensions_mut().insert(answers.clone());
            let (gate, certificate, strangers) = (gate.clone(), certificate.clone(), place.begin_request());
            let answered: Answered = Box::pin(async move {
                let answer = gate.answer(request.map(Body::new), certificate).await;
                Ok(answered(answer, strangers))
            });
            answered
        });
        HttpConnection::new(stream, service, &self.http)
    }

    /// The handshake, once the client has begun it and it is the connection's turn. `None` where it comes to nothing.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        arrival: WaitingConnection,
    ) -> Option<(TlsStream<TcpStream>, ConnectionPlace)> {
        let begun = async {
            // One that says nothing takes no turn.
            tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.readable())
                .await
                .map_err(|_| HandshakeFailure::TimedOut)?
                .map_err(|e| HandshakeFailure::of(&e))?;
            Ok::<_, HandshakeFailure>(arrival.turn().await)
        };
        let mut turn = tokio::select! {
            () = self.closing.cancelled() => return None,
            () = arrival.is_cut() => {
                tracing::debug!(%peer, "{CUT}");
                return None;
            }
            begun = begun => match begun {
                Ok(turn) => turn,
                Err(failure) => {
                    self.metrics.handshake_failed(failure);
                    tracing::debug!(%peer, "no TLS handshake was begun");
                    return None;
                }
            },
        };
        let place = self.places.admit(peer.ip());
        place.spare_in_handshake();
        drop(arrival);
        let handshake = async {
            let mut handshake = pin!(self.tls.acceptor().accept(stream));
            if let Ok(shaken) = tokio::time::timeout(TURN, handshake.as_mut()).await {
                return shaken;
            }
            // The client has it wait: others need not.
            turn.pass_on();
            tokio::select! {
                shaken = handshake.as_mut() => return shaken,
                () = turn.is_withdrawn() => place.spare_no_more(),
                () = tokio::time::sleep(SPARED) => {}
            }
            drop(turn);
            handshake.await
        };
        let shaken = tokio::select! {
            () = self.closing.cancelled() => return None,
            () = place.is_cut() => {
                tracing::debug!(%peer, "{CUT}");
                return None;
            }
            shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => {
                if let Err(error) = acknowledge_now(stream.get_ref().0) {
                    tracing::debug!(%error, %peer, "the first request may be late");
                }
                return Some((stream, place));
            }
            Ok(Err(e)) => {
                self.metrics.handshake_failed(HandshakeFailure::of(&e));
                tracing::debug!(%peer, "TLS handshake failed: {e}");
            }
            Err(_) => {
                self.metrics.handshake_failed(HandshakeFailure::TimedOut);
                tracing::debug!(%peer, "TLS handshake took too long");
            }
        }
        None
    }
}

const CUT: &str = "cut: others wait for its place";

fn log_end(peer: SocketAddr, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(e) = ended {
        tracing::debug!(%peer, "connection ended: {e}");
    }
}

/// The answer; one to a stranger keeps its request counted until all of it is sent.
fn answered(answer: http::Response<Body>, request: Option<StrangersRequest>) -> http::Response<Body> {
    match request.filter(|request| !request.is_known() && !answer.body().is_end_stream()) {
        None => answer,
        Some(request) => answer.map(|body| Body::new(GuardedBody::new(body, request))),
    }
}

fn connection_certificate(stream: &TlsStream<TcpStream>, clients: &ClientCertificates) -> ConnectionCertificate {
    stream.get_ref().1.peer_certificates().map(|chain| clients.identify(chain))
}
