//! One change of a JSON object.

use serde_json::{Map, Value, json};

/// A step into a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Field(String),
    Index(usize),
}

/// Sets or removes what stands at a path.
#[derive(Clone, Debug)]
pub struct Edit {
    pub path: Vec<Step>,
    /// `None` removes.
    pub value: Option<Value>,
}

impl Edit {
    /// Makes the change. Objects that are missing on the way are made; a path through another value changes nothing.
    pub fn apply(&self, object: &mut Value) {
        let Some((last, way)) = self.path.split_last() else { return };
        let mut at = object;
        for step in way {
            let next = match (step, at) {
                (Step::Field(name), Value::Object(map)) => {
                    Some(map.entry(name.clone()).or_insert_with(|| Value::Object(Map::new())))
                }
                (Step::Index(index), Value::Array(items)) => items.get_mut(*index),
                _ => None,
            };
            let Some(next) = next else { return };
            at = next;
        }
        match (last, at, &self.value) {
            (Step::Field(name), Value::Object(map), Some(value)) => {
                map.insert(name.clone(), value.clone());
            }
            (Step::Field(name), Value::Object(map), None) => {
                map.shift_remove(name);
            }
            (Step::Index(index), Value::Array(items), Some(value)) if *index < items.len() => {
                items[*index] = value.clone();
            }
            (Step::Index(_), Value::Array(items), Some(value)) => items.push(value.clone()),
            (Step::Index(index), Value::Array(items), None) if *index < items.len() => {
                items.remove(*index);
            }
            _ => {}
        }
    }

    /// As one operation of a JSON patch.
    pub fn operation(&self, exists: bool) -> Value {
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        let path: String = self.path.iter().fold(String::new(), |path, step| match step {
            Step::Field(name) => format!("{path}/{}", escaped(name)),
            Step::Index(index) => format!("{path}/{index}"),
        });
        match &self.value {
            Some(value) if exists => json!({"op": "replace", "path": path, "value": value}),
            Some(value) => json!({"op": "add", "path": path, "value": value}),
            None => json!({"op": "remove", "path": path}),
        }
    }

    /// As a merge patch; `None` where the path leads through a list, which a merge patch replaces as a whole.
    pub fn merge_patch(&self) -> Option<Value> {
        self.path.iter().rev().try_fold(self.value.clone().unwrap_or(Value::Null), |inner, step| match step {
            Step::Field(name) => Some(json!({name.as_str(): inner})),
            Step::Index(_) => None,
        })
    }
}
