//! A provider beside a key service played by the test.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fairlead_store::seal::UnsealError;
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::{
    protocol::{
        CallError, DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, EncryptedObject, Endpoint,
        StatusResponse, framed, unframed,
    },
    provider::{KmsProvider, Unhealthy},
};
use crate::interned::InternedKeys;

/// What the service says, and what it was asked.
struct Plugin {
    key_id: String,
    /// Of the encryption, where that is another one.
    encrypts_under: Option<String>,
    healthz: String,
    version: String,
    annotation: String,
    refuses: bool,
    calls: Vec<String>,
}

#[derive(Clone)]
struct Service {
    plugin: Arc<Mutex<Plugin>>,
    socket: Arc<tempfile::TempDir>,
}

impl Service {
    /// Serves at a socket, in a thread that ends with the process.
    fn start() -> Self {
        let plugin = Plugin {
            key_id: "one".into(),
            encrypts_under: None,
            healthz: "ok".into(),
            version: "v2".into(),
            annotation: "version.encryption.example".into(),
            refuses: false,
            calls: Vec::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let service = Self { plugin: Arc::new(Mutex::new(plugin)), socket: Arc::new(dir) };
        let (served, path) = (service.plugin.clone(), service.path());
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || serve(&served, &path, &ready));
        is_ready.recv().unwrap();
        service
    }

    fn path(&self) -> std::path::PathBuf {
        self.socket.path().join("kms.sock")
    }

    fn provider(&self, interned: &Arc<InternedKeys>) -> Arc<KmsProvider> {
        let endpoint = Endpoint::parse(&format!("unix://{}", self.path().display()), Duration::from_secs(10));
        KmsProvider::start("test", endpoint, interned.clone())
    }

    fn set(&self, change: impl FnOnce(&mut Plugin)) {
        change(&mut self.plugin.lock().unwrap());
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.plugin.lock().unwrap().calls)
    }
}

fn serve(plugin: &Arc<Mutex<Plugin>>, path: &Path, ready: &std::sync::mpsc::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        ready.send(()).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let plugin = plugin.clone();
            let answering = service_fn(move |request: Request<Incoming>| answer(plugin.clone(), request));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), answering));
        }
    });
}

type Body = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(plugin: Arc<Mutex<Plugin>>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let bytes = request.into_body().collect().await?.to_bytes();
    let question = unframed(&bytes).unwrap();
    let mut plugin = plugin.lock().unwrap();
    plugin.calls.push(method.clone());
    let message = match method.as_str() {
        _ if plugin.refuses => None,
        "Status" => {
            let (version, healthz, key_id) = (plugin.version.clone(), plugin.healthz.clone(), plugin.key_id.clone());
            Some(framed(&StatusResponse { version, healthz, key_id }))
        }
        "Encrypt" => {
            let question = EncryptRequest::decode(question).unwrap();
            let ciphertext = question.plaintext.iter().map(|byte| byte ^ 0x5a).collect();
            let key_id = plugin.encrypts_under.clone().unwrap_or_else(|| plugin.key_id.clone());
            let annotations = BTreeMap::from([(plugin.annotation.clone(), b"1".to_vec())]);
            Some(framed(&EncryptResponse { ciphertext, key_id, annotations }))
        }
        _ => {
            let question = DecryptRequest::decode(question).unwrap();
            assert_eq!(question.annotations.len(), 1, "what came with the seed goes back with it");
            let plaintext = question.ciphertext.iter().map(|byte| byte ^ 0x5a).collect();
            Some(framed(&DecryptResponse { plaintext }))
        }
    };
    let status = if message.is_some() { "0" } else { "14" };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
    let frames: Vec<_> =
        message.map(Frame::data).into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, Infallible>).collect();
    let mut response = Response::new(StreamBody::new(stream::iter(frames)));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    Ok(response)
}

#[test]
fn a_seed_seals_and_another_process_asks_once_to_open() {
    let (service, interned) = (Service::start(), Arc::default());
    let provider = service.provider(&interned);
    assert_eq!(provider.health(), Ok(()));
    assert_eq!(service.calls(), ["Status", "Encrypt"]);
    let sealed = [b"one", b"two"].map(|value| provider.seal(b"here", value).unwrap());
    assert_eq!((&*sealed[0].label, sealed[0].key), ("kms:v2:test", provider.key()));
    assert_eq!(provider.open(b"here", &sealed[0].body).unwrap().value, b"one");
    assert!(service.calls().is_empty(), "nobody is asked");

    let other = service.provider(&interned);
    assert_eq!(other.key(), provider.key(), "another seed of the same key is not stale");
    service.calls();
    for (sealed, value) in sealed.iter().zip([b"one", b"two"]) {
        let opened = other.open(b"here", &sealed.body).unwrap();
        assert_eq!((opened.value.as_slice(), opened.key), (&value[..], other.key()));
    }
    assert_eq!(service.calls(), ["Decrypt"]);
    let moved = other.open(b"there", &sealed[0].body).err();
    assert!(matches!(moved, Some(UnsealError::DoesNotOpen { .. })));
    assert!(matches!(other.open(b"here", b"\xff"), Err(UnsealError::Malformed)));
}

#[test]
fn what_a_value_says_of_its_seed_cannot_be_exchanged() {
    let service = Service::start();
    let provider = service.provider(&Arc::default());
    let sealed = provider.seal(b"here", b"value").unwrap();
    let mut object = EncryptedObject::decode(&*sealed.body).unwrap();
    // The service of this test decrypts the seed whatever the key id is, as many do.
    object.key_id = "two".into();
    let exchanged = provider.open(b"here", &object.encode_to_vec()).err();
    assert!(matches!(exchanged, Some(UnsealError::DoesNotOpen { .. })));
}

#[test]
fn another_key_makes_another_seed_and_what_is_stored_stale() {
    let service = Service::start();
    let provider = service.provider(&Arc::default());
    let (first, sealed) = (provider.key(), provider.seal(b"here", b"value").unwrap());
    provider.probe();
    assert_eq!((provider.key(), service.calls().len()), (first, 3), "the same key keeps its seed");
    // For a moment, the two calls name different keys: the seed stays.
    service.set(|plugin| (plugin.key_id, plugin.encrypts_under) = ("two".into(), Some("one".into())));
    provider.probe();
    assert_eq!(provider.health(), Err(("test".to_owned(), Unhealthy::KeyIds)));
    assert_eq!(provider.key(), first);
    assert!(provider.seal(b"here", b"value").is_ok());
    service.set(|plugin| plugin.encrypts_under = None);
    provider.probe();
    assert_eq!(provider.health(), Ok(()));
    assert_ne!(provider.key(), first);
    let opened = provider.open(b"here", &sealed.body).unwrap();
    assert_eq!((opened.value.as_slice(), opened.key), (&b"value"[..], first));
}

#[test]
fn a_service_that_breaks_the_rules_is_not_used() {
    let service = Service::start();
    type Break = fn(&mut Plugin);
    for (change, error) in [
        ((|plugin| plugin.healthz = "sick".into()) as Break, "got unexpected healthz status: sick"),
        (|plugin| plugin.version = "v1".into(), "expected KMSv2 API version v2, got v1"),
        (|plugin| plugin.key_id = String::new(), "keyID is empty"),
        (|plugin| plugin.key_id = "x".repeat(1025), "keyID is longer than 1 kB"),
        (|plugin| plugin.annotation = "Not.a.name".into(), "an annotation's name is no fully qualified domain name"),
        (|plugin| plugin.refuses = true, "rpc error: code = 14 desc = "),
    ] {
        service.set(|plugin| {
            plugin.refuses = false;
            (plugin.key_id, plugin.healthz, plugin.version) = ("one".into(), "ok".into(), "v2".into());
            plugin.annotation = "a.example".into();
            change(plugin);
        });
        let provider = service.provider(&Arc::default());
        let (_, health) = provider.health().unwrap_err();
        assert_eq!(health.to_string(), error);
        assert_eq!(provider.seal(b"here", b"value").unwrap_err().to_string(), error, "its writes are refused");
    }
}

#[test]
fn a_service_that_is_away_is_not_asked_again_for_each_value() {
    let (service, interned) = (Service::start(), Arc::default());
    let provider = service.provider(&interned);
    let sealed = provider.seal(b"here", b"value").unwrap();
    let nowhere = Endpoint::parse("unix:///nonexistent/kms.sock", Duration::from_secs(10));
    let away = KmsProvider::start("test", nowhere, interned);
    assert!(matches!(away.health(), Err((_, Unhealthy::Call(CallError::Connect(_))))));
    for _ in 0..3 {
        let error = away.open(b"here", &sealed.body).err();
        assert!(matches!(error, Some(UnsealError::Service { .. })), "{error:?}");
    }
}

#[test]
fn a_seed_that_is_refused_is_not_asked_for_again_at_once_and_others_are() {
    let (service, interned) = (Service::start(), Arc::default());
    let sealed = [(); 2].map(|()| service.provider(&interned).seal(b"here", b"value").unwrap());
    let provider = service.provider(&interned);
    service.calls();
    service.set(|plugin| plugin.refuses = true);
    for _ in 0..3 {
        assert!(matches!(provider.open(b"here", &sealed[0].body), Err(UnsealError::Service { .. })));
    }
    assert_eq!(service.calls(), ["Decrypt"]);
    service.set(|plugin| plugin.refuses = false);
    assert!(provider.open(b"here", &sealed[1].body).is_ok());
}

#[test]
fn endpoints_are_paths_or_abstract_names() {
    let socket = |url| Endpoint::parse(url, Duration::ZERO).socket;
    assert_eq!(socket("unix:///run/kms.sock"), "/run/kms.sock");
    assert_eq!(socket("unix:///@kms.sock"), "@kms.sock");
}
