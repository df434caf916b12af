//! Whether checks make the paths of the fields that they look at. Nearly every object is valid, and then nobody sees a
//! path: to make them took a third of the time of a pod's validation.

use std::cell::Cell;

thread_local! {
    /// Whether [`child`](super::field::child) and [`item`](super::field::item) make paths.
    static MADE: Cell<bool> = const { Cell::new(true) };
}

/// Whether paths are made now.
pub fn are_made() -> bool {
    MADE.get()
}

/// What `checks` find. They run without paths first and, where they find anything, once more with them.
///
/// Without paths they must find something if, and only if, they find something with them: what a check decides must
/// not depend on a path, or it asks for paths itself, by [`within`].
pub fn where_refused<T>(checks: impl Fn() -> Vec<T>) -> Vec<T> {
    if !are_made() {
        return checks();
    }
    let found = with(false, &checks);
    if found.is_empty() {
        debug_assert!(checks().is_empty(), "the checks decide by paths");
        return found;
    }
    checks()
}

/// Runs checks that decide by paths, which are made in any case.
pub fn within<T>(checks: impl FnOnce() -> T) -> T {
    with(true, checks)
}

fn with<T>(made: bool, checks: impl FnOnce() -> T) -> T {
    /// Puts back what was before, though a check may panic.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            MADE.set(self.0);
        }
    }
    let _before = Before(MADE.replace(made));
    checks()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{
        FieldError,
        field::{child, item},
    };

    #[test]
    fn paths_are_made_for_what_is_refused() {
        let runs = Cell::new(0);
        let checked = |is_valid: bool| {
            where_refused(|| {
                runs.set(runs.get() + 1);
                let path = item(&child("spec", "list"), 3);
                let errors = where_refused(|| if is_valid { Vec::new() } else { vec![child(&path, "name")] });
                errors.into_iter().map(|path| FieldError::required(path, "")).collect()
            })
        };
        assert_eq!(checked(false), [FieldError::required("spec.list[3].name", "")]);
        assert_eq!(runs.replace(0), 2);
        assert_eq!(checked(true), []);
        assert!(are_made());
    }

    #[test]
    fn checks_that_decide_by_paths_have_them_and_a_panic_changes_nothing() {
        let found = where_refused(|| within(|| vec![child("a", "b")]));
        assert_eq!(found, ["a.b"]);
        assert!(std::panic::catch_unwind(|| where_refused(|| -> Vec<()> { panic!("a check") })).is_err());
        assert_eq!(child("a", "b"), "a.b");
    }
}
