//! Key services, version 2 of Kubernetes' protocol: a plugin behind a Unix socket encrypts **seeds**, which this
//! process makes, and values are sealed under keys that are derived from a seed.
//!
//! ```text
//! probe (each minute) ── Status ──▶ key id ── changed? ── new seed ── Encrypt ──▶ what seals from now on
//! open ── seed that a value names ── known? ── Decrypt ──▶ what opens it
//! ```
//!
//! So no write waits for the service, and a start asks once for each seed. As in Kubernetes, what seals goes on for
//! three minutes after the last good probe, and is refused then; a value whose key id is not the present one is stale.
//!
//! Files: `protocol` (messages and calls), `provider` (seeds, health).

mod protocol;
mod provider;
#[cfg(test)]
mod tests;

pub use protocol::Endpoint;
pub use provider::{KmsProvider, Unhealthy};
