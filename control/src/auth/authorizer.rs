//! Who may do what. Those who decide are asked in order: unless it is configured otherwise, the fixed rules for nodes
//! and joining ([`authorize`](super::authorize)), then the roles and bindings ([`rbac`](super::rbac)). The first one
//! who allows or denies decides; what nobody has an opinion of is refused. Administrators are never asked about.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{
    access_webhook::{AccessQuestion, AccessWebhook, WebhookOpinion},
    attributes::Attributes,
    authorize::{self, FixedDecision},
    outside::places::NoPlace,
    rbac::{Rbac, RbacDecision, Rule},
    stored_facts::{StoredFacts, Unreadable},
};
use crate::{
    flow_control::shares::Shares,
    identity::{Identity, MASTERS},
    status::Status,
    store::Store,
};

/// Decides about requests, with all that the stored objects say. Cheap to clone; clones ask the same.
#[derive(Clone)]
pub struct Authorizer {
    facts: StoredFacts,
    rbac: Rbac,
    chain: Arc<ArcSwap<Vec<ChainLink>>>,
    /// Threads that may wait for webhooks, divided among those whose requests have them wait.
    waiting: Arc<Shares>,
}

/// How many threads wait for webhooks at a time. The runtime replaces each by another, of which it has 512: were there
/// none left, all tasks would stand still. Chosen, not measured.
const MOST_WAITING_THREADS: usize = 64;

/// One of those who decide.
#[derive(Clone)]
pub enum ChainLink {
    /// Allows everything.
    AlwaysAllow,
    /// Has no opinion of anything, and says why.
    AlwaysDeny,
    /// The fixed rules for nodes and joining.
    Node,
    /// The roles and bindings.
    Rbac,
    /// Another server.
    Webhook(Arc<AccessWebhook>),
}

/// Whether a request is allowed, and why. The reason may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Allowed {
        /// Which binding allows it.
        reason: String,
    },
    /// It is not.
    Refused {
        /// What is wrong with it, or with the bindings of the user.
        reason: String,
        /// Somebody denies it. Otherwise nobody has an opinion.
        is_denied: bool,
        /// Why somebody could not be asked.
        error: Option<String>,
    },
}

/// Why it is not decided what somebody may do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationError {
    /// An object that it needs cannot be read back.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A webhook has to be asked, and this server asks too much at a time.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
}

/// What one of those who decide thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It is allowed; the reason may be empty.
    Allow(String),
    /// It is denied, whatever others think.
    Deny {
        /// May be empty.
        reason: String,
        /// Why it could not be asked.
        error: Option<String>,
    },
    /// Others decide.
    None {
        /// May be empty.
        reason: String,
        /// Why it could not be asked.
        error: Option<String>,
    },
}

/// What somebody may do in a namespace, as far as that can be listed.
#[derive(Debug, Default)]
pub struct ListedRules {
    /// By roles and the like.
    pub rules: Vec<Rule>,
    /// There may be more.
    pub is_incomplete: bool,
    /// Why, and what else went wrong.
    pub errors: Vec<String>,
}

/// What was said so far.
#[derive(Default)]
struct Told {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl AuthorizationError {
    /// The 500, or the 429.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Unreadable(error) => error.to_status(),
            Self::NoPlace(full) => full.to_status(),
        }
    }
}

impl Opinion {
    /// Others decide, and nothing went wrong.
    pub fn none(reason: impl Into<String>) -> Self {
        Self::None { reason: reason.into(), error: None }
    }
}

impl Authorizer {
    /// Asks the objects of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let chain = Arc::new(ArcSwap::from_pointee(vec![ChainLink::Node, ChainLink::Rbac]));
        let waiting = Shares::new(MOST_WAITING_THREADS, usize::MAX);
        Self { facts: StoredFacts::new(store.clone()), rbac: Rbac::new(store), chain, waiting }
    }

    /// Has these decide from now on, in this order.
    pub fn decide_by(&self, chain: Vec<ChainLink>) {
        self.chain.store(Arc::new(chain));
    }

    /// The roles and bindings.
    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// What authentication looks up.
    pub fn facts(&self) -> &StoredFacts {
        &self.facts
    }

    /// Decides. Fails if an object that it needs cannot be read back, or a webhook cannot be asked yet. Waits only for
    /// webhooks.
    pub async fn decide(
        &self,
        identity: &Identity,
        attributes: &Attributes<'_>,
    ) -> Result<Verdict, AuthorizationError> {
        if identity.is_in(MASTERS) {
            return Ok(Verdict::Allowed { reason: String::new() });
        }
        let (chain, mut told) = (self.chain.load_full(), Told::default());
        for link in chain.iter() {
            let opinion = match link {
                // In a box: most requests need no room for this.
                ChainLink::Webhook(webhook) => Box::pin(webhook.decide(identity, attributes)).await?,
                link => self.opinion(link, identity, attributes)?,
            };
            if let Some(verdict) = told.add(opinion) {
                return Ok(verdict);
            }
        }
        Ok(told.refusal())
    }

    /// The same for who cannot wait, such as an expression that asks because of a request of `requester`. Where a
    /// webhook has to be asked, the thread waits, and other tasks go on in others.
    pub fn decide_here(
        &self,
        requester: &Identity,
        identity: &Identity,
        attributes: &Attributes<'_>,
    ) -> Result<Verdict, AuthorizationError> {
        if identity.is_in(MASTERS) {
            return Ok(Verdict::Allowed { reason: String::new() });
        }
        let (chain, mut told) = (self.chain.load_full(), Told::default());
        for link in chain.iter() {
            let opinion = match link {
                ChainLink::Webhook(webhook) => match webhook.known(identity, attributes) {
                    WebhookOpinion::Known(opinion) => opinion,
                    WebhookOpinion::ToAsk(question) => self.ask_here(webhook, requester, question)?,
                },
                link => self.opinion(link, identity, attributes)?,
            };
            if let Some(verdict) = told.add(opinion) {
                return Ok(verdict);
            }
        }
        Ok(told.refusal())
    }

    /// Has this thread wait for a webhook.
    fn ask_here(
        &self,
        webhook: &AccessWebhook,
        requester: &Identity,
        question: AccessQuestion,
    ) -> Result<Opinion, NoPlace> {
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() != RuntimeFlavor::CurrentThread => {
                let _thread = self.waiting.take(&requester.name, 1).ok_or(NoPlace)?;
                tokio::task::block_in_place(|| handle.block_on(webhook.answer(question)))
            }
            // Its only thread would wait for itself. This service has several.
            _ => Ok(webhook.cannot_be_asked()),
        }
    }

    /// What somebody thinks who is no webhook.
    fn opinion(
        &self,
        link: &ChainLink,
        identity: &Identity,
        attributes: &Attributes<'_>,
    ) -> Result<Opinion, Unreadable> {
        Ok(match link {
            ChainLink::AlwaysAllow => Opinion::Allow(String::new()),
            ChainLink::AlwaysDeny => Opinion::none("Everything is forbidden."),
            ChainLink::Node => match authorize::authorize(identity, attributes) {
                FixedDecision::Allow => Opinion::Allow(String::new()),
                FixedDecision::AllowIf(fact) if self.facts.holds(&fact)? => Opinion::Allow(String::new()),
                FixedDecision::AllowIf(fact) => Opinion::none(fact.denial()),
                FixedDecision::NoOpinion(reason) => Opinion::none(reason),
            },
            ChainLink::Rbac => match self.rbac.policy().decide(identity, attributes) {
                RbacDecision::Allowed(reason) => Opinion::Allow(reason),
                RbacDecision::NoOpinion(reason) => Opinion::none(reason),
            },
            ChainLink::Webhook(_) => Opinion::none(String::new()),
        })
    }

    /// What somebody may do in a namespace, as far as those who decide can list it.
    pub fn list_rules(&self, identity: &Identity, namespace: &str) -> ListedRules {
        let mut listed = ListedRules::default();
        for link in self.chain.load_full().iter() {
            match link {
                ChainLink::AlwaysAllow => listed.rules.extend(everything()),
                ChainLink::AlwaysDeny => {}
                // What a node may depends on its pods, and cannot be listed.
                ChainLink::Node if identity.node().is_some() => {
                    listed.unlisted("node authorizer does not support user rule resolution");
                }
                ChainLink::Node => {}
                ChainLink::Rbac => {
                    let (rules, error) = self.rbac.policy().rules_of(identity, namespace);
                    listed.rules.extend(rules);
                    listed.errors.extend(error);
                }
                ChainLink::Webhook(_) => {
                    listed.unlisted("webhook authorizer does not support user rule resolution");
                }
            }
        }
        listed
    }
}

impl ListedRules {
    fn unlisted(&mut self, why: &str) {
        self.is_incomplete = true;
        self.errors.push(why.to_owned());
    }
}

impl Told {
    /// The verdict, if there is one now.
    fn add(&mut self, opinion: Opinion) -> Option<Verdict> {
        match opinion {
            Opinion::Allow(reason) => Some(Verdict::Allowed { reason }),
            Opinion::Deny { reason, error } => Some(Verdict::Refused { reason, is_denied: true, error }),
            Opinion::None { reason, error } => {
                self.reasons.extend(Some(reason).filter(|reason| !reason.is_empty()));
                self.errors.extend(error);
                None
            }
        }
    }

    fn refusal(self) -> Verdict {
        let error = match self.errors.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        };
        Verdict::Refused { reason: self.reasons.join("\n"), is_denied: false, error }
    }
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    let none = Rule {
        verbs: all(),
        api_groups: Vec::new(),
        resources: Vec::new(),
        resource_names: Vec::new(),
        non_resource_urls: Vec::new(),
    };
    [Rule { api_groups: all(), resources: all(), ..none.clone() }, Rule { non_resource_urls: all(), ..none }]
}

impl fmt::Debug for ChainLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlwaysAllow => f.write_str("AlwaysAllow"),
            Self::AlwaysDeny => f.write_str("AlwaysDeny"),
            Self::Node => f.write_str("Node"),
            Self::Rbac => f.write_str("RBAC"),
            Self::Webhook(webhook) => write!(f, "Webhook {}", webhook.name()),
        }
    }
}

#[cfg(test)]
impl Authorizer {
    /// With another number of threads that may wait for webhooks.
    pub fn waiting_in(self, threads: usize) -> Self {
        Self { waiting: Shares::new(threads, usize::MAX), ..self }
    }
}

#[cfg(test)]
impl Verdict {
    /// Nobody has an opinion.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), is_denied: false, error: None }
    }
}
