//! Lists and maps that a client sent empty. To Kubernetes they are there until the object is stored: messages show
//! them, and some rules count them. Decoding notes them ([`Schema::decode_sent`](super::Schema::decode_sent)) and
//! leaves them out where `omitempty` does.

use serde_json::Value;

/// Where an object had an empty list or map. Not in its metadata, and not in objects of custom kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentEmpties {
    found: Vec<(String, Empty)>,
    /// How often a path was asked for.
    tried: usize,
}

/// What was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// `[]`
    List,
    /// `{}`
    Map,
}

/// How many are looked at: more than any object has that is not meant to have many. Those beyond, and those whose path
/// is longer than [`LONGEST`], are the same as not sent: a message shows `null` for them, and no rule refuses or counts
/// them.
const MOST: usize = 1000;
/// Bytes of all names and keys of a path that is kept.
const LONGEST: usize = 1 << 10;

impl SentEmpties {
    /// Nothing was.
    pub const NONE: Self = Self { found: Vec::new(), tried: 0 };

    /// What was empty at a path: `webhooks[0].rules`.
    pub fn at(&self, path: &str) -> Option<Empty> {
        self.found.iter().find(|(found, _)| found == path).map(|(_, empty)| *empty)
    }

    /// Where it was.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(path, _)| &**path)
    }

    /// Whether a field at the top of an object was sent empty, and is not there in the stored object `old`: what
    /// `reflect.DeepEqual` calls a change.
    pub fn is_new_at(&self, field: &str, old: &Value) -> bool {
        self.at(field).is_some() && old[field].is_null()
    }

    /// Leaves those alone that are in one of these fields.
    pub fn retain_in(&mut self, fields: &[&[&str]]) {
        if self.found.is_empty() {
            return;
        }
        let fields: Vec<String> = fields.iter().map(|field| field.join(".")).collect();
        self.found.retain(|(path, _)| fields.iter().any(|field| is_in(path, field)));
    }

    /// Keeps where something is empty. `path` answers nothing for one that is longer than it is told.
    pub(super) fn note(&mut self, empty: Empty, path: impl FnOnce(usize) -> Option<String>) {
        if self.tried < MOST {
            self.tried = self.tried.saturating_add(1);
            self.found.extend(path(LONGEST).map(|path| (path, empty)));
        }
    }

    /// Forgets what is empty in a field that stands once more. Of an object with so many such fields that they exceed
    /// the bound, all is forgotten.
    pub(super) fn forget(&mut self, path: impl FnOnce(usize) -> Option<String>) {
        if self.found.is_empty() {
            return;
        }
        if self.tried >= MOST {
            self.found.clear();
            return;
        }
        self.tried = self.tried.saturating_add(1);
        if let Some(field) = path(LONGEST) {
            self.found.retain(|(path, _)| !is_in(path, &field));
        }
    }
}

/// Whether a path is that of a field, or leads into it.
fn is_in(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl Empty {
    /// The value itself.
    pub fn value(self) -> Value {
        match self {
            Self::List => Value::Array(Vec::new()),
            Self::Map => Value::Object(serde_json::Map::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schema;

    const POLICY: &str = "io.k8s.api.networking.v1.NetworkPolicy";

    fn sent(kind: &str, text: &str) -> (Value, SentEmpties) {
        let (decoded, empties) = Schema::builtin(kind).unwrap().decode_sent(text.as_bytes()).unwrap();
        (decoded.value, empties)
    }

    #[test]
    fn what_was_sent_empty_is_noted_and_left_out() {
        let object = json!({"metadata": {"labels": {}}, "spec": {"podSelector": {"matchLabels": {}}, "egress": [],
            "ingress": [{"ports": [], "from": [{"podSelector": {"matchLabels": {}}}]}]}});
        let (policy, empties) = sent(POLICY, &object.to_string());
        let left = json!({"metadata": {}, "spec": {"podSelector": {},
            "ingress": [{"ports": [], "from": [{"podSelector": {"matchLabels": {}}}]}]}});
        assert_eq!(policy, left);
        let at = |path: &str| empties.at(path);
        assert_eq!((at("spec.egress"), at("spec.podSelector.matchLabels")), (Some(Empty::List), Some(Empty::Map)));
        assert_eq!((at("spec.ingress[0].ports"), at("spec.ingress")), (Some(Empty::List), None));
        assert_eq!(at("spec.ingress[0].from[0].podSelector.matchLabels"), Some(Empty::Map));
        assert_eq!(empties.paths().count(), 4);
        let schema = Schema::builtin(POLICY).unwrap();
        assert_eq!(schema.decode_sent_value(object).unwrap().1, empties);
        assert_eq!(schema.decode_value(left.clone()).unwrap().value, left);
    }

    #[test]
    fn of_a_field_that_stands_twice_the_last_one_counts() {
        let (_, empties) = sent(POLICY, r#"{"spec":{"egress":[],"ingress":[],"egress":[{"to":[]}]}}"#);
        assert_eq!(empties.paths().collect::<Vec<_>>(), ["spec.ingress", "spec.egress[0].to"]);
        let (_, empties) = sent(POLICY, r#"{"spec":{"ingress":[],"ingressed":1},"spec":{"egress":[]}}"#);
        assert_eq!(empties.paths().collect::<Vec<_>>(), ["spec.egress"]);
    }

    #[test]
    fn fields_that_are_not_written_are_not_sent() {
        let (_, mut empties) = sent(POLICY, r#"{"spec":{"egress":[],"ingress":[{"from":[]}]}}"#);
        empties.retain_in(&[&["status"], &["spec", "ingress"], &["spec", "egres"]]);
        assert_eq!(empties.paths().collect::<Vec<_>>(), ["spec.ingress[0].from"]);
    }

    #[test]
    fn very_many_take_little_memory() {
        let many = vec![r#"{"ports":[]}"#; 100_000].join(",");
        let (_, empties) = sent(POLICY, &format!(r#"{{"spec":{{"ingress":[{many}]}}}}"#));
        assert_eq!(empties.paths().count(), MOST);
    }

    #[test]
    fn very_many_below_a_long_key_are_passed_over_in_time() {
        let began = std::time::Instant::now();
        let kind = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";
        let key = "k".repeat(1_000_000);
        let below = vec![r#"{"required":[]}"#; 100_000].join(",");
        let schema = format!(r#"{{"openAPIV3Schema":{{"properties":{{"{key}":{{"allOf":[{below}]}}}}}}}}"#);
        let (_, empties) =
            sent(kind, &format!(r#"{{"spec":{{"versions":[{{"schema":{schema}}}],"names":{{"shortNames":[]}}}}}}"#));
        assert_eq!(empties.paths().count(), 0, "what is beyond the bound is the same as not sent");
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}
