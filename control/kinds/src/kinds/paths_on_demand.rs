//! Whether checks make the paths of the fields that they look at. Nearly every object is valid, and then nobody sees a
//! path: to make them took a third of the time of a pod's validation.

use std::cell::Cell;

thread_local! {
    /// Whether [`child`](super::field::child), [`item`](super::field::item) and [`entry`](super::field::entry) make
    /// paths.
    static MADE: Cell<bool> = const { Cell::new(true) };
}

/// Whether paths are made now.
pub fn are_made() -> bool {
    MADE.get()
}

/// What `checks` find. They run without paths first and, where they find anything, once more with them.
///
/// Without paths they must find something if, and only if, they find something with them: what a check decides must
/// not depend on a path.
pub fn where_refused<T>(checks: impl Fn() -> Vec<T>) -> Vec<T> {
    if !are_made() {
        return checks();
    }
    let found = without_paths(&checks);
    if found.is_empty() {
        debug_assert!(checks().is_empty(), "the checks decide by paths");
        return found;
    }
    checks()
}

fn without_paths<T>(checks: impl FnOnce() -> T) -> T {
    /// Has paths made again, though a check may panic.
    struct MadeAgain;
    impl Drop for MadeAgain {
        fn drop(&mut self) {
            MADE.set(true);
        }
    }
    MADE.set(false);
    let _made_again = MadeAgain;
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
    fn a_panic_leaves_paths_to_be_made() {
        assert!(std::panic::catch_unwind(|| where_refused(|| -> Vec<()> { panic!("a check") })).is_err());
        assert_eq!(child("a", "b"), "a.b");
    }
}
