//! Which rule of a policy takes a request, and with which level.

use super::*;
use crate::audit::policy::AuditPolicy;

/// The requests that the table's policies are asked about.
fn target(what: &str) -> AuditTarget<'_> {
    // `GROUP RESOURCE SUBRESOURCE NAMESPACE NAME`, or a path; `-` stands for nothing.
    let words: Vec<&str> = what.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    match words.as_slice() {
        [path] => AuditTarget::Path(path),
        [group, resource, subresource, namespace, name] => {
            AuditTarget::Resource { group, version: "v1", resource, subresource, namespace, name }
        }
        _ => panic!("{what}"),
    }
}

fn rules(rules: &str) -> AuditRules {
    AuditPolicy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}")).unwrap().rules()
}

/// The level of a request of joe (group dev) by the rule alone.
fn level(rule: &str, verb: &str, what: &str) -> AuditLevel {
    let joe = Identity { name: "joe".into(), groups: vec!["dev".into(), "all".into()], ..Identity::default() };
    let request = AuditAttributes { user: Some(&joe), verb, target: target(what) };
    rules(&format!("- level: Metadata\n  {rule}\n")).decide(&request).map_or(AuditLevel::None, |found| found.level)
}

const POD: &str = "- pods - default web";
const POD_LOG: &str = "- pods log default web";
const POD_STATUS: &str = "- pods status default web";
const PODS: &str = "- pods - default -";
const NODE: &str = "- nodes - - n1";
const SCALE: &str = "apps deployments scale default web";
const HEALTH: &str = "/healthz/etcd";

#[test]
fn each_field_of_a_rule_restricts_what_it_is_about() {
    for (rule, verb, what, is_taken) in [
        // A rule without restrictions is about everything.
        ("users: []", "get", POD, true),
        ("users: []", "get", HEALTH, true),
        ("users: [joe, ann]", "get", POD, true),
        ("users: [ann]", "get", POD, false),
        ("userGroups: [ops, dev]", "get", POD, true),
        ("userGroups: [ops]", "get", POD, false),
        ("{users: [joe], userGroups: [ops]}", "get", POD, false),
        ("verbs: [get, list]", "get", POD, true),
        ("verbs: [get]", "delete", POD, false),
        ("verbs: [get]", "get", HEALTH, true),
        // The empty namespace is that of objects without one.
        ("namespaces: [default]", "get", POD, true),
        ("namespaces: [kube-system]", "get", POD, false),
        ("namespaces: [\"\"]", "get", NODE, true),
        ("namespaces: [\"\"]", "get", POD, false),
        ("namespaces: [default]", "get", HEALTH, false),
        ("resources: [{group: \"\"}]", "get", POD_LOG, true),
        ("resources: [{group: apps}]", "get", POD, false),
        ("resources: [{group: apps}]", "get", SCALE, true),
        ("resources: [{group: \"\", resources: [pods]}]", "get", POD, true),
        ("resources: [{group: \"\", resources: [pods]}]", "get", POD_LOG, false),
        ("resources: [{group: \"\", resources: [pods/log]}]", "get", POD_LOG, true),
        ("resources: [{group: \"\", resources: [pods/log]}]", "get", POD, false),
        ("resources: [{group: \"\", resources: [pods/log]}]", "get", POD_STATUS, false),
        ("resources: [{group: \"\", resources: ['pods/*']}]", "get", POD_STATUS, true),
        ("resources: [{group: \"\", resources: ['pods/*']}]", "get", POD, true),
        ("resources: [{group: \"\", resources: ['pods/*']}]", "get", NODE, false),
        ("resources: [{group: apps, resources: ['*/scale']}]", "get", SCALE, true),
        ("resources: [{group: \"\", resources: ['*/status']}]", "get", POD_STATUS, true),
        ("resources: [{group: \"\", resources: ['*/status']}]", "get", POD_LOG, false),
        ("resources: [{group: \"\", resources: ['*/status']}]", "get", POD, false),
        ("resources: [{group: \"\", resources: ['*']}]", "get", POD_LOG, true),
        ("resources: [{group: \"\", resources: ['*']}]", "get", HEALTH, false),
        ("resources: [{group: \"\", resources: [pods], resourceNames: [web]}]", "get", POD, true),
        ("resources: [{group: \"\", resources: [pods], resourceNames: [db]}]", "get", POD, false),
        ("resources: [{group: \"\", resources: [pods], resourceNames: [web]}]", "list", PODS, false),
        ("resources: [{group: apps}, {group: \"\", resources: [nodes]}]", "get", NODE, true),
        ("{namespaces: [other], resources: [{group: \"\", resources: [pods]}]}", "get", POD, false),
        ("nonResourceURLs: [/healthz/etcd]", "get", HEALTH, true),
        ("nonResourceURLs: [/healthz]", "get", HEALTH, false),
        ("nonResourceURLs: ['/healthz*']", "get", HEALTH, true),
        ("nonResourceURLs: [/metrics, '*']", "get", HEALTH, true),
        ("nonResourceURLs: ['*']", "get", POD, false),
    ] {
        let fields = rule.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let written = match fields {
            Some(fields) => fields.replacen("], ", "]\n  ", 1),
            None => rule.to_owned(),
        };
        let expected = if is_taken { AuditLevel::Metadata } else { AuditLevel::None };
        assert_eq!(level(&written, verb, what), expected, "{rule}: {verb} {what}");
    }
}

#[test]
fn nobody_is_neither_a_user_nor_in_a_group() {
    let request = AuditAttributes { user: None, verb: "get", target: target(POD) };
    for (rule, is_taken) in [("users: [joe]", false), ("userGroups: [dev]", false), ("verbs: [get]", true)] {
        let rules = rules(&format!("- level: Metadata\n  {rule}\n"));
        assert_eq!(rules.decide(&request).is_some(), is_taken, "{rule}");
    }
}

#[test]
fn the_first_rule_decides_and_none_is_no_event() {
    let joe = Identity { name: "joe".into(), ..Identity::default() };
    let rules = rules(
        "- {level: None, users: [joe], verbs: [watch]}\n- {level: Request, users: [joe]}\n- level: RequestResponse\n",
    );
    let decide = |user: &Identity, verb| {
        let request = AuditAttributes { user: Some(user), verb, target: target(POD) };
        rules.decide(&request).map(|decision| decision.level)
    };
    assert_eq!(decide(&joe, "watch"), None);
    assert_eq!(decide(&joe, "get"), Some(AuditLevel::Request));
    assert_eq!(decide(&Identity::anonymous(), "watch"), Some(AuditLevel::RequestResponse));
    let nothing = AuditRules::default();
    assert_eq!(nothing.decide(&AuditAttributes { user: Some(&joe), verb: "get", target: target(POD) }), None);
}

#[test]
fn a_rule_adds_stages_and_overrides_managed_fields() {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nomitManagedFields: true\n\
                  rules:\n- {level: Metadata, verbs: [get], omitStages: [Panic], omitManagedFields: false}\n\
                  - level: Metadata\n";
    let rules = AuditPolicy::parse(policy).unwrap().rules();
    let decide = |verb| rules.decide(&AuditAttributes { user: None, verb, target: target(POD) }).unwrap();
    let all =
        [AuditStage::RequestReceived, AuditStage::ResponseStarted, AuditStage::ResponseComplete, AuditStage::Panic];
    let omitted = |decision: AuditDecision| all.map(|stage| decision.omit_stages.contain(stage));
    assert_eq!((omitted(decide("get")), decide("get").omit_managed_fields), ([true, false, false, true], false));
    assert_eq!((omitted(decide("list")), decide("list").omit_managed_fields), ([true, false, false, false], true));
}

#[test]
fn rules_that_record_nothing_omit_nothing() {
    let omits = |text: &str| rules(text).omit(AuditStage::RequestReceived);
    assert!(!omits("- {level: None, omitStages: [RequestReceived]}\n- {level: Metadata, omitStages: [Panic]}\n"));
    assert!(omits("- level: Metadata\n- {level: Request, omitStages: [RequestReceived]}\n"));
    let policy =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n";
    assert!(
        AuditPolicy::parse(policy).unwrap().rules().omit(AuditStage::RequestReceived),
        "the policy's are those of each rule"
    );
}
