//! How a remote command ended, as clients are told it.

use serde_json::{Value, json};

/// The end of a command, or of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// With exit code 0; or an attachment's process has closed its output.
    Success,
    /// With another exit code.
    ExitCode(i64),
    /// It was not run, or not to its end.
    Failed(String),
}

impl CommandOutcome {
    /// Of a command that ended with `code`.
    pub fn of(code: Option<i64>) -> Self {
        match code {
            None | Some(0) => Self::Success,
            Some(code) => Self::ExitCode(code),
        }
    }

    /// A `metav1.Status`: version 4 of the protocols and later.
    pub fn to_status(&self) -> Value {
        let failure = |rest: Value| {
            let mut status = json!({"metadata": {}, "status": "Failure", "message": self.message()});
            if let (Some(status), Value::Object(rest)) = (status.as_object_mut(), rest) {
                status.extend(rest);
            }
            status
        };
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::ExitCode(code) => {
                let cause = json!({"reason": "ExitCode", "message": code.to_string()});
                failure(json!({"reason": "NonZeroExitCode", "details": {"causes": [cause]}}))
            }
            Self::Failed(why) => {
                failure(json!({"reason": "InternalError", "details": {"causes": [{"message": why}]}, "code": 500}))
            }
        }
    }

    /// Earlier versions: text where something went wrong, else nothing.
    pub fn to_text(&self) -> Option<String> {
        (*self != Self::Success).then(|| self.message())
    }

    fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::ExitCode(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failed(why) => format!("Internal error occurred: {why}"),
        }
    }

    /// What is sent on the channel for errors.
    pub fn to_message(&self, protocol_version: u8) -> Option<String> {
        if protocol_version >= 4 { Some(self.to_status().to_string()) } else { self.to_text() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_of_the_status() {
        assert_eq!(CommandOutcome::of(Some(0)), CommandOutcome::Success);
        assert_eq!(CommandOutcome::Success.to_status(), json!({"metadata": {}, "status": "Success"}));
        assert_eq!(
            CommandOutcome::of(Some(42)).to_status(),
            json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": "command terminated with non-zero exit code: exit status 42",
                "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}})
        );
    }

    #[test]
    fn old_protocols_are_told_failures_alone_and_as_text() {
        assert_eq!(CommandOutcome::Success.to_message(1), None);
        let failed = CommandOutcome::Failed("no such program".into());
        assert_eq!(failed.to_message(3).unwrap(), "Internal error occurred: no such program");
        assert!(failed.to_message(4).unwrap().contains(r#""reason":"InternalError""#));
    }
}
