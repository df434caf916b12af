//! Tokens of issuers on the loopback, good ones and bad ones.

mod fuzz;
pub mod issuer;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::hmac;
use serde_json::{Value, json};

use self::issuer::{TestIssuer, TestKey};
use super::{SigningAlgorithm::*, *};
use crate::{
    auth::{configuration::authentication::JwtAuthenticatorConfiguration, outside::places::OutsideLimits},
    webhook::Network,
};

fn authenticators(configurations: &[Value]) -> JwtAuthenticators {
    let all = JwtAuthenticators::new(SigningAlgorithm::ALL.to_vec(), Arc::new(Network));
    let read = |value: &Value| serde_json::from_value::<JwtAuthenticatorConfiguration>(value.clone()).unwrap();
    let configurations: Vec<_> = configurations.iter().map(read).collect();
    all.replace(all.prepare(&configurations).unwrap());
    all
}

async fn ready(configurations: &[Value]) -> JwtAuthenticators {
    let all = authenticators(configurations);
    assert!(all.current.load().are_ready(Duration::from_secs(30)).await);
    all
}

/// The name, or what is wrong.
async fn name(all: &JwtAuthenticators, token: &str) -> Option<Result<String, String>> {
    let found = all.authenticate(token, Timestamp::now(), Asker::Known).await?;
    Some(found.map(|identity| identity.name).map_err(|error| error.to_string()))
}

#[tokio::test]
async fn tokens_are_taken_that_are_signed_in_any_of_the_ways_of_kubernetes() {
    let keys: Vec<(SigningAlgorithm, TestKey)> =
        SigningAlgorithm::ALL.map(|algorithm| (algorithm, TestKey::new(algorithm.name(), algorithm))).into();
    let issuer = TestIssuer::start(&keys.iter().map(|(_, key)| key).collect::<Vec<_>>()).await;
    let all = ready(&[issuer.configuration()]).await;
    for (algorithm, key) in &keys {
        let token = key.token(*algorithm, &issuer.claims());
        assert_eq!(name(&all, &token).await, Some(Ok("oidc:jane".into())), "{algorithm:?}");
    }
    assert_eq!(issuer.fetches(), 1);
    let found = all.authenticate(&keys[0].1.token(keys[0].0, &issuer.claims()), Timestamp::now(), Asker::Known).await;
    assert_eq!(found.unwrap().unwrap().groups, ["oidc:dev"]);
}

#[tokio::test]
async fn bad_tokens_are_refused_with_their_reasons() {
    let (rsa, ec) = (TestKey::new("rsa", Rs256), TestKey::new("ec", Es256));
    let issuer = TestIssuer::start(&[&rsa, &ec]).await;
    let all = ready(&[issuer.configuration()]).await;
    let with = |claim: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[claim] = value;
        claims
    };
    let now = Timestamp::now().as_second();
    for (claims, why) in [
        (with("exp", json!(now - 1)), "oidc: verify token: oidc: token is expired (Token Expiry: "),
        (with("exp", Value::Null), "oidc: verify token: oidc: token is expired (Token Expiry: 1970-01-01"),
        (with("nbf", json!(now + 120)), "oidc: verify token: oidc: current time "),
        (with("aud", json!("other")), "oidc: verify token: oidc: expected audience \"fairlead\" got [\"other\"]"),
        (with("sub", Value::Null), "oidc: empty username via claim is not allowed"),
    ] {
        let told = name(&all, &rsa.token(Rs256, &claims)).await.unwrap().unwrap_err();
        assert!(told.starts_with(why), "{told}");
    }
    let elsewhere = rsa.token(Rs256, &with("iss", json!("https://elsewhere")));
    assert_eq!(name(&all, &elsewhere).await, None, "nobody here issued it");

    let signature = "oidc: verify token: failed to verify signature: failed to verify id token signature";
    let refused = async |token: String| name(&all, &token).await.unwrap().unwrap_err();
    // Another key under the same name, and one under a name that nobody knows.
    assert_eq!(refused(TestKey::new("ec", Es256).token(Es256, &issuer.claims())).await, signature);
    assert_eq!(refused(TestKey::new("new", Es256).token(Es256, &issuer.claims())).await, signature);
    assert_eq!(refused(TestKey::new("rsa", Es256).token(Es256, &issuer.claims())).await, signature);
    let good = rsa.token(Rs256, &issuer.claims());
    let (_, claims_and_signature) = good.split_once('.').unwrap();
    let (claims, _) = claims_and_signature.split_once('.').unwrap();
    let headed = |header: Value| format!("{}.{claims}", BASE64.encode(header.to_string()));
    let unsupported = "oidc: verify token: oidc: id token signed with unsupported algorithm, expected [";
    for algorithm in ["none", "NONE", "HS256"] {
        let token = format!("{}.", headed(json!({"alg": algorithm, "kid": "rsa"})));
        assert!(refused(token).await.starts_with(unsupported));
    }
    // The public key as the secret of an HMAC: as it is published, and as PEM has it.
    for secret in [rsa.jwk()["n"].as_str().unwrap().to_owned(), rsa.jwk().to_string()] {
        let signed = headed(json!({"alg": "HS256", "kid": "rsa"}));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        assert!(refused(format!("{signed}.{}", BASE64.encode(tag))).await.starts_with(unsupported));
    }
    // A signature that is good for another algorithm, or for other claims.
    let other = headed(json!({"alg": "PS256", "kid": "rsa"}));
    assert_eq!(refused(format!("{other}.{}", good.rsplit_once('.').unwrap().1)).await, signature);
    let forged = BASE64.encode(with("sub", json!("admin")).to_string());
    let parts: Vec<&str> = good.split('.').collect();
    assert_eq!(refused(format!("{}.{forged}.{}", parts[0], parts[2])).await, signature);
    assert_eq!(name(&all, &good).await, Some(Ok("oidc:jane".into())));
}

#[tokio::test]
async fn an_unknown_key_is_fetched_once_in_a_while() {
    let (first, second, third) = (TestKey::new("1", Es256), TestKey::new("2", Es256), TestKey::new("3", Es256));
    let issuer = TestIssuer::start(&[&first]).await;
    let all = ready(&[issuer.configuration()]).await;
    issuer.publish(&[&second]);
    let token = |key: &TestKey| key.token(Es256, &issuer.claims());
    assert_eq!(name(&all, &token(&second)).await, Some(Ok("oidc:jane".into())), "the issuer has a new key");
    assert_eq!(issuer.fetches(), 2);
    assert!(name(&all, &token(&first)).await.unwrap().is_err(), "the first one was withdrawn");
    issuer.publish(&[&second, &third]);
    for _ in 0..20 {
        assert!(name(&all, &token(&third)).await.unwrap().is_err());
    }
    assert_eq!(issuer.fetches(), 2, "strangers do not have it asked without end");
    assert_eq!(name(&all, &token(&second)).await, Some(Ok("oidc:jane".into())));
}

#[tokio::test]
async fn a_token_that_names_no_key_is_compared_with_all_in_a_place_and_once() {
    let (first, second, unknown) = (TestKey::new("", Es256), TestKey::new("", Es256), TestKey::new("", Es256));
    let issuer = TestIssuer::start(&[&first]).await;
    let all = ready(&[issuer.configuration()]).await;
    let limits = OutsideLimits { of_strangers: 0, of_one_address: 0, of_known: 1, of_reviewers: 0 };
    let all = all.limited_to(OutsidePlaces::new(limits));
    let provider = all.current.load().0[0].provider.clone();
    let shown = async |key: &TestKey, asker| {
        all.authenticate(&key.token(Es256, &issuer.claims()), Timestamp::now(), asker).await.unwrap()
    };
    let stranger = Asker::Stranger([10, 0, 0, 1].into());
    assert!(shown(&first, stranger).await.is_ok(), "one key is looked at without a place");
    issuer.publish(&[&first, &second]);
    provider.fetch_once().await.unwrap();
    let refused = shown(&second, stranger).await.unwrap_err();
    assert!(matches!(refused, JwtError::Verify(VerifyError::NoPlace(_))) && refused.is_undecided(), "{refused}");
    assert!(shown(&second, Asker::Known).await.is_ok());
    // The issuer is asked for its keys, which are the same.
    let (fetches, places) = (issuer.fetches(), AtomicUsize::new(0));
    let token = unknown.token(Es256, &issuer.claims());
    let token = JwtToken::read(&token).unwrap();
    let place = || {
        places.fetch_add(1, Ordering::SeqCst);
        KnownTokens::default().place(TokenDigest::of("any"), Asker::Known, &OutsidePlaces::default())
    };
    assert_eq!(provider.verify(&token, Es256, &place).await, Some(Err(VerifyError::Signature)));
    assert_eq!((issuer.fetches() - fetches, places.into_inner()), (1, 1));
}

#[tokio::test]
async fn who_shows_a_token_again_that_was_good_is_no_stranger_until_its_key_is_withdrawn() {
    let (first, second, unknown) = (TestKey::new("", Es256), TestKey::new("", Es256), TestKey::new("", Es256));
    let issuer = TestIssuer::start(&[&second]).await;
    let limits = OutsideLimits { of_strangers: 1, of_one_address: 1, of_known: 1, of_reviewers: 0 };
    let places = OutsidePlaces::new(limits);
    let all = ready(&[issuer.configuration()]).await.limited_to(places.clone());
    let attacker = Asker::Stranger([10, 0, 0, 9].into());
    let good = second.token(Es256, &issuer.claims());
    let is_full = |error: &JwtError| matches!(error, JwtError::Verify(VerifyError::NoPlace(_)));
    let show = async |token: &str| {
        let stranger = Asker::Stranger([10, 0, 0, 1].into());
        all.authenticate(token, Timestamp::now(), stranger).await.unwrap()
    };
    let early = second.token(Es256, &issuer.claims());
    assert_eq!(show(&early).await.unwrap().name, "oidc:jane", "there is one key, for which no place is needed");
    let publish = async |keys: &[&TestKey]| {
        issuer.publish(keys);
        all.current.load().0[0].provider.fetch_once().await.unwrap();
    };
    publish(&[&first, &second]).await;
    let taken = places.take(attacker).unwrap();
    assert_eq!(show(&early).await.unwrap().name, "oidc:jane", "it was good before there were two");
    assert!(is_full(&show(&good).await.unwrap_err()), "nobody knows it yet");
    drop(taken);
    assert_eq!(show(&good).await.unwrap().name, "oidc:jane");
    let taken = places.take(attacker).unwrap();
    assert_eq!(show(&good).await.unwrap().name, "oidc:jane", "strangers leave a place to who is known");
    for other in [&second, &unknown] {
        assert!(is_full(&show(&other.token(Es256, &issuer.claims())).await.unwrap_err()), "another token");
    }
    let mut nobody = issuer.claims();
    nobody["sub"] = Value::Null;
    let nobody = second.token(Es256, &nobody);
    drop(taken);
    assert!(matches!(show(&nobody).await, Err(JwtError::Mapping(_))));
    let taken = places.take(attacker).unwrap();
    assert!(is_full(&show(&nobody).await.unwrap_err()), "one that lets nobody in");
    // The issuer withdraws its key: one that is bad now is a stranger's again.
    publish(&[&first, &unknown]).await;
    assert!(matches!(show(&good).await, Err(JwtError::Verify(VerifyError::Signature))));
    assert!(is_full(&show(&good).await.unwrap_err()));
    drop(taken);
}

#[tokio::test]
async fn of_an_issuer_of_too_many_keys_the_first_that_sign_are_used_and_withdrawn_ones_no_more() {
    let (withdrawn, filler) = (TestKey::new("0", Es256), TestKey::new("1", Es256));
    let (last, beyond) = (TestKey::new("2", Es256), TestKey::new("3", Es256));
    let issuer = TestIssuer::start(&[&withdrawn]).await;
    let all = ready(&[issuer.configuration()]).await;
    let provider = all.current.load().0[0].provider.clone();
    let publish = async |keys: &[&TestKey]| {
        // With two that sign nothing, which do not count.
        issuer.publish(keys);
        provider.fetch_once().await.unwrap();
    };
    let mut keys = vec![&filler; 63];
    keys.push(&last);
    publish(&keys).await;
    keys.push(&beyond);
    publish(&keys).await;
    let is_good = async |key: &TestKey| name(&all, &key.token(Es256, &issuer.claims())).await.unwrap().is_ok();
    assert!(is_good(&filler).await && is_good(&last).await);
    assert!(!is_good(&beyond).await, "it is one too many");
    assert!(!is_good(&withdrawn).await, "the issuer has withdrawn it");
}

#[test]
fn a_key_is_tried_for_what_it_can_sign_alone() {
    for (algorithm, fitting) in [
        (Rs256, &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512][..]),
        (Es256, &[Es256]),
        (Es384, &[Es384]),
        (Es512, &[Es512]),
    ] {
        let key = key::VerificationKey::of(&TestKey::new("1", algorithm).jwk()).unwrap();
        for other in SigningAlgorithm::ALL {
            assert_eq!(key.fits(other), fitting.contains(&other), "{algorithm:?} {other:?}");
        }
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_stops_nobody_else_and_its_keys_stay() {
    let key = TestKey::new("1", Es256);
    let (here, gone) = (TestIssuer::start(&[&key]).await, TestIssuer::start(&[&key]).await);
    gone.set_away(true);
    let all = authenticators(&[here.configuration(), gone.configuration()]);
    let stop = CancellationToken::new();
    let run = tokio::spawn(all.clone().run(stop.clone()));
    while !all.current.load().0[0].provider.is_ready() {
        tokio::task::yield_now().await;
    }
    assert_eq!(name(&all, &key.token(Es256, &here.claims())).await, Some(Ok("oidc:jane".into())));
    let error =
        all.authenticate(&key.token(Es256, &gone.claims()), Timestamp::now(), Asker::Known).await.unwrap().unwrap_err();
    assert!(error.is_undecided() && error.to_string() == "oidc: authenticator not initialized", "{error}");
    assert_eq!(all.current.load().not_ready(), [&*gone.url]);

    here.set_away(true);
    assert_eq!(name(&all, &key.token(Es256, &here.claims())).await, Some(Ok("oidc:jane".into())));
    let unknown = TestKey::new("2", Es256).token(Es256, &here.claims());
    for _ in 0..2 {
        let error = all.authenticate(&unknown, Timestamp::now(), Asker::Known).await.unwrap().unwrap_err();
        assert!(error.is_undecided() && error.to_string().contains("fetching keys"), "{error}");
    }
    stop.cancel();
    run.await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_bad_whoever_signed_it_is_refused_before_the_keys_are_known() {
    let key = TestKey::new("1", Es256);
    let issuer = TestIssuer::start(&[&key]).await;
    issuer.set_away(true);
    let all = authenticators(&[issuer.configuration()]);
    let undecided = async |claim: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[claim] = value;
        let refused =
            all.authenticate(&key.token(Es256, &claims), Timestamp::now(), Asker::Known).await.unwrap().unwrap_err();
        refused.is_undecided()
    };
    assert!(!undecided("exp", json!(Timestamp::now().as_second() - 1)).await, "it has expired");
    assert!(!undecided("aud", json!("other")).await, "it is for others");
    assert!(undecided("sub", json!("joe")).await);
}

#[tokio::test]
async fn documents_are_those_of_the_issuer_and_come_from_who_proves_to_be_it() {
    let key = TestKey::new("1", Es256);
    let issuer = TestIssuer::start(&[&key]).await;
    let with = |field: &str, value: String| {
        let mut configuration = issuer.configuration();
        configuration["issuer"][field] = value.into();
        configuration
    };
    let stranger = TestIssuer::start(&[]).await;
    for (configuration, why) in [
        (with("discoveryURL", format!("{}/other", issuer.url)), "expected \"https://localhost"),
        (with("certificateAuthority", stranger.authority()), "x509: certificate signed by unknown authority"),
        (with("discoveryURL", format!("{}/nothing", issuer.url)), "404"),
        (with("discoveryURL", "http://localhost/".to_owned()), "protocol scheme"),
    ] {
        let all = authenticators(&[configuration]);
        let provider = all.current.load().0[0].provider.clone();
        let error = provider.fetch_once().await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!provider.is_ready());
    }
    let elsewhere = with("discoveryURL", format!("{}/.well-known/openid-configuration", issuer.url));
    let all = ready(&[elsewhere]).await;
    assert_eq!(name(&all, &key.token(Es256, &issuer.claims())).await, Some(Ok("oidc:jane".into())));
}

#[tokio::test]
async fn a_changed_configuration_keeps_the_keys_of_issuers_that_stay() {
    let key = TestKey::new("1", Es256);
    let (stays, goes) = (TestIssuer::start(&[&key]).await, TestIssuer::start(&[&key]).await);
    let all = ready(&[stays.configuration(), goes.configuration()]).await;
    stays.set_away(true);
    let mut changed = stays.configuration();
    changed["claimMappings"]["username"]["prefix"] = "new:".into();
    let changed: JwtAuthenticatorConfiguration = serde_json::from_value(changed).unwrap();
    let issuers = all.prepare(&[changed]).unwrap();
    assert!(issuers.are_ready(Duration::ZERO).await, "its keys are known");
    all.replace(issuers);
    assert_eq!(name(&all, &key.token(Es256, &stays.claims())).await, Some(Ok("new:jane".into())));
    assert_eq!(name(&all, &key.token(Es256, &goes.claims())).await, None);
    all.replace(all.prepare(&[]).unwrap());
    assert!(!all.are_any());
}
