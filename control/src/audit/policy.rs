//! The audit policy of a file: read, validated with Kubernetes' paths and words, and made into [`AuditRules`].
//!
//! A field that a policy does not have is refused, with its line. kube-apiserver leaves it out with a warning: a rule
//! whose `resources` are misspelt is about everything then.
//!
//! Source: `k8s.io/apiserver/pkg/apis/audit/validation`, `pkg/audit/policy/reader.go`.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use serde_yaml::options::DuplicateKeyPolicy;

use super::rules::{AuditLevel, AuditRule, AuditRules, AuditStage, GroupResources};
use crate::kinds::{FieldError, names};

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditPolicyError {
    /// Give the file's path, and let the service read it.
    #[error("cannot read the audit policy {}", path.display())]
    Read {
        /// What `--audit-policy-file` names.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its text is no policy, or one with rules that mean nothing.
    #[error("{} is no audit policy", path.display())]
    Policy {
        /// What `--audit-policy-file` names.
        path: PathBuf,
        /// What is wrong with it.
        source: PolicyTextError,
    },
}

/// What is wrong with the text of a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyTextError {
    /// No YAML, or a field that is not one of a policy or of another type.
    #[error(transparent)]
    Yaml(Box<serde_yaml::Error>),
    /// Values that are not allowed, each with its path.
    #[error("{}", told(.0))]
    Invalid(Vec<FieldError>),
    /// Without rules nothing would be recorded.
    #[error("rules: Required value: a policy without rules records nothing")]
    NoRules,
}

/// A policy that can be used.
#[derive(Clone, Debug)]
pub struct AuditPolicy {
    rules: Vec<AuditRule>,
}

/// `audit.k8s.io/v1` Policy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenPolicy {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    #[serde(default, deserialize_with = "nullable")]
    kind: String,
    /// Names and labels of a policy mean nothing.
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    #[serde(default, deserialize_with = "nullable")]
    rules: Vec<WrittenRule>,
    #[serde(default, deserialize_with = "nullable")]
    omit_stages: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenRule {
    #[serde(default, deserialize_with = "nullable")]
    level: String,
    #[serde(default, deserialize_with = "nullable")]
    users: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    user_groups: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    resources: Vec<WrittenResources>,
    #[serde(default, deserialize_with = "nullable")]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs", deserialize_with = "nullable")]
    non_resource_urls: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenResources {
    #[serde(default, deserialize_with = "nullable")]
    group: String,
    #[serde(default, deserialize_with = "nullable")]
    resources: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    resource_names: Vec<String>,
}

/// `null` says nothing, as in Go.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

const API_VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";
const LEVELS: [AuditLevel; 4] =
    [AuditLevel::None, AuditLevel::Metadata, AuditLevel::Request, AuditLevel::RequestResponse];
const STAGES: [AuditStage; 4] =
    [AuditStage::RequestReceived, AuditStage::ResponseStarted, AuditStage::ResponseComplete, AuditStage::Panic];

impl AuditPolicy {
    /// Reads the policy in a file.
    ///
    /// # Errors
    /// [`AuditPolicyError`].
    pub fn read(path: &Path) -> Result<Self, AuditPolicyError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| AuditPolicyError::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|source| AuditPolicyError::Policy { path: path.into(), source })
    }

    /// Reads a policy: YAML, or JSON, which is YAML too.
    ///
    /// # Errors
    /// [`PolicyTextError`].
    pub fn parse(text: &str) -> Result<Self, PolicyTextError> {
        let options = serde_yaml::options! { duplicate_keys: DuplicateKeyPolicy::Error, with_snippet: false };
        let written: WrittenPolicy =
            serde_yaml::from_str_with_options(text, options).map_err(|error| PolicyTextError::Yaml(Box::new(error)))?;
        let errors = written.errors();
        if !errors.is_empty() {
            return Err(PolicyTextError::Invalid(errors));
        }
        match written.rules.is_empty() {
            true => Err(PolicyTextError::NoRules),
            false => Ok(Self { rules: written.compiled() }),
        }
    }

    /// Its rules.
    pub fn rules(self) -> AuditRules {
        AuditRules::new(self.rules)
    }
}

impl WrittenPolicy {
    fn errors(&self) -> Vec<FieldError> {
        let of_type = [("apiVersion", &self.api_version, API_VERSION), ("kind", &self.kind, KIND)];
        let mut errors: Vec<FieldError> = of_type
            .into_iter()
            .filter(|(_, written, expected)| written != expected)
            .map(|(field, written, expected)| FieldError::not_supported(field, &json!(written), &[expected]))
            .collect();
        errors.extend(stage_errors(&self.omit_stages, "omitStages"));
        errors.extend(self.rules.iter().enumerate().flat_map(|(at, rule)| rule.errors(&format!("rules[{at}]"))));
        errors
    }

    fn compiled(self) -> Vec<AuditRule> {
        let (omitted, omit_managed_fields) = (self.omit_stages, self.omit_managed_fields);
        self.rules
            .into_iter()
            .map(|rule| AuditRule {
                level: LEVELS.into_iter().find(|level| level.as_str() == rule.level),
                users: rule.users,
                groups: rule.user_groups,
                verbs: rule.verbs,
                resources: rule.resources.into_iter().map(WrittenResources::compiled).collect(),
                namespaces: rule.namespaces,
                non_resource_urls: rule.non_resource_urls,
                omit_stages: omitted.iter().chain(&rule.omit_stages).filter_map(|name| stage(name)).collect(),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(omit_managed_fields),
            })
            .collect()
    }
}

impl WrittenRule {
    fn errors(&self, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let levels = LEVELS.map(AuditLevel::as_str);
        match self.level.as_str() {
            "" => errors.push(FieldError::required(format!("{path}.level"), "")),
            level if !levels.contains(&level) => {
                errors.push(FieldError::not_supported(format!("{path}.level"), &json!(level), &levels));
            }
            _ => {}
        }
        let urls_path = format!("{path}.nonResourceURLs");
        errors.extend(url_errors(&self.non_resource_urls, &urls_path));
        errors.extend(self.resources.iter().flat_map(|entry| entry.errors(&format!("{path}.resources"))));
        errors.extend(stage_errors(&self.omit_stages, &format!("{path}.omitStages")));
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.non_resource_urls.is_empty() && of_resources {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(urls_path, &json!(self.non_resource_urls), why));
        }
        errors
    }
}

impl WrittenResources {
    /// The path has no index, as in Kubernetes.
    fn errors(&self, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let of_group = if self.group.is_empty() { Vec::new() } else { names::subdomain(&self.group) };
        if !of_group.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.group"), &json!(self.group), of_group.join(",")));
        }
        if !self.resource_names.is_empty() && self.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(format!("{path}.resourceNames"), &json!(self.resource_names), why));
        }
        errors
    }

    fn compiled(self) -> GroupResources {
        GroupResources { group: self.group, resources: self.resources, names: self.resource_names }
    }
}

fn stage(name: &str) -> Option<AuditStage> {
    STAGES.into_iter().find(|stage| stage.as_str() == name)
}

fn stage_errors(names: &[String], path: &str) -> Vec<FieldError> {
    let allowed = || format!("allowed stages are {}", STAGES.map(AuditStage::as_str).join(","));
    let unknown = names.iter().enumerate().filter(|(_, name)| stage(name).is_none());
    unknown.map(|(at, name)| FieldError::invalid(format!("{path}[{at}]"), &json!(name), allowed())).collect()
}

fn url_errors(urls: &[String], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let mut refuse = |why| errors.push(FieldError::invalid(format!("{path}[{at}]"), &json!(url), why));
        if !url.starts_with('/') {
            refuse("non-resource URL rules must begin with a '/' character");
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            refuse("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
    errors
}

fn told(errors: &[FieldError]) -> String {
    let all: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        AuditPolicy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{text}")).unwrap_err().to_string()
    }

    #[test]
    fn what_a_rule_may_not_say_is_told_with_its_path() {
        let levels = r#"supported values: "None", "Metadata", "Request", "RequestResponse""#;
        let stages = "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic";
        for (rules, message) in [
            ("rules: []", "rules: Required value: a policy without rules records nothing".to_owned()),
            ("rules:\n- users: [a]", "rules[0].level: Required value".to_owned()),
            ("rules:\n- level: Requests", format!(r#"rules[0].level: Unsupported value: "Requests": {levels}"#)),
            (
                "omitStages: [Started]\nrules:\n- level: None",
                format!(r#"omitStages[0]: Invalid value: "Started": {stages}"#),
            ),
            (
                "rules:\n- level: None\n- {level: None, omitStages: [Panic, x]}",
                format!(r#"rules[1].omitStages[1]: Invalid value: "x": {stages}"#),
            ),
            (
                "rules:\n- {level: None, nonResourceURLs: ['*', logs, '/a*b']}",
                "rules[0].nonResourceURLs[1]: Invalid value: \"logs\": non-resource URL rules must begin with a '/' \
                 character; rules[0].nonResourceURLs[2]: Invalid value: \"/a*b\": non-resource URL wildcards '*' must \
                 be the final character of the rule"
                    .to_owned(),
            ),
            (
                "rules:\n- {level: None, namespaces: [a], nonResourceURLs: [/logs]}",
                "rules[0].nonResourceURLs: Invalid value: [\"/logs\"]: rules cannot apply to both regular resources \
                 and non-resource URLs"
                    .to_owned(),
            ),
            (
                "rules:\n- {level: None, resources: [{resourceNames: [a]}]}",
                "rules[0].resources.resourceNames: Invalid value: [\"a\"]: using resourceNames requires at least one \
                 resource"
                    .to_owned(),
            ),
        ] {
            assert_eq!(refused(rules), message, "{rules}");
        }
        let group = refused("rules:\n- {level: None, resources: [{group: rbac.authorization.k8s.io/v1}]}");
        let start = "rules[0].resources.group: Invalid value: \"rbac.authorization.k8s.io/v1\": a lowercase RFC 1123";
        assert!(group.starts_with(start), "{group}");
    }

    #[test]
    fn a_policy_of_another_version_or_kind_is_told_what_is_right() {
        let error = AuditPolicy::parse("apiVersion: audit.k8s.io/v1beta1\nkind: Rules\nrules: [{level: None}]");
        assert_eq!(
            error.unwrap_err().to_string(),
            "apiVersion: Unsupported value: \"audit.k8s.io/v1beta1\": supported values: \"audit.k8s.io/v1\"; kind: \
             Unsupported value: \"Rules\": supported values: \"Policy\""
        );
    }

    #[test]
    fn what_is_no_policy_is_told_with_its_line() {
        for (text, parts) in [
            ("rules:\n- level: None\n  resource: []\n", ["unknown field `resource`", "resources", "line 5"]),
            ("rule: []\n", ["unknown field `rule`", "rules", "line 3"]),
            ("rules:\n- level: None\n  users: joe\n", ["", "", "line 5"]),
            ("rules: [{level: None}]\nkind: Policy\n", ["kind", "", "line 4"]),
        ] {
            let message = refused(text);
            assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_null_says_nothing_and_json_is_read_too() {
        let text = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "metadata": {"name": "a"},
            "omitStages": null, "rules": [{"level": "Metadata", "users": null, "omitManagedFields": null}]}"#;
        assert_eq!(AuditPolicy::parse(text).unwrap().rules.len(), 1);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = AuditPolicy::read(Path::new("/nowhere/policy.yaml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the audit policy /nowhere/policy.yaml");
    }
}
