//! Asks extension API servers for what they serve: discovery in the aggregated form, or, of servers that do not have
//! it, version by version; and their OpenAPI documents.
//!
//! Source: `handler_discovery.go`, `openapi/aggregator/downloader.go` and `openapiv3/aggregator` of kube-aggregator.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::{
    Aggregator,
    availability::aggregator,
    backend::Backend,
    forward::ForwardError,
    openapi,
    published::{RemoteResources, RemoteSpec, Version3},
};
use crate::{document::Document, identity::Identity, proxy_headers, request::accept, webhook};

/// How often a server is asked.
pub const REFRESH: Duration = Duration::from_secs(60);
/// What one answer may take.
const LONGEST_DISCOVERY: Duration = Duration::from_secs(5);
const LONGEST_SPEC: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const MAX_ANSWER: usize = 32 << 20;
const ACCEPT_AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                                 application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// What is known of one backend.
#[derive(Clone, Default)]
pub struct Documents {
    /// What it serves.
    pub found: Option<RemoteResources>,
    /// Its OpenAPI documents.
    pub spec: Option<RemoteSpec>,
    /// `ETag` of the Swagger document.
    etag: Option<String>,
}

/// An answer that was read whole.
struct Fetched {
    code: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Documents {
    /// Asks for everything again. `known` is what was known before.
    pub(super) async fn fetch(aggregator: &Aggregator, backend: &Backend, known: Self) -> Self {
        let found = Some(match discover(aggregator, backend).await {
            Ok(resources) => RemoteResources { resources: Arc::new(resources), current: true },
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::info!(name = backend.name, error, "the discovery of an extension server is stale");
                RemoteResources { resources: Arc::default(), current: false }
            }
        });
        if !backend.available {
            // What it said of itself before still holds.
            return Self { found, ..known };
        }
        let (spec, etag) = specs(aggregator, backend, known).await;
        Self { found, spec, etag }
    }
}

/// Why it is not known what a server has.
#[derive(Debug, thiserror::Error)]
enum DiscoveryError {
    /// It was not reached, or its answer did not come whole.
    #[error("cannot ask for {path}")]
    Fetch { path: String, source: ForwardError },
    /// It answered with another status than 200.
    #[error("the answer to {path} has the status {}", code.as_u16())]
    Refused { path: String, code: StatusCode },
    /// Its answer is not JSON.
    #[error("cannot read the answer to {path}")]
    Malformed { path: String, source: serde_json::Error },
}

/// The resources of the backend's version, each an `APIResourceDiscovery`.
async fn discover(aggregator: &Aggregator, backend: &Backend) -> Result<Vec<Value>, DiscoveryError> {
    let path = "/apis".to_owned();
    let fetched = match get(aggregator, backend, &path, ACCEPT_AGGREGATED, None, LONGEST_DISCOVERY).await {
        Ok(fetched) => fetched,
        Err(source) => return Err(DiscoveryError::Fetch { path, source }),
    };
    if fetched.code == StatusCode::SERVICE_UNAVAILABLE {
        return Err(DiscoveryError::Refused { path, code: fetched.code });
    }
    let content_type = fetched.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if fetched.code == StatusCode::OK && content_type.is_some_and(is_aggregated) {
        let read = serde_json::from_slice(&fetched.body);
        let list: Value = read.map_err(|source| DiscoveryError::Malformed { path, source })?;
        let mut groups = list["items"].as_array().into_iter().flatten();
        let group = groups.find(|group| group["metadata"]["name"] == backend.group.as_str());
        let mut versions = group.into_iter().flat_map(|group| group["versions"].as_array().into_iter().flatten());
        let version = versions.find(|version| version["version"] == backend.version.as_str());
        return Ok(version.and_then(|version| version["resources"].as_array()).cloned().unwrap_or_default());
    }
    let path = format!("/{}", backend.root());
    let fetched = match get(aggregator, backend, &path, "application/json", None, LONGEST_DISCOVERY).await {
        Ok(fetched) => fetched,
        Err(source) => return Err(DiscoveryError::Fetch { path, source }),
    };
    if fetched.code != StatusCode::OK {
        return Err(DiscoveryError::Refused { path, code: fetched.code });
    }
    let read = serde_json::from_slice(&fetched.body);
    let list: Value = read.map_err(|source| DiscoveryError::Malformed { path, source })?;
    Ok(from_plain(&list, &backend.group, &backend.version))
}

fn is_aggregated(content_type: &str) -> bool {
    accept::clauses(content_type).first().is_some_and(|clause| {
        clause.parameter("g") == Some("apidiscovery.k8s.io") && clause.parameter("as") == Some("APIGroupDiscoveryList")
    })
}

/// The resources of an `APIResourceList` of a version in the aggregated form. Source:
/// `ConvertGroupVersionIntoToDiscovery`.
fn from_plain(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<Value> = Vec::new();
    // The list may be long: parents are found by name, without a search. The first of a name has the subresources.
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for one in list["resources"].as_array().into_iter().flatten() {
        let or =
            |field: &str, own: &str| one[field].as_str().filter(|given| !given.is_empty()).unwrap_or(own).to_owned();
        let response_kind = json!({"group": or("group", group), "version": or("version", version),
            "kind": text(&one["kind"])});
        let verbs = match &one["verbs"] {
            Value::Array(verbs) => json!(verbs),
            _ => json!([]),
        };
        let name = text(&one["name"]);
        let Some((resource, subresource)) = name.split_once('/') else {
            let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
            let mut resource = json!({"resource": &name, "responseKind": response_kind, "scope": scope,
                "singularResource": text(&one["singularName"]), "verbs": verbs});
            for field in ["shortNames", "categories"] {
                if let Some(list) = one[field].as_array() {
                    resource[field] = json!(list);
                }
            }
            by_name.entry(name).or_insert(all.len());
            all.push(resource);
            continue;
        };
        let subresource = json!({"subresource": subresource, "responseKind": response_kind, "verbs": verbs});
        if let Some(parent) = by_name.get(resource).and_then(|at| all.get_mut(*at)) {
            match parent["subresources"].as_array_mut() {
                Some(list) => list.push(subresource),
                None => parent["subresources"] = json!([subresource]),
            }
        }
    }
    all
}

/// The OpenAPI documents as they are now, and the `ETag` of the Swagger document. What cannot be asked for stays as it
/// was known.
async fn specs(aggregator: &Aggregator, backend: &Backend, known: Documents) -> (Option<RemoteSpec>, Option<String>) {
    let root = backend.root();
    let before = known.spec.clone().unwrap_or(RemoteSpec { root: root.clone(), v3: None, v2: None });
    let index = get(aggregator, backend, "/openapi/v3", "application/json", None, LONGEST_SPEC).await;
    let etag = known.etag.filter(|_| before.v2.is_some());
    let swagger = get(aggregator, backend, "/openapi/v2", "application/json", etag.as_deref(), LONGEST_SPEC).await;
    let (v2, etag) = match swagger {
        Ok(fetched) if fetched.code == StatusCode::OK => {
            let sent = fetched.headers.get(header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
            match serde_json::from_slice::<Value>(&fetched.body) {
                Ok(document) => (Some(Arc::new(openapi::part_of(document, &root))), sent),
                Err(error) => {
                    tracing::info!(name = backend.name, %error, "the OpenAPI document of an extension server is no JSON");
                    (before.v2.clone(), None)
                }
            }
        }
        Ok(fetched) if fetched.code == StatusCode::NOT_FOUND => (None, None),
        _ => (before.v2.clone(), etag),
    };
    let v3 = match index {
        Ok(fetched) if fetched.code == StatusCode::OK => served_v3(&fetched.body, &root),
        // A server without OpenAPI v3.
        Ok(fetched) if fetched.code == StatusCode::NOT_FOUND => {
            v2.as_deref().map(|document| Version3::Converted(Document::new(openapi::converted(document).to_string())))
        }
        _ => before.v3.clone(),
    };
    (Some(RemoteSpec { root, v3, v2 }), etag)
}

/// The URL of the version's own document. What a server says of other versions is not its to say.
fn served_v3(index: &[u8], root: &str) -> Option<Version3> {
    let index: Value = serde_json::from_slice(index).ok()?;
    let entry = index["paths"].get(root)?;
    let own = format!("/openapi/v3/{root}");
    let url = entry["serverRelativeURL"]
        .as_str()
        .filter(|url| url.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('?')));
    Some(Version3::Served { url: url.unwrap_or(&own).to_owned() })
}

/// Asks the backend in the name of the aggregation.
async fn get(
    aggregator: &Aggregator,
    backend: &Backend,
    path: &str,
    accept: &str,
    etag: Option<&str>,
    within: Duration,
) -> Result<Fetched, ForwardError> {
    let answer = async {
        let to = aggregator.address(backend)?;
        let mut request = Request::get(format!("https://{to}{path}"))
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, super::USER_AGENT);
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let identity = if path.starts_with("/openapi") { openapi_reader() } else { self::aggregator() };
        let malformed = || ForwardError::Malformed("the request cannot be sent");
        proxy_headers::identify(request.headers_mut().ok_or_else(malformed)?, &identity).map_err(|_| malformed())?;
        let request = request.body(Body::empty()).map_err(|_| malformed())?;
        let failed = |why: String| ForwardError::Unreachable(why);
        let response = backend.http().map_err(Clone::clone)?.request(request).await;
        let (parts, body) = response.map_err(|error| failed(webhook::cause(&error)))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| failed(webhook::cause(&*error)))?;
        Ok(Fetched { code: parts.status, headers: parts.headers, body: body.to_bytes().to_vec() })
    };
    let late = || Err(ForwardError::Unreachable("context deadline exceeded".to_owned()));
    tokio::time::timeout(within, answer).await.unwrap_or_else(|_| late())
}

/// As whom servers are asked for OpenAPI documents, which everyone may read.
fn openapi_reader() -> Identity {
    Identity { name: "system:aggregator".into(), ..Identity::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aggregated_form_is_told_by_its_content_type() {
        assert!(is_aggregated("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"));
        assert!(is_aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"));
        assert!(!is_aggregated("application/json"));
    }

    #[test]
    fn a_long_list_of_subresources_takes_time_in_proportion_to_its_length() {
        // A search for each parent would compare names ten thousand million times.
        const MANY: usize = 100_000;
        let resource = |n| json!({"name": format!("r{n}"), "kind": "R", "namespaced": true, "verbs": ["get"]});
        let status = |n| json!({"name": format!("r{n}/status"), "kind": "R", "verbs": []});
        let resources: Vec<Value> = (0..MANY).map(resource).chain((0..MANY).map(status)).collect();
        let begun = std::time::Instant::now();
        let found = from_plain(&json!({"resources": resources}), "a.io", "v1");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        assert_eq!(found.len(), MANY);
        assert!(found.iter().all(|resource| resource["subresources"][0]["subresource"] == "status"));
        let twice = json!({"resources": [resource(1), resource(1), status(1), status(2)]});
        let found = from_plain(&twice, "a.io", "v1");
        assert_eq!(found[0]["subresources"].as_array().map(Vec::len), Some(1));
        assert_eq!((found.len(), &found[1]["subresources"]), (2, &Value::Null));
    }

    #[test]
    fn a_server_says_nothing_of_other_versions() {
        let url = |index: Value| served_v3(index.to_string().as_bytes(), "apis/a.io/v1");
        let entry = |url: &str| json!({"paths": {"apis/a.io/v1": {"serverRelativeURL": url}, "api/v1": {}}});
        let own = "/openapi/v3/apis/a.io/v1";
        let served = |url: &str| Some(Version3::Served { url: url.to_owned() });
        assert_eq!(url(entry("/openapi/v3/apis/a.io/v1?hash=A")), served("/openapi/v3/apis/a.io/v1?hash=A"));
        assert_eq!(url(entry("https://evil.example.com/")), served(own));
        assert_eq!(url(entry("/openapi/v3/apis/a.io/v10")), served(own));
        assert_eq!(url(json!({"paths": {"api/v1": {}}})), None);
    }
}
