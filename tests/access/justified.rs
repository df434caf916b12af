//! The differences that are meant, each with its reason. Everything else is a defect.

use crate::{asked::Asked, comparison::Difference, exchange::Answer};

/// Both answers, and where they disagree.
struct Answers<'a> {
    ours: &'a Answer,
    theirs: &'a Answer,
    difference: &'a Difference,
}

impl Answers<'_> {
    /// Whether one server lets through what the other refuses.
    fn we_alone_allow(&self) -> bool {
        is_allowed(self.ours) && !is_allowed(self.theirs)
    }

    fn they_alone_allow(&self) -> bool {
        !is_allowed(self.ours) && is_allowed(self.theirs)
    }
}

/// A review says so; any other answer by not being 403. Not so an answer that was not given at all.
fn is_allowed(answer: &Answer) -> bool {
    match answer.body["allowed"].as_bool() {
        Some(allowed) => allowed,
        None => !matches!(answer.code, 0 | 401 | 403),
    }
}

/// A difference that is meant.
struct Justified {
    /// Why the answers may disagree.
    because: &'static str,
    matches: fn(&Asked, &Answers) -> bool,
}

/// Tokens of a form that this server issues to nobody, though its key signed them.
const FOREIGN_FORMS: [&str; 5] = ["no-end", "no-beginning", "fraction", "no-audience", "audience-in-text"];

const READS: [&str; 3] = ["get", "list", "watch"];
const CERTIFICATES: &str = "certificates.k8s.io";
const SIGNING_REQUESTS: &str = "certificatesigningrequests";

/// The table of them.
const TABLE: &[Justified] = &[
    Justified {
        because: "agents read all Nodes, Namespaces and EndpointSlices: they make routes, balance Services and answer \
                  DNS themselves, where Kubernetes gives that to kube-proxy and others with accounts of their own",
        matches: |asked, answers| {
            let resources = [("", "nodes"), ("", "namespaces"), ("discovery.k8s.io", "endpointslices")];
            let is_read = |(group, resource): &(&str, &str)| asked.asks(&READS, group, resource);
            asked.is_by_node() && resources.iter().any(is_read) && answers.we_alone_allow()
        },
    },
    Justified {
        because: "a node reads its own signing requests alone, where Kubernetes shows it everybody's",
        matches: |asked, answers| {
            asked.is_by_node() && asked.asks(&READS, CERTIFICATES, SIGNING_REQUESTS) && answers.they_alone_allow()
        },
    },
    Justified {
        because: "a node watches its pods by its own name, none by theirs: such a watch would go on when another pod \
                  of that name runs elsewhere",
        matches: |asked, answers| {
            let is_watch = asked.asks(&["watch"], "", "pods") && asked.names_one();
            asked.is_by_node() && is_watch && answers.they_alone_allow()
        },
    },
    Justified {
        because: "a node that reads a pod which is gone is answered 404, by which its agent learns that it is gone",
        matches: |asked, answers| {
            let is_it = asked.asks(&["get"], "", "pods") && asked.names_one() && !asked.names_known();
            let is_gone = answers.ours.code == 404 || asked.part == "reviews";
            asked.is_by_node() && is_it && is_gone && answers.we_alone_allow()
        },
    },
    Justified {
        because: "who joins makes a signing request, and sees what becomes of it: the right comes with the token, \
                  where kubeadm binds a role to system:bootstrappers",
        matches: |asked, answers| {
            let is_it = asked.asks(&["create", "get", "list", "watch"], CERTIFICATES, SIGNING_REQUESTS);
            asked.who.starts_with("system:bootstrap:") && is_it && answers.we_alone_allow()
        },
    },
    Justified {
        because: "several bindings allow it, of which kube-apiserver names any",
        matches: |_, answers| {
            let Difference { place, ours, theirs } = answers.difference;
            place == "reason" && [ours, theirs].iter().all(|reason| reason.starts_with("\"RBAC: allowed by "))
        },
    },
    Justified {
        because: "what is wrong with a token that cannot be read, or that no key of this server signed, is not told; \
                  kube-apiserver tells it in the words of its library",
        matches: |asked, answers| {
            let Difference { place, ours, theirs } = answers.difference;
            let is_review = asked.part == "tokens" && place == "error";
            is_review && ours == "\"invalid bearer token\"" && theirs.starts_with("\"[invalid bearer token, ")
        },
    },
    Justified {
        because: "a token without an end, a beginning or an audience, or with these in other forms than this server \
                  writes, is no token of it, whoever had the key",
        matches: |asked, answers| {
            let named = |name: &&str| asked.who.ends_with(*name) || asked.what.contains(&format!("${{{name}.token}}"));
            let is_refused = answers.ours.code == 401 || answers.ours.body["error"].is_string();
            asked.part == "tokens" && FOREIGN_FORMS.iter().any(named) && is_refused
        },
    },
    Justified {
        because: "a binding to something that is no role is invalid; kube-apiserver answers 500, which clients take \
                  for the server's own fault",
        matches: |asked, answers| {
            let is_fault = answers.difference.theirs.starts_with("500 unsupported role reference kind");
            asked.part == "roles" && is_fault && answers.ours.code == 422
        },
    },
    Justified {
        because: "a right to escalate one role by its name does not make that role: who creates, by whatever verb, \
                  needs it for all",
        matches: |asked, answers| {
            let is_apply = asked.what.starts_with("PATCH") && asked.what.contains("apply-patch");
            asked.part == "roles" && asked.who == "escalator" && is_apply && answers.they_alone_allow()
        },
    },
    Justified {
        because: "a node that has told no address yet cannot be reached for the moment, which is 503; kube-apiserver \
                  answers 500",
        matches: |asked, answers| {
            let words = answers.difference.theirs.strip_prefix("500 ");
            // The answer to HEAD has no words.
            let is_it = |why: &str| match asked.what.starts_with("HEAD ") {
                true => why.is_empty(),
                false => why.starts_with("no preferred addr"),
            };
            answers.ours.code == 503 && words.is_some_and(is_it)
        },
    },
    Justified {
        because: "the log of a pod that is nowhere yet is an empty text, as that of one that has written nothing",
        matches: |asked, answers| {
            let is_log = asked.is_about("", "pods") && asked.subresource() == "log";
            is_log && (answers.ours.code, answers.theirs.code) == (200, 204)
        },
    },
    Justified {
        because: "a pod that is not found is called pods everywhere; kube-apiserver says pod where admission looked it \
                  up",
        matches: |_, answers| {
            let Difference { place, ours, theirs } = answers.difference;
            let kind = place == "details.kind" && (ours.as_str(), theirs.as_str()) == ("\"pods\"", "\"pod\"");
            let words = place == "message" && theirs.starts_with("\"pod \\\"") && ours.starts_with("\"pods \\\"");
            answers.ours.code == 404 && (kind || words)
        },
    },
    Justified {
        because: "which fields of a claim a node may not change is said without Go's picture of both objects",
        matches: |asked, answers| {
            let Difference { place, ours, theirs } = answers.difference;
            let is_it = asked.is_by_node() && asked.is_about("", "persistentvolumeclaims") && place == "message";
            is_it && ours.ends_with("status.conditions\"") && theirs.starts_with(ours.trim_end_matches('"'))
        },
    },
    Justified {
        because: "which field of a pod may not change is named, where kube-apiserver shows Go's picture of both pods",
        matches: |_, answers| {
            let Difference { place, ours, theirs } = answers.difference;
            place.ends_with("message") && ours.contains("\\nchanged: ") && theirs.contains("\\n@@ -")
        },
    },
    Justified {
        because: "a status update changes no taints: that it names some is not looked at",
        matches: |asked, answers| {
            let is_it = asked.what.starts_with("PATCH /api/v1/nodes/n1/status") && asked.what.contains("taints");
            asked.is_by_node() && is_it && (answers.ours.code, answers.theirs.code) == (200, 403)
        },
    },
    Justified {
        because: "no warning tells of a second space in an Authorization header",
        matches: |asked, answers| {
            let Difference { place, ours, theirs } = answers.difference;
            asked.part == "tokens" && place == "header warning" && ours.is_empty() && theirs.contains("extra space")
        },
    },
    Justified {
        because: "who may not have a stream is refused, also by a method that streams do not have; kube-apiserver says \
                  first that they do not have it",
        matches: |asked, answers| {
            let is_method = ["PUT ", "PATCH ", "DELETE "].iter().any(|method| asked.what.starts_with(method));
            let streams = ["exec", "attach", "portforward"];
            is_method && streams.contains(&&*asked.subresource()) && answers.they_alone_allow()
        },
    },
    Justified {
        because: "the pod subnet of a node is not the node's to choose, which Kubernetes leaves to the kubelet's good \
                  will",
        matches: |asked, answers| {
            asked.is_by_node() && answers.difference.ours.contains("spec.podCIDR") && answers.they_alone_allow()
        },
    },
    Justified {
        because: "reviews store nothing, and no admission plugin of nodes is asked about them",
        matches: |asked, answers| {
            let is_nameless = answers.difference.theirs.contains("could not determine node from user");
            let is_review = asked.target().is_some_and(|target| target.resource.ends_with("reviews"));
            (asked.part == "rules" || asked.part == "nodes" && is_review) && is_nameless
        },
    },
];

/// Why a difference is meant; nothing for a defect.
pub fn justified(asked: &Asked, difference: &Difference, ours: &Answer, theirs: &Answer) -> Option<&'static str> {
    let answers = Answers { ours, theirs, difference };
    TABLE.iter().find(|one| (one.matches)(asked, &answers)).map(|one| one.because)
}
