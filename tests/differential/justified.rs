//! The differences that are meant, each with its reason. Everything else is a defect.

use crate::{comparison::Difference, request::Request};

/// A difference that is meant.
pub struct Justified {
    /// Why the answers may disagree.
    pub because: &'static str,
    matches: fn(&Request, &Difference) -> bool,
}

/// The table of them.
const TABLE: &[Justified] = &[Justified {
    because: "kube-apiserver names the decoder's Go type and version in its texts about bodies that are no JSON",
    matches: |_, difference| difference.place == "message" && difference.theirs.contains("ReadString: expects"),
}];

/// The reason for `difference` in the answers to `request`; `None` for a defect.
pub fn justified(request: &Request, difference: &Difference) -> Option<&'static Justified> {
    TABLE.iter().find(|entry| (entry.matches)(request, difference))
}
