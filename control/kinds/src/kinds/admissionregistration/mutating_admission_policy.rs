//! MutatingAdmissionPolicy: expressions that change matching writes (KEP 3962).

use serde_json::Value;

use super::{
    CATEGORIES, GROUP, is_unknown, items, match_resources, parameters, policy,
    scope::{KnownNames, apply_configuration, compile, json_patch},
    text,
};
use crate::{
    cel::Type,
    kinds::{BuiltIn, BuiltInAs, Cell, Column, FieldError, Storage, prepare},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    version: "v1beta1",
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    categories: CATEGORIES,
    namespaced: false,
    default: policy::default,
    validate,
    prepare: prepare::count_generation,
    columns: &[
        Column::name(),
        Column::integer("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
        Column::text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::age(),
    ],
    cells: |object| {
        let spec = &object["spec"];
        let count = i64::try_from(items(spec, "mutations").len()).unwrap_or(i64::MAX);
        let parameter = parameters::kind_cell(&spec["paramKind"]);
        vec![Cell::name(object), Cell::integer(count), Cell::text(parameter), Cell::age(object)]
    },
    schema: "io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicy",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

/// `v1alpha1`: the same, stored as `v1beta1`.
pub static ALPHA: BuiltIn = BuiltIn {
    version: "v1alpha1",
    storage: Storage::As(&BuiltInAs {
        kind: &KIND,
        to_stored: |object| object["apiVersion"] = "admissionregistration.k8s.io/v1beta1".into(),
        from_stored: |object, served| object["apiVersion"] = served.api_version().into(),
        deprecation: None,
    }),
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    schema: "io.k8s.api.admissionregistration.v1alpha1.MutatingAdmissionPolicy",
    ..KIND
};

const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    // What was stored before is not compiled again.
    if old.is_some_and(|old| old["spec"] == *spec) {
        return Vec::new();
    }
    let mut known = KnownNames::of_policy(spec);
    let mut errors = policy::target_errors(spec);
    errors.extend(match_resources::no_deletions("spec.matchConstraints", &spec["matchConstraints"]));
    errors.extend(policy::expression_errors(spec, old, &mut known));
    let mutations = items(spec, "mutations");
    if mutations.is_empty() {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (i, mutation) in mutations.iter().enumerate() {
        errors.extend(mutation_errors(&format!("spec.mutations[{i}]"), mutation, &known));
    }
    let path = "spec.reinvocationPolicy";
    if text(spec, "reinvocationPolicy").is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if is_unknown(&spec["reinvocationPolicy"], &REINVOCATION_POLICIES) {
        errors.push(FieldError::not_supported(path, &spec["reinvocationPolicy"], &REINVOCATION_POLICIES));
    }
    errors
}

fn mutation_errors(path: &str, mutation: &Value, known: &KnownNames) -> Vec<FieldError> {
    let patch_type = text(mutation, "patchType");
    let (own, other, expected) = match patch_type {
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", apply_configuration()),
        "JSONPatch" => ("jsonPatch", "applyConfiguration", json_patch()),
        "" => return vec![FieldError::required(format!("{path}.patchType"), "")],
        _ => {
            let path = format!("{path}.patchType");
            return vec![FieldError::not_supported(path, &mutation["patchType"], &PATCH_TYPES)];
        }
    };
    let mut errors = Vec::new();
    if mutation[own].is_null() {
        let why = format!("must be specified when patchType is {patch_type}");
        errors.push(FieldError::required(format!("{path}.{own}"), &why));
    } else {
        let path = format!("{path}.{own}.expression");
        errors.extend(expression_error(path, text(&mutation[own], "expression").trim(), known, &expected));
    }
    if !mutation[other].is_null() {
        let why = format!("must not be specified when patchType is {patch_type}");
        let shown = Value::from(format!("{{{other}}}"));
        errors.push(FieldError::invalid(format!("{path}.{other}"), &shown, why));
    }
    errors
}

fn expression_error(path: String, expression: &str, known: &KnownNames, expected: &Type) -> Option<FieldError> {
    if expression.is_empty() {
        return Some(FieldError::required(path, ""));
    }
    let why = compile(expression, &known.for_mutations(), expected).err()?;
    Some(FieldError::invalid(path, &expression.into(), why.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(changes: Value) -> Value {
        let mut policy = json!({"metadata": {"name": "p.example.com"}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
                "apiVersions": ["v1"], "resources": ["pods"]}]},
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"}}]}});
        for (field, value) in changes.as_object().unwrap() {
            policy["spec"][field] = value.clone();
        }
        (KIND.default)(&mut policy);
        policy
    }

    fn words(policy: &Value, old: Option<&Value>) -> Vec<String> {
        validate(policy, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_policy_has_rules_mutations_and_a_reinvocation_policy() {
        let good = policy(json!({}));
        assert_eq!(words(&good, None), Vec::<String>::new());
        assert_eq!(
            (&good["spec"]["failurePolicy"], &good["spec"]["matchConstraints"]["matchPolicy"]),
            (&json!("Fail"), &json!("Equivalent"))
        );
        assert_eq!(
            words(&json!({"spec": {}}), None),
            [
                "spec.failurePolicy: Required value",
                "spec.matchConstraints: Required value",
                "spec.mutations: Required value: mutations must contain at least one item",
                "spec.reinvocationPolicy: Required value",
            ]
        );
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let one = |mutation: Value| json!({"mutations": [mutation]});
        let rule = json!([{"operations": ["CREATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods"]}]);
        for (changes, expected) in [
            (
                json!({"matchConstraints": {"resourceRules": rule}}),
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \
                 \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ),
            (
                json!({"reinvocationPolicy": "Always"}),
                "spec.reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\"",
            ),
            (one(json!({})), "spec.mutations[0].patchType: Required value"),
            (
                one(json!({"patchType": "Merge"})),
                "spec.mutations[0].patchType: Unsupported value: \"Merge\": supported values: \
                 \"ApplyConfiguration\", \"JSONPatch\"",
            ),
            (
                one(json!({"patchType": "JSONPatch"})),
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            ),
            (
                one(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": " "}})),
                "spec.mutations[0].jsonPatch.expression: Required value",
            ),
            (
                one(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{}]"},
                    "applyConfiguration": {}})),
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified \
                 when patchType is JSONPatch",
            ),
            (
                one(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}})),
                "spec.mutations[0].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to \
                 list(JSONPatch) but got Object",
            ),
            (
                one(json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": " Object.spec{}"}})),
                "spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object.spec{}\": must evaluate to \
                 Object but got Object.spec",
            ),
        ] {
            assert_eq!(words(&policy(changes), None), [expected]);
        }
    }

    #[test]
    fn expressions_are_compiled_with_what_they_may_name() {
        let apply = |expression: &str| {
            json!([{"patchType": "ApplyConfiguration",
            "applyConfiguration": {"expression": expression}}])
        };
        let named = |variables: Value, expression: &str| {
            words(&policy(json!({"variables": variables, "mutations": apply(expression)})), None)
        };
        assert!(named(json!([{"name": "v", "expression": "1"}]), "Object{spec: variables.v}").is_empty());
        let unknown = named(json!([]), "Object{spec: none}");
        assert!(unknown[0].contains("undeclared reference to 'none'"), "{unknown:?}");
        let made = named(json!([{"name": "v", "expression": "Object{}"}]), "Object{}");
        assert!(made[0].starts_with("spec.variables[0].expression"), "variables make no objects: {made:?}");
        let broken = policy(json!({"mutations": apply("1 +")}));
        assert_eq!(words(&broken, None).len(), 1);
        assert!(words(&broken, Some(&broken)).is_empty(), "what is stored is not judged again");
    }

    #[test]
    fn a_row_counts_the_mutations() {
        let cells = (KIND.cells)(&policy(json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}})));
        assert_eq!(cells.len(), KIND.columns.len());
        assert!(format!("{cells:?}").contains("v1/ConfigMap"));
    }
}
