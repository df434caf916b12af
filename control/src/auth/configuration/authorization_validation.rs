//! Which authorization configurations are refused, with Kubernetes' paths and messages. Source:
//! `ValidateAuthorizationConfiguration` of 1.35, and what kube-apiserver adds to it.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    auth::{access_conditions::compile_condition, options::AuthorizationMode},
    kinds::{
        FieldError,
        field::{child, item},
        go_duration::{NANOS_PER_SECOND, go_duration},
        names,
    },
};

const MOST_CONDITIONS: usize = 64;
const LONGEST_TIMEOUT: i128 = 30 * NANOS_PER_SECOND;

/// All that is wrong with the fields of a file. Each has its type.
pub fn validate(config: &Value) -> Vec<FieldError> {
    let authorizers = config["authorizers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if authorizers.is_empty() {
        return vec![FieldError::required("authorizers", "at least one authorization mode must be defined")];
    }
    let mut errors = Vec::new();
    let (mut types, mut names): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let supported = AuthorizationMode::ALL.map(AuthorizationMode::name);
    for (at, authorizer) in authorizers.iter().enumerate() {
        let path = item("authorizers", at);
        let (kind, at_kind) = (text(authorizer, "type"), child(&path, "type"));
        if kind.is_empty() {
            errors.push(FieldError::required(at_kind, ""));
            continue;
        }
        if !supported.contains(&kind) {
            errors.push(FieldError::not_supported(at_kind, &json!(kind), &supported));
            continue;
        }
        let is_webhook = kind == AuthorizationMode::Webhook.name();
        if types.contains(&kind) && !is_webhook {
            errors.push(FieldError::duplicate(at_kind, &json!(kind)));
            continue;
        }
        types.push(kind);
        let name = text(authorizer, "name");
        errors.extend(name_errors(name, kind, is_webhook, &names, &child(&path, "name")));
        names.push(name);
        let (webhook, at_webhook) = (&authorizer["webhook"], child(&path, "webhook"));
        match (is_webhook, webhook.is_null()) {
            (true, true) => errors.push(FieldError::required(at_webhook, "required when type=Webhook")),
            (true, false) => errors.extend(webhook_errors(webhook, &path)),
            (false, false) => {
                let why = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(at_webhook, &json!("non-null"), why));
            }
            (false, true) => {}
        }
    }
    errors
}

fn name_errors(name: &str, kind: &str, is_webhook: bool, known: &[&str], path: &str) -> Option<FieldError> {
    let wrong = names::subdomain(name);
    if name.is_empty() {
        Some(FieldError::required(path, ""))
    } else if known.contains(&name) {
        Some(FieldError::duplicate(path, &json!(name)))
    } else if !wrong.is_empty() {
        let why = format!("authorizer name is invalid: {}", wrong.join(", "));
        Some(FieldError::invalid(path, &json!(name), why))
    } else if !is_webhook && name != kind.to_lowercase() {
        let why = format!("expected name {} for authorizer {kind} instead of {name}", kind.to_lowercase());
        Some(FieldError::invalid(path, &json!(name), why))
    } else {
        None
    }
}

/// Paths are those of the authorizer, as in Kubernetes.
fn webhook_errors(webhook: &Value, path: &str) -> Vec<FieldError> {
    let at = |field: &str| child(path, field);
    let nanos = |field: &str| go_duration(text(webhook, field)).unwrap_or_default();
    let shown = |field: &str| json!(text(webhook, field));
    let mut errors = Vec::new();
    match nanos("timeout") {
        0 => errors.push(FieldError::required(at("timeout"), "")),
        time if !(0..=LONGEST_TIMEOUT).contains(&time) => {
            errors.push(FieldError::invalid(at("timeout"), &shown("timeout"), "must be > 0s and <= 30s"));
        }
        _ => {}
    }
    for field in ["authorizedTTL", "unauthorizedTTL"] {
        if nanos(field) < 0 {
            errors.push(FieldError::invalid(at(field), &shown(field), "must be > 0s"));
        }
    }
    let conditions = webhook["matchConditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one_of = |field: &str, supported: &[&str]| match text(webhook, field) {
        "" => Some(FieldError::required(at(field), "")),
        found if supported.contains(&found) => None,
        found => Some(FieldError::not_supported(at(field), &json!(found), supported)),
    };
    errors.extend(one_of("subjectAccessReviewVersion", &["v1", "v1beta1"]));
    let of_conditions = "matchConditionSubjectAccessReviewVersion";
    match text(webhook, of_conditions) {
        "" if !conditions.is_empty() => {
            errors.push(FieldError::required(at(of_conditions), "required if match conditions are specified"));
        }
        "" => {}
        _ => errors.extend(one_of(of_conditions, &["v1"])),
    }
    errors.extend(one_of("failurePolicy", &["NoOpinion", "Deny"]));
    errors.extend(connection_error(&webhook["connectionInfo"], &at("connectionInfo")));
    errors.extend(condition_errors(conditions, &at("matchConditions")));
    errors
}

/// Kubernetes knows `InClusterConfig` as well, for servers that run in pods.
fn connection_error(info: &Value, path: &str) -> Option<FieldError> {
    let at = child(path, "type");
    match text(info, "type") {
        "" => return Some(FieldError::required(at, "")),
        "KubeConfigFile" => {}
        other => return Some(FieldError::not_supported(at, &json!(other), &["KubeConfigFile"])),
    }
    let (at, file) = (child(path, "kubeConfigFile"), text(info, "kubeConfigFile"));
    let invalid = |why: String| Some(FieldError::invalid(at.as_str(), &json!(file), why));
    if file.is_empty() {
        return Some(FieldError::required(at, ""));
    }
    if !Path::new(file).is_absolute() {
        return invalid("must be an absolute path".to_owned());
    }
    match fs::metadata(file) {
        Err(error) => invalid(format!("error loading file: {error}")),
        Ok(found) if !found.is_file() => invalid("must be a regular file".to_owned()),
        Ok(_) => None,
    }
}

fn condition_errors(conditions: &[Value], path: &str) -> Vec<FieldError> {
    if conditions.len() > MOST_CONDITIONS {
        return vec![FieldError::too_many(path, conditions.len(), MOST_CONDITIONS)];
    }
    let mut known: Vec<&str> = Vec::new();
    let mut errors = Vec::new();
    for (at, condition) in conditions.iter().enumerate() {
        let (at, expression) = (child(&item(path, at), "expression"), text(condition, "expression"));
        if expression.trim().is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if known.contains(&expression) {
            errors.push(FieldError::duplicate(at, &json!(expression)));
        } else {
            known.push(expression);
            let refused = compile_condition(expression).err();
            errors.extend(refused.map(|why| FieldError::invalid(at, &json!(expression), why.to_string())));
        }
    }
    errors
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::{
        configuration::authorization::{
            AccessVersion, AuthorizationConfiguration, AuthorizationFlagsError, AuthorizerConfiguration, FailurePolicy,
        },
        options::AuthorizationOptions,
        outside::review::OutsideReviewVersion,
    };

    fn file(kubeconfig: &Path) -> String {
        format!(
            r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {{type: Node, name: node}}
- type: Webhook
  name: opa.example.com
  webhook:
    timeout: 3s
    unauthorizedTTL: 10s
    cacheAuthorizedRequests: false
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}
    matchConditions:
    - expression: has(request.resourceAttributes)
- {{type: RBAC, name: rbac}}
"#,
            kubeconfig.display()
        )
    }

    #[test]
    fn a_file_says_who_decides_in_order() {
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let good = file(kubeconfig.path());
        let config = AuthorizationConfiguration::parse(good.as_bytes()).unwrap();
        let [node, AuthorizerConfiguration::Webhook { name, webhook }, rbac] = &config.authorizers[..] else {
            panic!("{config:?}")
        };
        assert_eq!(*node, AuthorizerConfiguration::BuiltIn(AuthorizationMode::Node));
        assert_eq!(*rbac, AuthorizerConfiguration::BuiltIn(AuthorizationMode::Rbac));
        assert_eq!(
            (&**name, webhook.timeout, webhook.kept_authorized()),
            ("opa.example.com", Duration::from_secs(3), None)
        );
        assert_eq!(webhook.kept_unauthorized(), Some(Duration::from_secs(10)));
        assert_eq!(webhook.failure_policy, FailurePolicy::Deny);
        assert_eq!(webhook.subject_access_review_version, AccessVersion(OutsideReviewVersion::V1));
        assert_eq!(webhook.match_conditions, ["has(request.resourceAttributes)"]);
        for (from, to, why) in [
            (
                "type: RBAC, name: rbac",
                "type: ABAC, name: abac",
                "authorizers[2].type: Unsupported value: \"ABAC\": supported values: \"AlwaysAllow\", \
                 \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"",
            ),
            ("type: RBAC, name: rbac", "type: Node, name: n2", "authorizers[2].type: Duplicate value: \"Node\""),
            (
                "type: RBAC, name: rbac",
                "type: RBAC, name: roles",
                "authorizers[2].name: Invalid value: \"roles\": expected name rbac for authorizer RBAC instead of \
                 roles",
            ),
            (
                "type: RBAC, name: rbac",
                "type: Webhook, name: b",
                "authorizers[2].webhook: Required value: required when type=Webhook",
            ),
            ("timeout: 3s", "timeout: 31s", "authorizers[1].timeout: Invalid value: \"31s\": must be > 0s and <= 30s"),
            ("timeout: 3s", "timeout: 0s", "authorizers[1].timeout: Required value"),
            (
                "failurePolicy: Deny",
                "failurePolicy: Ignore",
                "authorizers[1].failurePolicy: Unsupported value: \"Ignore\": supported values: \"NoOpinion\", \
                 \"Deny\"",
            ),
            (
                "AccessReviewVersion: v1\n    failure",
                "AccessReviewVersion: v2\n    failure",
                "authorizers[1].matchConditionSubjectAccessReviewVersion: Unsupported value: \"v2\": supported \
                 values: \"v1\"",
            ),
            (
                "type: KubeConfigFile",
                "type: InClusterConfig",
                "authorizers[1].connectionInfo.type: Unsupported value: \"InClusterConfig\": supported values: \
                 \"KubeConfigFile\"",
            ),
            (
                "has(request.resourceAttributes)",
                "request.user",
                "authorizers[1].matchConditions[0].expression: Invalid value: \"request.user\": must evaluate to \
                 bool but got string",
            ),
            ("timeout: 3s", "timeOut: 3s", "strict decoding error: unknown field \"authorizers[1].webhook.timeOut\""),
            ("timeout: 3s", "timeout: soon", "authorizers[1].webhook.timeout: a duration such as 30s is expected"),
        ] {
            let changed = good.replace(from, to);
            assert_ne!(changed, good, "{from}");
            assert_eq!(AuthorizationConfiguration::parse(changed.as_bytes()).unwrap_err().to_string(), why);
        }
        let empty = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthorizationConfiguration\n";
        assert_eq!(
            AuthorizationConfiguration::parse(empty.as_bytes()).unwrap_err().to_string(),
            "authorizers: Required value: at least one authorization mode must be defined"
        );
    }

    #[test]
    fn flags_say_the_same_or_do_not_hold_together() {
        let nothing = AuthorizationOptions::default();
        assert_eq!(AuthorizationConfiguration::of_flags(&nothing), Ok(None));
        let modes = vec![AuthorizationMode::Webhook, AuthorizationMode::Rbac];
        let webhook = AuthorizationOptions { modes, webhook_config_file: Some("/k".into()), ..nothing.clone() };
        let config = AuthorizationConfiguration::of_flags(&webhook).unwrap().unwrap();
        let AuthorizerConfiguration::Webhook { name, webhook: first } = &config.authorizers[0] else { panic!() };
        assert_eq!((&**name, first.subject_access_review_version.0), ("default", OutsideReviewVersion::V1beta1));
        assert_eq!(first.kept_authorized(), Some(Duration::from_secs(300)));
        let refused = |options: AuthorizationOptions| AuthorizationConfiguration::of_flags(&options).unwrap_err();
        assert_eq!(
            refused(AuthorizationOptions { config_file: Some("/c".into()), ..webhook.clone() }),
            AuthorizationFlagsError::FileAndFlags
        );
        assert_eq!(
            refused(AuthorizationOptions { webhook_config_file: None, ..webhook.clone() }),
            AuthorizationFlagsError::NoWebhookFile
        );
        assert_eq!(
            refused(AuthorizationOptions { modes: Vec::new(), ..webhook.clone() }),
            AuthorizationFlagsError::NoWebhookMode
        );
        let twice = AuthorizationOptions { modes: vec![AuthorizationMode::Node; 2], ..nothing };
        assert_eq!(
            refused(twice).to_string(),
            "authorization-mode [\"Node\", \"Node\"] has mode specified more than once"
        );
    }
}
