//! Streams over HTTP, with processes in memory: what clients see, and that nothing is left of them.

mod command;
mod lab;
mod port_forward;
mod spdy;
mod tunnel_client;
