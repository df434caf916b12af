//! The binary `fairlead`: every role of a cluster and every verb of its command line.
//!
//! This file only sets the process up and turns an error into its message and exit code; what a verb does is in its own
//! file.

// Numbers come from command lines, files and servers: each conversion handles one that does not fit.
#![warn(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod cli;
mod cluster;
mod failure;
mod hint;
mod manifest;
mod merge;
mod output;
mod printable;
mod role;
#[cfg(test)]
#[path = "../tests/skipped.rs"]
mod skipped;
mod verbs;
mod yaml;

use std::process::ExitCode;

use role::LogFormat;
use tracing_subscriber::EnvFilter;

/// Objects of the API are thousands of small pieces, made on one thread and freed on another: glibc's allocator took a
/// quarter of the control service's time for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => return failure::report_usage(&error),
    };
    start_tracing(invocation.log_format());
    if invocation.log_format().is_none() {
        end_with_the_pipe();
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before main's");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&anyhow::Error::new(error).context("cannot start the async runtime")),
    };
    let outcome = runtime.block_on(invocation.run());
    // A read of standard input cannot be cancelled and must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// `fairlead get pods | head` ends quietly, as other programs do; Rust has SIGPIPE ignored and would panic at the next
/// line.
fn end_with_the_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed; the default action runs no code of this process.
    if let Err(error) = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) } {
        tracing::debug!(%error, "SIGPIPE stays ignored");
    }
}

/// Roles log what they do; client verbs only write when something is wrong. `RUST_LOG` overrides both.
fn start_tracing(role: Option<LogFormat>) {
    let default = if role.is_some() { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match role {
        // The fields of an event stand beside its message; those of the spans around it, such as a request's id, under
        // `span`.
        Some(LogFormat::Json) => {
            subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false).init()
        }
        Some(LogFormat::Text) | None => subscriber.init(),
    }
}
