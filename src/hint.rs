//! Errors that say what to do about them.

/// An error together with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ErrorWithHint {
    /// What went wrong.
    pub message: String,
    /// One or more lines in the imperative.
    pub hint: String,
}

impl ErrorWithHint {
    /// An error with this message and hint.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}
