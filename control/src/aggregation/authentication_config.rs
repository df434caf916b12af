//! The ConfigMap `kube-system/extension-apiserver-authentication`, from which extension API servers learn whose client
//! certificates they are to trust, and in which headers the front proxy says who asks. It is restored whenever somebody
//! changes it; what others add stays.
//!
//! Source: `cluster_authentication_trust_controller.go` of kube-apiserver.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kept_object::Repair;
use crate::{
    auth::{options::RequestHeaderOptions, pki::FRONT_PROXY_CLIENT, request_headers::FrontProxies},
    engine::{Failure, Outcome, WorkQueue, work},
    reflector::Reflector,
    store::{KEY_INDEX, Store},
};

const COLLECTION: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// The ConfigMap's key in the store, which is also its key in the queue.
const KEY: &str = "kube-system/extension-apiserver-authentication";
/// So often even if nobody changes it: certificates of others may have expired.
const RECHECK: Duration = Duration::from_secs(12 * 3600);

/// The certificates of the authorities, in PEM.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Signs for users and nodes.
    pub clients: String,
    /// Signs for the front proxy.
    pub front_proxy: String,
    /// Front proxies before this server, which flags name.
    pub others: Option<Arc<FrontProxies>>,
}

/// Keeps the ConfigMap, until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    client: Client,
    authorities: watch::Receiver<Authorities>,
    stop: CancellationToken,
) {
    let queue = Arc::new(WorkQueue::new("extension-apiserver-authentication"));
    let (of_work, mut changed) = (store.clone(), authorities.clone());
    let reconcile = move |_: &'static str| {
        let (store, client, authorities) = (of_work.clone(), client.clone(), authorities.clone());
        async move {
            let authorities = authorities.borrow().clone();
            keep(&*store, &client, &authorities).await
        }
    };
    let working = work("extension-apiserver-authentication", queue.clone(), 1, stop.clone(), reconcile);
    tokio::join!(working, follow(store, &queue, &mut changed, stop));
}

/// Enqueues the ConfigMap at first, and whenever it or the authorities change.
async fn follow(
    store: Arc<dyn Store>,
    queue: &WorkQueue<&'static str>,
    authorities: &mut watch::Receiver<Authorities>,
    stop: CancellationToken,
) {
    let mut reflector = Reflector::of_term(store, "configmaps", (KEY_INDEX, KEY));
    loop {
        tokio::select! {
            _ = reflector.next() => {}
            Ok(()) = authorities.changed() => {}
            () = stop.cancelled() => return,
        }
        queue.add(KEY);
    }
}

async fn keep(store: &dyn Store, client: &Client, authorities: &Authorities) -> Result<Outcome, Failure> {
    let snapshot = store.snapshot();
    let stored = snapshot.get("configmaps", KEY);
    let stored: Option<Value> = stored.and_then(|object| serde_json::from_slice(&object.json()).ok());
    if let Some(object) = wanted(stored.as_ref(), authorities) {
        let repair = if stored.is_some() { Repair::Replace(object) } else { Repair::Create(object) };
        repair.carry_out(client, COLLECTION, NAME).await?;
    }
    Ok(Outcome::After(RECHECK))
}

/// The ConfigMap as it must be; nothing if it is so.
fn wanted(stored: Option<&Value>, authorities: &Authorities) -> Option<Value> {
    let known = |key: &str| stored.and_then(|object| object["data"][key].as_str()).unwrap_or_default();
    let none = RequestHeaderOptions::default();
    let others = authorities.others.as_ref().map_or(&none, |others| others.options());
    let list = |key: &str, own: &str, others: &[String]| {
        let mut all: Vec<String> = serde_json::from_str(known(key)).unwrap_or_default();
        for one in std::iter::once(own).chain(others.iter().map(String::as_str)) {
            if !all.iter().any(|known| known == one) {
                all.push(one.to_owned());
            }
        }
        json!(all).to_string()
    };
    let front_proxy = match &authorities.others {
        None => authorities.front_proxy.clone(),
        Some(others) => format!("{}\n{}", authorities.front_proxy, others.authorities()),
    };
    let certificates = |key: &str, own: &str| both(known(key), own, Timestamp::now());
    let data = BTreeMap::from([
        ("client-ca-file", certificates("client-ca-file", &authorities.clients)),
        ("requestheader-allowed-names", list("requestheader-allowed-names", FRONT_PROXY_CLIENT, &others.allowed_names)),
        ("requestheader-client-ca-file", certificates("requestheader-client-ca-file", &front_proxy)),
        (
            "requestheader-extra-headers-prefix",
            list("requestheader-extra-headers-prefix", "X-Remote-Extra-", &others.extra_headers_prefix),
        ),
        ("requestheader-group-headers", list("requestheader-group-headers", "X-Remote-Group", &others.group_headers)),
        ("requestheader-uid-headers", list("requestheader-uid-headers", "X-Remote-Uid", &others.uid_headers)),
        (
            "requestheader-username-headers",
            list("requestheader-username-headers", "X-Remote-User", &others.username_headers),
        ),
    ]);
    let data = json!(data);
    match stored {
        None => Some(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": NAME, "namespace": NAMESPACE}})),
        Some(object) if object["data"] == data => None,
        Some(object) => {
            let mut object = object.clone();
            object["data"] = data;
            Some(object)
        }
    }
}

/// The certificates of two texts, each once, without those that have expired.
fn both(known: &str, own: &str, now: Timestamp) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let mut texts: Vec<String> = Vec::new();
    // What somebody spoiled is left out.
    let known = pem::parse_many(known).unwrap_or_default();
    for block in known.into_iter().chain(pem::parse_many(own).unwrap_or_default()) {
        let in_date = x509_parser::parse_x509_certificate(block.contents())
            .is_ok_and(|(_, certificate)| certificate.validity().not_after.timestamp() > now.as_second());
        let text = pem::encode_config(&block, lines);
        if in_date && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.concat()
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::auth::pki::Authority;

    fn authority() -> String {
        Authority::create(OffsetDateTime::now_utc()).unwrap().0.certificate_pem().to_owned()
    }

    #[test]
    fn it_says_whom_to_trust_and_keeps_what_others_added() {
        let authorities = Authorities { clients: authority(), front_proxy: authority(), others: None };
        let made = wanted(None, &authorities).unwrap();
        assert_eq!(made["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
        assert_eq!(made["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
        assert_eq!(made["data"]["client-ca-file"], authorities.clients.as_str());
        assert_eq!(made["data"]["requestheader-client-ca-file"], authorities.front_proxy.as_str());
        assert_eq!(wanted(Some(&made), &authorities), None);

        let others = authority();
        let mut changed = made.clone();
        changed["data"]["client-ca-file"] = format!("{others}garbage").into();
        changed["data"]["requestheader-allowed-names"] = "[\"other\"]".into();
        let repaired = wanted(Some(&changed), &authorities).unwrap();
        assert_eq!(repaired["data"]["client-ca-file"], format!("{others}{}", authorities.clients));
        assert_eq!(repaired["data"]["requestheader-allowed-names"], "[\"other\",\"front-proxy-client\"]");

        let after = Timestamp::now().as_second() + 11 * 365 * 24 * 3600;
        assert_eq!(both(&others, &authorities.clients, Timestamp::from_second(after).unwrap()), "");
    }
}
