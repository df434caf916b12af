//! What must hold for every kind alike.

use super::*;
use serde_json::json;

mod facts;
mod large_inputs;

fn minimal(kind: &Kind) -> Value {
    json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "x"}})
}

#[test]
fn every_kind_decodes_its_own_minimal_object() {
    for kind in Kinds::built_in().iter() {
        let text = minimal(kind).to_string();
        assert_ne!(kind.schema.name(), Schema::unstructured().name(), "{kind:?}");
        let decoded = kind.schema.decode(text.as_bytes()).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert_eq!((decoded.value, decoded.warnings), (minimal(kind), vec![]), "{kind:?}");
    }
}

#[test]
fn every_kind_answers_one_cell_a_column() {
    for kind in Kinds::built_in().iter() {
        assert_eq!((kind.cells)(&minimal(kind)).len(), kind.columns.len(), "{kind:?}");
    }
}

#[test]
fn every_kind_is_found_by_path_and_by_name() {
    let kinds = Kinds::built_in();
    for kind in kinds.iter() {
        assert!(Arc::ptr_eq(&kinds.by_path(&kind.group, &kind.version, &kind.plural).unwrap(), kind));
        assert!(Arc::ptr_eq(&kinds.by_api_version(&kind.api_version(), &kind.kind).unwrap(), kind));
    }
    assert!(kinds.by_path("apps", "v2", "deployments").is_none());
}

#[test]
fn defaults_and_preparation_change_nothing_the_second_time() {
    for kind in Kinds::built_in().stored() {
        let mut once = minimal(kind);
        (kind.prepare)(&mut once, None, &Sent::default());
        (kind.default)(&mut once);
        let mut twice = once.clone();
        (kind.default)(&mut twice);
        assert_eq!(once, twice, "{kind:?}");
    }
}

#[test]
fn a_name_of_a_kind_means_one_kind_only() {
    let mut seen = BTreeMap::new();
    let kinds = Kinds::built_in();
    for kind in kinds.iter().filter(|k| k.group != "events.k8s.io") {
        for name in &kind.short_names {
            let before = seen.insert(name, kind).is_none_or(|other| other.resource() == kind.resource());
            assert!(before, "{name} is {kind:?} and another kind");
        }
    }
}

#[test]
fn indexes_and_field_selectors_name_fields_of_the_stored_kind() {
    let kinds = Kinds::built_in();
    for kind in kinds.iter() {
        let Some(stored) = kind.stored() else { continue };
        let known = (stored.selectable)(&Value::Null);
        for index in &*stored.indexed {
            assert!(known.contains_key(index), "{stored:?} is indexed by {index}, which it does not select by");
        }
        for field in (kind.selectable)(&Value::Null).keys() {
            assert!(known.contains_key((kind.stored_field)(field)), "{kind:?}: {field}");
        }
    }
}
