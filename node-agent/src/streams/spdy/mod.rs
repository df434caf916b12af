//! SPDY/3.1, as far as Kubernetes' clients speak it: many streams, each both ways, over one connection.
//!
//! No crate that is kept speaks it. Browsers gave it up for HTTP/2, but kubectl and client-go use it where WebSockets
//! are off, and port-forwards use it inside a WebSocket. As the library that they use (`moby/spdystream`), neither side
//! has windows: a stream that nobody reads holds up its connection once its queue is full.
//!
//! | file | what it knows |
//! |---|---|
//! | `header_block` | names and values, compressed with a dictionary |
//! | `frame` | frames as bytes |
//! | `stream` | the halves of a stream, and which streams there are |
//! | `connection` | who gets what comes; the server's side |
//! | `client` | the client's side |
//!
//! Source: SPDY protocol, draft 3.1 (dev.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1).

mod client;
mod connection;
pub(super) mod frame;
mod header_block;
mod stream;
#[cfg(test)]
pub(super) mod test_client;

pub use client::{ClientConnection, OpenError, Opener, OpeningStream};
pub use connection::{Closer, Connection};
pub use header_block::Headers;
pub use stream::{Chunk, Gone, Stream, StreamReader, StreamWriter};
