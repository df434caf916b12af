//! Another server that decides what clients may do: it is sent a SubjectAccessReview.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/authorizer/webhook`.

mod silence;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use self::silence::Silence;
use super::{
    Identity,
    access_conditions::AccessConditions,
    attributes::{Attributes, Resource},
    authorizer::Opinion,
    configuration::authorization::{FailurePolicy, WebhookConfiguration},
    outside::{
        answers::{Answer, AnswerKey, Answers},
        places::NoPlace,
        review::{OutsideReviewError, ReviewKind},
    },
};
use crate::{
    flow_control::shares::Shares, identity::MASTERS, request::selector::LabelRequirement, webhook::KubeconfigClient,
};

/// What a requester writes may be kept only up to so many bytes. Source: `maxControlledAttrCacheSize`.
const MOST_CONTROLLED: usize = 10_000;
/// Bytes of answers that allow something, and of others.
const MOST_ALLOWED: usize = 16 << 20;
const MOST_REFUSED: usize = 16 << 20;
/// Whom this server asks about to find out whether the webhook answers: itself, by the name that Kubernetes' has.
const OWN_NAME: &str = "system:apiserver";
/// Questions at a time, about all users. Chosen, not measured.
const AT_ONCE: usize = 1024;

/// Asks one webhook. Clones share the answers.
#[derive(Clone)]
pub struct AccessWebhook {
    name: Arc<str>,
    client: KubeconfigClient,
    configuration: Arc<WebhookConfiguration>,
    conditions: Arc<AccessConditions>,
    answers: Answers<AccessAnswer>,
    /// Divided among those who are asked about, of whom all strangers are one: whether somebody may impersonate
    /// whomever they name is asked before their request has a seat, and a request that streams has none. That there is
    /// none left is no failure of the webhook: were it up to the failure policy, whoever takes all of theirs could have
    /// others decide. Unless it answers nobody at all.
    places: Arc<Shares>,
    silence: Silence,
    counts: Arc<AccessCounts>,
}

type AccessAnswer = Result<Arc<AccessStatus>, Arc<OutsideReviewError>>;

/// The status of a review.
struct AccessStatus {
    is_allowed: bool,
    is_denied: bool,
    reason: String,
}

/// What a webhook thinks, if that is known without asking it.
pub enum WebhookOpinion {
    /// It is not to be asked about this, or was asked before.
    Known(Opinion),
    /// It has to be asked.
    ToAsk(AccessQuestion),
}

/// What a webhook is to be asked.
pub struct AccessQuestion {
    /// Of the review.
    spec: Value,
    key: AnswerKey,
    /// Who is asked about.
    user: Arc<str>,
    needs_place: bool,
    is_kept: bool,
}

/// What became of questions, for the metrics.
#[derive(Debug, Default)]
pub struct AccessCounts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Not answered, and others decided.
    failed_open: AtomicU64,
}

impl AccessCounts {
    /// How many were answered, and how many were not.
    pub fn evaluations(&self) -> [u64; 2] {
        [&self.succeeded, &self.failed].map(|count| count.load(Ordering::Relaxed))
    }

    /// How often others decided since it was not answered.
    pub fn evaluations_failed_open(&self) -> u64 {
        self.failed_open.load(Ordering::Relaxed)
    }
}

impl AccessWebhook {
    /// Asks through `client`, as `configuration` says.
    pub fn new(
        name: &str,
        client: KubeconfigClient,
        configuration: WebhookConfiguration,
        conditions: AccessConditions,
    ) -> Self {
        Self {
            name: name.into(),
            client,
            configuration: Arc::new(configuration),
            conditions: Arc::new(conditions),
            answers: Answers::new(MOST_ALLOWED, MOST_REFUSED),
            places: Shares::new(AT_ONCE, usize::MAX),
            silence: Silence::default(),
            counts: Arc::default(),
        }
    }

    /// With other limits of questions at a time.
    #[cfg(test)]
    pub fn limited_to(self, places: Arc<Shares>) -> Self {
        Self { places, ..self }
    }

    /// As the configuration names it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What became of questions.
    pub fn counts(&self) -> &AccessCounts {
        &self.counts
    }

    /// What the webhook thinks. Fails where too much is asked at a time.
    pub async fn decide(&self, identity: &Identity, attributes: &Attributes<'_>) -> Result<Opinion, NoPlace> {
        match self.known(identity, attributes) {
            WebhookOpinion::Known(opinion) => Ok(opinion),
            WebhookOpinion::ToAsk(question) => self.answer(question).await,
        }
    }

    /// What is known of that without waiting.
    pub fn known(&self, identity: &Identity, attributes: &Attributes<'_>) -> WebhookOpinion {
        let spec = spec(identity, attributes);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return WebhookOpinion::Known(Opinion::none(String::new())),
            Err(error) => return WebhookOpinion::Known(self.on_error(error.to_string())),
        }
        let key = self.answers.key([spec.to_string().as_bytes()]);
        if let Some(answer) = self.answers.kept(&key) {
            return WebhookOpinion::Known(self.opinion(answer));
        }
        let needs_place = !is_strangers_health_check(identity, attributes);
        let is_kept = controlled(attributes) < MOST_CONTROLLED;
        WebhookOpinion::ToAsk(AccessQuestion { spec, key, user: identity.name.as_str().into(), needs_place, is_kept })
    }

    /// What the webhook answers. Fails where too much is asked at a time.
    pub async fn answer(&self, question: AccessQuestion) -> Result<Opinion, NoPlace> {
        let AccessQuestion { spec, key, user, needs_place, is_kept } = question;
        let asked = self.answers.ask(
            key,
            |_| match needs_place {
                true => self.places.take(&user, 1).map(Some).ok_or(NoPlace),
                false => Ok(None),
            },
            || {
                let webhook = self.clone();
                async move {
                    let answer = webhook.ask(spec, is_kept).await;
                    let AccessCounts { succeeded, failed, .. } = &*webhook.counts;
                    let count = if answer.value.is_ok() { succeeded } else { failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    answer
                }
            },
        );
        let asked = match asked.await {
            Err(NoPlace) if self.places.holds_little(&user) => {
                self.look_for_silence();
                if !self.silence.is_confirmed() {
                    return Err(NoPlace);
                }
                return Ok(self.on_error("too many questions wait for the webhook, which answers none".to_owned()));
            }
            asked => asked?,
        };
        Ok(match asked {
            Some(answer) => self.opinion(answer),
            None => self.on_error("the webhook could not be asked to the end".to_owned()),
        })
    }

    fn opinion(&self, answer: AccessAnswer) -> Opinion {
        match answer {
            Ok(status) => status.opinion(),
            Err(error) => self.on_error(error.to_string()),
        }
    }

    /// For who would have to wait and cannot.
    pub fn cannot_be_asked(&self) -> Opinion {
        self.on_error("the webhook cannot be asked by who cannot wait".to_owned())
    }

    async fn ask(&self, mut spec: Value, is_kept: bool) -> Answer<AccessAnswer> {
        let WebhookConfiguration { subject_access_review_version: version, timeout, .. } = *self.configuration;
        version.rename_groups(&mut spec);
        let status = ReviewKind::SubjectAccess.ask(&self.client, version.into(), &spec, timeout).await;
        if !status.as_ref().is_err_and(OutsideReviewError::is_unanswered) {
            self.silence.ends();
        }
        let value = status.map(|status| Arc::new(AccessStatus::read(&status))).map_err(|error| {
            tracing::warn!(webhook = &*self.name, %error, "cannot ask the authorization webhook");
            Arc::new(error)
        });
        let (is_good, bytes) = value.as_ref().map_or((false, 0), |status| (status.is_allowed, status.reason.len()));
        let keep_for = match &value {
            Ok(_) if !is_kept => None,
            Ok(_) if is_good => self.configuration.kept_authorized(),
            Ok(_) => self.configuration.kept_unauthorized(),
            Err(_) => None,
        };
        Answer { value, is_good, keep_for: keep_for.unwrap_or(Duration::ZERO), bytes }
    }

    /// Asks a question of this server's own beyond all places, if none is under way: whether its own administrators may
    /// look whether it lives.
    fn look_for_silence(&self) {
        let Some(probe) = self.silence.probe() else { return };
        let webhook = self.clone();
        let asking = async move {
            let administrator = Identity::authenticated(OWN_NAME.to_owned(), vec![MASTERS.to_owned()]);
            let question = spec(&administrator, &Attributes::Path { verb: "get".to_owned(), path: "/livez" });
            if matches!(webhook.ask(question, false).await.value, Err(error) if error.is_unanswered()) {
                probe.went_unanswered();
            }
        };
        // Its end is the probe's.
        drop(tokio::spawn(asking));
    }

    fn on_error(&self, error: String) -> Opinion {
        let (reason, error) = (String::new(), Some(error));
        match self.configuration.failure_policy {
            FailurePolicy::Deny => Opinion::Deny { reason, error },
            FailurePolicy::NoOpinion => {
                self.counts.failed_open.fetch_add(1, Ordering::Relaxed);
                Opinion::None { reason, error }
            }
        }
    }
}

impl AccessStatus {
    fn read(status: &Value) -> Self {
        Self {
            is_allowed: status["allowed"] == true,
            is_denied: status["denied"] == true,
            reason: status["reason"].as_str().unwrap_or_default().to_owned(),
        }
    }

    fn opinion(&self) -> Opinion {
        let reason = self.reason.clone();
        match (self.is_denied, self.is_allowed) {
            (true, true) => {
                let error = "webhook subject access review returned both allow and deny response".to_owned();
                Opinion::Deny { reason, error: Some(error) }
            }
            (true, false) => Opinion::Deny { reason, error: None },
            (false, true) => Opinion::Allow(reason),
            (false, false) => Opinion::none(reason),
        }
    }
}

/// Whether a stranger looks whether this server is healthy. No other strangers can keep them from that: there are few
/// such questions, and who asks the same waits for one answer.
fn is_strangers_health_check(identity: &Identity, attributes: &Attributes<'_>) -> bool {
    match attributes {
        Attributes::Path { verb, path } => {
            HEALTH_CHECKS.contains(path)
                && matches!(verb.as_str(), "get" | "head")
                && *identity == Identity::anonymous()
        }
        Attributes::Resource(_) => false,
    }
}

const HEALTH_CHECKS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The spec of the review, with what is said alone, as Go writes it.
fn spec(identity: &Identity, attributes: &Attributes<'_>) -> Value {
    let mut spec = serde_json::Map::new();
    let texts = |pairs: &[(&str, &str)]| {
        let said = pairs.iter().filter(|(_, text)| !text.is_empty());
        said.map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect::<serde_json::Map<_, _>>()
    };
    match attributes {
        Attributes::Path { verb, path } => {
            spec.insert("nonResourceAttributes".to_owned(), texts(&[("path", path), ("verb", verb)]).into());
        }
        Attributes::Resource(asked) => {
            let Resource { verb, group, version, namespace, resource, subresource, name, fields, labels } = asked;
            let mut said = texts(&[
                ("namespace", namespace),
                ("verb", verb),
                ("group", group),
                ("version", version),
                ("resource", resource),
                ("subresource", subresource),
                ("name", name),
            ]);
            let requirements: Vec<Value> = fields.iter().flat_map(|fields| fields.terms()).map(requirement).collect();
            if !requirements.is_empty() {
                said.insert("fieldSelector".to_owned(), json!({"requirements": requirements}));
            }
            let requirements = labels.iter().flat_map(|labels| labels.requirements());
            let requirements: Vec<Value> = requirements.filter_map(label_requirement).collect();
            if !requirements.is_empty() {
                said.insert("labelSelector".to_owned(), json!({"requirements": requirements}));
            }
            spec.insert("resourceAttributes".to_owned(), said.into());
        }
    }
    spec.extend(texts(&[("user", &identity.name), ("uid", &identity.uid)]));
    if !identity.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(identity.groups));
    }
    if !identity.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(identity.extra));
    }
    spec.into()
}

fn requirement((key, is_equal, value): (&str, bool, &str)) -> Value {
    json!({"key": key, "operator": if is_equal { "In" } else { "NotIn" }, "values": [value]})
}

/// What compares numbers is left out: without it the question is broader than the request.
fn label_requirement(requirement: &LabelRequirement) -> Option<Value> {
    let (key, operator, values) = match requirement {
        LabelRequirement::In { key, values } => (key, "In", Some(values)),
        LabelRequirement::NotIn { key, values } => (key, "NotIn", Some(values)),
        LabelRequirement::Exists { key } => (key, "Exists", None),
        LabelRequirement::Absent { key } => (key, "DoesNotExist", None),
        LabelRequirement::GreaterThan { .. } | LabelRequirement::LessThan { .. } => return None,
    };
    let mut said = json!({"key": key, "operator": operator});
    if let Some(values) = values {
        said["values"] = json!(values);
    }
    Some(said)
}

/// Bytes of what the requester writes.
fn controlled(attributes: &Attributes<'_>) -> usize {
    match attributes {
        Attributes::Path { verb, path } => verb.len().saturating_add(path.len()),
        Attributes::Resource(r) => {
            [r.verb, r.group, r.version, r.namespace, r.resource, r.subresource, r.name].map(str::len).iter().sum()
        }
    }
}

#[cfg(test)]
pub mod tests;
