//! The form in which Kubernetes writes objects: `omitempty` leaves zero values out, and what has no `omitempty` is
//! written even if nobody set it. Says nothing of what values mean.

use serde_json::{Map, Value};

use super::{Field, Schema, Type, TypeId, Types, ZERO_MICRO_TIME, ZERO_TIME, Zero};

impl Schema {
    /// Brings a decoded object into the form in which Kubernetes writes it. Custom resources are left as they are: Go
    /// has no type for them.
    pub fn write_zeros(&self, object: &mut Value) {
        if std::ptr::eq(&*self.types, &**Types::builtin()) {
            self.types.write_zeros(self.root, object);
        }
    }

    /// What stands where a text path (`spec.ports[0].name`) leads and nothing is: `None` where nobody can say.
    pub fn zero_at(&self, path: &str) -> Option<Value> {
        let mut here = self.root;
        let mut field: Option<&Field> = None;
        for step in path.split(['.', '[']) {
            match (self.types.get(here), step.strip_suffix(']')) {
                (Type::Object(object), None) => {
                    let found = object.field(step)?;
                    (here, field) = (found.r#type, Some(found));
                }
                (Type::List(item) | Type::Map(item), Some(_)) => (here, field) = (*item, None),
                _ => return None,
            }
        }
        match (field?.zero, self.types.get(here)) {
            (Zero::Kept | Zero::Null, _) => None,
            (_, Type::String | Type::Int32 | Type::Int64 | Type::Double | Type::Bool) => Some(self.types.zero(here)),
            _ => None,
        }
    }
}

impl Types {
    fn write_zeros(&self, id: TypeId, value: &mut Value) {
        match (self.get(id), value) {
            (Type::Any, value) => {
                let Some((_, schema)) = self.alternative(id) else { return };
                match value {
                    Value::Array(list) => list.iter_mut().for_each(|item| self.write_zeros(schema, item)),
                    value => self.write_zeros(schema, value),
                }
            }
            (Type::Object(object), Value::Object(map)) => {
                let mut zeros: Vec<String> = Vec::new();
                for (name, inner) in map.iter_mut() {
                    let Some(field) = object.field(name) else { continue };
                    self.write_zeros(field.r#type, inner);
                    if inner.is_null() || self.is_left_out(field, inner) {
                        zeros.push(name.clone());
                    } else if field.zero == Zero::Written && self.is_null_when_written(id, field, inner) {
                        *inner = Value::Null;
                    }
                }
                for name in zeros {
                    map.shift_remove(&name);
                }
                for field in object.always_written() {
                    if !map.contains_key(&*field.name) {
                        map.insert(field.name.to_string(), self.written_zero(field));
                    }
                }
            }
            (Type::List(item), Value::Array(list)) if self.has_fields(*item) => {
                list.iter_mut().for_each(|value| self.write_zeros(*item, value));
            }
            (Type::Map(item), Value::Object(map)) if self.has_fields(*item) => {
                map.values_mut().for_each(|value| self.write_zeros(*item, value));
            }
            _ => {}
        }
    }

    /// Whether `omitempty` leaves the value out.
    pub fn is_left_out(&self, field: &Field, value: &Value) -> bool {
        // That no account is given resets it.
        field.zero == Zero::Absent
            && field.name != "managedFields"
            && match (self.get(field.r#type), value) {
                (Type::String | Type::Bytes, Value::String(text)) => text.is_empty(),
                (Type::Int32 | Type::Int64 | Type::Double, Value::Number(number)) => number.as_f64() == Some(0.0),
                (Type::Bool, Value::Bool(is_set)) => !is_set,
                (Type::List(_), Value::Array(list)) => list.is_empty(),
                (Type::Map(_), Value::Object(map)) => map.is_empty(),
                (Type::Time | Type::MicroTime, value) => is_zero_time(value),
                _ => false,
            }
    }

    /// Whether a field of `of` that is always written has a value that reads back as none: a point in time that nobody
    /// set, or an empty list or map. Protobuf, in which Kubernetes stores its own kinds, has no empty lists.
    fn is_null_when_written(&self, of: TypeId, field: &Field, value: &Value) -> bool {
        match self.get(field.r#type) {
            Type::Time | Type::MicroTime => is_zero_time(value),
            _ => self.is_empty(field, value) && !self.is_json(of),
        }
    }

    /// Whether a field is written although nobody set it: `omitempty` leaves no Go struct out.
    pub(super) fn is_always_written(&self, field: &Field) -> bool {
        match field.zero {
            Zero::Kept => false,
            Zero::Null | Zero::Written => true,
            Zero::Absent => match self.get(field.r#type) {
                Type::Object(_) | Type::IntOrString | Type::Quantity => true,
                // The one point in time that is left out when it is zero.
                Type::Time | Type::MicroTime => field.name != "creationTimestamp",
                Type::Any => self.definition(field.r#type).is_some_and(|d| d.name.ends_with(".RawExtension")),
                _ => false,
            },
        }
    }

    /// What is written where nobody set a field; nothing where it is left out.
    pub fn zero_in_struct(&self, field: &Field) -> Option<Value> {
        self.is_always_written(field).then(|| self.written_zero(field))
    }

    fn written_zero(&self, field: &Field) -> Value {
        match self.get(field.r#type) {
            _ if field.zero == Zero::Null => Value::Null,
            Type::Object(_) => {
                let mut object = Value::Object(Map::new());
                self.write_zeros(field.r#type, &mut object);
                object
            }
            Type::List(_) | Type::Map(_) | Type::Bytes | Type::Time | Type::MicroTime | Type::Any => Value::Null,
            _ => self.zero(field.r#type),
        }
    }

    /// Whether a value is a list or a map with nothing in it.
    fn is_empty(&self, field: &Field, value: &Value) -> bool {
        match (self.get(field.r#type), value) {
            (Type::List(_), Value::Array(list)) => list.is_empty(),
            (Type::Map(_), Value::Object(map)) => map.is_empty(),
            _ => false,
        }
    }

    pub(super) fn has_fields(&self, id: TypeId) -> bool {
        match self.get(id) {
            Type::Object(_) => true,
            Type::List(item) | Type::Map(item) => self.has_fields(*item),
            _ => false,
        }
    }

    /// Whether objects of the kind that the type belongs to are stored as JSON.
    fn is_json(&self, id: TypeId) -> bool {
        self.definition(id).is_some_and(|definition| {
            ["io.k8s.apiextensions-apiserver.", "io.k8s.kube-aggregator."]
                .iter()
                .any(|at| definition.name.starts_with(at))
        })
    }
}

/// Whether a value is Go's zero time.
fn is_zero_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| [ZERO_TIME, ZERO_MICRO_TIME].contains(&text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(kind: &str, mut object: Value) -> Value {
        Schema::builtin(kind).unwrap().write_zeros(&mut object);
        object
    }

    #[test]
    fn what_go_leaves_out_is_left_out_and_what_it_always_writes_is_there() {
        let event = json!({"metadata": {"name": "a", "labels": {}}, "count": 0, "involvedObject": {"kind": ""}});
        let expected = json!({"metadata": {"name": "a"}, "involvedObject": {}, "source": {}, "eventTime": null,
            "firstTimestamp": null, "lastTimestamp": null, "reportingComponent": "", "reportingInstance": ""});
        assert_eq!(written("io.k8s.api.core.v1.Event", event), expected);
        let node = written("io.k8s.api.core.v1.Node", json!({"metadata": {}, "spec": {"taints": []}}));
        assert_eq!(node["spec"], json!({}));
        assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
        let node = written("io.k8s.api.storage.v1.CSINode", json!({"metadata": {}, "spec": {"drivers": []}}));
        assert_eq!(node["spec"], json!({"drivers": null}));
    }

    #[test]
    fn a_condition_without_its_time_is_written_with_a_null() {
        for time in [None, Some(Value::Null), Some(ZERO_TIME.into())] {
            let mut condition = json!({"type": "Ready", "status": "True", "reason": "R", "message": ""});
            condition.as_object_mut().unwrap().extend(time.map(|time| ("lastTransitionTime".to_owned(), time)));
            let service = json!({"metadata": {}, "status": {"conditions": [condition]}});
            let service = Schema::builtin("io.k8s.api.core.v1.Service").unwrap().decode_value(service).unwrap().value;
            let written = written("io.k8s.api.core.v1.Service", service);
            let condition = written["status"]["conditions"][0].as_object().unwrap();
            assert_eq!(condition.get("lastTransitionTime"), Some(&Value::Null));
        }
    }

    #[test]
    fn a_pointer_keeps_its_zero() {
        let of = |replicas: Value| json!({"metadata": {}, "spec": {"replicas": replicas}});
        let spec = |object| written("io.k8s.api.apps.v1.Deployment", object)["spec"].clone();
        assert_eq!(spec(of(json!(0)))["replicas"], 0);
        assert!(spec(of(Value::Null)).get("replicas").is_none());
        assert_eq!(spec(of(json!(1)))["selector"], Value::Null);
        assert!(spec(of(json!(1))).as_object().unwrap().contains_key("selector"));
    }

    #[test]
    fn a_path_tells_what_stands_where_nothing_is() {
        let policy = Schema::builtin("io.k8s.api.networking.v1.NetworkPolicy").unwrap();
        let operator = "spec.ingress[0].from[1].podSelector.matchExpressions[0].operator";
        assert_eq!(policy.zero_at(operator), Some(json!("")));
        assert_eq!(policy.zero_at("spec.ingress[0].ports[0].port"), None, "a pointer");
        assert_eq!(policy.zero_at("spec.nothing"), None);
    }
}
