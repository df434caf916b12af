//! How much the reasons against one object may tell, all together: a small input must not make a large answer.
//!
//! Reasons that are made beyond the budget have no text, and cost no more than an item of a list. They are counted, so
//! that an object with any of them is refused all the same.

use std::cell::Cell;

use super::{FieldError, FieldErrorReason};

thread_local! {
    /// Bytes that are left to the checks that run; `None` where none run.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Bytes of all reasons against an object, paths included. Refusals that people read are far below.
pub const MOST: usize = 1 << 20;
/// Bytes of one path, and of one message. Kubernetes' longest fixed texts are below 1 KB.
pub const LONGEST: usize = 8 << 10;

/// Runs checks whose reasons have [`MOST`] bytes together. Checks within checks have what the outer ones leave them.
pub fn within<T>(checks: impl FnOnce() -> T) -> T {
    /// Puts back what was before, though a check may panic.
    struct Before(Option<usize>);
    impl Drop for Before {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let before = LEFT.get();
    if before.is_some() {
        return checks();
    }
    let _before = Before(before);
    LEFT.set(Some(MOST));
    checks()
}

/// A reason at `path`, whose message is made only if it is told.
pub fn reason(path: impl Into<String>, reason: FieldErrorReason, message: impl FnOnce() -> String) -> FieldError {
    let left = LEFT.get();
    if left == Some(0) {
        return FieldError { path: String::new(), reason: FieldErrorReason::Untold, message: String::new() };
    }
    let (path, message) = (cut(path.into()), cut(message()));
    LEFT.set(left.map(|left| left.saturating_sub(path.len()).saturating_sub(message.len())));
    FieldError { path, reason, message }
}

/// The reasons that are told, and how many are not.
pub fn told(errors: &[FieldError]) -> (Vec<&FieldError>, usize) {
    let told: Vec<&FieldError> = errors.iter().filter(|error| error.reason != FieldErrorReason::Untold).collect();
    let untold = errors.len().saturating_sub(told.len());
    (told, untold)
}

/// A text without what is more than [`LONGEST`].
pub fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::{Status, Subject};

    #[test]
    fn many_reasons_are_counted_and_few_are_told() {
        let errors: Vec<FieldError> = within(|| {
            let value = json!("x".repeat(1000));
            (0..10_000).map(|at| FieldError::invalid(format!("list[{at}]"), &value, "no")).collect()
        });
        let bytes: usize = errors.iter().map(|error| error.path.capacity() + error.message.capacity()).sum();
        assert!(bytes < 2 * MOST, "{bytes}");
        let (some, untold) = told(&errors);
        assert_eq!((some.len() + untold, some[3].path.as_str()), (10_000, "list[3]"));
        assert!(untold > 8_000);
        let status = Status::invalid(Subject { group: "", resource: "Pod", name: "p" }, &errors);
        assert!(status.message.ends_with(&format!("… and {untold} more]")), "{}", &status.message[MOST..]);
        assert!(status.to_json().to_string().len() < 4 * MOST);
    }

    #[test]
    fn a_budget_begins_with_each_object() {
        for _ in 0..3 {
            let error = within(|| FieldError::required("a", &"x".repeat(MOST)));
            assert_eq!(error.message.len(), LONGEST + '…'.len_utf8());
        }
        assert_eq!(LEFT.get(), None);
        let inner = within(|| {
            (0..1000).for_each(|_| drop(FieldError::required("a", &"x".repeat(LONGEST))));
            within(|| FieldError::required("a", ""))
        });
        assert_eq!(inner.reason, FieldErrorReason::Untold);
    }

    #[test]
    fn a_long_value_is_shown_in_part_and_read_in_part() {
        let list = json!(vec!["name"; 500_000]);
        let began = std::time::Instant::now();
        let errors: Vec<FieldError> = (0..2_000).map(|_| FieldError::invalid("a", &list, "why")).collect();
        assert!(began.elapsed().as_secs() < 30);
        assert!(errors[0].message.len() <= LONGEST + '…'.len_utf8());
        assert!(errors[0].message.starts_with(r#"Invalid value: ["name","name","#), "{}", &errors[0].message[..40]);
        assert!(errors[0].message.ends_with("…: why"), "{}", &errors[0].message[errors[0].message.len() - 40..]);
        assert!(FieldError::invalid("a", &json!("é".repeat(1 << 20)), "").message.len() < LONGEST);
    }
}
