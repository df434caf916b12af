//! Names, labels and the metadata of every kind by example.

use super::*;

#[test]
fn the_start_of_a_generated_name_stays_a_segment_of_a_path() {
    let stored = Kind::from(&crate::kinds::config_map::KIND);
    let object = json!({"metadata": {"name": "a", "generateName": "a/%"}});
    let words = |is_update| -> Vec<String> {
        super::metadata(&stored, &object, is_update).into_iter().map(|error| error.message).collect()
    };
    let segment = ["Invalid value: \"a/%\": may not contain '/'", "Invalid value: \"a/%\": may not contain '%'"];
    assert_eq!(words(true)[..2], segment);
    assert_eq!(words(true)[2..], words(false));
}

#[test]
fn names_follow_rfc_1123_and_rfc_1035() {
    for name in ["a", "a-b.c", "0a", &"a".repeat(253)] {
        assert!(subdomain(name).is_empty(), "{name}");
    }
    for name in ["", "A", "-a", "a-", "a..b", "a_b", ".a", &"a".repeat(254)] {
        assert!(!subdomain(name).is_empty(), "{name}");
    }
    assert!(label("0abc").is_empty());
    assert!(!label("a.b").is_empty());
    assert!(!label(&"a".repeat(64)).is_empty());
    assert!(!label_1035("0abc").is_empty());
}

/// What is wrong with this metadata of an object of a kind.
fn wrong(group: &str, plural: &str, metadata: Value) -> Vec<String> {
    let kinds = crate::kinds::Kinds::built_in();
    let kind = kinds.iter().find(|kind| (&*kind.group, &*kind.plural) == (group, plural)).unwrap();
    let stored = kind.stored().unwrap();
    super::metadata(stored, &json!({"metadata": metadata}), false).into_iter().map(|error| error.path).collect()
}

#[test]
fn finalizers_need_a_prefix_where_the_kind_is_one_of_the_core() {
    let bare = json!({"name": "a", "finalizers": ["orphan", "x.io/y", "bare"]});
    for (group, plural, refused) in [
        ("", "configmaps", true),
        ("apps", "deployments", true),
        ("events.k8s.io", "events", true),
        ("", "events", false),
        ("node.k8s.io", "runtimeclasses", false),
        ("coordination.k8s.io", "leases", false),
    ] {
        let paths: &[&str] = if refused { &["metadata.finalizers[2]"] } else { &[] };
        assert_eq!(wrong(group, plural, bare.clone()), paths, "{plural}.{group}");
    }
}

#[test]
fn generations_and_owners_are_checked_of_every_kind() {
    assert_eq!(wrong("", "configmaps", json!({"name": "a", "generation": -1})), ["metadata.generation"]);
    let owned = |version: &str| {
        let owner = json!({"apiVersion": version, "kind": "K", "name": "n", "uid": "u"});
        wrong("", "configmaps", json!({"name": "a", "ownerReferences": [owner]}))
    };
    for version in ["", "a/", "a/b/c"] {
        assert_eq!(owned(version), ["metadata.ownerReferences.apiVersion"], "{version}");
    }
    assert!(owned("v1").is_empty() && owned("a.io/v1").is_empty());
}

#[test]
fn some_names_are_any_step_of_a_path() {
    for (group, plural, valid) in [
        ("policy", "poddisruptionbudgets", true),
        ("", "events", true),
        ("certificates.k8s.io", "certificatesigningrequests", true),
        ("events.k8s.io", "events", false),
        ("", "configmaps", false),
    ] {
        assert_eq!(wrong(group, plural, json!({"name": "A:b"})).is_empty(), valid, "{plural}.{group}");
    }
}

#[test]
fn a_generated_name_may_start_with_what_ends_in_a_dash() {
    for (base, valid) in [("web-", true), ("web", true), ("-", false), ("web--", true), ("-web", false)] {
        assert_eq!(subdomain(&as_generated(base)).is_empty(), valid, "{base}");
    }
}

#[test]
fn paths_wildcards_and_domains_are_told_apart() {
    assert!(wildcard_subdomain("*.a.b").is_empty());
    for text in ["*", "*a.b", "a.*", "*.", "*.*.a"] {
        assert!(!wildcard_subdomain(text).is_empty(), "{text}");
    }
    assert!(path_segment("system:node").is_empty());
    assert_eq!(path_segment(".."), ["may not be '..'"]);
    assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    let errors = |text: &str| domain_prefixed_path("p", &json!(text)).len();
    assert_eq!(["", "a", "a/", "A/b", "a/ b", "example.com/a/b"].map(errors), [1, 1, 1, 1, 1, 0]);
    assert_eq!(fully_qualified("p", &json!("a.b.c")), None);
    assert!(fully_qualified("p", &json!("a.b")).unwrap().message.contains("three segments"));
    assert_eq!(csi_driver("p", &json!("CSI.example.com")), []);
    assert_eq!(csi_driver("p", &json!("a".repeat(64))).len(), 1);
}

#[test]
fn keys_and_variables_have_their_own_rules() {
    assert!(config_key("a.b_c-D").is_empty() && environment_variable("a b").is_empty());
    for key in ["", "a b", "a/b", ".", "..", "..a", &"a".repeat(254)] {
        assert!(!config_key(key).is_empty(), "{key}");
    }
    assert!(!environment_variable("a=b").is_empty() && !environment_variable("é").is_empty());
    assert!(subdomain_with_underscore("_http._tcp.a").is_empty() && !subdomain_with_underscore("a_").is_empty());
    assert_eq!(label("a.b"), ["must not contain dots"]);
}

#[test]
fn label_keys_and_values_are_words() {
    for key in ["a", "A.b_c-d", "example.com/name", "app.kubernetes.io/name"] {
        assert!(qualified_name(key).is_empty(), "{key}");
    }
    for key in ["", "/a", "a/", "a/b/c", "Example.com/a", "-a", &"a".repeat(64)] {
        assert!(!qualified_name(key).is_empty(), "{key}");
    }
    assert!(label_value("").is_empty());
    assert!(!label_value("a b").is_empty());
}
