//! Users by claims and by expressions, and whom rules refuse.

use serde_json::json;

use super::*;

fn mapped(config: Value, claims: Value) -> Result<Identity, String> {
    let config: JwtAuthenticatorConfiguration = serde_json::from_value(config).unwrap();
    let mapping = UserMapping::compile(&config).unwrap();
    mapping.user(claims.as_object().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn claims_become_a_user_with_prefixes() {
    let config = json!({"claimMappings": {
        "username": {"claim": "sub", "prefix": "oidc:"},
        "groups": {"claim": "roles", "prefix": "g:"},
        "uid": {"claim": "oid"},
    }});
    let claims = json!({"sub": "jane", "roles": ["a", "b"], "oid": "7", "jti": "x"});
    let user = mapped(config.clone(), claims).unwrap();
    assert_eq!((&*user.name, user.groups, &*user.uid), ("oidc:jane", vec!["g:a".to_owned(), "g:b".into()], "7"));
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=x"]);
    let one = mapped(config.clone(), json!({"sub": "jane", "roles": "a", "oid": "7"})).unwrap();
    assert_eq!(one.groups, ["g:a"]);
    for (claims, why) in [
        (json!({}), "oidc: parse username claims \"sub\": claim not present"),
        (
            json!({"sub": 5}),
            "oidc: parse username claims \"sub\": json: cannot unmarshal number into Go value of type string",
        ),
        (json!({"sub": ""}), "oidc: empty username via claim is not allowed"),
        (json!({"sub": "a"}), "oidc: parse uid claim \"oid\": claim not present"),
        (
            json!({"sub": "a", "_claim_names": {"roles": "src1"}}),
            "oidc: could not expand distributed claims: claim \"roles\" is in _claim_names, which is not supported",
        ),
    ] {
        assert_eq!(mapped(config.clone(), claims).unwrap_err(), why);
    }
}

#[test]
fn an_address_counts_only_where_it_is_not_said_to_be_unverified() {
    let config = json!({"claimMappings": {"username": {"claim": "email", "prefix": ""}}});
    let of = |verified: Value| mapped(config.clone(), json!({"email": "a@b", "email_verified": verified}));
    assert_eq!(of(json!(true)).unwrap().name, "a@b");
    assert_eq!(of(json!(false)).unwrap_err(), "oidc: email not verified");
    assert!(of(json!("true")).unwrap_err().starts_with("oidc: parse 'email_verified' claim: json:"));
    assert_eq!(mapped(config, json!({"email": "a@b"})).unwrap().name, "a@b");
}

#[test]
fn expressions_make_users_and_rules_refuse_them() {
    let config = json!({
        "claimMappings": {
            "username": {"expression": "'oidc:' + claims.sub"},
            "groups": {"expression": "claims.?groups.orValue([])"},
            "uid": {"expression": "string(claims.acme__dot__com.id)"},
            "extra": [
                {"key": "acme.com/team", "valueExpression": "claims.team"},
                {"key": "acme.com/none", "valueExpression": "''"},
            ],
        },
        "claimValidationRules": [
            {"claim": "hd", "requiredValue": "acme.com"},
            {"expression": "claims.exp - claims.iat <= 60", "message": "it lasts too long"},
        ],
        "userValidationRules": [
            {"expression": "!user.username.startsWith('oidc:system:')", "message": "reserved"},
            {"expression": "user.groups.all(group, !group.startsWith('system:'))", "message": "no system groups"},
        ],
    });
    let claims = json!({"sub": "jane", "groups": ["a", ""], "team": ["x"], "acme.com": {"id": "9"},
        "hd": "acme.com", "exp": 100, "iat": 50});
    let user = mapped(config.clone(), claims.clone()).unwrap();
    assert_eq!((&*user.name, &user.groups[..], &*user.uid), ("oidc:jane", &["a".to_owned()][..], "9"));
    assert_eq!(user.extra, BTreeMap::from([("acme.com/team".to_owned(), vec!["x".to_owned()])]));
    for (claim, value, why) in [
        ("hd", json!("b.com"), "oidc: required claim hd value does not match. Got = b.com, want = acme.com"),
        (
            "exp",
            json!(111),
            "oidc: error evaluating claim validation expression: validation expression 'claims.exp - claims.iat \
             <= 60' failed: it lasts too long",
        ),
        (
            "sub",
            json!("system:admin"),
            "oidc: error evaluating user info validation rule: validation expression \
             '!user.username.startsWith('oidc:system:')' failed: reserved",
        ),
        (
            "groups",
            json!("system:masters"),
            "oidc: error evaluating user info validation rule: validation expression 'user.groups.all(group, \
             !group.startsWith('system:'))' failed: no system groups",
        ),
        (
            "team",
            json!(5),
            "oidc: error evaluating extra claim expression: expression must return a string or a list of strings",
        ),
    ] {
        let mut claims = claims.clone();
        claims[claim] = value;
        assert_eq!(mapped(config.clone(), claims).unwrap_err(), why);
    }
}
