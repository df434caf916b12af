//! Edits of an object, found by walking it beside its schema.

use fairlead_control::schema::{Field, Schema, Type, TypeId, Types};
use serde_json::{Value, json};

use crate::{
    choice::Choice,
    edit::{Edit, Step},
    plausible,
};

/// A field that an object has, or may have.
struct Place<'a> {
    path: Vec<Step>,
    field: &'a Field,
    value: Option<Value>,
}

/// One edit of `object`, below its top field `below` if that is given.
pub fn edit(choice: &mut Choice, schema: &Schema, object: &Value, below: Option<&str>) -> Edit {
    let types = schema.types();
    let mut places = Vec::new();
    walk(types, schema.root(), object, &mut Vec::new(), &mut places);
    let top = |place: &Place| match &place.path[0] {
        Step::Field(name) => name.clone(),
        Step::Index(_) => String::new(),
    };
    let heading = match below {
        Some(below) => below.to_owned(),
        None if choice.percent(12) => "metadata".to_owned(),
        None if choice.percent(3) => "status".to_owned(),
        None => String::new(),
    };
    match heading.as_str() {
        "" => places.retain(|place| !["metadata", "status", "apiVersion", "kind"].contains(&&*top(place))),
        heading => places.retain(|place| top(place) == heading && !is_identity(&place.path)),
    }
    if places.is_empty() {
        return Edit { path: vec![Step::Field("unknownField".into())], value: Some(json!("x")) };
    }
    let (present, absent): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.value.is_some());
    let set = match choice.percent(55) {
        true if !present.is_empty() => &present,
        _ if !absent.is_empty() => &absent,
        _ => &present,
    };
    let place = &set[choice.below(set.len())];
    change(choice, types, place)
}

/// Changing an object's name or namespace only says that the path has another one.
fn is_identity(path: &[Step]) -> bool {
    let last = path.last();
    path.len() == 2 && ["name", "namespace", "uid"].iter().any(|name| last == Some(&Step::Field((*name).to_owned())))
}

fn change(choice: &mut Choice, types: &Types, place: &Place) -> Edit {
    let (path, id) = (place.path.clone(), place.field.r#type);
    let set = |value: Value| Edit { path: path.clone(), value: Some(value) };
    let removal = if place.value.is_some() { 14 } else { 0 };
    let is_list = matches!(place.value, Some(Value::Array(_)));
    match choice.weighted(&[62, removal, 9, 6, if is_list { 20 } else { 0 }, 3]) {
        0 => set(plausible::of_field(choice, types, place.field)),
        1 => Edit { path, value: None },
        2 => set(plausible::wrong(choice, types, id)),
        3 => {
            let mut path = path;
            *path.last_mut().expect("a field") = Step::Field("unknownField".into());
            Edit { path, value: Some(json!({"a": 1})) }
        }
        4 => {
            // An item twice.
            let mut items = place.value.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
            items.extend(items.first().cloned());
            set(Value::Array(items))
        }
        _ => set(Value::Null),
    }
}

fn walk<'a>(types: &'a Types, id: TypeId, value: &Value, path: &mut Vec<Step>, places: &mut Vec<Place<'a>>) {
    match (types.get(id), value) {
        (Type::Object(object), Value::Object(map)) => {
            for field in object.fields() {
                path.push(Step::Field(field.name.to_string()));
                let inner = map.get(&*field.name);
                places.push(Place { path: path.clone(), field, value: inner.cloned() });
                if let Some(inner) = inner {
                    walk(types, field.r#type, inner, path, places);
                }
                path.pop();
            }
        }
        (Type::List(item), Value::Array(items)) => {
            for (index, inner) in items.iter().enumerate() {
                path.push(Step::Index(index));
                walk(types, *item, inner, path, places);
                path.pop();
            }
        }
        (Type::Map(item), Value::Object(map)) => {
            for (key, inner) in map {
                path.push(Step::Field(key.clone()));
                walk(types, *item, inner, path, places);
                path.pop();
            }
        }
        _ => {}
    }
}
