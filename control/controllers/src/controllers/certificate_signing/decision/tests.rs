//! Which requests are signed, and why others are not.

use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use super::*;
use fairlead_pki::ServingNames;

/// A control service on the host `alpha`, advertised as 192.0.2.100.
pub fn control() -> ControlNames {
    let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let addresses = ["10.96.0.1", "127.0.0.1", "192.0.2.100"].map(|ip| ip.parse().unwrap());
    ControlNames {
        serving: ServingNames {
            dns_names: text(&["alpha", "kubernetes", "kubernetes.default.svc", "localhost"]),
            addresses: addresses.into(),
        },
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        boot_id: "b0".into(),
    }
}

fn decide(csr: &CertificateSigningRequest, node: Option<&Node>) -> SigningDecision {
    decide_among(csr, node, &[], &control())
}

/// Where every node has been heard just now.
fn decide_among(
    csr: &CertificateSigningRequest,
    node: Option<&Node>,
    nodes: &[Arc<Node>],
    control: &ControlNames,
) -> SigningDecision {
    super::decide(csr, node, nodes, control, &|_| Some(Duration::from_secs(40)))
}

struct Asked {
    signer: &'static str,
    username: &'static str,
    groups: &'static [&'static str],
    common_name: &'static str,
    organization: &'static str,
    names: &'static [&'static str],
    usages: &'static [&'static str],
}

const JOIN: Asked = Asked {
    signer: CLIENT_SIGNER,
    username: "system:bootstrap:abcdef",
    groups: &[BOOTSTRAPPERS],
    common_name: "system:node:n1",
    organization: NODES,
    names: &[],
    usages: &["digital signature", "client auth"],
};

const SERVE: Asked = Asked {
    signer: SERVING_SIGNER,
    username: "system:node:n1",
    groups: &[NODES],
    names: &["n1", "192.0.2.1"],
    usages: &["digital signature", "server auth"],
    ..JOIN
};

fn csr(asked: &Asked) -> CertificateSigningRequest {
    let mut params = CertificateParams::new(asked.names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, asked.common_name);
    params.distinguished_name.push(DnType::OrganizationName, asked.organization);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let mut csr: CertificateSigningRequest = serde_json::from_value(json!({
        "spec": {"signerName": asked.signer, "username": asked.username, "groups": asked.groups,
            "usages": asked.usages, "request": ""}
    }))
    .unwrap();
    csr.spec.request = ByteString(pem.into_bytes());
    csr
}

fn node() -> Node {
    serde_json::from_value(json!({"metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "Hostname", "address": "host"}]}}))
    .unwrap()
}

fn outcome(asked: &Asked) -> &'static str {
    match decide(&csr(asked), Some(&node())) {
        SigningDecision::Leave => "leave",
        SigningDecision::Wait => "wait",
        SigningDecision::Deny(_) => "deny",
        SigningDecision::Fail(_) => "fail",
        SigningDecision::Sign(_) => "sign",
    }
}

#[test]
fn a_joiner_gets_a_client_certificate_and_nothing_beyond_it() {
    let SigningDecision::Sign(grant) = decide(&csr(&JOIN), None) else { panic!("refused") };
    let GrantedSubject::Node(subject, Usage::Client) = grant.subject else { panic!("{:?}", grant.subject) };
    assert_eq!((&*subject.common_name, subject.organization.as_deref()), ("system:node:n1", Some(NODES)));
    let refused = [
        Asked { organization: "system:masters", ..JOIN },
        Asked { common_name: "kubernetes-admin", ..JOIN },
        Asked { common_name: "system:node:", ..JOIN },
        Asked { names: &["n1"], ..JOIN },
        Asked { usages: &["client auth", "server auth"], ..JOIN },
        Asked { usages: &["digital signature"], ..JOIN },
    ];
    for (at, asked) in refused.iter().enumerate() {
        assert_eq!(outcome(asked), "deny", "case {at}");
    }
}

#[test]
fn a_node_renews_its_own_certificate_and_no_others() {
    let renew = Asked { username: "system:node:n1", groups: &[NODES], ..JOIN };
    assert_eq!(outcome(&renew), "sign");
    assert_eq!(outcome(&Asked { common_name: "system:node:n2", ..renew }), "leave");
    assert_eq!(outcome(&Asked { groups: &[], ..renew }), "leave");
    assert_eq!(outcome(&Asked { username: "joe", groups: &["makers"], ..JOIN }), "leave");
}

#[test]
fn a_serving_certificate_is_for_the_nodes_own_names() {
    assert_eq!(outcome(&SERVE), "sign");
    assert_eq!(outcome(&Asked { names: &["host", "192.0.2.1"], ..SERVE }), "sign");
    assert_eq!(outcome(&Asked { names: &["192.0.2.2"], ..SERVE }), "deny");
    assert_eq!(outcome(&Asked { names: &["kubernetes.default.svc"], ..SERVE }), "deny");
    assert_eq!(outcome(&Asked { names: &[], ..SERVE }), "deny");
    assert_eq!(outcome(&Asked { common_name: "system:node:n2", ..SERVE }), "deny");
    assert_eq!(outcome(&Asked { username: "system:bootstrap:abcdef", groups: &[BOOTSTRAPPERS], ..SERVE }), "deny");
    assert_eq!(decide(&csr(&SERVE), None), SigningDecision::Wait);
}

/// A Node that claims these addresses, on the host with this boot ID.
fn claiming(name: &str, boot_id: &str, claims: &[&str]) -> Node {
    let addresses = claims.iter().map(|claim| {
        let kind = if claim.parse::<IpAddr>().is_ok() { "InternalIP" } else { "Hostname" };
        json!({"type": kind, "address": claim})
    });
    serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses.collect::<Vec<_>>(),
        "nodeInfo": {"bootID": boot_id, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
            "systemUUID": ""}}}))
    .unwrap()
}

#[test]
fn a_node_that_says_it_is_the_control_service_gets_no_certificate_for_it() {
    let always: [&'static [&'static str]; 12] = [
        &["kubernetes"],
        &["kubernetes.default.svc"],
        &["Web.default.SVC"],
        &["web.default.svc.cluster.local"],
        &["*.example.com"],
        &["10.96.0.1"],
        &["10.96.0.10"],
        &["0.0.0.0"],
        &["224.0.0.1"],
        &["::ffff:10.96.0.1"],
        &["cluster.local"],
        &["kubernetes.example.com"],
    ];
    let elsewhere: [&'static [&'static str]; 6] =
        [&["192.0.2.100"], &["alpha"], &["Alpha"], &["localhost"], &["127.0.0.1"], &["127.0.0.2"]];
    for names in always.into_iter().chain(elsewhere) {
        let decision = decide(&csr(&Asked { names, ..SERVE }), Some(&claiming("n1", "b1", names)));
        assert!(matches!(decision, SigningDecision::Deny(_)), "{names:?}: {decision:?}");
    }
    for names in always {
        let decision = decide(&csr(&Asked { names, ..SERVE }), Some(&claiming("n1", "b0", names)));
        assert!(matches!(decision, SigningDecision::Deny(_)), "on its host, {names:?}: {decision:?}");
    }
    let names: &[&str] = &["alpha", "192.0.2.100"];
    let own = decide(&csr(&Asked { names, ..SERVE }), Some(&claiming("n1", "b0", names)));
    assert!(matches!(own, SigningDecision::Sign(_)), "a node on the control service's host: {own:?}");
    let names: &[&str] = &["kubernetes.default.svc"];
    let named = Asked {
        username: "system:node:kubernetes.default.svc",
        common_name: "system:node:kubernetes.default.svc",
        names,
        ..SERVE
    };
    assert_eq!(outcome(&named), "deny");
}

#[test]
fn a_node_that_repeats_the_boot_id_of_the_control_host_is_not_believed() {
    let names: &[&str] = &["alpha", "192.0.2.100"];
    let stolen = Arc::new(claiming("n1", "b0", names));
    let asks = |nodes: &[Arc<Node>]| decide_among(&csr(&Asked { names, ..SERVE }), Some(&stolen), nodes, &control());
    let host = |boot_id: &str| Arc::new(claiming("host", boot_id, &["192.0.2.101"]));
    assert!(matches!(asks(&[stolen.clone(), host("b0")]), SigningDecision::Deny(_)));
    assert!(matches!(asks(&[stolen.clone(), host("b2")]), SigningDecision::Sign(_)));
}

#[test]
fn a_node_that_says_it_is_another_node_gets_no_certificate_for_it() {
    let nodes =
        |claims: [&[&str]; 2]| [Arc::new(claiming("n1", "b1", claims[0])), Arc::new(claiming("n2", "b2", claims[1]))];
    let asks = |names: &'static [&'static str], nodes: &[Arc<Node>]| {
        decide_among(&csr(&Asked { names, ..SERVE }), Some(&nodes[0]), nodes, &control())
    };
    let both = nodes([&["192.0.2.1", "192.0.2.2", "N2", "shared"], &["192.0.2.2", "192.0.2.3", "shared"]]);
    for (names, other) in
        [(&["192.0.2.2"], "192.0.2.2 (of node n2)"), (&["N2"], "N2 (of node n2)"), (&["shared"], "n2")]
    {
        match asks(names, &both) {
            SigningDecision::Deny(why) => assert!(why.to_string().contains(other), "{why}"),
            decision => panic!("{names:?}: {decision:?}"),
        }
    }
    assert!(matches!(asks(&["n1", "192.0.2.1"], &both), SigningDecision::Sign(_)));
    let claimed = nodes([&["192.0.2.1"], &["192.0.2.3", "n1"]]);
    let decision = asks(&["n1", "192.0.2.1"], &claimed);
    assert!(matches!(decision, SigningDecision::Sign(_)), "nobody takes a node's own name from it: {decision:?}");
}

#[test]
fn what_is_answered_or_of_another_signer_is_left_alone() {
    assert_eq!(outcome(&Asked { signer: "example.com/other", ..JOIN }), "leave");
    let mut answered = csr(&JOIN);
    answered.status = serde_json::from_value(json!({"certificate": "YQ=="})).unwrap();
    assert_eq!(decide(&answered, None), SigningDecision::Leave);
    answered.status = serde_json::from_value(json!({"conditions": [{"type": "Denied", "status": "True"}]})).unwrap();
    assert_eq!(decide(&answered, None), SigningDecision::Leave);
}

#[test]
fn what_a_person_approved_is_signed_as_far_as_the_signer_may() {
    let approve = |asked: &Asked| {
        let mut csr = csr(asked);
        csr.status = serde_json::from_value(json!({"conditions": [{"type": "Approved", "status": "True"}]})).unwrap();
        decide(&csr, None)
    };
    assert!(matches!(approve(&Asked { username: "joe", groups: &[], ..JOIN }), SigningDecision::Sign(_)));
    assert!(matches!(approve(&Asked { organization: "system:masters", ..JOIN }), SigningDecision::Deny(_)));
}

#[test]
fn a_shorter_life_may_be_asked_for_and_no_longer_one() {
    let lifetime = |seconds| {
        let mut csr = csr(&JOIN);
        csr.spec.expiration_seconds = Some(seconds);
        match decide(&csr, None) {
            SigningDecision::Sign(grant) => grant.lifetime.as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((lifetime(3600), lifetime(1), lifetime(i32::MAX)), (3600, 600, 365 * 24 * 3600));
}

#[test]
fn a_join_token_gives_no_certificate_of_a_node_that_reports() {
    let with = |ready: Option<&str>| {
        let condition = ready.map(|status| json!({"type": "Ready", "status": status}));
        let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": condition.as_slice()}});
        Arc::new(serde_json::from_value::<Node>(node).unwrap())
    };
    let other = Arc::new(claiming("n2", "", &[]));
    let of = |asked: &Asked, node: Arc<Node>| decide_among(&csr(asked), None, &[other.clone(), node], &control());
    let silent_in = Duration::from_secs(40);
    let denied = SigningDecision::Deny(Denial::NodeIsThere { node: "n1".into(), silent_in });
    // What the condition says may be of a time in which nobody could report.
    for reports in ["True", "False", "Unknown"] {
        assert_eq!(of(&JOIN, with(Some(reports))), denied, "{reports}");
        let renews = Asked { username: "system:node:n1", groups: &[NODES], ..JOIN };
        for may in [renews, Asked { username: "admin", groups: &[MASTERS], ..JOIN }] {
            assert!(matches!(of(&may, with(Some(reports))), SigningDecision::Sign(_)));
        }
        let mut approved = csr(&JOIN);
        let condition = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        approved.status = Some(serde_json::from_value(condition).unwrap());
        let decision = decide_among(&approved, None, &[with(Some(reports))], &control());
        assert!(matches!(decision, SigningDecision::Sign(_)), "a person has said yes");
    }
    assert!(matches!(of(&JOIN, with(None)), SigningDecision::Sign(_)), "it never reported");
    let after_silence = super::decide(&csr(&JOIN), None, &[with(Some("True"))], &control(), &|name| {
        assert_eq!(name, "n1");
        None
    });
    assert!(matches!(after_silence, SigningDecision::Sign(_)));
}

#[test]
fn no_node_answers_at_addresses_of_anothers_pods() {
    let mut other = claiming("n2", "", &["192.0.2.2"]);
    let subnets = json!({"podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24", "fd00:2::/64"]});
    other.spec = Some(serde_json::from_value(subnets).unwrap());
    let nodes = [Arc::new(other)];
    let claims = ["10.244.2.7", "fd00:2::7", "10.244.1.7"];
    let own = claiming("n1", "", &claims);
    let asked = |names: &'static [&'static str]| {
        matches!(
            decide_among(&csr(&Asked { names, ..SERVE }), Some(&own), &nodes, &control()),
            SigningDecision::Sign(_)
        )
    };
    assert!(!asked(&["10.244.2.7"]) && !asked(&["fd00:2::7"]));
    assert!(asked(&["10.244.1.7"]));
}
