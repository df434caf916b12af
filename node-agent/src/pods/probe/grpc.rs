//! gRPC probes: asks a server of `grpc.health.v1.Health` whether it serves, over HTTP/2 without TLS, as Kubernetes
//! does.

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::GRPCAction;
use prost::Message;
use tokio::net::TcpStream;

use super::CheckError;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Of an answer; a real one has two bytes.
const LONGEST_ANSWER: usize = 4096;
/// gRPC's code of a method that the server does not have.
const UNIMPLEMENTED: &str = "12";

/// Asks the server at `ip` once. The caller sets the time limit.
pub(super) async fn check(ip: Ipv4Addr, action: &GRPCAction) -> Result<(), CheckError> {
    let port = u16::try_from(action.port).map_err(|_| CheckError::InvalidPortNumber(action.port))?;
    let address = format!("{ip}:{port}");
    let unreachable =
        |error: &dyn std::fmt::Display| CheckError::GrpcConnect { address: address.clone(), cause: error.to_string() };
    let failed = |error: &dyn std::fmt::Display| CheckError::GrpcCall(error.to_string());
    let stream = TcpStream::connect((ip, port)).await.map_err(|error| unreachable(&error))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| unreachable(&error))?;
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let message = HealthCheckRequest { service: action.service.clone().unwrap_or_default() };
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .header(http::header::USER_AGENT, "kube-probe/1.35")
        .body(Full::new(framed(&message)))
        .map_err(|error| failed(&error))?;
    let (head, body) = sender.send_request(request).await.map_err(|error| failed(&error))?.into_parts();
    if !head.status.is_success() {
        return Err(failed(&format!("unexpected HTTP status {}", head.status.as_u16())));
    }
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| failed(&error))?;
    // An answer without a message has its status in the headers.
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    check_status(&trailers)?;
    let bytes = body.to_bytes();
    let answer = unframed(&bytes).ok_or_else(|| failed(&"the answer is no gRPC message"))?;
    let answer = HealthCheckResponse::decode(answer).map_err(|error| failed(&error))?;
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        other => Err(CheckError::GrpcUnhealthy(name(other))),
    }
}

/// What the server says of the call itself.
fn check_status(trailers: &HeaderMap) -> Result<(), CheckError> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => Ok(()),
        UNIMPLEMENTED => Err(CheckError::GrpcUnimplemented(text("grpc-message").to_owned())),
        code => Err(CheckError::GrpcCall(format!("rpc error: code = {code:?} desc = {}", text("grpc-message")))),
    }
}

/// As the protocol spells it.
fn name(status: ServingStatus) -> &'static str {
    match status {
        ServingStatus::Unknown => "UNKNOWN",
        ServingStatus::Serving => "SERVING",
        ServingStatus::NotServing => "NOT_SERVING",
        ServingStatus::ServiceUnknown => "SERVICE_UNKNOWN",
    }
}

/// A message as gRPC sends it: a byte for "not compressed", the length in four bytes, the message.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a service name is shorter than an API object"));
    message.encode(&mut frame).expect("the buffer grows");
    frame.freeze()
}

/// The one message of an answer; `None` where it is compressed or cut short.
fn unframed(frame: &[u8]) -> Option<&[u8]> {
    let (header, message) = frame.split_first_chunk::<5>()?;
    let [0, length @ ..] = header else { return None };
    message.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Response, routing::post};
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    /// What `grpc.health.v1` servers answer, by the name of the service asked for.
    async fn answer(body: Bytes) -> Response<Body> {
        let request = HealthCheckRequest::decode(unframed(&body).unwrap()).unwrap();
        let status = match request.service.as_str() {
            "" | "web" => ServingStatus::Serving,
            "db" => ServingStatus::NotServing,
            "unknown" => return Response::builder().header("grpc-status", "5").body(Body::empty()).unwrap(),
            _ => return Response::builder().header("grpc-status", UNIMPLEMENTED).body(Body::empty()).unwrap(),
        };
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let message = framed(&HealthCheckResponse { status: status.into() });
        let frames = [Ok::<_, std::convert::Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    }

    #[tokio::test]
    async fn a_server_is_healthy_where_it_says_that_the_service_serves() {
        let router = Router::new().route("/grpc.health.v1.Health/Check", post(answer));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = i32::from(listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let ask_at = |port: i32, service: Option<&str>| {
            let action = GRPCAction { port, service: service.map(str::to_owned) };
            async move { check(Ipv4Addr::LOCALHOST, &action).await }
        };
        let ask = |service| ask_at(port, service);
        assert_eq!(ask(None).await, Ok(()));
        assert_eq!(ask(Some("web")).await, Ok(()));
        assert_eq!(
            ask(Some("db")).await.unwrap_err().to_string(),
            "service unhealthy (responded with \"NOT_SERVING\")"
        );
        assert!(ask(Some("unknown")).await.unwrap_err().to_string().contains("code = \"5\""));
        assert!(
            ask(Some("other")).await.unwrap_err().to_string().contains("does not implement the grpc health protocol")
        );
        server.abort();

        // Bound, so that nobody else gets the port, and not listening.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = i32::from(closed.local_addr().unwrap().port());
        assert!(ask_at(port, None).await.unwrap_err().to_string().starts_with("error: failed to connect service at"));
        assert!(ask_at(70_000, None).await.unwrap_err().to_string().contains("invalid port"));
    }

    #[test]
    fn an_answer_that_is_cut_short_or_compressed_is_none() {
        assert_eq!(unframed(&[0, 0, 0, 0, 2, 8, 1]), Some(&[8, 1][..]));
        for bad in [&[0, 0, 0, 0][..], &[0, 0, 0, 0, 9, 8], &[1, 0, 0, 0, 0], &[0, 255, 255, 255, 255]] {
            assert_eq!(unframed(bad), None);
        }
    }
}
