//! Property tests over hostile input that run for a given time: `FUZZ_SECONDS` each, one second by default.
//!
//! Crates that read foreign input include this file. What fails is shrunk by proptest and printed.

use std::time::{Duration, Instant};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, TestCaseError, TestRunner},
};

/// Inputs between two looks at the clock.
const ROUND: u32 = 32;

/// Gives inputs of `strategy` to `check` until the time is over. A panic in `check` counts as a failure.
///
/// # Panics
/// At the first input that fails, shrunk to the smallest that still does.
pub fn fuzz<S: Strategy>(strategy: S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map_or(1.0, |text| text.parse().expect("FUZZ_SECONDS: a number"));
    let time = Duration::try_from_secs_f64(seconds).expect("FUZZ_SECONDS: not negative");
    let started = Instant::now();
    while started.elapsed() < time {
        let config = Config { cases: ROUND, failure_persistence: None, ..Config::default() };
        if let Err(failure) = TestRunner::new(config).run(&strategy, &check) {
            panic!("{failure}");
        }
    }
}
