//! A client's request to switch protocols, passed on to an agent: from the agent's answer 101 on, bytes go through as
//! they come.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, Request, header};

use super::{
    agent::{AgentAddress, Agents},
    refused,
};
use crate::{auth::stream_limit::CountedStream, proxy_headers, status::Status, upgrade::PassedOn};

/// What says how the stream is to be spoken, and nothing of who the client is.
const PASSED_ON: [HeaderName; 5] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-stream-protocol-version"),
    header::USER_AGENT,
];

const REQUIRED: &str = "Upgrade request required";

/// Asks the agent for `path` in the client's protocol. What the agent refuses, the client gets as it is. `counted` is
/// dropped when the stream has ended.
pub async fn pass_on(
    agents: &Agents,
    to: &AgentAddress,
    path: &str,
    request: Request<Body>,
    counted: CountedStream,
) -> Result<Response, Status> {
    let (mut parts, _) = request.into_parts();
    let passed = PassedOn::take(&mut parts).map_err(|_| Status::bad_request(REQUIRED))?;
    let protocol = passed.protocol.clone().ok_or_else(|| Status::bad_request(REQUIRED))?;
    proxy_headers::drop_credentials(&mut parts.headers);
    let mut asked = Request::builder()
        .method(parts.method)
        .uri(path)
        .body(Body::empty())
        .map_err(|error| Status::bad_request(format!("the request cannot be passed on: {error}")))?;
    *asked.headers_mut() = passed_on(&parts.headers);
    asked.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
    asked.headers_mut().insert(header::UPGRADE, protocol);
    let answer = agents.exchange(to, asked).await.map_err(refused)?;
    passed.answer(answer, counted).map_err(|error| Status::internal(error.to_string()))
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| PASSED_ON.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_the_client_is_stays_here() {
        let lines = [
            ("authorization", "Bearer secret"),
            ("cookie", "a=b"),
            ("impersonate-user", "joe"),
            ("x-remote-user", "joe"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v4.channel.k8s.io"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        proxy_headers::drop_credentials(&mut headers);
        let kept = passed_on(&headers);
        let mut kept: Vec<_> =
            kept.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        kept.sort();
        assert_eq!(
            kept,
            [
                "sec-websocket-protocol: v4.channel.k8s.io",
                "x-stream-protocol-version: v3.channel.k8s.io",
                "x-stream-protocol-version: v4.channel.k8s.io",
            ]
        );
    }
}
