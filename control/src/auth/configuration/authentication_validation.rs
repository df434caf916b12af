//! Which authentication configurations are refused, with Kubernetes' paths and messages. Source:
//! `ValidateAuthenticationConfiguration` of 1.35.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::authentication::{
    AuthenticationConfiguration, ClaimMapping, ClaimMappings, ClaimValidationRule, IssuerConfiguration,
    UserValidationRule,
};
use crate::{
    auth::jwt::expression::{ClaimExpression, ClaimExpressionError},
    cel::Type,
    kinds::{
        FieldError,
        field::{child, item},
        names,
    },
    webhook,
};

const MOST_AUTHENTICATORS: usize = 64;
const EMAIL_UNVERIFIED: &str = "claims.email_verified must be used in claimMappings.username.expression or \
                                claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
                                claims.email is used in claimMappings.username.expression";
const RESERVED_KEY: &str = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
const NO_CERTIFICATES: &str = "data does not contain any valid RSA or ECDSA certificates";
const BOTH: &str = "claim and expression can't both be set";
const NEITHER: &str = "claim or expression is required";

/// All that is wrong. `disallowed` are the issuers of ServiceAccounts' tokens.
pub fn validate(config: &AuthenticationConfiguration, disallowed: &[String]) -> Vec<FieldError> {
    if config.jwt.len() > MOST_AUTHENTICATORS {
        return vec![FieldError::too_many("jwt", config.jwt.len(), MOST_AUTHENTICATORS)];
    }
    let (mut issuers, mut discovery_urls) = (HashSet::new(), HashSet::new());
    let mut errors = Vec::new();
    for (at, jwt) in config.jwt.iter().enumerate() {
        let path = item("jwt", at);
        let mut rules = Rules::default();
        errors.extend(issuer(&jwt.issuer, disallowed, &child(&path, "issuer")));
        rules.claim_rules(&jwt.claim_validation_rules, &child(&path, "claimValidationRules"));
        rules.mappings(&jwt.claim_mappings, &child(&path, "claimMappings"));
        rules.user_rules(&jwt.user_validation_rules, &child(&path, "userValidationRules"));
        errors.extend(rules.errors);
        let (url, discovery) = (&jwt.issuer.url, &jwt.issuer.discovery_url);
        if !issuers.insert(url) {
            errors.push(FieldError::duplicate(format!("{path}.issuer.url"), &json!(url)));
        }
        if !discovery.is_empty() && !discovery_urls.insert(discovery) {
            errors.push(FieldError::duplicate(format!("{path}.issuer.discoveryURL"), &json!(discovery)));
        }
    }
    if let Some(anonymous) = &config.anonymous
        && !anonymous.enabled
        && !anonymous.conditions.is_empty()
    {
        let shown: Vec<Value> = anonymous.conditions.iter().map(|condition| json!({"Path": condition.path})).collect();
        let why = "enabled should be set to true when conditions are defined";
        errors.push(FieldError::invalid("anonymous.conditions", &json!(shown), why));
    }
    errors
}

fn issuer(issuer: &IssuerConfiguration, disallowed: &[String], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = child(path, "url");
    match issuer.url.is_empty() {
        true => errors.push(FieldError::required(at, "")),
        false => errors.extend(url(&issuer.url, disallowed, &at)),
    }
    let at = child(path, "discoveryURL");
    if !issuer.discovery_url.is_empty() {
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        if !issuer.url.is_empty() && bare(&issuer.url) == bare(&issuer.discovery_url) {
            let why = "discoveryURL must be different from URL";
            errors.push(FieldError::invalid(at.as_str(), &json!(issuer.discovery_url), why));
        }
        errors.extend(url(&issuer.discovery_url, &[], &at));
    }
    errors.extend(audiences(issuer, path));
    if !issuer.certificate_authority.is_empty() && webhook::verifier(issuer.certificate_authority.as_bytes()).is_err() {
        let (at, why) = (child(path, "certificateAuthority"), NO_CERTIFICATES);
        errors.push(FieldError::invalid(at, &json!("<omitted>"), why));
    }
    if !issuer.egress_selector_type.is_empty() {
        // Kubernetes knows `controlplane` and `cluster`, and refuses both where it has no egress configuration.
        let why = "egress selector is not supported";
        errors.push(FieldError::invalid(child(path, "egressSelectorType"), &json!(issuer.egress_selector_type), why));
    }
    errors
}

fn url(url: &str, disallowed: &[String], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut invalid = |why: String| errors.push(FieldError::invalid(path, &json!(url), why));
    if disallowed.iter().any(|issuer| issuer == url) {
        invalid(format!("URL must not overlap with disallowed issuers: [{}]", disallowed.join(" ")));
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if rest.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        invalid(format!("parse {url:?}: net/url: invalid control character in URL"));
        return errors;
    }
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    if !scheme.eq_ignore_ascii_case("https") {
        invalid("URL scheme must be https".to_owned());
    }
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if authority.contains('@') {
        invalid("URL must not contain a username or password".to_owned());
    }
    if !query.is_empty() {
        invalid("URL must not contain a query".to_owned());
    }
    if !fragment.is_empty() {
        invalid("URL must not contain a fragment".to_owned());
    }
    errors
}

fn audiences(issuer: &IssuerConfiguration, path: &str) -> Vec<FieldError> {
    let (at, policy_at) = (child(path, "audiences"), child(path, "audienceMatchPolicy"));
    let (audiences, policy) = (&issuer.audiences, &*issuer.audience_match_policy);
    if audiences.is_empty() {
        return vec![FieldError::required(at.as_str(), &format!("at least one {at} is required"))];
    }
    let mut errors = Vec::new();
    for (index, audience) in audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(FieldError::required(item(&at, index), ""));
        }
        if audiences.iter().take(index).any(|before| before == audience) {
            errors.push(FieldError::duplicate(item(&at, index), &json!(audience)));
        }
    }
    let why = match (audiences.len(), policy) {
        (_, "MatchAny") | (1, "") => return errors,
        (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
        _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
    };
    errors.push(FieldError::invalid(policy_at, &json!(policy), why));
    errors
}

/// The rules of one authenticator, as they are looked at one by one.
#[derive(Default)]
struct Rules {
    errors: Vec<FieldError>,
    uses_email: bool,
    uses_email_verified: bool,
}

impl Rules {
    fn compiled(
        &mut self,
        path: String,
        text: &str,
        compiled: Result<ClaimExpression, ClaimExpressionError>,
    ) -> Option<ClaimExpression> {
        compiled.map_err(|error| self.errors.push(FieldError::invalid(path, &json!(text), error.to_string()))).ok()
    }

    fn claim_rules(&mut self, rules: &[ClaimValidationRule], path: &str) {
        let (mut claims, mut expressions) = (HashSet::new(), HashSet::new());
        for (at, rule) in rules.iter().enumerate() {
            let path = item(path, at);
            let ClaimValidationRule { claim, required_value, expression, message } = rule;
            match (claim.is_empty(), expression.is_empty()) {
                (false, false) => self.errors.push(FieldError::invalid(path, &json!(claim), BOTH)),
                (true, true) => self.errors.push(FieldError::required(path, NEITHER)),
                (false, true) => {
                    if !message.is_empty() {
                        let why = "may not be specified when claim is set";
                        self.errors.push(FieldError::invalid(child(&path, "message"), &json!(message), why));
                    }
                    if !claims.insert(claim) {
                        self.errors.push(FieldError::duplicate(child(&path, "claim"), &json!(claim)));
                    }
                }
                (true, false) => {
                    if !required_value.is_empty() {
                        let (at, why) = (child(&path, "requiredValue"), "may not be specified when expression is set");
                        self.errors.push(FieldError::invalid(at, &json!(required_value), why));
                    }
                    let at = child(&path, "expression");
                    if !expressions.insert(expression) {
                        self.errors.push(FieldError::duplicate(at, &json!(expression)));
                        continue;
                    }
                    let compiled = ClaimExpression::of_claims(expression, &Type::Bool);
                    if let Some(compiled) = self.compiled(at, expression, compiled) {
                        self.uses_email_verified |= compiled.names_claim("email_verified");
                    }
                }
            }
        }
    }

    fn mappings(&mut self, mappings: &ClaimMappings, path: &str) {
        if let Some(username) = self.mapping(&mappings.username, &child(path, "username"), true) {
            self.uses_email |= username.names_claim("email");
            self.uses_email_verified |= username.names_claim("email_verified");
        }
        self.mapping(&mappings.groups, &child(path, "groups"), false);
        let (uid, at) = (&mappings.uid, child(path, "uid"));
        match (uid.claim.is_empty(), uid.expression.is_empty()) {
            (false, false) => self.errors.push(FieldError::invalid(at, &json!(""), BOTH)),
            (_, false) => {
                let compiled = ClaimExpression::of_claims(&uid.expression, &Type::Dyn);
                self.compiled(child(&at, "expression"), &uid.expression, compiled);
            }
            _ => {}
        }
        let mut keys = HashSet::new();
        for (at, extra) in mappings.extra.iter().enumerate() {
            let path = item(&child(path, "extra"), at);
            let (key, key_at) = (&extra.key, child(&path, "key"));
            self.errors.extend(names::domain_prefixed_path(&key_at, &json!(key)));
            if *key != key.to_lowercase() {
                self.errors.push(FieldError::invalid(key_at.as_str(), &json!(key), "must be lowercase"));
            }
            if is_kubernetes_key(key) {
                self.errors.push(FieldError::invalid(key_at.as_str(), &json!(key), RESERVED_KEY));
            }
            if !keys.insert(key) {
                self.errors.push(FieldError::duplicate(key_at, &json!(key)));
                continue;
            }
            let (text, at) = (&extra.value_expression, child(&path, "valueExpression"));
            if text.is_empty() {
                self.errors.push(FieldError::required(at, ""));
                continue;
            }
            let compiled = ClaimExpression::of_claims(text, &Type::Dyn);
            if let Some(compiled) = self.compiled(at, text, compiled) {
                self.uses_email_verified |= compiled.names_claim("email_verified");
            }
        }
        if self.uses_email && !self.uses_email_verified {
            let at = child(&child(path, "username"), "expression");
            self.errors.push(FieldError::invalid(at, &json!(mappings.username.expression), EMAIL_UNVERIFIED));
        }
    }

    /// The expression, if there is one, and it is one.
    fn mapping(&mut self, mapping: &ClaimMapping, path: &str, is_required: bool) -> Option<ClaimExpression> {
        let ClaimMapping { claim, prefix, expression } = mapping;
        match (claim.is_empty(), expression.is_empty()) {
            (false, false) => self.errors.push(FieldError::invalid(path, &json!(""), BOTH)),
            (true, true) if is_required => self.errors.push(FieldError::required(path, NEITHER)),
            (true, true) => {}
            (true, false) => {
                if let Some(prefix) = prefix {
                    let why = "may not be specified when expression is set";
                    self.errors.push(FieldError::invalid(child(path, "prefix"), &json!(prefix), why));
                }
                let compiled = ClaimExpression::of_claims(expression, &Type::Dyn);
                let is_prefixed = prefix.is_some();
                return self.compiled(child(path, "expression"), expression, compiled).filter(|_| !is_prefixed);
            }
            (false, true) if prefix.is_none() => {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                self.errors.push(FieldError::required(child(path, "prefix"), why));
            }
            (false, true) => {}
        }
        None
    }

    fn user_rules(&mut self, rules: &[UserValidationRule], path: &str) {
        let mut expressions = HashSet::new();
        for (at, UserValidationRule { expression, .. }) in rules.iter().enumerate() {
            let at = child(&item(path, at), "expression");
            if expression.is_empty() {
                self.errors.push(FieldError::required(at, ""));
            } else if !expressions.insert(expression) {
                self.errors.push(FieldError::duplicate(at, &json!(expression)));
            } else {
                self.compiled(at, expression, ClaimExpression::of_user(expression));
            }
        }
    }
}

fn is_kubernetes_key(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|reserved| domain.strip_suffix(reserved).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

#[cfg(test)]
mod tests;
