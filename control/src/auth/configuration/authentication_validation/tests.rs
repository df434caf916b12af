//! Files that are read, and those that are refused with their reasons.

use super::*;
use crate::auth::configuration::{ConfigurationFileError, InvalidFields};

const GOOD: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://issuer.example.com
    audiences: [fairlead]
  claimMappings:
    username: {claim: sub, prefix: "oidc:"}
"#;

fn read(text: &str) -> Result<(), ConfigurationFileError> {
    let config = AuthenticationConfiguration::parse(text.as_bytes())?;
    let own = ["https://kubernetes.default.svc.cluster.local".to_owned()];
    InvalidFields::refuse(validate(&config, &own))?;
    Ok(())
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn a_file_is_read_as_strictly_as_in_kubernetes() {
    read(GOOD).unwrap();
    read(&GOOD.replace("/v1", "/v1beta1")).unwrap();
    assert_eq!(
        refusal(&GOOD.replace("/v1", "/v9")),
        "no kind \"AuthenticationConfiguration\" is registered for version \"apiserver.config.k8s.io/v9\""
    );
    assert_eq!(refusal(""), "empty config data");
    assert_eq!(refusal("a: [b"), "line 1 is not valid YAML");
    assert_eq!(
        refusal(&GOOD.replace("audiences:", "audience:")),
        "strict decoding error: unknown field \"jwt[0].issuer.audience\""
    );
    assert_eq!(refusal(&GOOD.replace("[fairlead]", "fairlead")), "jwt[0].issuer.audiences: a list is expected");
}

#[test]
fn issuers_that_are_reached_through_an_egress_selector_are_refused() {
    for selector in ["cluster", "controlplane", "other"] {
        let text = GOOD.replace("    audiences:", &format!("    egressSelectorType: {selector}\n    audiences:"));
        let words = "jwt[0].issuer.egressSelectorType: Invalid value:";
        assert_eq!(refusal(&text), format!("{words} {selector:?}: egress selector is not supported"));
    }
}

#[test]
fn what_does_not_hold_together_is_refused_in_the_words_of_kubernetes() {
    let with = |more: &str| format!("{GOOD}{more}");
    let url = "https://issuer.example.com";
    for (text, why) in [
        (
            GOOD.replace(url, "https://kubernetes.default.svc.cluster.local"),
            "jwt[0].issuer.url: Invalid value: \"https://kubernetes.default.svc.cluster.local\": URL must not \
             overlap with disallowed issuers: [https://kubernetes.default.svc.cluster.local]",
        ),
        (
            GOOD.replace(url, "http://issuer.example.com"),
            "jwt[0].issuer.url: Invalid value: \"http://issuer.example.com\": URL scheme must be https",
        ),
        (
            GOOD.replace(url, "https://a:b@issuer.example.com/?c#d"),
            "[jwt[0].issuer.url: Invalid value: \"https://a:b@issuer.example.com/?c#d\": URL must not contain a \
             username or password, jwt[0].issuer.url: Invalid value: \
             \"https://a:b@issuer.example.com/?c#d\": URL must not contain a query, jwt[0].issuer.url: Invalid \
             value: \"https://a:b@issuer.example.com/?c#d\": URL must not contain a fragment]",
        ),
        (
            GOOD.replace("    audiences", "    certificateAuthority: x\n    audiences"),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid \
             RSA or \
             ECDSA certificates",
        ),
        (
            GOOD.replace("[fairlead]", "[a, b]"),
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for \
             multiple audiences",
        ),
        (
            GOOD.replace("[fairlead]", "[]"),
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ),
        (
            GOOD.replace(", prefix: \"oidc:\"", ""),
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can \
             be set to an empty string to disable prefixing",
        ),
        (
            GOOD.replace("claim: sub, prefix: \"oidc:\"", "expression: claims.email"),
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": \
             claims.email_verified must be used in claimMappings.username.expression or \
             claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is \
             used in claimMappings.username.expression",
        ),
        (
            with("  userValidationRules: [{expression: \"user.username\"}]"),
            "jwt[0].userValidationRules[0].expression: Invalid value: \"user.username\": must evaluate to bool",
        ),
        (
            with("  claimValidationRules: [{claim: hd, message: x}, {claim: hd}, {}]"),
            "[jwt[0].claimValidationRules[0].message: Invalid value: \"x\": may not be specified when claim is \
             set, jwt[0].claimValidationRules[1].claim: Duplicate value: \"hd\", \
             jwt[0].claimValidationRules[2]: Required value: claim or expression is required]",
        ),
        (
            with("anonymous: {enabled: false, conditions: [{path: /livez}]}"),
            "anonymous.conditions: Invalid value: [{\"Path\":\"/livez\"}]: enabled should be set to true when \
             conditions are defined",
        ),
    ] {
        assert_eq!(refusal(&text), why);
    }
    let extra = |key: &str| {
        GOOD.replace("    username", &format!("    extra: [{{key: {key}, valueExpression: \"'x'\"}}]\n    username"))
    };
    read(&extra("example.com/team")).unwrap();
    for (key, why) in
        [("team", "must be a domain-prefixed path"), ("a.k8s.io/b", RESERVED_KEY), ("a.com/B", "must be lowercase")]
    {
        assert!(refusal(&extra(key)).contains(why), "{key}");
    }
    let twice = format!("{GOOD}{}", GOOD.split_once("jwt:\n").unwrap().1);
    assert_eq!(refusal(&twice), format!("jwt[1].issuer.url: Duplicate value: \"{url}\""));
    let verified = "expression: \"claims.email_verified ? claims.email : ''\"";
    read(&GOOD.replace("claim: sub, prefix: \"oidc:\"", verified)).unwrap();
}
