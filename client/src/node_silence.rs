//! What the control service's signer and a joining agent say to each other of a node that still reports: the reason of
//! the denial, and how long until the node would count as silent.
//!
//! A condition has no field for a duration, so that stands in an annotation of the request, beside the condition.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// An agent renews its node's Lease this often, as the kubelet does.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Reason of the denial of a client certificate while the node of this name reports.
pub const NODE_REPORTS: &str = "NodeReports";

/// Whole seconds, after which the node would count as silent if nothing came from it.
const SILENT_IN: &str = "fairlead.io/node-silent-in-seconds";

/// The annotations that say that the node would count as silent after `left`. Rounded up.
pub fn silent_in_annotations(left: Duration) -> BTreeMap<&'static str, String> {
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    [(SILENT_IN, seconds.to_string())].into()
}

/// What [`silent_in_annotations`] say on `request`; `None` where they say nothing.
pub fn silent_in(request: &CertificateSigningRequest) -> Option<Duration> {
    request.metadata.annotations.as_ref()?.get(SILENT_IN)?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_signer_says_is_what_the_agent_reads() {
        let said = |left: Duration| {
            let annotations = silent_in_annotations(left).into_iter().map(|(key, value)| (key.to_owned(), value));
            let mut request = CertificateSigningRequest::default();
            request.metadata.annotations = Some(annotations.collect());
            silent_in(&request)
        };
        assert_eq!(said(Duration::from_secs(600)), Some(Duration::from_secs(600)));
        assert_eq!(said(Duration::from_millis(1)), Some(Duration::from_secs(1)), "not too early");
        assert_eq!(said(Duration::MAX), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(silent_in(&CertificateSigningRequest::default()), None);
    }
}
