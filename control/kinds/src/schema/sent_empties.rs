//! Lists and maps that a client sent empty. To Kubernetes they are there until the object is stored: messages show
//! them, and some rules count them. Afterwards `omitempty` has left them out, and nobody knows of them.

use serde_json::Value;

use super::{Schema, Type, TypeId, Types};

/// Where an object had an empty list or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentEmpties {
    found: Vec<(String, Empty)>,
}

/// What was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// `[]`
    List,
    /// `{}`
    Map,
}

/// How many are kept: more than any object has that is not meant to have many.
const MOST: usize = 1000;
/// The longest path that is kept.
const LONGEST: usize = 1 << 10;

impl SentEmpties {
    /// What was empty at a path: `webhooks[0].rules`.
    pub fn at(&self, path: &str) -> Option<Empty> {
        self.found.iter().find(|(found, _)| found == path).map(|(_, empty)| *empty)
    }

    /// Where it was.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(path, _)| &**path)
    }
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

impl Schema {
    /// Notes the empty lists and maps of an object that [`Schema::decode_sent`] read, and takes those out that
    /// `omitempty` leaves out. In the items of a list they stay for now: they make it another list. Metadata and objects
    /// of custom kinds are left as they are.
    pub fn take_empties(&self, object: &mut Value) -> SentEmpties {
        let mut empties = SentEmpties::default();
        if let (Some(root), Value::Object(fields)) = (self.types.object(self.root), object)
            && std::ptr::eq(&*self.types, &**Types::builtin())
        {
            let mut gone: Vec<String> = Vec::new();
            for (name, value) in fields.iter_mut().filter(|(name, _)| *name != "metadata") {
                let Some(field) = root.field(name) else { continue };
                let step = Step { before: None, part: Part::Name(name) };
                if self.types.note_empties(field.r#type, value, &step, &mut empties)
                    && self.types.is_left_out(field, value)
                {
                    gone.push(name.clone());
                }
            }
            for name in gone {
                fields.shift_remove(&name);
            }
        }
        empties
    }
}

impl Types {
    /// Whether the value itself is an empty list or map.
    fn note_empties(&self, id: TypeId, value: &mut Value, at: &Step<'_>, empties: &mut SentEmpties) -> bool {
        match (self.get(id), value) {
            (Type::List(_), Value::Array(list)) if list.is_empty() => at.note(Empty::List, empties),
            (Type::Map(_), Value::Object(map)) if map.is_empty() => at.note(Empty::Map, empties),
            (Type::List(item), Value::Array(list)) if self.has_fields(*item) => {
                for (index, value) in list.iter_mut().enumerate() {
                    self.note_empties(*item, value, &at.then(Part::Index(index)), empties);
                }
                false
            }
            (Type::Map(item), Value::Object(map)) if self.has_fields(*item) => {
                for (key, value) in map.iter_mut() {
                    self.note_empties(*item, value, &at.then(Part::Key(key)), empties);
                }
                false
            }
            (Type::Object(object), Value::Object(map)) => {
                let stays = at.is_in_item();
                let mut gone: Vec<String> = Vec::new();
                for (name, value) in map.iter_mut() {
                    let Some(field) = object.field(name) else { continue };
                    let is_empty = self.note_empties(field.r#type, value, &at.then(Part::Name(name)), empties);
                    if is_empty && !stays && self.is_left_out(field, value) {
                        gone.push(name.clone());
                    }
                }
                for name in gone {
                    map.shift_remove(&name);
                }
                false
            }
            _ => false,
        }
    }
}

/// One step of the way to a value. Paths are made for what is empty alone.
struct Step<'a> {
    before: Option<&'a Step<'a>>,
    part: Part<'a>,
}

enum Part<'a> {
    Name(&'a str),
    Key(&'a str),
    Index(usize),
}

impl Step<'_> {
    fn then<'s>(&'s self, part: Part<'s>) -> Step<'s> {
        Step { before: Some(self), part }
    }

    fn is_in_item(&self) -> bool {
        matches!(self.part, Part::Index(_)) || self.before.is_some_and(Step::is_in_item)
    }

    /// Keeps where an empty list or map is.
    fn note(&self, empty: Empty, empties: &mut SentEmpties) -> bool {
        if empties.found.len() < MOST {
            let mut path = String::new();
            self.write(&mut path);
            if path.len() <= LONGEST {
                empties.found.push((path, empty));
            }
        }
        true
    }

    fn write(&self, path: &mut String) {
        if let Some(before) = self.before {
            before.write(path);
        }
        if path.len() > LONGEST {
            return;
        }
        match self.part {
            Part::Name(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Part::Key(key) => path.extend(["[", &key[..key.floor_char_boundary(LONGEST)], "]"]),
            Part::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(kind: &str, object: &Value) -> Value {
        Schema::builtin(kind).unwrap().decode_sent(object.to_string().as_bytes()).unwrap().value
    }

    #[test]
    fn what_was_sent_empty_is_noted_and_left_out() {
        let kind = "io.k8s.api.networking.v1.NetworkPolicy";
        let object = json!({"metadata": {"labels": {}}, "spec": {"podSelector": {"matchLabels": {}}, "egress": [],
            "ingress": [{"ports": [], "from": [{"podSelector": {"matchLabels": {}}}]}]}});
        let mut policy = sent(kind, &object);
        assert_eq!(policy["spec"], object["spec"]);
        assert_eq!(policy["metadata"], json!({}));
        let empties = Schema::builtin(kind).unwrap().take_empties(&mut policy);
        assert_eq!(
            policy["spec"],
            json!({"podSelector": {}, "ingress": [{"ports": [], "from": [{"podSelector": {"matchLabels": {}}}]}]})
        );
        let at = |path: &str| empties.at(path);
        assert_eq!((at("spec.egress"), at("spec.podSelector.matchLabels")), (Some(Empty::List), Some(Empty::Map)));
        assert_eq!((at("spec.ingress[0].ports"), at("spec.ingress")), (Some(Empty::List), None));
        assert_eq!(at("spec.ingress[0].from[0].podSelector.matchLabels"), Some(Empty::Map));
        assert_eq!(empties.paths().count(), 4);
    }

    #[test]
    fn very_many_take_little_memory() {
        let kind = "io.k8s.api.networking.v1.NetworkPolicy";
        let many = vec![json!({"ports": []}); 100_000];
        let mut policy = sent(kind, &json!({"spec": {"ingress": many}}));
        let empties = Schema::builtin(kind).unwrap().take_empties(&mut policy);
        assert_eq!(empties.paths().count(), MOST);
    }
}
