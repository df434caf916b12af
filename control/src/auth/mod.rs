//! Who asks, and whether they may.
//!
//! `pki` issues the certificates, `client_certificate` and `bootstrap_token` tell who a request is from, `attributes` what it
//! wants, `authorize` (with `node`) decides, and `gate` puts them before the API's router.

pub mod attributes;
pub mod authorize;
pub mod bootstrap_token;
pub mod client_certificate;
mod ending_body;
pub mod gate;
pub mod node;
pub mod pki;
mod stored_facts;

/// Who sent a request: inserted into the request's extensions by the authentication layer (or by the in-process client) before
/// the API's router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub groups: Vec<String>,
}

impl Identity {
    /// The identity of everything that runs inside the control service.
    pub fn control(name: &str) -> Self {
        Self::authenticated(format!("system:{name}"), vec![authorize::MASTERS.into()])
    }

    /// Somebody who proved who they are.
    pub fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        groups.push(authorize::AUTHENTICATED.into());
        Self { name, groups }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose agent this is, if it is one: group `system:nodes` and user `system:node:NAME`, both.
    pub fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
        self.is_in(authorize::NODES).then_some(name)
    }
}
