//! Policies as the API meets them: a request, the policies and bindings of the store, and the verdict.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{resources::MatchResources, *};
use crate::{
    admission::attributes::Operation,
    admission_plugins::AdmissionPlugins,
    api::open_store,
    audit,
    auth::authorizer::Authorizer,
    deadline, encode,
    identity::Identity,
    kinds::{Kind, Kinds, Registry},
    metrics::AdmissionMetrics,
    store::{EventType, Key, Object},
    warnings,
};

pub fn store(objects: &[(&str, &str, Value)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let namespace = json!({"metadata": {"name": "default", "labels": {"env": "prod"}}});
    for (resource, key, object) in objects.iter().chain(&[("namespaces", "default", namespace)]) {
        let object = Object::new(encode::unserved(object), 1, EventType::Added);
        snapshot.load(Key { resource: (*resource).into(), name: (*key).into() }, Arc::new(object));
    }
    snapshot
}

/// An authoriser of a store without roles.
pub fn authorizer() -> (tempfile::TempDir, Authorizer) {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(&dir.path().join("store"), &Registry::default()).unwrap();
    (dir, Authorizer::new(Arc::new(store)))
}

fn policy(spec: Value) -> (&'static str, &'static str, Value) {
    let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"matchPolicy": "Equivalent",
        "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
            "resources": ["configmaps"]}]}}});
    for (field, value) in spec.as_object().unwrap() {
        policy["spec"][field] = value.clone();
    }
    (POLICIES, "p", policy)
}

fn binding(spec: Value) -> (&'static str, &'static str, Value) {
    let mut binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    for (field, value) in spec.as_object().unwrap() {
        binding["spec"][field] = value.clone();
    }
    (BINDINGS, "b", binding)
}

/// What a request about a ConfigMap says.
pub fn attributes<'a>(
    served: &'a Arc<Kind>,
    (identity, authorizer): (&'a Identity, &'a Authorizer),
    snapshot: &'a Snapshot,
) -> Attributes<'a> {
    Attributes {
        operation: Operation::Create,
        served,
        form: None,
        subresource: None,
        namespace: Some("default"),
        name: "c",
        identity,
        dry_run: false,
        options: Value::Null,
        snapshot,
        authorizer,
        kinds: Kinds::built_in(),
    }
}

/// The refusal of a write of a ConfigMap with this data, and the warnings.
async fn written(snapshot: &Snapshot, data: Value, old: Option<Value>) -> (Option<Status>, Vec<String>) {
    let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
    let identity = Identity::authenticated("jane".into(), vec![]);
    let (_dir, authorizer) = authorizer();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"},
        "data": data});
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let attributes = Attributes { operation, ..attributes(&kind, (&identity, &authorizer), snapshot) };
    let old = old.unwrap_or_default();
    let mut objects = Versioned::new(&attributes, object, &old, None);
    let policies = Policies::new(&AdmissionPlugins::default());
    let (result, warnings) =
        warnings::collect(policies.validate(&attributes, &mut objects, &AdmissionMetrics::default())).await;
    (result.err(), warnings)
}

#[tokio::test]
async fn a_violation_denies_with_kubernetes_words() {
    let validations = json!([{"expression": "object.data.size() < 2", "message": "too much"},
        {"expression": "!('bad' in object.data)", "messageExpression": "'bad is ' + object.data.bad",
            "reason": "Forbidden"}]);
    let store = store(&[policy(json!({"validations": validations})), binding(json!({}))]);
    assert!(written(&store, json!({"a": "1"}), None).await.0.is_none());
    let refused = written(&store, json!({"a": "1", "b": "2"}), None).await.0.unwrap();
    assert_eq!(
        refused.message,
        "configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: too much"
    );
    assert_eq!((refused.code, refused.reason), (422, "Invalid"));
    let refused = written(&store, json!({"bad": "x"}), None).await.0.unwrap();
    assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
    assert!(refused.message.ends_with("denied request: bad is x"), "{}", refused.message);
}

#[tokio::test]
async fn bindings_say_where_and_what_becomes_of_a_violation() {
    let own = policy(json!({"validations": [{"expression": "false"}]}));
    let warns = store(&[own.clone(), binding(json!({"validationActions": ["Warn", "Audit"]}))]);
    let (refused, warnings) = written(&warns, json!({}), None).await;
    assert!(refused.is_none());
    assert_eq!(
        warnings,
        ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression: false"]
    );
    for (env, denied) in [("prod", true), ("dev", false)] {
        let bound = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": env}}}});
        let store = store(&[own.clone(), binding(bound)]);
        assert_eq!(written(&store, json!({}), None).await.0.is_some(), denied, "{env}");
    }
    let unbound = store(&[own]);
    assert!(written(&unbound, json!({}), None).await.0.is_none());
}

/// The lines that are logged while `work` runs: their fields.
async fn logged(work: impl Future<Output = ()>) -> Vec<String> {
    let lines = LoggedLines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    work.await;
    drop(guard);
    let lines = lines.0.lock();
    lines.clone()
}

#[derive(Clone, Default)]
struct LoggedLines(Arc<parking_lot::Mutex<Vec<String>>>);

impl tracing::Subscriber for LoggedLines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().contains("admission::policy")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line.push_str(&format!("{field}={value:?} "));
        });
        self.0.lock().push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Without an audit log, too: as each is found, whole, and with the binding.
#[tokio::test]
async fn what_policies_note_is_logged_as_it_is_found() {
    let noting = policy(json!({"validations": [{"expression": "false", "message": "no"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "object.data.long"}]}));
    let store = store(&[noting, binding(json!({"validationActions": ["Audit"]}))]);
    let long = "x".repeat(20_000);
    let lines = logged(async {
        assert!(written(&store, json!({"long": long}), None).await.0.is_none());
    });
    let message = "message=audit annotation of an admission policy ";
    let failure = "validation.policy.admission.k8s.io/validation_failure";
    assert_eq!(
        lines.await,
        [
            format!("{message}policy=\"p\" binding=\"b\" key=\"{failure}\" value=\"no\" "),
            format!("{message}policy=\"p\" binding=\"b\" key=\"p/k\" value=\"{long}\" "),
        ]
    );
}

#[tokio::test]
async fn what_policies_note_is_in_the_event_however_the_evaluation_ends() {
    let dir = tempfile::tempdir().unwrap();
    let options = audit::tests::options(dir.path(), "- {level: Metadata, omitStages: [RequestReceived]}\n");
    let audit = audit::Audit::start(&options).await.unwrap().unwrap();
    let request = audit::tests::begin(&audit, 1);
    request.received(true).await.unwrap();
    let (_, _, bound) = binding(json!({}));
    let bound = Binding::read(&bound);
    let given_up = request.scope(async {
        let mut notes = notes::Notes::default();
        for value in ["1", "2", "1"] {
            notes.add("p", &bound, "p/k", value.to_owned());
        }
        notes.add("p", &bound, "p/long", "x".repeat(20_000));
        Err::<(), Status>(Status::timeout("early"))
    });
    assert_eq!(given_up.await.unwrap_err().code, 504);
    drop(request);
    audit.shut_down().await;
    let event = audit::tests::events(dir.path()).pop().unwrap();
    let notes = &event["annotations"];
    assert_eq!((&notes["p/k"], notes["p/long"].as_str().unwrap().len()), (&json!("1, 2"), 10 * 1024));
}

#[tokio::test]
async fn parameters_have_the_time_of_one_request() {
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "true"}]});
    let bound = binding(json!({"paramRef": {"selector": {}, "parameterNotFoundAction": "Deny"}}));
    let param = ("configmaps", "default/limits", json!({"metadata": {"name": "limits", "namespace": "default"}}));
    let stored = store(&[policy(spec), bound, param]);
    assert!(written(&stored, json!({}), None).await.0.is_none());
    let over = deadline::within(std::time::Duration::ZERO, written(&stored, json!({}), None)).await.0;
    assert_eq!(over.expect("no time is left for a parameter").code, 504);
}

#[tokio::test]
async fn conditions_variables_and_parameters_are_seen() {
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-system", "expression": "!request.userInfo.username.startsWith('system:')"}],
        "variables": [{"name": "most", "expression": "int(params.data.most)"}, {"name": "broken",
            "expression": "params.data.none"}],
        "validations": [{"expression": "object.data.size() <= variables.most && namespaceObject.metadata.labels.env \
        == 'prod'"},
            {"expression": "oldObject == null || variables.broken == 'x'"}]});
    let param = (
        "configmaps",
        "default/limits",
        json!({"metadata": {"name": "limits", "namespace": "default"}, "data": {"most": "1"}}),
    );
    let bound = binding(json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}}));
    let with_param = store(&[policy(spec.clone()), bound.clone(), param]);
    assert!(written(&with_param, json!({"a": "1"}), None).await.0.is_none());
    assert!(written(&with_param, json!({"a": "1", "b": "2"}), None).await.0.is_some());
    let refused = written(&with_param, json!({"a": "1"}), Some(json!({"metadata": {"name": "c"}}))).await.0.unwrap();
    assert!(refused.message.contains("composited variable \"broken\" fails to evaluate"), "{}", refused.message);
    let without = store(&[policy(spec), bound]);
    let refused = written(&without, json!({"a": "1"}), None).await.0.unwrap();
    assert!(
        refused.message.ends_with(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn an_error_is_a_violation_unless_it_is_to_be_ignored() {
    for (failure, denied) in [("Fail", true), ("Ignore", false)] {
        for expression in ["object.data.none == 'x'", "1 +"] {
            let spec = json!({"failurePolicy": failure, "validations": [{"expression": expression}]});
            let store = store(&[policy(spec), binding(json!({}))]);
            assert_eq!(written(&store, json!({"a": "1"}), None).await.0.is_some(), denied, "{failure} {expression}");
        }
    }
}

#[test]
fn resources_are_named_with_their_subresources() {
    let spec = |resources: Value| {
        json!({"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"],
        "operations": ["*"], "resources": resources}]})
    };
    let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
    let (identity, snapshot) = (Identity::control("test"), store(&[]));
    let (_dir, authorizer) = authorizer();
    let taken = |resources: Value, subresource: Option<&str>| {
        let asked = Attributes { subresource, ..attributes(&kind, (&identity, &authorizer), &snapshot) };
        let found = MatchResources::read(&spec(resources)).matching(&asked, &Value::Null, &Value::Null);
        found.unwrap().is_some()
    };
    assert!(taken(json!(["configmaps"]), None) && taken(json!(["*"]), None) && taken(json!(["*/*"]), Some("status")));
    assert!(!taken(json!(["configmaps"]), Some("status")) && !taken(json!(["pods"]), None));
    assert!(taken(json!(["configmaps/status"]), Some("status")) && taken(json!(["*/status"]), Some("status")));
}

#[test]
fn names_and_exclusions_narrow_what_a_policy_is_about() {
    let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
    let (identity, snapshot) = (Identity::control("test"), store(&[]));
    let (_dir, authorizer) = authorizer();
    let rule = |names: Value| {
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"],
            "resourceNames": names})
    };
    let taken = |resources: Value| {
        let found = MatchResources::read(&resources).matching(
            &attributes(&kind, (&identity, &authorizer), &snapshot),
            &Value::Null,
            &Value::Null,
        );
        found.unwrap().is_some()
    };
    assert!(taken(json!({"resourceRules": [rule(json!(["c"]))]})));
    assert!(!taken(json!({"resourceRules": [rule(json!(["d"]))]})));
    assert!(!taken(json!({"resourceRules": [rule(json!([]))], "excludeResourceRules": [rule(json!(["c"]))]})));
    assert!(taken(json!({})), "a binding leaves it to the policy");
}

#[tokio::test]
async fn expressions_ask_what_the_user_may() {
    for (expression, denied) in [
        ("authorizer.group('').resource('secrets').check('get').allowed()", true),
        ("!authorizer.requestResource.check('create').allowed()", false),
        ("authorizer.path('/healthz').check('get').errored()", true),
    ] {
        let spec = json!({"validations": [{"expression": expression}],
            "matchConditions": [{"name": "c", "expression": "!authorizer.path('/x').check('get').allowed()"}]});
        let store = store(&[policy(spec), binding(json!({}))]);
        assert_eq!(written(&store, json!({}), None).await.0.is_some(), denied, "{expression}");
    }
}
