//! Warnings that arise while a request is handled, and that its answer tells (`Warning` headers).

use std::{cell::RefCell, future::Future};

tokio::task_local! {
    /// Of the request that this task handles.
    static WARNINGS: RefCell<Vec<String>>;
}

/// Most warnings of one answer.
pub const MOST: usize = 100;

/// Adds a warning to the answer of the request that is being handled. Lost outside of one.
pub fn add(warning: String) {
    let added = WARNINGS.try_with(|warnings| {
        let mut warnings = warnings.borrow_mut();
        if warnings.len() < MOST && !warnings.contains(&warning) {
            warnings.push(warning.clone());
        }
    });
    if added.is_err() {
        tracing::debug!(warning, "a warning that no client asked for");
    }
}

/// Handles a request; answers with the warnings that arose.
pub async fn collect<T>(handle: impl Future<Output = T>) -> (T, Vec<String>) {
    let scoped = async {
        let result = handle.await;
        (result, WARNINGS.with(RefCell::take))
    };
    WARNINGS.scope(RefCell::default(), scoped).await
}
