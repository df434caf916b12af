//! The ConfigMap `kube-system/extension-apiserver-authentication`, from which extension API servers learn whose client
//! certificates they are to trust, and in which headers the front proxy says who asks. It is restored whenever somebody
//! changes it; what others add stays.
//!
//! Source: `cluster_authentication_trust_controller.go` of kube-apiserver.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{Request, header};
use jiff::Timestamp;
use kube::Client;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::pki::FRONT_PROXY_CLIENT,
    engine::api_code,
    store::{NAME_INDEX, Store},
};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const RETRY: Duration = Duration::from_secs(1);
/// So often even if nobody changes it: certificates of others may have expired.
const RECHECK: Duration = Duration::from_secs(12 * 3600);

/// The certificates of the authorities, in PEM.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Signs for users and nodes.
    pub clients: String,
    /// Signs for the front proxy.
    pub front_proxy: String,
}

/// Keeps the ConfigMap, until `stop`.
pub async fn run(store: Arc<dyn Store>, client: Client, authorities: Authorities, stop: CancellationToken) {
    loop {
        let snapshot = store.snapshot();
        let watch = store.watch_by("configmaps", (NAME_INDEX, NAME), snapshot.revision);
        let stored = snapshot.get("configmaps", &format!("{NAMESPACE}/{NAME}"));
        let stored: Option<Value> = stored.and_then(|object| serde_json::from_slice(object.json()).ok());
        let failed = match wanted(stored.as_ref(), &authorities) {
            Some(object) => write(&client, stored.is_some(), object).await,
            None => false,
        };
        let next = async {
            match watch {
                Ok(mut watch) if !failed => drop(tokio::time::timeout(RECHECK, watch.next()).await),
                _ => tokio::time::sleep(RETRY).await,
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}

/// Answers whether it is to be tried again.
async fn write(client: &Client, exists: bool, object: Value) -> bool {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let request = if exists { Request::put(format!("{path}/{NAME}")) } else { Request::post(path) };
    let request = request.header(header::CONTENT_TYPE, "application/json").body(object.to_string().into_bytes());
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot make a request");
            return false;
        }
    };
    match client.request::<IgnoredAny>(request).await {
        Ok(_) => false,
        Err(error) if api_code(&error) == Some(409) => false,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the ConfigMap {NAME} could not be written");
            true
        }
    }
}

/// The ConfigMap as it must be; nothing if it is so.
fn wanted(stored: Option<&Value>, authorities: &Authorities) -> Option<Value> {
    let known = |key: &str| stored.and_then(|object| object["data"][key].as_str()).unwrap_or_default();
    let list = |key: &str, own: &str| {
        let mut all: Vec<String> = serde_json::from_str(known(key)).unwrap_or_default();
        if !all.iter().any(|one| one == own) {
            all.push(own.to_owned());
        }
        json!(all).to_string()
    };
    let certificates = |key: &str, own: &str| both(known(key), own, Timestamp::now());
    let data = BTreeMap::from([
        ("client-ca-file", certificates("client-ca-file", &authorities.clients)),
        ("requestheader-allowed-names", list("requestheader-allowed-names", FRONT_PROXY_CLIENT)),
        ("requestheader-client-ca-file", certificates("requestheader-client-ca-file", &authorities.front_proxy)),
        ("requestheader-extra-headers-prefix", list("requestheader-extra-headers-prefix", "X-Remote-Extra-")),
        ("requestheader-group-headers", list("requestheader-group-headers", "X-Remote-Group")),
        ("requestheader-uid-headers", list("requestheader-uid-headers", "X-Remote-Uid")),
        ("requestheader-username-headers", list("requestheader-username-headers", "X-Remote-User")),
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
        let authorities = Authorities { clients: authority(), front_proxy: authority() };
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
