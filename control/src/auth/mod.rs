//! Authentication and authorisation: who sends a request, and whether they may.
//!
//! `pki` issues the certificates, `client_certificate` and `token` (with `bootstrap_token`, `account_token` and
//! `secret_token`) tell who a request is from, `attributes` what is asked. `authorizer` decides, by fixed rules
//! (`authorize` with `node`) and by roles and bindings (`rbac`). `gate` stands before the API, and lets as many
//! requests in at a time as `flow_control` says; `held_body` keeps what an answer holds until it is sent, for which it
//! has a limited time (`open_answers`). `param_access` decides to which parameters an admission policy may point.
//! `secret_token_use` labels Secrets whose tokens are used. `connection_places` divides the connections among those who
//! hold them, and `arrivals` keeps those that have just come until their handshake begins. `verified_tokens` spares the
//! verification of a token that comes again.
//!
//! `authenticate` asks all who know clients: beside the above `jwt` (tokens of other issuers), `token_webhook`,
//! `static_tokens` and `request_headers` (front proxies). `access_webhook` is asked by `authorizer` where it is
//! configured. What is asked of webhooks goes through `outside`. `options` are the flags, `configuration` the files,
//! `setup` makes of both those who are asked.

pub mod access_conditions;
pub mod access_webhook;
pub mod account_token;
mod answer_seat;
pub mod arrivals;
pub mod attributes;
pub mod audited;
pub mod authenticate;
pub mod authorize;
pub mod authorizer;
pub mod bootstrap_token;
mod borrowed_places;
pub mod client_certificate;
pub mod configuration;
pub mod connection_places;
mod ending_body;
mod front_proxy_authorities;
pub mod gate;
mod held_body;
mod impersonation;
pub mod jwt;
pub mod node;
mod node_relations;
pub mod open_answers;
pub mod options;
pub mod outside;
pub mod param_access;
mod pod_references;
pub mod rbac;
pub mod request_headers;
pub mod secret_token;
pub mod secret_token_use;
pub mod setup;
mod shortened;
pub mod static_tokens;
pub mod stored_facts;
mod stream_access;
pub mod stream_limit;
pub mod token;
pub mod token_webhook;
pub mod user_info;
mod verified_tokens;

pub use fairlead_pki as pki;

pub use crate::identity::Identity;
