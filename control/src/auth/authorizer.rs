//! Who may do what: the fixed rules for nodes and joining first ([`authorize`](super::authorize)), then the roles and
//! bindings ([`rbac`](super::rbac)). What either allows is allowed.

use std::sync::Arc;

use super::{
    attributes::Attributes,
    authorize::{self, FixedDecision},
    rbac::{Rbac, RbacDecision},
    stored_facts::{StoredFacts, Unreadable},
};
use crate::{identity::Identity, store::Store};

/// Decides about requests, with all that the stored objects say. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    facts: StoredFacts,
    rbac: Rbac,
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
    },
}

impl Authorizer {
    /// Asks the objects of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { facts: StoredFacts::new(store.clone()), rbac: Rbac::new(store) }
    }

    /// The roles and bindings.
    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// What authentication looks up.
    pub fn facts(&self) -> &StoredFacts {
        &self.facts
    }

    /// Decides. Fails if an object that it needs cannot be read back.
    pub fn decide(&self, identity: &Identity, attributes: &Attributes<'_>) -> Result<Verdict, Unreadable> {
        let allowed = Verdict::Allowed { reason: String::new() };
        let fixed = match authorize::authorize(identity, attributes) {
            FixedDecision::Allow => return Ok(allowed),
            FixedDecision::AllowIf(fact) if self.facts.holds(&fact)? => return Ok(allowed),
            FixedDecision::AllowIf(fact) => fact.denial(),
            FixedDecision::Deny(reason) => reason,
        };
        Ok(match self.rbac.policy().decide(identity, attributes) {
            RbacDecision::Allowed(reason) => Verdict::Allowed { reason },
            RbacDecision::NoOpinion(reason) => {
                let reasons = [fixed, reason].into_iter().filter(|reason| !reason.is_empty());
                Verdict::Refused { reason: reasons.collect::<Vec<_>>().join("\n") }
            }
        })
    }
}
