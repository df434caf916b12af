//! How an error is shown: once, as one line with its chain, with a hint where there is one, and the exit code of
//! kubectl.

use std::process::ExitCode;

use crate::cluster::ApiError;
pub use crate::hint::ErrorWithHint;
use crate::printable::printable;

/// The verb has printed its errors itself, one per object; only the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("errors were reported above")]
pub struct AlreadyReported;

/// A command in a container ended with an exit code that is not 0, which is this program's, too.
#[derive(Debug, thiserror::Error)]
#[error("command terminated with exit code {code}")]
pub struct CommandEnded {
    /// 1 to 255.
    pub code: u8,
}

/// Prints `error` on standard error and returns the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(ended) = error.downcast_ref::<CommandEnded>() {
        eprintln!("{ended}");
        return ExitCode::from(ended.code);
    }
    if error.downcast_ref::<AlreadyReported>().is_none() {
        eprintln!("{}", describe(error));
    }
    ExitCode::FAILURE
}

/// Prints what clap has to say; help and version are no failures. A wrong use exits with 1, as kubectl's does.
pub fn report_usage(error: &anyhow::Error) -> ExitCode {
    let Some(usage) = error.downcast_ref::<clap::Error>() else { return report(error) };
    // Printing to a closed pipe fails, and then no reader is left for an error either.
    usage.print().ok();
    if usage.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The message: a refusal by the server as kubectl words it, anything else as `error: …` with causes in order.
pub fn describe(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A cause whose text the outer message already ends with would only be said twice.
        if !parts.last().is_some_and(|last| last.ends_with(&text)) {
            parts.push(text);
        }
    }
    let server = error.chain().find_map(|cause| cause.downcast_ref::<ApiError>());
    let mut message = match server {
        Some(api) => api.as_kubectl(&parts[..parts.len().saturating_sub(1)].join(": ")),
        None => format!("error: {}", parts.join(": ")),
    };
    let hints =
        error.chain().filter_map(|cause| cause.downcast_ref::<ErrorWithHint>()).map(|hinted| hinted.hint.as_str());
    for line in hints.flat_map(str::lines) {
        message.push_str("\nhint: ");
        message.push_str(line);
    }
    // A webhook or a node may have written it.
    printable(&message).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_told_once_and_in_order() {
        let error = anyhow::anyhow!("no such file").context("cannot read web.yaml");
        assert_eq!(describe(&error), "error: cannot read web.yaml: no such file");
    }

    #[test]
    fn what_a_webhook_answers_does_not_reach_the_terminal() {
        assert_eq!(describe(&anyhow::anyhow!("denied: \u{1b}]0;title\u{7}")), "error: denied: ^[]0;title\\u{7}");
    }

    #[test]
    fn a_hint_follows_on_its_own_line() {
        let error = anyhow::Error::new(ErrorWithHint::new("Docker does not answer", "start it"))
            .context("cannot start the node");
        assert_eq!(describe(&error), "error: cannot start the node: Docker does not answer\nhint: start it");
    }
}
