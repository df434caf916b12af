//! What control service and node agent share as servers. It knows nothing of the API, pods, Services or names: the
//! crates that do depend on it, and not on each other.
//!
//! | file | what it knows |
//! |---|---|
//! | `supervise` | tasks that are started again when they end |
//! | `connection_limit`, `client_limit` | how many connections, or questions, there may be in all and of one client |
//! | `client_network` | who is one client: addresses, and networks of IPv6 |
//! | `http_connection` | how a server speaks TCP and HTTP: time limits, sizes, pings |
//! | `bulk_reads`, `idle_http1` | few system calls on a busy connection, little memory for an idle one |
//! | `guarded_body` | a body that keeps something until it is sent |
//! | `error_chain` | an error and its causes as text |

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

pub mod bulk_reads;
pub mod client_limit;
pub mod client_network;
pub mod connection_limit;
mod error_chain;
pub mod guarded_body;
pub mod http_connection;
pub mod idle_http1;
pub mod supervise;

pub use error_chain::error_chain;
