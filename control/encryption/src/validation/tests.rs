//! Each rule beside the message that Kubernetes has for it, and any configuration at all.

use proptest::prelude::*;

use crate::config::{ConfigError, FileConfiguration};

const HEAD: &str = "\"apiVersion\": \"apiserver.config.k8s.io/v1\", \"kind\": \"EncryptionConfiguration\"";
const KEY16: &str = "c2VjcmV0IGlzIHNlY3VyZQ==";
const KEY32: &str = "c2VjcmV0IGlzIHNlY3VyZSwgc2VjcmV0IGlzIHNhZmU=";

fn read(resources: &str, reload: bool) -> Result<FileConfiguration, ConfigError> {
    FileConfiguration::parse(format!("{{{HEAD}, \"resources\": {resources}}}").as_bytes(), reload)
}

fn refused(resources: &str) -> String {
    read(resources, false).err().map_or_else(|| "accepted".to_owned(), |error| error.to_string())
}

fn of_names(names: &[&str]) -> String {
    refused(&format!("[{{\"resources\": {names:?}, \"providers\": [{{\"identity\": {{}}}}]}}]"))
}

fn of_providers(providers: &str) -> String {
    refused(&format!("[{{\"resources\": [\"secrets\"], \"providers\": {providers}}}]"))
}

#[test]
fn something_must_be_configured() {
    assert_eq!(refused("[]"), "resources: Required value: at least one resources is required");
    assert_eq!(
        refused("[{}]"),
        "[resources[0].resources: Required value: at least one resources[0].resources is required, \
         resources[0].providers: Required value: at least one resources[0].providers is required]"
    );
}

#[test]
fn names_of_resources_are_checked() {
    for (names, error) in [
        (&["secrets"][..], "accepted"),
        (&["secrets", "pandas.bears.example", "*.apps"], "accepted"),
        (&["*.*"], "accepted"),
        (
            &["Secrets"],
            "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
        ),
        (
            &["*"],
            "resources[0].resources[0]: Invalid value: \"*\": use '*.' to encrypt all the resources from core API group \
             or *.* to encrypt all resources",
        ),
        (
            &["serviceipallocations"],
            "resources[0].resources[0]: Invalid value: \"serviceipallocations\": resources which do not have REST API/s \
             cannot be encrypted",
        ),
        (
            &["events.events.k8s.io"],
            "resources[0].resources[0]: Invalid value: \"events.events.k8s.io\": '*.events.k8s.io' objects are stored \
             using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        (
            &["deployments.extensions"],
            "resources[0].resources[0]: Invalid value: \"deployments.extensions\": 'extensions' group has been removed \
             and cannot be used for encryption",
        ),
        (
            &["pods.*"],
            "resources[0].resources[0]: Invalid value: \"pods.*\": encrypting the same resource across groups is not \
             supported",
        ),
        (
            &["secrets", "secrets"],
            "resources[0].resources: Invalid value: [\"secrets\",\"secrets\"]: the same resource cannot be specified \
             multiple times",
        ),
        (
            &["secrets", "*."],
            "resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: using overlapping resources such as 'secrets' \
             and '*.' in the same resource list is not allowed as they will be masked",
        ),
        (
            &["*.*", "x.apps"],
            "resources[0].resources: Invalid value: [\"*.*\",\"x.apps\"]: using overlapping resources such as 'secrets' \
             and '*.' in the same resource list is not allowed as they will be masked",
        ),
    ] {
        assert_eq!(of_names(names), error, "{names:?}");
    }
}

#[test]
fn each_element_is_one_provider() {
    assert_eq!(
        of_providers("[{}]"),
        "resources[0].providers[0]: Invalid value: {}: provider does not contain any of the expected providers: KMS, \
         AESGCM, AESCBC, Secretbox, Identity"
    );
    let both = of_providers(&format!(
        "[{{\"identity\": {{}}, \"aesgcm\": {{\"keys\": [{{\"name\": \"a\", \"secret\": \"{KEY16}\"}}]}}}}]"
    ));
    assert_eq!(
        both,
        "resources[0].providers[0]: Invalid value: {\"aesgcm\":\"REDACTED\",\"identity\":\"REDACTED\"}: more than one \
         provider specified in a single element, should split into different list elements"
    );
}

#[test]
fn keys_are_checked_and_never_shown() {
    let keys = |provider: &str, keys: &str| {
        let told = of_providers(&format!("[{{\"{provider}\": {{\"keys\": {keys}}}}}]"));
        told.replace(&format!("resources[0].providers[0].{provider}.keys"), "KEYS")
    };
    let key = |secret: &str| format!("[{{\"name\": \"a\", \"secret\": \"{secret}\"}}]");
    for provider in ["aesgcm", "aescbc", "secretbox"] {
        assert_eq!(keys(provider, "[]"), "KEYS: Required value: at least one keys is required");
        assert_eq!(
            keys(provider, "[{}]"),
            "[KEYS[0].name: Required value: name is a mandatory field for a key, KEYS[0].secret: Required value: secret \
             is a mandatory field for a key]"
        );
        assert_eq!(
            keys(provider, &key("!!!")),
            "KEYS[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded"
        );
        assert_eq!(keys(provider, &key(KEY32)), "accepted", "{provider}");
    }
    assert_eq!(keys("aesgcm", &key(KEY16)), "accepted");
    let sizes = "KEYS[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got";
    assert_eq!(keys("aescbc", &key("YWJj")), format!("{sizes} 3, expected one of [16 24 32]"));
    assert_eq!(keys("secretbox", &key(KEY16)), format!("{sizes} 16, expected one of [32]"));
}

#[test]
fn key_services_are_checked() {
    let kms = |fields: &str| {
        of_providers(&format!("[{{\"kms\": {{{fields}}}}}]")).replace("resources[0].providers[0].kms", "KMS")
    };
    let v2 = "\"apiVersion\": \"v2\", \"name\": \"a\"";
    for (fields, error) in [
        (format!("{v2}, \"endpoint\": \"unix:///a.sock\""), "accepted"),
        (
            format!("{v2}, \"endpoint\": \"\""),
            "KMS.endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms",
        ),
        (
            format!("{v2}, \"endpoint\": \"http://a\""),
            "KMS.endpoint: Invalid value: \"http://a\": unsupported scheme \"http\" for KMS provider, only unix is supported",
        ),
        (
            format!("{v2}, \"endpoint\": \"unix:///a\", \"timeout\": \"-1s\""),
            "KMS.timeout: Invalid value: \"-1s\": timeout should be a positive value",
        ),
        (
            format!("{v2}, \"endpoint\": \"unix:///a\", \"cachesize\": 3"),
            "KMS.cachesize: Invalid value: 3: cachesize is not supported in v2",
        ),
        (
            "\"name\": \"a\", \"endpoint\": \"unix:///a\", \"cachesize\": 0".to_owned(),
            "KMS.cachesize: Invalid value: 0: cachesize should be a positive value, or negative to disable",
        ),
        (
            "\"apiVersion\": \"v3\", \"name\": \"a\", \"endpoint\": \"unix:///a\"".to_owned(),
            "KMS.apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are \
             supported",
        ),
        (
            "\"apiVersion\": \"v2\", \"name\": \"a:b\", \"endpoint\": \"unix:///a\"".to_owned(),
            "KMS.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'",
        ),
        (
            "\"apiVersion\": \"v2\", \"endpoint\": \"unix:///a\"".to_owned(),
            "KMS.name: Required value: name is a mandatory field for a provider",
        ),
    ] {
        assert_eq!(kms(&fields), error, "{fields}");
    }
    let twice = |version: &str| {
        let kms =
            format!("{{\"kms\": {{\"apiVersion\": \"{version}\", \"name\": \"a\", \"endpoint\": \"unix:///a\"}}}}");
        format!("[{{\"resources\": [\"secrets\"], \"providers\": [{kms}, {kms}]}}]")
    };
    let duplicate = "duplicate KMS provider name a, names must be unique";
    assert!(refused(&twice("v2")).ends_with(duplicate));
    assert_eq!(refused(&twice("v1")), "accepted");
    assert!(read(&twice("v1"), true).unwrap_err().to_string().ends_with(duplicate), "where the file is watched");
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        prop::sample::select(vec!["secrets", "*.", "*.*", "a.b", "", "Q", KEY16, KEY32, "v2", "unix:///x", "3s"])
            .prop_map(Into::into),
    ];
    let names = vec![
        "resources",
        "providers",
        "aesgcm",
        "aescbc",
        "secretbox",
        "identity",
        "kms",
        "keys",
        "name",
        "secret",
        "x",
    ];
    leaf.prop_recursive(6, 64, 4, move |inner| {
        let map = prop::collection::vec((prop::sample::select(names.clone()), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Into::into),
            map.prop_map(|map| map
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Nothing panics, and nothing shows what stands as a secret.
    #[test]
    fn any_configuration_is_read_or_refused(resources in any_value()) {
        let read = read(&resources.to_string(), false);
        let shown = match &read {
            Err(error) => format!("{error} {error:?}"),
            Ok(config) => format!("{config:?}"),
        };
        prop_assert!(stands_elsewhere(&resources) || !is_key(&shown), "{}", shown);
    }
}

fn is_key(text: &str) -> bool {
    text.contains(KEY16) || text.contains(KEY32)
}

/// Whether a text that could be a secret stands where none belongs.
fn stands_elsewhere(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => is_key(text),
        serde_json::Value::Array(list) => list.iter().any(stands_elsewhere),
        serde_json::Value::Object(map) => {
            map.iter().any(|(name, value)| !(name == "secret" && value.is_string()) && stands_elsewhere(value))
        }
        _ => false,
    }
}
