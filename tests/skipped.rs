//! Skipping a test that this machine cannot run: says so, and fails where nothing may be skipped.
//!
//! Every crate includes this file, so that one place decides. `cargo xtask test` counts the printed lines.

use std::fmt::Display;

/// Says that a test is skipped and why. The caller returns.
///
/// # Panics
/// Where `CI=true`: a machine that checks changes must be able to run every test.
pub fn skipped(reason: impl Display) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!is_ci, "CI=true allows no skipped test, but {reason}");
    println!("skipped, because {reason}");
}
