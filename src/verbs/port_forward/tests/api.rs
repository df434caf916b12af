//! An API server that switches to WebSockets, in the protocols that it knows, but for ports that it refuses or keeps
//! waiting.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::mpsc::{self, UnboundedSender},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{super::channels, agent};
use crate::cluster::Cluster;

/// A port for which the server does not answer.
pub const SILENT: u16 = 9;

/// A cluster whose server knows these protocols.
pub async fn api(known: &'static [&'static str]) -> Cluster {
    api_with_silent_port(known, mpsc::unbounded_channel().0).await
}

/// As [`api`]; tells when it is asked for the port for which it does not answer.
pub async fn api_with_silent_port(known: &'static [&'static str], tell_asked: UnboundedSender<()>) -> Cluster {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let tell_asked = tell_asked.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let tell_asked = tell_asked.clone();
                async move {
                    if request.uri().query() == Some(&*format!("ports={SILENT}")) {
                        tell_asked.send(()).unwrap();
                        std::future::pending::<()>().await;
                    }
                    if request.uri().query() == Some(&*format!("ports={}", agent::REFUSED)) {
                        let refusal = Full::from("the node cannot be reached");
                        return Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(refusal).unwrap());
                    }
                    Ok::<_, Infallible>(answer(request, known))
                }
            });
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service);
            tokio::spawn(serving.with_upgrades());
        }
    });
    Cluster::new(kube::Config::new(url.parse().unwrap()), None).unwrap()
}

fn answer(request: Request<Incoming>, known: &'static [&'static str]) -> Response<Full<Bytes>> {
    let said = |name| request.headers()[name].to_str().unwrap().to_owned();
    assert!(request.uri().query().is_some_and(|query| query.contains("ports=1")), "{}", request.uri());
    let asked = said(header::SEC_WEBSOCKET_PROTOCOL);
    let Some(chosen) = asked.split(", ").find_map(|asked| known.iter().find(|known| **known == asked)) else {
        let refusal = Full::from("requested protocol(s) are not supported");
        return Response::builder().status(StatusCode::FORBIDDEN).body(refusal).unwrap();
    };
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_PROTOCOL, *chosen)
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(said(header::SEC_WEBSOCKET_KEY).as_bytes()));
    tokio::spawn(async move {
        let upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        if *chosen == channels::PROTOCOL {
            echo_once(WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await).await;
        } else {
            agent::serve(upgraded, mpsc::unbounded_channel().0).await;
        }
    });
    response.body(Full::default()).unwrap()
}

/// One connection of the older protocol: sends back the first bytes that come.
async fn echo_once(mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) {
    for channel in [0, 1] {
        // A client that only asked which protocol is spoken may be gone.
        if socket.send(Message::binary(vec![channel, 1, 0])).await.is_err() {
            return;
        }
    }
    if let Some(Ok(Message::Binary(message))) = socket.next().await {
        socket.send(Message::Binary(message)).await.unwrap();
        socket.close(None).await.unwrap();
    }
}
