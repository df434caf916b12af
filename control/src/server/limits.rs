//! How many requests are handled at a time, as the configuration says.

use std::sync::Arc;

use crate::{
    Config,
    api::Api,
    flow_control::{FlowControl, in_flight::InFlight, request_limits::RequestLimits},
    store::Store,
};

/// The two limits together are what priority levels divide: kube-apiserver refuses the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--max-requests-inflight={reads} and --max-mutating-requests-inflight={writes} must add up to something positive \
     unless --enable-priority-and-fairness=false"
)]
pub struct RequestLimitsError {
    reads: usize,
    writes: usize,
}

/// Refuses what leaves nothing to be divided: nobody is to have levels switched off without a word.
pub(super) fn check_limits(config: &Config) -> Result<(), RequestLimitsError> {
    let (reads, writes) = (config.max_requests_inflight, config.max_mutating_requests_inflight);
    match config.enable_priority_and_fairness && reads.saturating_add(writes) == 0 {
        true => Err(RequestLimitsError { reads, writes }),
        false => Ok(()),
    }
}

/// How requests are limited, and what has to follow the objects for that.
pub(super) fn request_limits(
    config: &Config,
    api: &Api,
    store: &Arc<dyn Store>,
) -> (RequestLimits, Option<FlowControl>) {
    let (reads, writes) = (config.max_requests_inflight, config.max_mutating_requests_inflight);
    if !config.enable_priority_and_fairness {
        return (InFlight::new(reads, writes).into(), None);
    }
    let control = FlowControl::new(store.clone(), api.kinds().clone(), reads.saturating_add(writes));
    api.tell_of_flow_control(control.clone());
    (control.clone().into(), Some(control))
}

#[cfg(test)]
mod tests {
    use super::{super::start, *};

    #[tokio::test]
    async fn levels_without_a_seat_are_refused_and_one_limit_of_none_counts_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let limited = |is_fair: bool, reads: usize, writes: usize| Config {
            enable_priority_and_fairness: is_fair,
            max_requests_inflight: reads,
            max_mutating_requests_inflight: writes,
            ..Config::new(dir.path())
        };
        let error = start(limited(true, 0, 0)).await.err().expect("refused").to_string();
        assert!(error.contains("must add up to something positive"), "{error}");
        for (is_fair, reads, writes) in [(true, 0, 200), (true, 400, 0), (false, 0, 0)] {
            assert_eq!(check_limits(&limited(is_fair, reads, writes)), Ok(()), "{is_fair} {reads} {writes}");
        }
    }
}
