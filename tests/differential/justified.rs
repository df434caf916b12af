//! The differences that are meant, each with its reason. Everything else is a defect.

use serde_json::Value;

use crate::{causes, comparison::Difference, exchange::Answer, request::Request};

/// Two answers to one request.
pub struct Answers<'a> {
    pub request: &'a Request,
    pub ours: &'a Answer,
    pub theirs: &'a Answer,
}

/// A difference that is meant.
struct Justified {
    /// Why the answers may disagree.
    because: &'static str,
    matches: fn(&Answers, &Difference) -> bool,
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
        matches: |_, d| {
            const FAULTS: [&str; 5] = [
                "strconv.ParseUint: ",
                "unknown patch type: ",
                "failed to convert new object ",
                "resourceVersion should not be set on objects to be created",
                "does not contain declared merge key",
            ];
            let is_fault = FAULTS.iter().any(|fault| d.theirs.contains(fault));
            d.place == "code" && d.theirs.starts_with("500 ") && d.ours.starts_with('4') && is_fault
        },
    },
    Justified {
        because: "columns are described in words of our own, where Kubernetes describes them in the words of its schema",
        matches: |_, d| d.place == "columnDefinitions[].description",
    },
    Justified {
        because: "the administrators of the two servers have different names",
        matches: |a, d| {
            let place = ["items[].", "rows[].object."].iter().find_map(|within| d.place.strip_prefix(within));
            let place = place.unwrap_or(&d.place);
            let about_user =
                ["spec.username", "spec.uid", "spec.groups", "spec.extra"].iter().any(|field| place.starts_with(field));
            let is_cell = d.place == "rows[].cells[]" && d.theirs == "\"admin\"" && d.ours == "\"kubernetes-admin\"";
            a.request.path.contains("/certificatesigningrequests") && (about_user || is_cell)
        },
    },
    Justified {
        because: "the status of APIServices and flow control's objects is written a moment later, here or there",
        matches: |a, d| {
            let written_later = ["/apiservices", "/flowschemas", "/prioritylevelconfigurations"];
            let by_status =
                ["status", "metadata.managedFields", "rows[]", "items[].status", "items[].metadata.managedFields"];
            let is_stale = [&d.ours, &d.theirs].iter().any(|text| text.contains("the object has been modified"));
            written_later.iter().any(|plural| a.request.path.contains(plural))
                && (by_status.iter().any(|place| d.place.starts_with(place))
                    || d.place == "code" && is_stale && !a.request.path.contains("/prioritylevelconfigurations"))
        },
    },
    Justified {
        because: "what the server's own controllers write is theirs, and they are named after their program",
        matches: |_, d| {
            d.place.ends_with("metadata.managedFields[].manager")
                && d.ours == "\"fairlead\""
                && d.theirs == "\"kube-apiserver\""
        },
    },
    Justified {
        because: "quotas are counted by the API server itself here, and by the controller manager of Kubernetes, which \
                  this test does not run",
        matches: |a, d| {
            let place = ["items[].", "rows[].object."].iter().find_map(|of| d.place.strip_prefix(of));
            let place = place.unwrap_or(&d.place);
            let is_amount = ["status.hard", "status.used"].iter().any(|of| place.starts_with(of));
            // What a request said of the status is counted anew here, a moment later.
            let is_later = matches!(a.request.method, "GET" | "DELETE") && are_counted(&a.ours.body);
            // The amounts were there before the request that set them.
            let owned = place.starts_with("metadata.managedFields") && place.ends_with("f:status.f:hard..");
            let owned = owned && d.ours.is_empty() && d.theirs == "{}";
            let is_counted = is_amount && (d.theirs.is_empty() || is_later) || owned;
            let is_cell = d.place == "rows[].cells[]" && d.theirs == "\"\"" && d.ours.contains(": 0/");
            a.request.path.contains("/resourcequotas") && (is_counted || is_cell)
        },
    },
    Justified {
        because: "a dry run shows no metadata that is never stored",
        matches: |a, d| {
            let unstored = ["metadata.selfLink", "metadata.resourceVersion"].contains(&&*d.place);
            let is_dry = a.request.query.iter().any(|(key, value)| key == "dryRun" && value == "All");
            unstored && is_dry && d.ours.is_empty()
        },
    },
    Justified {
        because: "an empty list is [] in every form; kube-apiserver answers Tables and metadata with null, which typed \
                  clients refuse",
        matches: |a, d| {
            let list = if a.request.accept.contains("as=Table") { "rows" } else { "items" };
            a.request.accept.contains("as=") && d.place == list && d.ours == "[]" && d.theirs == "null"
        },
    },
    Justified {
        because: "the last page of what a selector takes says so; kube-apiserver does not know it, and has clients ask \
                  for another, empty one",
        matches: |a, d| {
            let asks = |option: &str| a.request.query.iter().any(|(key, _)| key == option);
            let selects = asks("limit") && (asks("labelSelector") || asks("fieldSelector"));
            selects && d.place == "metadata.continue" && d.ours.is_empty() && d.theirs == "\"<continue>\""
        },
    },
    Justified {
        because: "kube-apiserver names the key in etcd, and what its client said of it",
        matches: |_, d| {
            const BEFORE: &str = "StorageError: invalid object, Code: 4, Key: ";
            const AFTER: &str = ", ResourceVersion: 0, AdditionalErrorMsg: ";
            let spared = d.theirs.split_once(BEFORE).and_then(|(before, rest)| {
                let (_, after) = rest.split_once(AFTER)?;
                Some(format!("{before}{after}"))
            });
            d.place == "message" && spared.as_deref() == Some(&d.ours)
        },
    },
    Justified {
        because: "the text quotes the object as Go orders its fields, with another revision and UID",
        matches: |_, d| is_text(d) && quoted_object(&d.ours).is_some_and(|ours| quoted_object(&d.theirs) == Some(ours)),
    },
    Justified {
        because: "a JSON patch that cannot be applied is told which operation failed and why; kube-apiserver says only \
                  that there is an error in the request",
        matches: |a, d| {
            const WHY: &str = "the server rejected our request due to an error in our request";
            let is_patch = a.request.content_type == "application/json-patch+json";
            is_patch
                && (d.place == "details.causes" && d.theirs.is_empty()
                    || d.place == "message" && d.theirs.contains(WHY))
        },
    },
    Justified {
        because: "kube-apiserver names types and files of its Go source in texts about bodies that it cannot read",
        matches: |_, d| {
            const GO: [&str; 12] = [
                "pkg/runtime/scheme.go",
                "Go value of type",
                "ReadString: expects",
                "looking for beginning of value",
                "unrecognized type: ",
                "couldn't get version/kind; json parse error",
                "cannot restore struct from: ",
                "cannot restore slice from ",
                "cannot restore map from ",
                "yaml: line ",
                "yaml: control characters are not allowed",
                ", got &value.valueUnstructured{Value:",
            ];
            let type_alone = d.theirs.contains("json: cannot unmarshal") && untyped(&d.ours) == untyped(&d.theirs);
            type_alone || is_text(d) && GO.iter().any(|word| d.theirs.contains(word))
        },
    },
    Justified {
        because: "a strategic patch with a value of another type is refused in the words of every other body; \
                  kube-apiserver names the two Go types",
        matches: |a, d| {
            let is_patch = a.request.content_type == "application/strategic-merge-patch+json";
            let before = |text: &str, why: &str| text.split_once(why).map(|(before, _)| before.to_owned());
            let ours = before(&d.ours, ": json: cannot unmarshal ");
            is_patch && ours.is_some() && ours == before(&d.theirs, ": cannot convert ")
        },
    },
    Justified {
        because: "the metadata of a DaemonSet is the same alone and in the whole object; kube-apiserver leaves an \
                  annotation that it sets itself out of metadata alone",
        matches: |a, d| {
            let alone = a.request.path.contains("/daemonsets") && a.request.accept.contains("as=");
            let set_by_server = d.ours.starts_with("{\"deprecated.daemonset.template.generation\":");
            alone && d.place.ends_with("metadata.annotations") && set_by_server && d.theirs.is_empty()
        },
    },
    Justified {
        because: "rows have as many cells as there are columns; kube-apiserver's rows of IPAddresses have one more",
        matches: |a, d| {
            let (ours, mut theirs) = (items(&d.ours), items(&d.theirs));
            let last = theirs.pop();
            a.request.path.contains("/ipaddresses")
                && d.place == "rows[].cells"
                && last.is_some_and(|cell| cell == "<age>")
                && ours == theirs
        },
    },
    Justified {
        because: "Go reads maps in random order, and so tells with whom an apply conflicts",
        matches: |a, d| {
            let causes = |answer: &Answer| {
                let mut causes = items(&answer.body["details"]["causes"].to_string());
                causes.sort_by_key(Value::to_string);
                causes
            };
            let place = d.place == "message" || d.place.starts_with("details.causes");
            place && a.ours.code == 409 && !causes(a.ours).is_empty() && causes(a.ours) == causes(a.theirs)
        },
    },
    Justified {
        because: "names are generated at random, also those that a refusal tells",
        matches: |a, d| {
            let crate::request::Body::Json(body) = &a.request.body else { return false };
            // The longest start of a name that leaves room for what is added.
            const ROOM: usize = 58;
            let base = body["metadata"]["generateName"].as_str().unwrap_or_default();
            let base = base.get(..ROOM).unwrap_or(base);
            !base.is_empty() && without_suffix(&d.ours, base) == without_suffix(&d.theirs, base)
        },
    },
    Justified {
        because: "an account of managers that cannot be read, in a pod template, is no reason to keep none of the \
                  object; kube-apiserver then keeps none",
        matches: |a, d| {
            let crate::request::Body::Json(body) = &a.request.body else { return false };
            let nested = body.pointer("/spec/template/metadata/managedFields").and_then(Value::as_array);
            let unread = |entry: &Value| entry.get("fieldsV1").is_some_and(|fields| !fields.is_object());
            let is_unread = nested.is_some_and(|list| list.iter().any(unread));
            d.place == "metadata.managedFields" && d.theirs.is_empty() && is_unread
        },
    },
    Justified {
        because: "a number that no field can hold is refused in every body; kube-apiserver makes the least of all \
                  numbers of it in strategic patches",
        matches: |a, d| {
            let is_patch = a.request.content_type == "application/strategic-merge-patch+json";
            let least = i64::MIN.to_string();
            let is_least = a.theirs.body["message"].as_str().is_some_and(|text| text.contains(&least));
            let is_refused = a.ours.code == 422 && a.ours.body["details"]["causes"][0]["field"] == "patch";
            let of_refusal = d.place == "message" || d.place.starts_with("details.");
            is_patch && is_refused && is_least && of_refusal
        },
    },
    Justified {
        because: "where in a policy its type checker found something is text for people; kube-apiserver reads it as \
                  JSONPath",
        matches: |a, d| {
            let is_place = d.theirs.contains(".fieldRef: Invalid value: ") && d.theirs.contains("invalid JSONPath: ");
            let of_status =
                a.request.path.contains("/validatingadmissionpolicies") && a.request.path.ends_with("/status");
            of_status && d.place == "code" && a.ours.accepted() && is_place
        },
    },
    Justified {
        because: "the parser of CEL lists all that could stand in the place of what does; kube-apiserver's lists less",
        matches: |_, d| {
            let ours = without_expected(&d.ours);
            is_text(d) && ours.is_some() && ours == without_expected(&d.theirs)
        },
    },
];

/// The reason for a difference of two answers; `None` for a defect.
pub fn justified(answers: &Answers, difference: &Difference) -> Option<&'static str> {
    let entry = TABLE.iter().find(|entry| (entry.matches)(answers, difference)).map(|entry| entry.because);
    let of_causes = difference.place == "message" || difference.place.starts_with("details.causes");
    entry.or_else(|| if of_causes { causes::alike(answers.ours, answers.theirs) } else { None })
}

/// Whether the quotas of an answer show the amounts of their specs as counted.
fn are_counted(body: &Value) -> bool {
    let list = |field: &str| body[field].as_array().into_iter().flatten();
    let rows = list("rows").map(|row| &row["object"]);
    let quotas = std::iter::once(body).chain(list("items")).chain(rows).filter(|one| one["spec"].is_object());
    let amounts = |part: &Value| part.as_object().filter(|amounts| !amounts.is_empty()).cloned();
    let names = |part: &Value| -> Vec<String> {
        part.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let mut quotas = quotas.map(|quota| (&quota["spec"]["hard"], &quota["status"]));
    quotas.all(|(hard, status)| amounts(hard) == amounts(&status["hard"]) && names(hard) == names(&status["used"]))
}

/// Whether what differs is the text of a refusal.
fn is_text(difference: &Difference) -> bool {
    ["message", "details.causes[].message"].contains(&&*difference.place)
}

/// A text without the name of a Go type, and without the names of embedded ones on the way.
fn untyped(text: &str) -> Option<(String, String)> {
    let (before, rest) = text.split_once(" Go struct field ")?;
    let path = rest.split(" of type ").next().unwrap_or_default();
    let mut steps = path.split('.');
    let owner = steps.next().unwrap_or_default();
    let fields = steps.filter(|step| !step.starts_with(|c: char| c.is_ascii_uppercase()));
    Some((format!("{before} {owner}"), fields.collect::<Vec<_>>().join(".")))
}

/// A text with what follows a generated name's base taken out.
fn without_suffix(text: &str, base: &str) -> String {
    const SUFFIX: usize = 5;
    let mut parts = text.split(base);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_suffix = part.len() > SUFFIX
            && part.bytes().take(SUFFIX).all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && part[SUFFIX..].starts_with(['\\', '"']);
        out += base;
        out += if is_suffix { &part[SUFFIX..] } else { part };
    }
    out
}

/// A text without the lists of what could stand in the place of what does; `None` if it has none.
fn without_expected(text: &str) -> Option<String> {
    let text: String = serde_json::from_str(text).ok()?;
    let mut parts = text.split(" expecting ");
    let mut out = parts.next()?.to_owned();
    let mut found = false;
    for part in parts {
        found = true;
        out += part.find('\n').map_or("", |at| &part[at..]);
    }
    found.then_some(out)
}

fn items(list: &str) -> Vec<Value> {
    serde_json::from_str(list).unwrap_or_default()
}

/// What stands around an object that a text quotes, and the object without what differs by nature.
fn quoted_object(text: &str) -> Option<(String, Value, String)> {
    let text: String = serde_json::from_str(text).ok()?;
    let at = text.find("Invalid value: ")? + "Invalid value: ".len();
    let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<String>();
    let quoted = values.next()?.ok()?;
    let after = text[at + values.byte_offset()..].to_owned();
    let mut object: Value = serde_json::from_str(&quoted).ok()?;
    // What controllers wrote.
    object.as_object_mut()?.shift_remove("status");
    if object["kind"] == "CertificateSigningRequest" {
        // Of the administrator, whose name differs.
        let asker = ["username", "uid", "groups", "extra"];
        object.get_mut("spec").and_then(Value::as_object_mut)?.retain(|name, _| !asker.contains(&&**name));
    }
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        let others = ["uid", "resourceVersion", "creationTimestamp", "managedFields"];
        metadata.retain(|name, value| !others.contains(&&**name) && *value != Value::Array(Vec::new()));
    }
    let after = untyped(&after).map_or(after, |(what, path)| format!("{what} {path}"));
    Some((text[..at].to_owned(), object, after))
}
