//! Why the defaults of a schema may not stand.

use crate::{
    custom::{
        rules::RuleScope,
        structural::{Structural, check, pruning},
        validate::{list_types, value_at},
    },
    kinds::FieldError,
};

/// Defaults must be valid by the schema that they stand in, and have no unknown fields.
pub fn validate(
    path: &str,
    schema: &Structural,
    is_root: bool,
    in_metadata: bool,
    budget: &mut u64,
    errors: &mut Vec<FieldError>,
) {
    if let Some(default) = &schema.default {
        let at = format!("{path}.default");
        let mut pruned = default.clone();
        pruning::prune(&mut pruned, schema, schema.embedded);
        if pruned != *default && !in_metadata {
            errors.push(FieldError::invalid(&at, default, "must not have unknown fields"));
        }
        let mut found = value_at("", schema, default, None);
        found.extend(list_types::check("", schema, default));
        if found.is_empty() {
            let scope = RuleScope::of(schema, is_root || schema.embedded);
            let rules = scope.map(|scope| scope.compile(schema));
            found.extend(rules.iter().flat_map(|rules| rules.validate("", default, None, budget)));
        }
        errors.extend(found.into_iter().map(|error| {
            let inner = match error.path.as_str() {
                "" | "<nil>" => at.clone(),
                inner if inner.starts_with('[') => format!("{at}{inner}"),
                inner => format!("{at}.{inner}"),
            };
            FieldError { path: inner, ..error }
        }));
    }
    // Defaults are not followed into additionalProperties, as in Kubernetes.
    if let Some(items) = &schema.items {
        validate(&format!("{path}.items"), items, false, in_metadata, budget, errors);
    }
    for (name, property) in &schema.properties {
        let is_meta = (is_root || schema.embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        validate(
            &check::property(path, name),
            property,
            false,
            in_metadata && !schema.embedded || is_meta,
            budget,
            errors,
        );
    }
}
