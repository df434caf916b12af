//! The differences that are meant, each with its reason. Everything else is a defect.

use crate::{comparison::Difference, request::Request};

/// A difference that is meant.
pub struct Justified {
    /// Why the answers may disagree.
    pub because: &'static str,
    matches: fn(&Request, &Difference) -> bool,
}

/// The table of them.
const TABLE: &[Justified] = &[
    Justified {
        because: "items of lists name their kind and version here, which spares clients a look at the list; \
                  kube-apiserver leaves both out of built-in kinds",
        matches: |_, d| {
            ["items[].apiVersion", "items[].kind"].contains(&&*d.place) && d.theirs.is_empty() && !d.ours.is_empty()
        },
    },
    Justified {
        because: "kube-apiserver answers some faults of a request with 500, which clients take for the server's own \
                  and try again",
        matches: |_, d| d.place == "code" && d.theirs.starts_with("500 ") && d.ours.starts_with('4'),
    },
    Justified {
        because: "columns are described in words of our own, where Kubernetes describes them in the words of its schema",
        matches: |_, d| d.place == "columnDefinitions[].description",
    },
    Justified {
        because: "the administrators of the two servers have different names",
        matches: |request, d| {
            let about_user = ["spec.username", "spec.uid", "spec.groups", "spec.extra"].iter().any(|field| {
                d.place.starts_with(field) || d.place.strip_prefix("items[].").is_some_and(|p| p.starts_with(field))
            });
            request.path.contains("/certificatesigningrequests") && about_user
        },
    },
    Justified {
        because: "controllers inside kube-apiserver write the status of APIServices and flow control's objects a \
                  moment later, here others do",
        matches: |request, d| {
            let written_later = ["/apiservices", "/flowschemas", "/prioritylevelconfigurations"];
            let by_status = ["status", "metadata.managedFields", "rows[]", "items[].status", "metadata.generation"];
            written_later.iter().any(|plural| request.path.contains(plural))
                && (by_status.iter().any(|place| d.place.starts_with(place))
                    || d.place == "code" && d.theirs.contains("the object has been modified"))
        },
    },
    Justified {
        because: "the text quotes the object as Go orders its fields, with another revision and UID",
        matches: |_, d| {
            let quotes = |text: &str| text.contains("patch: Invalid value: ") || text.starts_with("\"Invalid value: ");
            let place = d.place == "message" || d.place == "details.causes[].message";
            place && quotes(&d.ours) && quotes(&d.theirs) && d.theirs.contains("resourceVersion")
        },
    },
    Justified {
        because: "a JSON patch that cannot be applied is told which operation failed and why; kube-apiserver says only \
                  that there is an error in the request",
        matches: |request, d| {
            const WHY: &str = "the server rejected our request due to an error in our request";
            let is_patch = request.content_type == "application/json-patch+json";
            is_patch
                && (d.place == "details.causes" && d.theirs.is_empty()
                    || d.place == "message" && d.theirs.contains(WHY))
        },
    },
    Justified {
        because: "kube-apiserver names types and files of its Go source in texts about bodies that it cannot read",
        matches: |_, d| {
            let unless_type = |text: &str| text.split(" of type ").next().map(str::to_owned);
            if d.theirs.contains("json: cannot unmarshal") && unless_type(&d.ours) == unless_type(&d.theirs) {
                return true;
            }
            const GO: [&str; 6] = [
                "pkg/runtime/scheme.go",
                "Go value of type",
                "ReadString: expects",
                "looking for beginning of value",
                "unrecognized type: ",
                "couldn't get version/kind; json parse error",
            ];
            let text = d.place == "message" || d.place == "details.causes[].message";
            text && GO.iter().any(|word| d.theirs.contains(word))
        },
    },
];

/// The reason for `difference` in the answers to `request`; `None` for a defect.
pub fn justified(request: &Request, difference: &Difference) -> Option<&'static Justified> {
    TABLE.iter().find(|entry| (entry.matches)(request, difference))
}
