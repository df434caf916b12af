//! One webhook: what it is asked about, and how.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;

use super::{
    Clients,
    refusal::{self, Failure, UNAVAILABLE},
    review::{self, ReviewAnswer, ReviewVersion},
};
use crate::{
    admission::{
        access,
        attributes::{Attributes, Operation},
        expression::{Conditions, Input},
        rules::{self, RequestRule},
        selectors::Selectors,
        versions::Versioned,
    },
    audit::current,
    deadline,
    kinds::{Kind, admissionregistration::scope::KnownNames},
    metrics::{AdmissionMetrics, WebhookCall},
    status::Status,
    warnings,
    webhook::{CallError, Client, ConfigError},
};

/// One entry of a configuration, compiled.
#[derive(Debug)]
pub struct Hook {
    /// The configuration's name.
    pub configuration: String,
    /// Its own, as refusals tell it.
    pub name: String,
    /// Tells it apart from all others: names need not be unique.
    pub uid: String,
    /// Whether a failure to ask it lets the request pass.
    pub ignores_failures: bool,
    /// Whether it is asked again where others changed the object after it.
    pub reinvoked: bool,
    client: Result<Arc<Client>, ConfigError>,
    rules: Vec<RequestRule>,
    /// Whether other versions of a resource are the same to its rules.
    equivalent: bool,
    selectors: Selectors,
    conditions: Conditions,
    /// Whether it may be asked about a dry run.
    takes_dry_runs: bool,
    timeout: Duration,
    review_version: Option<ReviewVersion>,
}

impl Hook {
    /// Reads the webhooks of a configuration.
    pub fn all_of(configuration: &Value, clients: &Clients) -> Vec<Arc<Self>> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let own = configuration["metadata"]["name"].as_str().unwrap_or_default();
        let hooks = configuration["webhooks"].as_array().into_iter().flatten();
        hooks
            .map(|hook| {
                let name = hook["name"].as_str().unwrap_or_default();
                let count = seen.entry(name).or_default();
                let uid = format!("{own}/{name}/{count}");
                *count = count.saturating_add(1);
                Arc::new(Self::read(hook, own, uid, clients))
            })
            .collect()
    }

    fn read(hook: &Value, configuration: &str, uid: String, clients: &Clients) -> Self {
        let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(10);
        let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten();
        let mut known = versions.filter_map(Value::as_str).filter_map(ReviewVersion::of);
        Self {
            configuration: configuration.to_owned(),
            name: hook["name"].as_str().unwrap_or_default().to_owned(),
            uid,
            ignores_failures: hook["failurePolicy"] == "Ignore",
            reinvoked: hook["reinvocationPolicy"] == "IfNeeded",
            client: clients.get(&hook["clientConfig"]),
            rules: RequestRule::all_of(&hook["rules"]),
            equivalent: hook["matchPolicy"] != "Exact",
            selectors: Selectors::read(hook),
            conditions: Conditions::compile(&hook["matchConditions"], &KnownNames::default().for_conditions()),
            takes_dry_runs: matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            timeout: Duration::from_secs(seconds),
            review_version: known.next(),
        }
    }

    /// Whether its rules take requests like this one, whatever the objects are.
    pub fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        rules::matching(&self.rules, self.equivalent, attributes).is_some()
    }

    /// The kind in whose version it sees the objects, if it is to be asked. Converts `objects` to it where conditions
    /// look at them.
    pub async fn invoked(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
    ) -> Result<Option<Arc<Kind>>, Status> {
        let in_namespace = self.selectors.select_namespace(attributes, objects.object());
        if matches!(in_namespace, Ok(false)) || !self.selectors.select_object(objects.object(), objects.old()) {
            return Ok(None);
        }
        let Some(invoked) = rules::matching(&self.rules, self.equivalent, attributes) else { return Ok(None) };
        in_namespace?;
        if self.conditions.is_empty() {
            return Ok(Some(invoked));
        }
        objects.convert(&invoked).await?;
        let request = attributes.request(&invoked);
        let (object, old) = (objects.object(), objects.old());
        let authorizer = &access::authorizer(attributes);
        let (namespace, params) = (&Value::Null, &Value::Null);
        let input = Input { object, old, request: &request, namespace, params, authorizer };
        match self.conditions.hold(&input.activation()) {
            Ok(true) => Ok(Some(invoked)),
            Ok(false) => Ok(None),
            Err(_) if self.ignores_failures => Ok(None),
            Err(error) => Err(Status::forbidden(attributes.subject(), &error.to_string())),
        }
    }

    /// Asks it. What it warns of and notes is passed on.
    pub async fn ask(
        &self,
        attributes: &Attributes<'_>,
        invoked: &Kind,
        (object, old): (&Value, &Value),
        mutating: bool,
    ) -> Result<ReviewAnswer, Failure> {
        if attributes.dry_run && !self.takes_dry_runs {
            return Err(Failure::Internal(refusal::no_dry_run(&self.name)));
        }
        let version = self.review_version.ok_or_else(|| {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions \
                       (v1, v1beta1)";
            Failure::Call(why.to_owned(), 400)
        })?;
        let no_client = |error: &ConfigError| Failure::Call(format!("could not get REST client: {error}"), 500);
        let client = self.client.as_ref().map_err(no_client)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = review::request(version, &uid, attributes.request(invoked), object, old);
        let timeout = self.timeout.min(deadline::left());
        let answer = client.post(attributes.snapshot, Bytes::from(review), timeout, true).await;
        let answer = answer.map_err(|error| {
            let code = if let CallError::Refused { code, .. } = &error { *code } else { UNAVAILABLE };
            Failure::Call(format!("failed to call webhook: {error}"), code)
        })?;
        let answer = review::read(version, &uid, &answer, mutating)
            .map_err(|why| Failure::Call(format!("received invalid webhook response: {why}"), UNAVAILABLE))?;
        for (key, value) in &answer.audit_annotations {
            tracing::info!(webhook = self.name, key, value, "audit annotation of an admission webhook");
            current::annotate(&format!("{}/{key}", self.name), || value.clone());
        }
        for warning in &answer.warnings {
            warnings::add(warning.clone());
        }
        match answer.allowed {
            true => Ok(answer),
            false => Err(Failure::Refused(refusal::denied(&self.name, &answer.status))),
        }
    }

    /// Counts that it was asked.
    pub fn count(
        &self,
        metrics: &AdmissionMetrics,
        operation: Operation,
        mutating: bool,
        begun: Instant,
        failure: Option<&Failure>,
    ) {
        let (code, rejected) = match failure {
            None => (200, None),
            Some(Failure::Call(_, code)) => (*code, (!self.ignores_failures).then_some("calling_webhook_error")),
            Some(Failure::Refused(status)) => (status.code, Some("no_error")),
            Some(Failure::Internal(_)) => (0, Some("apiserver_internal_error")),
        };
        let (name, operation, took) = (self.name.as_str(), operation.as_str(), begun.elapsed());
        metrics.called(WebhookCall { name, mutating, operation, took, code, rejected });
    }

    /// What a failure comes to: the request is refused, or goes on.
    pub fn failed(&self, failure: Failure, mutating: bool, metrics: &AdmissionMetrics) -> Result<(), Status> {
        match failure {
            Failure::Refused(status) | Failure::Internal(status) => Err(status),
            Failure::Call(why, _) if self.ignores_failures => {
                metrics.failed_open(&self.name, mutating);
                tracing::warn!(webhook = self.name, configuration = self.configuration, why, "failing open");
                deadline::must_not_be_over()
            }
            Failure::Call(why, _) => Err(Status::internal(format!("failed calling webhook {:?}: {why}", self.name))),
        }
    }
}
