//! Authentication and authorisation: who sends a request, and whether they may.
//!
//! `pki` issues the certificates, `client_certificate` and `bootstrap_token` tell who a request is from, `attributes`
//! what is asked, `authorize` (with `node`) decides, and `gate` stands before the API. `node_restriction` decides what
//! a node may write.

pub mod attributes;
pub mod authorize;
pub mod bootstrap_token;
pub mod client_certificate;
mod ending_body;
pub mod gate;
pub mod node;
pub mod node_restriction;
pub mod pki;
mod pod_references;
mod stored_facts;

pub use crate::identity::Identity;
