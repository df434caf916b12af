//! `v2.KeyManagementService`: its messages, and calls over gRPC without TLS to a Unix socket.

use std::{
    collections::BTreeMap,
    io,
    os::{linux::net::SocketAddrExt, unix::net},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;

/// `v2.StatusRequest`
#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {}

/// `v2.StatusResponse`
#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub healthz: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
}

/// `v2.EncryptRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
}

/// `v2.EncryptResponse`
#[derive(Clone, PartialEq, Message)]
pub struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// `v2.DecryptRequest`
#[derive(Clone, PartialEq, Message)]
pub struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// `v2.DecryptResponse`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

/// Kubernetes' `EncryptedObject`: what a value says of its seed, and the sealed value.
#[derive(Clone, PartialEq, Message)]
pub struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    pub encrypted_data: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub encrypted_seed: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answers at the socket.
    #[error("cannot connect to the key service: {0}")]
    Connect(String),
    /// The connection ended.
    #[error("the call of the key service failed: {0}")]
    Transport(String),
    /// The service refused.
    #[error("rpc error: code = {code} desc = {message}")]
    Refused {
        /// gRPC's.
        code: String,
        /// The service's.
        message: String,
    },
    /// What came is no message of the protocol.
    #[error("the answer of the key service cannot be read")]
    Malformed,
    /// No answer in time.
    #[error("the key service did not answer within {0:?}")]
    Late(Duration),
    /// This host has no threads left.
    #[error("the call could not be made")]
    NotMade,
}

/// Of an answer; seeds and key ids have a kilobyte at the most, annotations 32.
const LONGEST_ANSWER: usize = 128 << 10;

/// Where a service is, and how long a call of it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `/run/kms.sock`, or `@name` in the abstract name space.
    pub socket: String,
    pub timeout: Duration,
}

impl Endpoint {
    /// Of `unix:///run/kms.sock` or `unix:///@name`.
    pub fn parse(url: &str, timeout: Duration) -> Self {
        let path = url.strip_prefix("unix:").unwrap_or(url);
        let path = path.strip_prefix("//").unwrap_or(path);
        let socket = path.strip_prefix('/').filter(|path| path.starts_with('@')).unwrap_or(path);
        Self { socket: socket.to_owned(), timeout }
    }

    /// Makes a call and waits for its answer, in a thread of its own: callers may be in an asynchronous task or not.
    pub fn call<Q, A>(&self, method: &'static str, question: &Q) -> Result<A, CallError>
    where
        Q: Message,
        A: Message + Default + 'static,
    {
        let (endpoint, frame) = (self.clone(), framed(question));
        let call = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|_| CallError::NotMade)?;
            let timeout = endpoint.timeout;
            let answered =
                runtime.block_on(async { tokio::time::timeout(timeout, call(&endpoint.socket, method, frame)).await });
            answered.unwrap_or(Err(CallError::Late(timeout)))
        };
        let thread = std::thread::Builder::new().name("kms-call".into()).spawn(call).map_err(|_| CallError::NotMade)?;
        thread.join().unwrap_or(Err(CallError::NotMade))
    }
}

async fn call<A: Message + Default>(socket: &str, method: &str, frame: Bytes) -> Result<A, CallError> {
    let failed = |error: &dyn std::fmt::Display| CallError::Transport(error.to_string());
    let stream = connect(socket).await.map_err(|error| CallError::Connect(error.to_string()))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| failed(&error))?;
    // Ends with the runtime of this one call.
    drop(tokio::spawn(connection));
    let request = Request::post(format!("http://localhost/v2.KeyManagementService/{method}"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(frame))
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
    unframed(&bytes).and_then(|answer| A::decode(answer).ok()).ok_or(CallError::Malformed)
}

async fn connect(socket: &str) -> io::Result<UnixStream> {
    let Some(name) = socket.strip_prefix('@') else { return UnixStream::connect(socket).await };
    let stream = net::UnixStream::connect_addr(&net::SocketAddr::from_abstract_name(name)?)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn check_status(trailers: &HeaderMap) -> Result<(), CallError> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    match text("grpc-status") {
        code if code == "0" => Ok(()),
        code => Err(CallError::Refused { code, message: text("grpc-message") }),
    }
}

/// A message as gRPC sends it: a byte for "not compressed", the length in four bytes, the message.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(length.saturating_add(5));
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a seed and its annotations are short"));
    message.encode(&mut frame).expect("the buffer grows");
    frame.freeze()
}

/// The one message of an answer; `None` where it is compressed or cut short.
pub fn unframed(frame: &[u8]) -> Option<&[u8]> {
    let (header, message) = frame.split_first_chunk::<5>()?;
    let [0, length @ ..] = header else { return None };
    message.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}
