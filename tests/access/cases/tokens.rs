//! Tokens of ServiceAccounts that are good, and such as are not or no more.

use serde_json::{Value, json};

use super::{Act, Acts, Who, ask, keep, prepare};
use crate::{credentials::TokenFlaw, exchange::Request, servers::Actor};

const ACCOUNTS: &str = "/api/v1/namespaces/team-a/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/team-a/pods";
const SECRETS: &str = "/api/v1/namespaces/team-a/secrets";

pub fn acts() -> Acts {
    let mut acts = vec![keep("robot", token("robot", json!({})))];
    acts.extend(shown("robot"));
    acts.extend(forgeries());
    acts.extend(audiences());
    acts.extend(deletions());
    acts.extend(kept_in_secrets());
    acts.extend(makers());
    for (name, text) in [("empty", ""), ("word", "nonsense"), ("dots", "a.b.c"), ("join", "abcdef.0123456789abcdef")] {
        acts.extend(literal(name, text));
    }
    acts
}

/// A request for a token.
fn token(account: &str, spec: Value) -> Request {
    Request::post(format!("{ACCOUNTS}/{account}/token"), json!({"spec": spec}))
}

/// The token is used, and asked about.
fn shown(token: &'static str) -> Acts {
    let use_it = |request| Act::Ask { actor: Who::Bearer(token), request };
    vec![
        review(&format!("${{{token}.token}}"), Value::Null),
        use_it(Request::get(PODS)),
        use_it(Request::get(SECRETS)),
        use_it(Request::get("/version")),
        use_it(Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}))),
    ]
}

fn review(token: &str, audiences: Value) -> Act {
    let mut spec = json!({"token": token});
    if !audiences.is_null() {
        spec["audiences"] = audiences;
    }
    let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": spec}));
    Act::Ask { actor: Who::Known(Actor::Admin), request }
}

fn literal(name: &'static str, text: &'static str) -> Acts {
    let bearer = |value: String, path: &str| Act::Ask {
        actor: Who::Known(Actor::Anonymous),
        request: Request::get(path).header("Authorization", &value),
    };
    let mut acts = vec![review(text, Value::Null)];
    for path in [PODS, "/version"] {
        acts.push(bearer(format!("Bearer {text}"), path));
        acts.push(bearer(format!("bearer {text}"), path));
        acts.push(bearer(format!("Bearer  {text}"), path));
        acts.push(bearer(format!("Basic {text}"), path));
        acts.push(bearer(text.to_owned(), path));
    }
    if name == "empty" {
        acts.push(Act::Ask { actor: Who::Known(Actor::Anonymous), request: Request::get(PODS) });
    }
    acts
}

/// A name, how the token is flawed, and what is changed in its claims.
type Forgery = (&'static str, TokenFlaw, fn(&mut Value));

fn forgeries() -> Acts {
    let table: [Forgery; 31] = [
        ("same", TokenFlaw::None, |_| ()),
        ("other-key", TokenFlaw::OtherKey, |_| ()),
        ("broken-signature", TokenFlaw::BrokenSignature, |_| ()),
        ("unsigned", TokenFlaw::Unsigned, |_| ()),
        ("cut", TokenFlaw::Cut, |_| ()),
        ("expired", TokenFlaw::None, |c| shift(c, &["exp", "nbf", "iat"], -7200)),
        ("just-expired", TokenFlaw::None, |c| {
            shift(c, &["exp", "nbf", "iat"], -3600);
            shift(c, &["exp"], -30);
        }),
        ("not-yet", TokenFlaw::None, |c| shift(c, &["exp", "nbf", "iat"], 7200)),
        ("not-before", TokenFlaw::None, |c| shift(c, &["nbf"], 7200)),
        ("issued-later", TokenFlaw::None, |c| shift(c, &["iat"], 7200)),
        ("a-little-early", TokenFlaw::None, |c| shift(c, &["nbf", "iat"], 30)),
        ("no-end", TokenFlaw::None, |c| c["exp"] = Value::Null),
        ("no-beginning", TokenFlaw::None, |c| c["nbf"] = Value::Null),
        ("end-in-text", TokenFlaw::None, |c| c["exp"] = "never".into()),
        ("fraction", TokenFlaw::None, |c| c["exp"] = json!(c["exp"].as_i64().unwrap_or_default() as f64 + 0.5)),
        ("other-audience", TokenFlaw::None, |c| c["aud"] = json!(["vault"])),
        ("no-audience", TokenFlaw::None, |c| c["aud"] = json!([])),
        ("audience-in-text", TokenFlaw::None, |c| c["aud"] = c["aud"][0].clone()),
        ("missing-audience", TokenFlaw::None, |c| c["aud"] = Value::Null),
        ("other-issuer", TokenFlaw::None, |c| c["iss"] = "https://example.com".into()),
        ("legacy-issuer", TokenFlaw::None, |c| c["iss"] = "kubernetes/serviceaccount".into()),
        ("no-issuer", TokenFlaw::None, |c| c["iss"] = Value::Null),
        ("other-account", TokenFlaw::None, |c| c["kubernetes.io"]["serviceaccount"]["name"] = "default".into()),
        ("missing-account", TokenFlaw::None, |c| c["kubernetes.io"]["serviceaccount"]["name"] = "missing".into()),
        ("other-uid", TokenFlaw::None, |c| c["kubernetes.io"]["serviceaccount"]["uid"] = "u".into()),
        ("other-namespace", TokenFlaw::None, |c| c["kubernetes.io"]["namespace"] = "team-b".into()),
        ("other-subject", TokenFlaw::None, |c| c["sub"] = "system:serviceaccount:kube-system:robot".into()),
        ("no-claims", TokenFlaw::None, |c| c["kubernetes.io"] = Value::Null),
        ("missing-pod", TokenFlaw::None, |c| c["kubernetes.io"]["pod"] = json!({"name": "missing", "uid": "u"})),
        ("other-pod", TokenFlaw::None, |c| c["kubernetes.io"]["pod"] = json!({"name": "of-n1", "uid": "u"})),
        ("missing-node", TokenFlaw::None, |c| c["kubernetes.io"]["node"] = json!({"name": "missing", "uid": "u"})),
    ];
    let mut acts = Acts::new();
    for (keep, flaw, edit) in table {
        acts.push(Act::Forge { of: "robot", keep, flaw, edit });
        acts.extend(shown(keep));
    }
    acts
}

fn shift(claims: &mut Value, names: &[&str], seconds: i64) {
    for name in names {
        claims[*name] = (claims[*name].as_i64().unwrap_or_default() + seconds).into();
    }
}

fn audiences() -> Acts {
    let own = "https://kubernetes.default.svc.cluster.local";
    let mut acts = vec![
        keep("vault", token("robot", json!({"audiences": ["vault"]}))),
        keep("both", token("robot", json!({"audiences": ["vault", own]}))),
    ];
    for token in ["vault", "both", "robot"] {
        acts.extend(shown(token));
        for audiences in
            [json!(["vault"]), json!([own]), json!(["other"]), json!(["other", "vault"]), json!([own, "vault"])]
        {
            acts.push(review(&format!("${{{token}.token}}"), audiences));
        }
    }
    acts
}

/// What a token is bound to goes.
fn deletions() -> Acts {
    let mut acts = Acts::new();
    let account = json!({"metadata": {"name": "leaver"}});
    let pod = json!({"metadata": {"name": "leaver"}, "spec": {"serviceAccountName": "robot", "nodeName": "n1",
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "example.com/c"}]}});
    let secret = json!({"metadata": {"name": "leaver"}});
    let node = json!({"metadata": {"name": "leaver"}});
    for (keep_as, path, object, kind) in [
        ("gone-account", ACCOUNTS, account, ""),
        ("gone-pod", PODS, pod, "Pod"),
        ("gone-secret", SECRETS, secret, "Secret"),
        ("gone-node", "/api/v1/nodes", node, "Node"),
    ] {
        let again = match kind {
            "" => "new-account",
            "Pod" => "new-pod",
            "Secret" => "new-secret",
            _ => "new-node",
        };
        let reference = json!({"kind": kind, "apiVersion": "v1", "name": "leaver", "uid": "${leaver.uid}"});
        let spec = if kind.is_empty() { json!({}) } else { json!({"boundObjectRef": reference}) };
        let holder = if kind.is_empty() { "leaver" } else { "robot" };
        let gone = || prepare(Request::delete(format!("{path}/leaver?gracePeriodSeconds=0")));
        acts.push(keep("leaver", Request::post(path, object.clone())));
        acts.push(keep(keep_as, token(holder, spec.clone())));
        // Another one: the reference knows for some seconds what it has found out about a token.
        acts.push(keep(again, token(holder, spec)));
        acts.push(gone());
        acts.extend(shown(keep_as));
        acts.push(prepare(Request::post(path, object)));
        acts.extend(shown(again));
        acts.push(gone());
    }
    acts
}

/// The legacy kind.
fn kept_in_secrets() -> Acts {
    let mut acts = vec![
        prepare(Request::post(SECRETS, secret_of_robot("legacy"))),
        Act::Forge { of: "robot", keep: "legacy-of-missing", flaw: TokenFlaw::None, edit: |c| legacy(c, "missing") },
        Act::Forge { of: "robot", keep: "legacy-of-other", flaw: TokenFlaw::None, edit: |c| legacy(c, "legacy") },
        Act::Forge { of: "robot", keep: "legacy-without-secret", flaw: TokenFlaw::None, edit: |c| legacy(c, "") },
        Act::Forge { of: "robot", keep: "legacy-by-other", flaw: TokenFlaw::OtherKey, edit: |c| legacy(c, "legacy") },
    ];
    for token in ["legacy-of-missing", "legacy-of-other", "legacy-without-secret", "legacy-by-other"] {
        acts.extend(shown(token));
    }
    let invalid = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    // Another Secret each time: the reference knows for some seconds what it has found out about a token.
    for (token, path, end) in [
        ("legacy", "/api/v1/namespaces/team-a/secrets/legacy", None),
        ("gone", "/api/v1/namespaces/team-a/secrets/gone", Some(Request::delete(format!("{SECRETS}/gone")))),
        (
            "marked",
            "/api/v1/namespaces/team-a/secrets/marked",
            Some(Request::patch(format!("{SECRETS}/marked"), invalid)),
        ),
    ] {
        if token != "legacy" {
            acts.push(prepare(Request::post(SECRETS, secret_of_robot(token))));
        }
        acts.push(Act::ReadSecret { keep: token, path });
        acts.extend(end.map(prepare));
        acts.extend(shown(token));
    }
    acts
}

fn secret_of_robot(name: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"})
}

fn legacy(claims: &mut Value, secret: &str) {
    let uid = claims["kubernetes.io"]["serviceaccount"]["uid"].clone();
    *claims = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:team-a:robot",
        "kubernetes.io/serviceaccount/namespace": "team-a", "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": "robot",
        "kubernetes.io/serviceaccount/service-account.uid": uid});
}

/// Who asks for tokens.
fn makers() -> Acts {
    let mut acts = Acts::new();
    for user in ["joe", "token-maker", "everywhere:edit", "everywhere:view", "all-within"] {
        for account in ["robot", "default", "missing"] {
            acts.push(ask(user, token(account, json!({}))));
            acts.push(ask(user, token(account, json!({"expirationSeconds": 5}))));
            acts.push(ask(user, token(account, json!({"audiences": ["vault"]}))));
            let other = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "missing"}});
            acts.push(ask(user, token(account, other)));
            let uid = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "of-n1", "uid": "u"}});
            acts.push(ask(user, token(account, uid)));
        }
    }
    acts
}
