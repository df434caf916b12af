//! Authentication and authorisation: who sends a request, and whether they may; and what a client may hold of the
//! service meanwhile.
//!
//! ```text
//!  connection ─▶ arrivals ─▶ handshake ─▶ connection_places ─▶ gate ─▶ authenticate ─▶ authorizer ─▶ handler
//!  answer ◀─ open_answers (for how long) ◀─ held_body (its memory, its seat) ◀─────────────────────────┘
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | `gate` | has all of the below asked about each request, and about long ones again |
//! | `authenticate` | who sends a request, by whichever credential it has |
//! | `client_certificate`, `request_headers` | certificates of clients, and the word of front proxies |
//! | `token`, `account_token`, `bootstrap_token`, `secret_token` | tokens of this cluster |
//! | `verified_tokens`, `secret_token_use` | which signatures need not be verified again; the label of Secrets in use |
//! | `jwt`, `token_webhook`, `static_tokens` | tokens of other issuers, of a webhook, of a file |
//! | `impersonation`, `user_info` | acting as another; a user as objects tell of them |
//! | `attributes` | what is asked (pure) |
//! | `authorizer` | who decides, in order |
//! | `authorize`, `node`, `node_relations`, `pod_references` | the fixed rules for nodes and joining |
//! | `rbac` | roles and bindings |
//! | `access_webhook`, `access_conditions` | another server that decides, and when it is asked |
//! | `stored_facts` | what the above looks up in the store |
//! | `param_access`, `stream_access` | rights beside that to the verb: to parameters of policies, and to streams |
//! | `outside` | questions to webhooks: bounded, kept, shared |
//! | `options`, `configuration`, `setup` | the flags, the files, and those who are asked as both say |
//! | `connection_places`, `borrowed_places` | how many connections each client may have |
//! | `arrivals`, `handshake_turns` | connections before their handshake, and whose turn it is |
//! | `by_network` | what is kept of each of those by whom strangers are counted |
//! | `open_answers`, `held_body`, `answer_seat` | how long an answer may take, and what it holds until it is sent |
//! | `ending_body` | a watch that ends with the service, and with the right to it |
//! | `stream_limit` | how many streams a user may hold |
//! | `audited`, `shortened` | the beginning of a request's audit; how much of a request a refusal repeats |
//!
//! `pki` is the crate that issues the certificates. How many requests are handled at a time says `flow_control`.

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
mod by_network;
pub mod client_certificate;
pub mod configuration;
pub mod connection_places;
mod ending_body;
mod front_proxy_authorities;
pub mod gate;
pub mod handshake_turns;
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
