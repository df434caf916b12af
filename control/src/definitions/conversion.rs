//! Conversion by a webhook: objects of one version are sent to it as a ConversionReview, and come back as another's.
//!
//! Reads are synchronous and find out by themselves what must be converted: [`read`] runs one, converts in one call
//! what it lacked, and runs it again. Writes convert before and after their own work.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    converted::Converted,
    converted_object::{ConvertedObjectError, accept},
    ownership::Conversions,
};
use crate::{
    custom::{WebhookConversion, definition::Definition},
    deadline,
    kinds::{Kind, Storage, error_budget},
    schema::SentEmpties,
    status::Status,
    store::{Object, PackedHeader, Store},
    webhook::{CallError, Client, ClientConfig, ConfigError, Dial},
};

/// Converts the objects of one definition.
#[derive(Clone)]
pub struct Webhook {
    caller: Arc<Caller>,
    /// What reads had converted.
    converted: Arc<Converted>,
}

/// Calls the webhook.
struct Caller {
    /// `widgets.example.com/v1, Kind=Widget` in messages.
    kind: String,
    client: Result<Client, ConfigError>,
    /// `v1` or `v1beta1`: what the webhook takes, in the order it prefers.
    review_version: String,
    store: Arc<dyn Store>,
}

/// As Kubernetes waits for a conversion.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of objects in one call, unless it is for one object.
const PART: usize = 4 << 20;
/// How often a read is run again that found objects changed meanwhile.
const TRIES: usize = 8;

/// Why a webhook has converted nothing. The words are those of Kubernetes.
#[derive(Debug, thiserror::Error)]
enum WebhookConversionError {
    #[error(transparent)]
    Config(ConfigError),
    #[error(transparent)]
    Call(#[from] CallError),
    /// It answers something else; what it says, as JSON.
    #[error("expected response.uid={asked:?}, got {found}")]
    Uid { asked: String, found: Value },
    /// In its own words.
    #[error("{0}")]
    Refused(String),
    #[error("webhook returned {found} objects, expected {expected}")]
    Count { found: usize, expected: usize },
    #[error("invalid converted object: {0}")]
    Object(ConvertedObjectError),
}

/// What a read asks to be converted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReadKey {
    /// Of the stored object.
    uid: String,
    /// Of the stored object.
    resource_version: String,
    /// The wanted one.
    version: String,
}

/// What converts on this thread.
enum Run {
    Read(Reading),
    /// Boxed: much larger.
    Account(Box<Conversions>),
}

/// What a read was given, and what it lacked.
#[derive(Default)]
struct Reading {
    given: HashMap<ReadKey, Value>,
    /// By wanted version.
    lacked: HashMap<String, Vec<Value>>,
}

thread_local! {
    /// What runs now: reads and accounts do not wait, so there is one at most.
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

impl Webhook {
    /// `config` is `spec.conversion.webhook`. Services are found in `store`, and called over `network`.
    pub fn new(definition: &Definition, config: &Value, store: Arc<dyn Store>, network: Arc<dyn Dial>) -> Self {
        let versions = config["conversionReviewVersions"].as_array().into_iter().flatten();
        let mut known = versions.filter_map(Value::as_str).filter(|version| matches!(*version, "v1" | "v1beta1"));
        let caller = Caller {
            kind: format!("{}, Kind={}", definition.group, definition.names.kind),
            client: ClientConfig::read(&config["clientConfig"]).and_then(|config| Client::new(config, network)),
            review_version: known.next().unwrap_or("v1").to_owned(),
            store,
        };
        Self { caller: Arc::new(caller), converted: Arc::default() }
    }
}

#[async_trait]
impl WebhookConversion for Webhook {
    fn convert_now(&self, object: &mut Value, version: &str) {
        if object["apiVersion"] == version {
            return;
        }
        if !convert_in_run(object, version) {
            tracing::error!(kind = self.caller.kind, "an object was read outside of a read, and is not converted");
        }
    }

    async fn convert(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status> {
        self.caller.convert(objects, version).await
    }

    async fn convert_shared(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status> {
        let (caller, wanted) = (self.caller.clone(), version.to_owned());
        let convert = |objects| async move { caller.convert(objects, &wanted).await };
        self.converted.get(objects, version, convert).await
    }
}

impl Caller {
    /// In several calls, so that a long list makes no answer that is too large.
    async fn convert(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status> {
        let mut converted = Vec::with_capacity(objects.len());
        for part in parts(objects) {
            deadline::must_not_be_over()?;
            converted.extend(self.convert_part(part, version).await?);
        }
        Ok(converted)
    }

    async fn convert_part(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status> {
        let (same, others): (Vec<_>, Vec<_>) =
            objects.into_iter().enumerate().partition(|(_, object)| object["apiVersion"] == version);
        if others.is_empty() {
            return Ok(same.into_iter().map(|(_, object)| object).collect());
        }
        let (places, others): (Vec<usize>, Vec<Value>) = others.into_iter().unzip();
        let converted = self
            .call(&others, version)
            .await
            .map_err(|error| Status::internal(format!("conversion webhook for {} failed: {error}", self.kind)))?;
        let mut all = same;
        all.extend(places.into_iter().zip(converted));
        all.sort_by_key(|(place, _)| *place);
        Ok(all.into_iter().map(|(_, object)| object).collect())
    }

    /// What the webhook makes of each of `objects`.
    async fn call(&self, objects: &[Value], version: &str) -> Result<Vec<Value>, WebhookConversionError> {
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{}", self.review_version),
            "request": {"uid": uid, "desiredAPIVersion": version, "objects": objects},
        });
        let client = self.client.as_ref().map_err(|error| WebhookConversionError::Config(error.clone()))?;
        let timeout = TIMEOUT.min(deadline::left());
        let answer = client.post(&self.store.snapshot(), review.to_string().into(), timeout, false).await?;
        let response = &answer["response"];
        if response["uid"] != uid {
            return Err(WebhookConversionError::Uid { asked: uid, found: response["uid"].clone() });
        }
        if response["result"]["status"] != "Success" {
            let message = response["result"]["message"].as_str().filter(|message| !message.is_empty());
            return Err(WebhookConversionError::Refused(message.unwrap_or("unknown error").to_owned()));
        }
        let converted = response["convertedObjects"].as_array().cloned().unwrap_or_default();
        if converted.len() != objects.len() {
            return Err(WebhookConversionError::Count { found: converted.len(), expected: objects.len() });
        }
        let pairs = objects.iter().zip(converted);
        let accepted = pairs.map(|(original, converted)| accept(original, converted, version));
        accepted.collect::<Result<_, _>>().map_err(WebhookConversionError::Object)
    }
}

/// Splits a list where it has [`PART`] bytes.
fn parts(objects: Vec<Value>) -> Vec<Vec<Value>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0usize);
    for object in objects {
        let size = object.to_string().len();
        if bytes > 0 && bytes.saturating_add(size) > PART {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes = bytes.saturating_add(size);
        if let Some(part) = parts.last_mut() {
            part.push(object);
        }
    }
    parts
}

fn key(object: &Value, version: &str) -> ReadKey {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    ReadKey { uid: text("uid"), resource_version: text("resourceVersion"), version: version.to_owned() }
}

/// Runs a read of objects of `kind`. Where a webhook must convert some, it is asked for all of them at once, and the
/// read is run again with its answer.
pub async fn read<T>(kind: &Kind, mut read: impl FnMut() -> T) -> Result<T, Status> {
    let Some(webhook) = kind.custom.as_ref().and_then(|custom| custom.webhook.as_ref()) else { return Ok(read()) };
    let mut given = HashMap::new();
    for _ in 0..TRIES {
        RUN.set(Some(Run::Read(Reading { given: std::mem::take(&mut given), ..Reading::default() })));
        let result = read();
        let Reading { given: had, lacked } = match RUN.take() {
            Some(Run::Read(reading)) => reading,
            Some(Run::Account(_)) | None => Reading::default(),
        };
        if lacked.is_empty() {
            return Ok(result);
        }
        given = had;
        for (version, objects) in lacked {
            let keys: Vec<ReadKey> = objects.iter().map(|object| key(object, &version)).collect();
            given.extend(keys.into_iter().zip(webhook.convert_shared(objects, &version).await?));
        }
    }
    Err(Status::unavailable("objects changed faster than they could be converted; please try again"))
}

/// Converts an object for what runs on this thread, or notes that it lacks it. Whether anything runs.
pub fn convert_in_run(object: &mut Value, version: &str) -> bool {
    RUN.with_borrow_mut(|run| {
        match run {
            None => return false,
            Some(Run::Account(conversions)) => conversions.convert_now(object, version),
            Some(Run::Read(reading)) => match reading.given.get(&key(object, version)) {
                Some(converted) => *object = converted.clone(),
                None => reading.lacked.entry(version.to_owned()).or_default().push(object.clone()),
            },
        }
        true
    })
}

/// Runs `account` with what was converted for it.
pub fn run_account<T>(conversions: Box<Conversions>, account: impl FnOnce() -> T) -> (T, Box<Conversions>) {
    RUN.set(Some(Run::Account(conversions)));
    let result = account();
    match RUN.take() {
        Some(Run::Account(conversions)) => (result, conversions),
        Some(Run::Read(_)) | None => (result, Box::default()),
    }
}

/// The header by which a field selector of `kind` finds an object, where that is not the stored one: the fields that
/// a version selects by are its own.
pub fn header_as(kind: &Kind, object: &Object) -> Option<PackedHeader> {
    let (Storage::As(stored), Some(_)) = (&kind.storage, &kind.custom) else { return None };
    let mut value = serde_json::from_slice(&object.json()).ok()?;
    (stored.from_stored)(&mut value, kind);
    Some(object.header().with_fields(&(kind.selectable)(&value)))
}

/// The object as `kind` serves it. Asks the webhook, if there is one.
pub async fn from_stored(kind: &Kind, mut object: Value) -> Result<Value, Status> {
    let Storage::As(stored) = &kind.storage else { return Ok(object) };
    match kind.custom.as_ref().and_then(|custom| custom.webhook.as_ref()) {
        Some(webhook) => one(webhook, object, &kind.api_version()).await,
        None => {
            (stored.from_stored)(&mut object, kind);
            Ok(object)
        }
    }
}

/// The object as it is stored. Asks the webhook, if there is one. What a webhook makes of the object is not looked at
/// again, so the object is defaulted and checked before, as `kind` sees it.
pub async fn to_stored(kind: &Kind, mut object: Value, old: Option<&Object>) -> Result<Value, Status> {
    let Storage::As(stored) = &kind.storage else { return Ok(object) };
    let Some(webhook) = kind.custom.as_ref().and_then(|custom| custom.webhook.as_ref()) else {
        (stored.to_stored)(&mut object);
        return Ok(object);
    };
    (kind.default)(&mut object);
    let old = match old.map(|old| serde_json::from_slice(&old.json())) {
        None => None,
        Some(Ok(old)) => Some(from_stored(kind, old).await?),
        Some(Err(error)) => return Err(Status::internal(format!("a stored object is damaged: {error}"))),
    };
    let errors = error_budget::within(|| (kind.validate)(&object, old.as_ref(), &SentEmpties::NONE));
    if !errors.is_empty() {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let subject = crate::status::Subject { group: &kind.group, resource: &kind.kind, name };
        return Err(Status::invalid(subject, &errors));
    }
    one(webhook, object, &stored.kind.api_version()).await
}

/// One object in another version, by a call of its own.
pub async fn one(webhook: &Arc<dyn WebhookConversion>, object: Value, version: &str) -> Result<Value, Status> {
    let converted = webhook.convert(vec![object], version).await?;
    converted.into_iter().next().ok_or_else(|| Status::internal("a conversion answered with no object"))
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Caller { kind, client, .. } = &*self.caller;
        f.debug_struct("Webhook").field("kind", kind).field("client", client).finish_non_exhaustive()
    }
}
