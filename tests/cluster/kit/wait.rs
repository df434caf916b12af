//! Waiting for a condition, with a limit and with the last reason why it did not hold.

use std::time::{Duration, Instant};

use super::Result;

/// Tries `condition` until it holds; the error names `what` and the last failure.
///
/// The pause between two tries is how often an outside condition (another program's output) is looked at, not a guess
/// of how long something takes.
pub fn until<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= patience => {
                return Err(format!("waited {patience:?} for {what}: {error}").into());
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
