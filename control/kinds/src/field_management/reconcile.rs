//! Sets that were made under an older schema: what is owned as a whole by now is no longer owned part by part.

use super::{
    path::PathElement,
    set::{Entry, FieldSet},
    shape::{Shape, TypeRef},
};
use crate::schema::Type;

/// `set` as the present schema has it.
pub fn reconcile<'a>(of: TypeRef<'_>, set: FieldSet<'a>) -> FieldSet<'a> {
    if is_current(of, &set) { set } else { collapsed(of, &set) }
}

fn below<'t>(of: TypeRef<'t>, element: &PathElement<'_>) -> Option<TypeRef<'t>> {
    match (of.shape(None), element) {
        (Shape::Struct(object), PathElement::Field(name)) => of.field(object, name),
        (Shape::Map(item), PathElement::Field(_)) => Some(item),
        (Shape::KeyedList { item, .. }, _) => Some(item),
        _ => None,
    }
}

/// Whether a value of this type is owned as a whole although it has parts.
fn is_atomic(of: TypeRef<'_>) -> bool {
    matches!(of.r#type(), Type::Object(_) | Type::Map(_) | Type::List(_)) && matches!(of.shape(None), Shape::Leaf)
}

fn is_current(of: TypeRef<'_>, set: &FieldSet<'_>) -> bool {
    set.entries()
        .iter()
        .filter(|entry| !entry.below.is_empty())
        .all(|entry| below(of, &entry.element).is_none_or(|of| !is_atomic(of) && is_current(of, &entry.below)))
}

fn collapsed<'a>(of: TypeRef<'_>, set: &FieldSet<'a>) -> FieldSet<'a> {
    let entries = set.entries().iter().map(|entry| {
        let element = entry.element.clone();
        match below(of, &entry.element).filter(|_| !entry.below.is_empty()) {
            None => entry.clone(),
            Some(of) if is_atomic(of) => Entry { element, member: true, below: FieldSet::default() },
            Some(of) => Entry { element, member: entry.member, below: collapsed(of, &entry.below) },
        }
    });
    FieldSet::of(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::{super::fields_v1, *};
    use crate::schema::Schema;

    #[test]
    fn parts_of_what_became_atomic_are_the_whole() {
        let schema = Schema::builtin("io.k8s.api.core.v1.Pod").unwrap();
        let of = TypeRef::root(schema.types(), schema.root());
        let old = r#"{"f:spec":{"f:nodeSelector":{"f:a":{}},"f:hostname":{}}}"#;
        let set = reconcile(of, fields_v1::parse(old).unwrap());
        assert_eq!(fields_v1::print(&set), r#"{"f:spec":{"f:hostname":{},"f:nodeSelector":{}}}"#);
        let current = fields_v1::parse(r#"{"f:spec":{"f:nodeSelector":{}}}"#).unwrap();
        assert_eq!(reconcile(of, current.clone()), current);
    }
}
