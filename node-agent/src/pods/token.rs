//! Tokens of the ServiceAccounts of this node's pods, for their volumes: each is asked for in the name of its pod, and
//! renewed long before it ends. While the API is away, as last given.
//!
//! Source: the kubelet's `pkg/kubelet/token`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    kept::{API_ANSWERS_WITHIN, Kept},
    objects::{Known, ObjectKey, ObjectKind, Payload, ReadError},
    spec,
};

/// How long a token is good where the volume does not say.
const DEFAULT_SECONDS: i64 = 3600;
/// No token is used for longer, however long it is good.
const LONGEST_SECONDS: i64 = 24 * 3600;
/// Tokens that were given at the same time are renewed up to so much earlier, each at another moment.
const JITTER_SECONDS: i64 = 10;
/// How long the API may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Until the next try after a failure: twice as long each time, up to [`LONGEST_RETRY`].
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// How often the clock is looked at while a token is good: it may be set, and a timer stands still in a suspended host.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The key of the token in a [`Payload`].
pub const TOKEN: &str = "token";
/// When it is to be renewed: Unix seconds.
const RENEWAL: &str = "renewal";
/// When it ends: Unix seconds.
const END: &str = "end";

/// What is asked of the API for one volume source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    account: String,
    pod: String,
    uid: String,
    /// Empty for the API itself.
    audience: String,
    seconds: i64,
}

/// By what the token is known that a volume of `pod` has from `source`.
pub fn key(pod: &Pod, source: &ServiceAccountTokenProjection) -> ObjectKey {
    let of = spec::pod_ref(pod);
    let asked = Asked {
        account: pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        pod: of.name,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        audience: source.audience.clone().unwrap_or_default(),
        seconds: source.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
    };
    // Whatever differs makes another token.
    ObjectKey { kind: ObjectKind::Token, namespace: of.namespace, name: json!(asked).to_string() }
}

/// A key as messages show it.
pub fn show(key: &ObjectKey, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let asked: Option<Asked> = serde_json::from_str(&key.name).ok();
    let account = asked.map(|asked| asked.account).unwrap_or_default();
    write!(f, "token of serviceaccount {account:?}")
}

/// Keeps `known` at a token that is good, until dropped.
pub async fn follow(client: Client, kept: Kept, key: ObjectKey, known: watch::Sender<Known>) {
    let publish = |now: Known| {
        known.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    };
    let Ok(asked) = serde_json::from_str::<Asked>(&key.name) else {
        return publish(Known::Unreadable(ReadError::Unreadable { key, cause: "it is not known whose it is".into() }));
    };
    let mut retry = RETRY;
    loop {
        let held = kept.object(&key).flatten();
        let wait = held.as_deref().and_then(|token| until_renewal(token, Timestamp::now()));
        if let (Some(held), Some(wait)) = (&held, wait) {
            publish(Known::Present(held.clone()));
            tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
            if wait > LOOK_AGAIN {
                continue;
            }
        }
        let limit = if held.is_some() { API_ANSWERS_WITHIN } else { ANSWER_LIMIT };
        let answer = tokio::time::timeout(limit, request(&client, &key.namespace, &asked)).await;
        match answer.unwrap_or_else(|_| Err(Refusal { cause: "the API did not answer".into(), is_away: true })) {
            Ok(token) => {
                let token = Arc::new(token);
                kept.insert_object(&key, Some(token.clone()));
                publish(Known::Present(token.clone()));
                if until_renewal(&token, Timestamp::now()).is_some() {
                    retry = RETRY;
                    continue;
                }
                // It is to be renewed as soon as it was given: not faster than after a failure.
            }
            Err(refusal) => match held {
                // It may be good for longer; and a pod that is started again without the API has nothing else.
                Some(held) if refusal.is_away || is_good(&held) => publish(Known::Present(held)),
                _ => {
                    let cause = format!("failed to fetch token: {}", refusal.cause);
                    publish(Known::Unreadable(ReadError::Unreadable { key: key.clone(), cause }));
                }
            },
        }
        tokio::time::sleep(retry).await;
        retry = retry.saturating_mul(2).min(LONGEST_RETRY);
    }
}

/// Why there is no token.
struct Refusal {
    cause: String,
    /// Whether the API did not answer, or only that it is not able to.
    is_away: bool,
}

async fn request(client: &Client, namespace: &str, asked: &Asked) -> Result<Payload, Refusal> {
    let Asked { account, pod, uid, audience, seconds } = asked;
    let audiences: Vec<&str> = Some(audience.as_str()).filter(|audience| !audience.is_empty()).into_iter().collect();
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
        "audiences": audiences, "expirationSeconds": seconds,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}});
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|error| Refusal { cause: error.to_string(), is_away: false })?;
    let answer = client.request::<Value>(request).await.map_err(|error| Refusal {
        is_away: match &error {
            kube::Error::Api(status) => status.code >= 500 || status.code == 429,
            _ => true,
        },
        cause: error.to_string(),
    })?;
    let jitter = rand::random_range(0..=JITTER_SECONDS);
    read(&answer, Timestamp::now(), jitter)
        .ok_or_else(|| Refusal { cause: "the answer has no token".into(), is_away: false })
}

/// The token of an answer that came at `now`, with the moment at which it is to be renewed: when a fifth of its life is
/// left, or after a day, and `jitter` seconds before that. By this node's clock, which may not be the API's.
fn read(answer: &Value, now: Timestamp, jitter: i64) -> Option<Payload> {
    let token = answer["status"]["token"].as_str()?;
    let life = answer["spec"]["expirationSeconds"].as_i64()?;
    let begin = now.as_second();
    let end = begin.saturating_add(life);
    let four_fifths = end.saturating_sub(life / 5);
    let renewal = four_fifths.min(begin.saturating_add(LONGEST_SECONDS)).saturating_sub(jitter);
    let texts = [(TOKEN, token.to_owned()), (RENEWAL, renewal.to_string()), (END, end.to_string())];
    let data: BTreeMap<String, Vec<u8>> =
        texts.into_iter().map(|(key, text)| (key.to_owned(), text.into_bytes())).collect();
    Some(Payload { data, type_: String::new() })
}

fn seconds(token: &Payload, key: &str) -> Option<i64> {
    std::str::from_utf8(token.data.get(key)?).ok()?.parse().ok()
}

/// How long a token needs no renewal; `None` if it needs one now.
fn until_renewal(token: &Payload, now: Timestamp) -> Option<Duration> {
    let seconds = seconds(token, RENEWAL)?.saturating_sub(now.as_second());
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn is_good(token: &Payload) -> bool {
    seconds(token, END).is_some_and(|end| end > Timestamp::now().as_second())
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn answer(life: i64) -> Value {
        json!({"spec": {"expirationSeconds": life}, "status": {"token": "t",
            "expirationTimestamp": Timestamp::from_second(1_000_000 + life).unwrap().to_string()}})
    }

    #[test]
    fn a_token_is_renewed_when_a_fifth_of_its_life_is_left_or_after_a_day() {
        for (life, jitter, renewal) in [(3607, 0, 2886), (3607, 10, 2876), (600, 0, 480), (1_000_000, 0, 86_400)] {
            let token = read(&answer(life), Timestamp::from_second(1_000_000).unwrap(), jitter).unwrap();
            assert_eq!(token.data[TOKEN], b"t");
            let left = |now: i64| until_renewal(&token, Timestamp::from_second(1_000_000 + now).unwrap());
            assert_eq!(left(0), Some(Duration::from_secs(renewal)), "{life}");
            assert_eq!(left(i64::try_from(renewal).unwrap()), None, "{life}");
        }
        assert_eq!(read(&json!({"status": {}}), Timestamp::now(), 0), None);
    }

    #[test]
    fn whatever_a_volume_asks_for_makes_a_token_of_its_own() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"serviceAccountName": "robot", "containers": []}}))
        .unwrap();
        let source = |audience: Option<&str>, seconds: Option<i64>| ServiceAccountTokenProjection {
            audience: audience.map(str::to_owned),
            expiration_seconds: seconds,
            path: "token".into(),
        };
        let plain = key(&pod, &source(None, None));
        assert_eq!(plain, key(&pod, &source(Some(""), Some(3600))));
        assert_ne!(plain, key(&pod, &source(Some("vault"), None)));
        assert_ne!(plain, key(&pod, &source(None, Some(3607))));
        assert_eq!(plain.to_string(), "token of serviceaccount \"robot\"");
    }

    fn pod_key() -> ObjectKey {
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"serviceAccountName": "robot", "containers": []}});
        key(&serde_json::from_value(pod).unwrap(), &ServiceAccountTokenProjection::default())
    }

    /// A client whose API answers with what `respond` makes of the number of the request.
    fn client(respond: impl Fn(usize) -> (u16, Value) + Send + Sync + 'static) -> (Client, Arc<Mutex<Vec<Value>>>) {
        let (asked, respond) = (Arc::new(Mutex::new(Vec::new())), Arc::new(respond));
        let seen = asked.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (seen, respond) = (seen.clone(), respond.clone());
            async move {
                assert_eq!(request.uri().path(), "/api/v1/namespaces/a/serviceaccounts/robot/token");
                let body = request.into_body().collect_bytes().await.unwrap();
                let count = {
                    let mut seen = seen.lock();
                    seen.push(serde_json::from_slice(&body).unwrap());
                    seen.len()
                };
                let (code, answer) = respond(count);
                let answer = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(answer).unwrap())
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn issued(token: &str, seconds_left: i64) -> (u16, Value) {
        let end = Timestamp::from_second(Timestamp::now().as_second() + seconds_left).unwrap();
        let status = json!({"token": token, "expirationTimestamp": end.to_string()});
        (201, json!({"spec": {"expirationSeconds": seconds_left}, "status": status}))
    }

    async fn until(known: &mut watch::Receiver<Known>, is: impl Fn(&Known) -> bool) -> Known {
        let found = tokio::time::timeout(Duration::from_secs(20), known.wait_for(|known| is(known))).await;
        found.expect("in time").expect("it is followed").clone()
    }

    fn is_token(known: &Known, token: &str) -> bool {
        matches!(known, Known::Present(payload) if payload.data[TOKEN] == token.as_bytes())
    }

    #[tokio::test]
    async fn a_token_is_asked_for_its_pod_and_renewed_in_time() {
        // The first ends soon.
        let (client, asked) = client(|count| if count == 1 { issued("t1", 5) } else { issued("t2", 3600) });
        let (kept, (sender, mut known)) = (Kept::new(None, "n"), watch::channel(Known::Unread));
        let task = tokio::spawn(follow(client.clone(), kept.clone(), pod_key(), sender));
        until(&mut known, |known| is_token(known, "t2")).await;
        task.abort();
        let spec = json!({"audiences": [], "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}});
        assert_eq!(asked.lock()[0]["spec"], spec);
        // Who needs it next gets the same.
        let (sender, mut known) = watch::channel(Known::Unread);
        let task = tokio::spawn(follow(client, kept, pod_key(), sender));
        until(&mut known, |known| is_token(known, "t2")).await;
        task.abort();
        assert_eq!(asked.lock().len(), 2);
    }

    #[tokio::test]
    async fn tokens_that_are_always_over_are_not_asked_for_without_a_pause() {
        let (client, asked) = client(|_| issued("over", 0));
        let (sender, _known) = watch::channel(Known::Unread);
        let following = follow(client, Kept::new(None, "n"), pod_key(), sender);
        assert!(tokio::time::timeout(Duration::from_secs(2), following).await.is_err());
        // At once, and after a half, one and a half and three and a half seconds.
        let count = asked.lock().len();
        assert!((1..=3).contains(&count), "asked {count} times in two seconds");
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_an_absence_is_not() {
        let (refusing, _) = client(|_| (403, json!({"kind": "Status", "code": 403, "message": "no", "reason": "x"})));
        let kept = Kept::new(None, "n");
        let (sender, mut known) = watch::channel(Known::Unread);
        let task = tokio::spawn(follow(refusing.clone(), kept.clone(), pod_key(), sender));
        let told = until(&mut known, |known| matches!(known, Known::Unreadable(_))).await;
        task.abort();
        let Known::Unreadable(error) = told else { panic!("{told:?}") };
        assert!(error.to_string().starts_with("token of serviceaccount \"robot\": failed to fetch token: "), "{error}");

        let over = read(&issued("old", -10).1, Timestamp::now(), 0).unwrap();
        kept.insert_object(&pod_key(), Some(Arc::new(over)));
        let (sender, mut known) = watch::channel(Known::Unread);
        let task = tokio::spawn(follow(refusing, kept.clone(), pod_key(), sender));
        until(&mut known, |known| matches!(known, Known::Unreadable(_))).await;
        task.abort();
        let (away, _) = client(|_| (503, json!({"kind": "Status", "code": 503, "message": "x", "reason": "x"})));
        let (sender, mut known) = watch::channel(Known::Unread);
        let task = tokio::spawn(follow(away, kept, pod_key(), sender));
        until(&mut known, |known| is_token(known, "old")).await;
        task.abort();
    }
}
