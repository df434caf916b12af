//! Decoding by the built-in schemas: as Kubernetes reads the same text.

use k8s_openapi::api::core::v1 as core;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn schema(name: &str) -> Schema {
    Schema::builtin(&full_name(name)).unwrap()
}

fn pod() -> Schema {
    schema("core.v1.Pod")
}

fn words(decoded: &Decoded) -> Vec<String> {
    decoded.warnings.iter().map(ToString::to_string).collect()
}

/// What `object` is read as, by text and as a value.
fn read(schema: &Schema, object: Value) -> Value {
    let by_text = schema.decode(object.to_string().as_bytes()).unwrap();
    let by_value = schema.decode_value(object).unwrap();
    assert_eq!((&by_text.value, &by_text.warnings), (&by_value.value, &by_value.warnings));
    by_text.value
}

fn refused(schema: &Schema, object: Value) -> DecodeError {
    let error = schema.decode(object.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.message, schema.decode_value(object).unwrap_err().message);
    error
}

#[test]
fn a_value_that_cannot_read_itself_is_told_before_one_of_another_type() {
    let autoscaler = Schema::builtin("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler").unwrap();
    let told = |metric: &str| {
        let text = format!(
            r#"{{"spec":{{"maxReplicas":"x","metrics":[{{"resource":{{"target":{metric}}}}}],"minReplicas":[]}}}}"#
        );
        autoscaler.decode(text.as_bytes()).unwrap_err().message
    };
    assert!(
        told(r#"{"averageValue":"b c"}"#).starts_with("quantities must match"),
        "{}",
        told(r#"{"averageValue":"b c"}"#)
    );
    let first =
        "json: cannot unmarshal string into Go struct field HorizontalPodAutoscalerSpec.spec.maxReplicas of type int32";
    assert_eq!(told(r#"{"averageValue":"1"}"#), first);
}

#[test]
fn unknown_and_duplicate_fields_are_named_by_their_path_in_the_order_of_the_text() {
    let text = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}},
        "spec":{"foo":{"x":[1]},"containers":[{"name":"c","imagee":"x","ports":[{"containerPort":1},{"nope":2}]}]}}"#;
    let decoded = pod().decode(text).unwrap();
    assert_eq!(
        words(&decoded),
        [
            "duplicate field \"metadata.name\"",
            "duplicate field \"metadata.labels.x\"",
            "unknown field \"spec.foo\"",
            "unknown field \"spec.containers[0].imagee\"",
            "unknown field \"spec.containers[0].ports[1].nope\"",
        ]
    );
    assert_eq!(decoded.value["metadata"], json!({"name": "b", "labels": {"x": "2"}}));
    assert_eq!(
        decoded.value["spec"],
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 1}, {}]}]}),
        "unknown fields are left out"
    );
}

#[test]
fn a_wrong_type_is_refused_in_gos_words_with_the_path() {
    let deployment = schema("apps.v1.Deployment");
    let error = refused(
        &deployment,
        json!({"spec": {"template": {"spec": {"containers": [{}, {"ports": [{"containerPort": "80"}]}]}}}}),
    );
    assert_eq!(error.path, "spec.template.spec.containers[1].ports[0].containerPort");
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal string into Go struct field \
         ContainerPort.spec.template.spec.containers.ports.containerPort of type int32"
    );
    let error = refused(&pod(), json!({"metadata": {"labels": {"a": 1}}}));
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
    );
    let error = refused(&pod(), json!({"spec": {"containers": {"name": "c"}}}));
    assert!(error.message.ends_with("object into Go struct field PodSpec.spec.containers of type []v1.Container"));
    let error = refused(&pod(), json!(["pod"]));
    assert_eq!(error.message, "json: cannot unmarshal array into Go value of type v1.Pod");
}

#[test]
fn bytes_may_be_a_list_of_numbers() {
    let service = schema("apiregistration.v1.APIService");
    let with = |bundle: Value| json!({"spec": {"caBundle": bundle}});
    assert_eq!(read(&service, with(json!([65, null, 255])))["spec"]["caBundle"], "QQD/");
    assert_eq!(read(&service, with(json!([])))["spec"].get("caBundle"), None);
    for (wrong, found) in [
        (json!(["a"]), "string"),
        (json!([256]), "number 256"),
        (json!([-1]), "number -1"),
        (json!([1.5]), "number 1.5"),
        (json!([1, true, "a"]), "bool"),
        (json!([[1]]), "array"),
        (json!([{}]), "object"),
    ] {
        let field = "Go struct field APIServiceSpec.spec.caBundle of type uint8";
        assert_eq!(refused(&service, with(wrong)).message, format!("json: cannot unmarshal {found} into {field}"));
    }
    assert_eq!(refused(&service, with(json!(["a"]))).of_patched, "unrecognized type: uint8");
    assert!(refused(&service, with(json!({}))).message.ends_with("of type []uint8"));
}

#[test]
fn a_wrong_type_that_a_patch_has_made_is_refused_in_the_words_of_gos_converter() {
    for (object, why) in [
        (json!({"metadata": {"labels": "invalid"}}), "cannot restore map from string"),
        (json!({"metadata": {"labels": {"a": 1}}}), "cannot convert int64 to string"),
        (json!({"metadata": {"labels": {"a": 1.5}}}), "unrecognized type: string"),
        (json!({"spec": {"containers": {"name": "c"}}}), "cannot restore slice from map"),
        (json!({"spec": {"containers": [true]}}), "cannot restore struct from: bool"),
        (json!({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}), "unrecognized type: int32"),
        (json!({"spec": {"containers": [{"ports": [{"containerPort": 1.5}]}]}}), "cannot convert float64 to int32"),
        (json!({"spec": {"hostNetwork": 1}}), "unrecognized type: bool"),
        (json!({"metadata": {"creationTimestamp": true}}), "json: cannot unmarshal bool into Go value of type string"),
    ] {
        assert_eq!(refused(&pod(), object.clone()).of_patched, why, "{object}");
    }
    let secret = schema("core.v1.Secret");
    let error = refused(&secret, json!({"data": {"key": "?"}}));
    assert_eq!(error.of_patched, "error decoding from json: illegal base64 data at input byte 0");
}

#[test]
fn null_is_absent_in_an_object_and_zero_in_a_list_or_map() {
    let found = read(
        &pod(),
        json!({"metadata": {"labels": {"a.b/c": null}, "creationTimestamp": null, "finalizers": [null]},
            "spec": {"containers": [null], "hostNetwork": null}, "status": null}),
    );
    assert_eq!(found, json!({"metadata": {"labels": {"a.b/c": ""}, "finalizers": [""]}, "spec": {"containers": [{}]}}));
    assert!(pod().decode(b"null").is_err());
}

#[test]
fn nothing_is_required_and_names_are_case_sensitive() {
    assert_eq!(read(&pod(), json!({"spec": {"containers": [{}]}})), json!({"spec": {"containers": [{}]}}));
    let decoded = pod().decode(br#"{"Metadata":{"name":"a"}}"#).unwrap();
    assert_eq!((words(&decoded), decoded.value), (vec!["unknown field \"Metadata\"".to_owned()], json!({})));
}

#[test]
fn whole_numbers_have_no_fraction_and_a_range() {
    let with = |replicas: &str| {
        let text = format!(r#"{{"spec":{{"replicas":{replicas}}}}}"#);
        schema("apps.v1.ReplicaSet").decode(text.as_bytes())
    };
    assert_eq!(with("2147483647").unwrap().value["spec"]["replicas"], i32::MAX);
    for wrong in ["1.0", "1e3", "2147483648", "-2147483649", "99999999999999999999999"] {
        let error = with(wrong).unwrap_err().message;
        assert!(error.contains("cannot unmarshal number ") && error.ends_with("of type int32"), "{wrong}: {error}");
    }
    let grace = read(&pod(), json!({"spec": {"terminationGracePeriodSeconds": i64::MAX}}));
    assert_eq!(grace["spec"]["terminationGracePeriodSeconds"], i64::MAX);
    refused(&pod(), json!({"spec": {"terminationGracePeriodSeconds": u64::MAX}}));
}

#[test]
fn special_values_are_checked() {
    let container = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
    let found = read(&pod(), container(json!({"limits": {"cpu": 0.5, "memory": 1024, "x.y/z": "3Gi"}})));
    assert_eq!(
        found["spec"]["containers"][0]["resources"]["limits"],
        json!({"cpu": "500m", "memory": "1024", "x.y/z": "3Gi"})
    );
    let error = refused(&pod(), container(json!({"limits": {"cpu": "lots"}})));
    assert_eq!(error.path, "spec.containers[0].resources.limits.cpu");
    assert!(error.message.starts_with("quantities must match"), "{error}");
    let port = |port: Value| json!({"spec": {"ports": [{"targetPort": port}]}});
    let service = schema("core.v1.Service");
    read(&service, port(json!("http")));
    read(&service, port(json!(80)));
    for wrong in [json!(true), json!(1.5), json!(u32::MAX), json!({})] {
        refused(&service, port(wrong));
    }
    let secret = schema("core.v1.Secret");
    assert!(refused(&secret, json!({"data": {"a": "%"}})).message.starts_with("illegal base64 data"));
    let found = read(&pod(), json!({"metadata": {"creationTimestamp": "2024-05-01T10:00:00.5+02:00"}}));
    assert_eq!(found["metadata"]["creationTimestamp"], "2024-05-01T08:00:00Z");
    assert!(refused(&pod(), json!({"metadata": {"creationTimestamp": "now"}})).message.contains("parsing time"));
    let fields = json!({"f:spec": {"f:a": null, ".": {}}});
    let found = read(&pod(), json!({"metadata": {"managedFields": [{"fieldsV1": fields}]}}));
    assert_eq!(found["metadata"]["managedFields"][0]["fieldsV1"], fields, "free JSON is kept as it is");
}

#[test]
fn nesting_has_a_bound() {
    let fields = (0..200).fold(json!({}), |inner, _| json!({"f": inner}));
    let object = json!({"metadata": {"managedFields": [{"fieldsV1": fields}]}});
    assert!(pod().decode(object.to_string().as_bytes()).unwrap_err().message.contains("recursion limit"));
    assert!(pod().decode_value(object).unwrap_err().message.contains("nesting of 128 levels"));
    let unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(words(&pod().decode(unknown.as_bytes()).unwrap()), ["unknown field \"x\""]);
}

#[test]
fn warnings_have_a_bound() {
    let text = format!("{{{}}}", (0..5000).map(|n| format!("\"x{n}\":1")).collect::<Vec<_>>().join(","));
    assert_eq!(pod().decode(text.as_bytes()).unwrap().warnings.len(), 100);
}

#[test]
fn what_is_not_json_is_refused() {
    for text in ["", "{", "{\"a\":}", "{} x", "{\"metadata\":{\"name\":\"\u{1}\"}}"] {
        assert_eq!(pod().decode(text.as_bytes()).unwrap_err().path, "", "{text}");
    }
    assert!(pod().decode(b"{\"metadata\":{\"name\":\"\xff\"}}").is_err());
}

#[test]
fn a_kind_without_a_schema_keeps_its_fields() {
    let object =
        json!({"apiVersion": "e.org/v1", "kind": "Toy", "metadata": {"name": "a"}, "spec": {"b": [1, null, {"c": 2}]}});
    assert_eq!(read(&Schema::unstructured(), object.clone()), object);
    refused(&Schema::unstructured(), json!({"metadata": {"name": 1}}));
}

/// Objects with a value in every field, as Kubernetes wrote them.
fn full_objects() -> impl Iterator<Item = Value> {
    let lines = include_str!("../../../src/api/protobuf/full_objects.tsv").lines();
    lines.map(|line| serde_json::from_str(line.split_once('\t').unwrap().1).unwrap())
}

#[test]
fn every_field_of_kubernetes_is_known() {
    for object in full_objects() {
        let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let types = Types::builtin();
        let schema = Schema { types: types.clone(), root: types.of_kind(version, kind).unwrap() };
        assert_eq!(read(&schema, object.clone()), object);
    }
}

#[test]
fn fields_are_found_by_name_and_number() {
    let types = Types::builtin();
    let spec = types.object(types.by_name("io.k8s.api.core.v1.PodSpec").unwrap()).unwrap();
    let containers = spec.field("containers").unwrap();
    assert_eq!(containers.merge.key.as_deref(), Some("name"));
    assert!(matches!(types.get(containers.r#type), Type::List(item) if types.object(*item).is_some()));
    assert_eq!(spec.field("nodeName").unwrap().merge, Merge::default());
    let volume = types.object(types.by_name("io.k8s.api.core.v1.Volume").unwrap()).unwrap();
    let Numbered::Embedded(source) = &volume.numbers()[&2] else { panic!("VolumeSource is embedded") };
    assert!(matches!(source[&1], Numbered::Field(at) if volume.fields()[at].name == "hostPath"));
    assert_eq!(unescaped(r"a\nb \\n"), "a\nb \\n");
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 2.0)),
        "[a-zA-Z0-9:.+-]{0,12}".prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "apiVersion",
        "metadata",
        "name",
        "labels",
        "spec",
        "containers",
        "resources",
        "limits",
        "ports",
        "containerPort",
        "status",
        "conditions",
        "lastTransitionTime",
        "managedFields",
        "fieldsV1",
        "x",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn text_and_value_are_read_alike_and_reading_again_changes_nothing(value in json_values()) {
        let by_text = pod().decode(value.to_string().as_bytes());
        let by_value = pod().decode_value(value);
        match (by_text, by_value) {
            (Ok(text), Ok(value)) => {
                prop_assert_eq!((&text.value, &text.warnings), (&value.value, &value.warnings));
                let again = pod().decode_value(text.value.clone()).unwrap();
                prop_assert_eq!((again.value, again.warnings), (text.value, vec![]));
            }
            (Err(text), Err(value)) => prop_assert_eq!(text.message, value.message),
            (text, value) => prop_assert!(false, "{text:?} {value:?}"),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = pod().decode(&bytes).is_ok();
    }
}

/// Run by hand in release: what one pass costs beside a plain `Value`.
#[test]
#[ignore = "a measurement"]
fn measure_decoding_a_pod() {
    let object = full_objects().find(|object| object["kind"] == "Pod").unwrap();
    let text = object.to_string();
    let schema = pod();
    let each = |read: &dyn Fn()| {
        let started = std::time::Instant::now();
        (0..200).for_each(|_| read());
        started.elapsed() / 200
    };
    let plain = each(&|| drop(serde_json::from_slice::<Value>(text.as_bytes()).unwrap()));
    let typed = each(&|| drop(serde_json::from_slice::<core::Pod>(text.as_bytes()).unwrap()));
    let decoded = each(&|| drop(schema.decode(text.as_bytes()).unwrap()));
    println!("{} bytes: Value {plain:?}, k8s-openapi {typed:?}, schema {decoded:?}", text.len());
}
