//! The canonical form of quantities in objects that were stored before quantities were canonical on writing: where
//! templates and pods are compared, equal quantities must be equal texts.

use serde_json::Value;

use super::{Schema, Type, TypeId, Types, scalar};

impl Schema {
    /// Writes every quantity of `object` in its canonical form. What is not of the schema's types stays as it is.
    pub fn make_quantities_canonical(&self, object: &mut Value) {
        self.types.make_canonical(self.root, object);
    }
}

impl Types {
    fn make_canonical(&self, id: TypeId, value: &mut Value) {
        if !self.has_quantities(id) {
            return;
        }
        match (self.get(id), value) {
            (Type::Quantity, value) => {
                let text = match &*value {
                    Value::String(text) => scalar::quantity(text).ok().flatten(),
                    Value::Number(number) => {
                        let text = number.to_string();
                        scalar::quantity(&text).ok().map(|canonical| canonical.unwrap_or(text))
                    }
                    _ => None,
                };
                if let Some(text) = text {
                    *value = Value::String(text);
                }
            }
            (Type::Object(object), Value::Object(map)) => {
                for field in object.fields().iter().filter(|field| self.has_quantities(field.r#type)) {
                    if let Some(value) = map.get_mut(&*field.name) {
                        self.make_canonical(field.r#type, value);
                    }
                }
            }
            (Type::List(item), Value::Array(list)) => {
                list.iter_mut().for_each(|value| self.make_canonical(*item, value));
            }
            (Type::Map(item), Value::Object(map)) => {
                map.values_mut().for_each(|value| self.make_canonical(*item, value));
            }
            _ => {}
        }
    }

    /// Whether a value of the type can have a quantity in it.
    fn has_quantities(&self, id: TypeId) -> bool {
        let known = self.with_quantities.get_or_init(|| self.find_quantities());
        known.get(id.0 as usize).copied().unwrap_or_default()
    }

    fn find_quantities(&self) -> Vec<bool> {
        let mut found: Vec<bool> = self.nodes.iter().map(|node| matches!(node.r#type, Type::Quantity)).collect();
        loop {
            let before = found.clone();
            for (at, node) in self.nodes.iter().enumerate() {
                let has = |id: &TypeId| found[id.0 as usize];
                found[at] |= match &node.r#type {
                    Type::Object(object) => object.fields.iter().any(|field| has(&field.r#type)),
                    Type::List(item) | Type::Map(item) => has(item),
                    _ => false,
                };
            }
            if found == before {
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_of_a_template_become_canonical_and_nothing_else_changes() {
        let schema = Schema::builtin("io.k8s.api.apps.v1.Deployment").unwrap();
        let of = |cpu: Value, memory: &str, label: &str| {
            json!({"kind": "Deployment", "unknown": "1000m", "metadata": {"labels": {"cpu": label}},
                "spec": {"template": {"spec": {
                    "volumes": [{"emptyDir": {"sizeLimit": memory}}],
                    "containers": [{"name": "1000m", "resources": {"limits": {"cpu": cpu, "memory": memory}}}]}}}})
        };
        let mut object = of(json!("1000m"), "1024Mi", "1000m");
        schema.make_quantities_canonical(&mut object);
        assert_eq!(object, of(json!("1"), "1Gi", "1000m"));
        let mut object = of(json!(1000), "nonsense", "1");
        schema.make_quantities_canonical(&mut object);
        assert_eq!(object, of(json!("1k"), "nonsense", "1"));
    }
}
