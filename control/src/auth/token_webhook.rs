//! Bearer tokens that a webhook knows (`--authentication-token-webhook-config-file`).
//!
//! Source: `k8s.io/apiserver/plugin/pkg/authenticator/token/webhook` and `pkg/authentication/token/cache`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    outside::{
        answers::{Answer, Answers},
        places::{Asker, NoPlace, OutsidePlaces},
        review::{OutsideReviewError, OutsideReviewVersion, ReviewKind},
    },
    token::Identified,
};
use crate::{
    identity::Identity,
    webhook::{CallError, KubeconfigClient},
};

/// How long an attempt may last, and all of them together. Sources: `defaultRequestTimeout`, `sharedLookupTimeout`.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// How long a refusal is kept that names an error. Kubernetes asks again each time; a stranger who repeats a token must
/// not make the server do so.
const ERROR_KEPT: Duration = Duration::from_secs(5);
/// Bytes of answers that let somebody in, and of others.
const MOST_GOOD: usize = 16 << 20;
const MOST_BAD: usize = 2 << 20;

/// Asks a webhook whose token it is. Clones share the answers.
#[derive(Clone)]
pub struct TokenWebhook {
    client: KubeconfigClient,
    version: OutsideReviewVersion,
    keep_for: Duration,
    answers: Answers<TokenAnswer>,
    places: OutsidePlaces,
}

type TokenAnswer = Result<Option<Arc<Identified>>, TokenWebhookError>;

/// Why a webhook lets nobody in with a token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenWebhookError {
    /// It says so.
    #[error("{0}")]
    Refused(String),
    /// It cannot be asked. What its answer says is not shown: it may repeat the token.
    #[error("{}", unshown(.0))]
    Unavailable(Arc<OutsideReviewError>),
    /// It takes too long.
    #[error("context deadline exceeded")]
    TooLong,
    /// The task that asked it ended.
    #[error("the webhook could not be asked to the end")]
    Ended,
    /// Too many are asked about at a time.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
}

impl TokenWebhookError {
    /// Whether another answer is to be expected once the webhook can be asked.
    pub fn is_undecided(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl TokenWebhook {
    /// Asks through `client`, and keeps an answer for so long.
    pub fn new(client: KubeconfigClient, version: OutsideReviewVersion, keep_for: Duration) -> Self {
        let (answers, places) = (Answers::new(MOST_GOOD, MOST_BAD), OutsidePlaces::default());
        Self { client, version, keep_for, answers, places }
    }

    /// With other limits of questions at a time.
    #[cfg(test)]
    pub fn limited_to(self, places: OutsidePlaces) -> Self {
        Self { places, ..self }
    }

    /// Who holds a token that is good for one of `audiences`; nobody if it is not. `own` are the audiences of a token
    /// for which the webhook names none, and `asker` is who has it asked.
    pub async fn authenticate(&self, token: &str, audiences: &[String], own: &str, asker: Asker<'_>) -> TokenAnswer {
        let parts = std::iter::once(token.as_bytes()).chain(audiences.iter().map(String::as_bytes));
        let key = self.answers.key(parts);
        let asked = self.answers.ask(
            key,
            |is_known| match asker {
                Asker::Stranger(_) if is_known => self.places.take(Asker::Known),
                asker => self.places.take(asker),
            },
            || {
                let (webhook, token) = (self.clone(), token.to_owned());
                let (audiences, own) = (audiences.to_vec(), own.to_owned());
                async move { webhook.ask(&token, &audiences, &own).await }
            },
        );
        asked.await?.unwrap_or(Err(TokenWebhookError::Ended))
    }

    async fn ask(&self, token: &str, audiences: &[String], own: &str) -> Answer<TokenAnswer> {
        let spec = json!({"token": token, "audiences": audiences});
        let asked = ReviewKind::Token.ask(&self.client, self.version, &spec, ANSWERED_WITHIN);
        let value = match tokio::time::timeout(ANSWERED_WITHIN, asked).await {
            Ok(Ok(status)) => read(&status, audiences, own),
            Ok(Err(error)) => Err(TokenWebhookError::Unavailable(Arc::new(error))),
            Err(_) => Err(TokenWebhookError::TooLong),
        };
        let keep_for = match &value {
            Ok(_) => self.keep_for,
            Err(TokenWebhookError::Refused(_)) => self.keep_for.min(ERROR_KEPT),
            Err(error) => {
                tracing::warn!(%error, "cannot ask the token webhook");
                Duration::ZERO
            }
        };
        let bytes = match &value {
            Ok(Some(found)) => size_of(found),
            Err(TokenWebhookError::Refused(why)) => why.len(),
            _ => 0,
        };
        Answer { is_good: matches!(value, Ok(Some(_))), value, keep_for, bytes }
    }
}

fn unshown(error: &OutsideReviewError) -> String {
    match error {
        OutsideReviewError::Call(CallError::Refused { code, .. }) => {
            format!("the server responded with the status code {code}")
        }
        OutsideReviewError::Call(CallError::Answer { .. }) => "the answer is not JSON".to_owned(),
        OutsideReviewError::Call(_) | OutsideReviewError::Shape { .. } | OutsideReviewError::Kind { .. } => {
            error.to_string()
        }
    }
}

/// What the status of a TokenReview says.
fn read(status: &Value, audiences: &[String], own: &str) -> TokenAnswer {
    let named: Vec<&str> = texts(&status["audiences"]);
    let for_whom = |audience: &&String| match named.is_empty() {
        true => *audience == own,
        false => named.contains(&&***audience),
    };
    let common: Vec<String> = audiences.iter().filter(for_whom).cloned().collect();
    if common.is_empty() {
        return Ok(None);
    }
    if status["authenticated"] != true {
        return match status["error"].as_str().filter(|error| !error.is_empty()) {
            Some(error) => Err(TokenWebhookError::Refused(error.to_owned())),
            None => Ok(None),
        };
    }
    let user = &status["user"];
    let text = |field: &str| user[field].as_str().unwrap_or_default().to_owned();
    let owned = |value: &Value| texts(value).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let extra = user["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), owned(values)));
    let identity = Identity {
        name: text("username"),
        uid: text("uid"),
        groups: owned(&user["groups"]),
        extra: extra.collect::<BTreeMap<_, _>>(),
    };
    Ok(Some(Arc::new(Identified { identity, audiences: common })))
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn size_of(found: &Identified) -> usize {
    let Identified { identity, audiences } = found;
    let extra = identity.extra.iter().flat_map(|(key, values)| std::iter::once(key).chain(values));
    let texts = [&identity.name, &identity.uid].into_iter().chain(&identity.groups).chain(audiences).chain(extra);
    // Each with what the allocator and the list take.
    texts.map(|text| text.len().saturating_add(48)).sum()
}
