//! What clients read from the answers, by another implementation of the protocol.

mod fuzz;

use std::{net::Ipv4Addr, str::FromStr, sync::Arc};

use hickory_proto::{
    op::{Message, Query as Question, ResponseCode as Code},
    rr::{Name as HickoryName, RecordType},
};
use imbl::OrdMap;
use proptest::prelude::*;

use super::{
    super::service_records::tests::{endpoint, service, slices},
    *,
};
use fairlead_world::{Node, Origin, Service, ServiceKind, World};

/// A cluster with a ClusterIP, a headless and two ExternalName Services.
fn world() -> World {
    let cluster_ip = |a, b| ServiceKind::ClusterIp(vec![Ipv4Addr::new(10, 96, a, b)]);
    let services = [
        service("default", "web", cluster_ip(0, 7)),
        service("db", "mysql", ServiceKind::Headless),
        service("db", "empty", ServiceKind::Headless),
        service("default", "search", ServiceKind::ExternalName("www.example.org".into())),
        service("default", "alias", ServiceKind::ExternalName("web.default.svc.cluster.local".into())),
        service("default", "loop", ServiceKind::ExternalName("loop.default.svc.cluster.local".into())),
    ];
    let endpoints = (0..40).map(|i| endpoint([10, 244, 1, i], (i < 2).then(|| format!("mysql-{i}")).as_deref(), true));
    let mysql = slices(&services[1], endpoints.collect());
    let node = Node {
        name: "one".into(),
        internal_ip: None,
        agent_port: None,
        external_ips: vec![],
        pod_cidr: Some("10.244.1.0/24".parse().unwrap()),
        zone: None,
        labels: Default::default(),
        no_execute_taints: vec![],
        revision: 1,
    };
    let by_name = |service: Service| (service.name.clone(), Arc::new(service));
    World {
        slices: OrdMap::unit(services[1].name.clone(), mysql),
        services: services.into_iter().map(by_name).collect(),
        nodes: OrdMap::unit("one".into(), Arc::new(node)),
        revision: 42,
        synced: true,
        origin: Origin::Api,
    }
}

fn zone() -> Zone {
    let mut zone = Zone::new("cluster.local", Ipv4Addr::new(10, 244, 1, 1)).unwrap();
    zone.update(Arc::new(world()));
    zone
}

fn packet(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(HickoryName::from_str(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// Asks as a client with another implementation of the protocol would.
fn ask(name: &str, kind: RecordType) -> Message {
    let mut out = Vec::new();
    assert_eq!(answer(&packet(name, kind), &zone(), Transport::Tcp, 0, &mut out), AnswerOutcome::Answered, "{name}");
    Message::from_vec(&out).unwrap()
}

fn answers(name: &str, kind: RecordType) -> Vec<String> {
    let message = ask(name, kind);
    assert_eq!(message.metadata.response_code, Code::NoError, "{name}");
    assert!(message.metadata.authoritative);
    message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
}

#[test]
fn a_service_has_its_cluster_ip_by_name_srv_and_ptr() {
    assert_eq!(answers("web.default.svc.cluster.local.", RecordType::A), ["A 10.96.0.7"]);
    let srv = ask("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV);
    assert_eq!(srv.answers[0].data.to_string(), "0 100 80 web.default.svc.cluster.local.");
    assert_eq!(srv.additionals[0].data.to_string(), "10.96.0.7");
    assert_eq!(answers("7.0.96.10.in-addr.arpa.", RecordType::PTR), ["PTR web.default.svc.cluster.local."]);
}

#[test]
fn a_headless_service_has_all_its_endpoints_and_each_by_name() {
    assert_eq!(answers("mysql.db.svc.cluster.local.", RecordType::A).len(), 40);
    assert_eq!(answers("mysql-1.mysql.db.svc.cluster.local.", RecordType::A), ["A 10.244.1.1"]);
    assert_eq!(answers("10-244-1-9.mysql.db.svc.cluster.local.", RecordType::A), ["A 10.244.1.9"]);
    assert_eq!(answers("_http._tcp.mysql.db.svc.cluster.local.", RecordType::SRV).len(), 40);
    assert_eq!(answers("1.1.244.10.in-addr.arpa.", RecordType::PTR), ["PTR mysql-1.mysql.db.svc.cluster.local."]);
}

#[test]
fn aliases_are_followed_in_the_zone_and_handed_over_at_its_end() {
    assert_eq!(
        answers("alias.default.svc.cluster.local.", RecordType::A),
        ["CNAME web.default.svc.cluster.local.", "A 10.96.0.7"]
    );
    assert_eq!(answers("search.default.svc.cluster.local.", RecordType::CNAME), ["CNAME www.example.org."]);
    let mut out = Vec::new();
    let query = packet("search.default.svc.cluster.local.", RecordType::A);
    let target = Name::parse("www.example.org").unwrap();
    assert_eq!(answer(&query, &zone(), Transport::Udp, 0, &mut out), AnswerOutcome::Chase(target));
    assert_eq!(ask("loop.default.svc.cluster.local.", RecordType::A).metadata.response_code, Code::ServFail);
}

#[test]
fn the_zone_itself_answers_version_ns_and_soa() {
    assert_eq!(answers("dns-version.cluster.local.", RecordType::TXT), ["TXT 1.1.0"]);
    assert_eq!(answers("cluster.local.", RecordType::NS), ["NS ns.dns.cluster.local."]);
    assert_eq!(answers("ns.dns.cluster.local.", RecordType::A), ["A 10.244.1.1"]);
    assert!(answers("cluster.local.", RecordType::SOA)[0].contains("hostmaster.cluster.local. 42"));
}

#[test]
fn a_name_without_such_records_and_a_missing_name_differ() {
    let nothing = [
        ("web.default.svc.cluster.local.", RecordType::AAAA),
        ("default.svc.cluster.local.", RecordType::A),
        ("svc.cluster.local.", RecordType::A),
        ("_tcp.web.default.svc.cluster.local.", RecordType::SRV),
        ("cluster.local.", RecordType::A),
    ];
    let missing = [
        "nope.default.svc.cluster.local.",
        "nope.svc.cluster.local.",
        "x.web.default.svc.cluster.local.",
        "_smtp._tcp.web.default.svc.cluster.local.",
        "_http._udp.web.default.svc.cluster.local.",
        "empty.db.svc.cluster.local.",
        "example.com.cluster.local.",
    ];
    let cases = nothing.map(|(name, kind)| (name, kind, Code::NoError));
    for (name, kind, code) in cases.into_iter().chain(missing.map(|name| (name, RecordType::A, Code::NXDomain))) {
        let message = ask(name, kind);
        assert_eq!(message.metadata.response_code, code, "{name}");
        assert!(message.answers.is_empty(), "{name}");
        assert_eq!(message.authorities[0].record_type(), RecordType::SOA, "{name}");
    }
}

#[test]
fn a_pod_has_its_dashed_address_and_other_addresses_have_none() {
    assert_eq!(answers("10-244-1-9.default.pod.cluster.local.", RecordType::A), ["A 10.244.1.9"]);
    let other = ask("192-168-0-1.default.pod.cluster.local.", RecordType::A);
    assert_eq!(other.metadata.response_code, Code::NXDomain);
}

#[test]
fn the_question_comes_back_in_the_clients_spelling() {
    let mut query = packet("web.default.svc.cluster.local.", RecordType::A);
    query[13..16].copy_from_slice(b"wEb");
    let mut out = Vec::new();
    assert_eq!(answer(&query, &zone(), Transport::Udp, 0, &mut out), AnswerOutcome::Answered);
    assert_eq!(&out[13..16], b"wEb");
    assert_eq!(Message::from_vec(&out).unwrap().answers.len(), 1);
}

#[test]
fn a_large_answer_is_cut_at_512_bytes_without_edns_and_whole_with_it() {
    let mut out = Vec::new();
    let mut query = packet("mysql.db.svc.cluster.local.", RecordType::A);
    assert_eq!(answer(&query, &zone(), Transport::Udp, 0, &mut out), AnswerOutcome::Answered);
    assert!(out.len() <= 512);
    assert!(Message::from_vec(&out).unwrap().metadata.truncation);

    query[11] = 1;
    query.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    assert_eq!(answer(&query, &zone(), Transport::Udp, 0, &mut out), AnswerOutcome::Answered);
    let whole = Message::from_vec(&out).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 40);
    assert!(whole.edns.is_some());
}

#[test]
fn the_order_of_addresses_turns_and_loses_none() {
    let first = |turn| {
        let mut out = Vec::new();
        let query = packet("mysql.db.svc.cluster.local.", RecordType::A);
        assert_eq!(answer(&query, &zone(), Transport::Tcp, turn, &mut out), AnswerOutcome::Answered);
        let mut all: Vec<_> = Message::from_vec(&out).unwrap().answers.iter().map(|a| a.data.to_string()).collect();
        let first = all[0].clone();
        all.sort();
        all.dedup();
        (first, all.len())
    };
    assert_eq!(first(0), ("10.244.1.0".into(), 40));
    assert_eq!(first(41), ("10.244.1.1".into(), 40));
}

#[test]
fn other_names_are_for_other_resolvers() {
    for name in ["example.com.", "cluster.local.example.com.", "xcluster.local.", "1.0.0.8.in-addr.arpa.", "."] {
        let mut out = Vec::new();
        assert_eq!(
            answer(&packet(name, RecordType::A), &zone(), Transport::Udp, 0, &mut out),
            AnswerOutcome::Elsewhere,
            "{name}"
        );
    }
}

#[test]
fn nothing_is_said_of_the_cluster_before_it_is_known() {
    let zone = Zone::new("cluster.local", Ipv4Addr::LOCALHOST).unwrap();
    let mut out = Vec::new();
    let query = packet("web.default.svc.cluster.local.", RecordType::A);
    assert_eq!(answer(&query, &zone, Transport::Udp, 0, &mut out), AnswerOutcome::Answered);
    assert_eq!(Message::from_vec(&out).unwrap().metadata.response_code, Code::ServFail);
}

#[test]
fn a_change_of_the_world_is_followed_and_undone() {
    let mut zone = zone();
    let mut next = world();
    next.services.remove(&fairlead_world::ObjectName::new("default", "web"));
    next.slices.clear();
    zone.update(Arc::new(next));
    let code = |zone: &Zone, name: &str| {
        let mut out = Vec::new();
        answer(&packet(name, RecordType::A), zone, Transport::Tcp, 0, &mut out);
        Message::from_vec(&out).unwrap().metadata.response_code
    };
    assert_eq!(code(&zone, "web.default.svc.cluster.local."), Code::NXDomain);
    assert_eq!(code(&zone, "mysql.db.svc.cluster.local."), Code::NXDomain);
    assert!(!zone.knows_address(Ipv4Addr::new(10, 96, 0, 7)));
    zone.update(Arc::new(World { synced: true, ..World::default() }));
    assert_eq!(code(&zone, "db.svc.cluster.local."), Code::NXDomain);
    zone.update(Arc::new(world()));
    assert_eq!(code(&zone, "web.default.svc.cluster.local."), Code::NoError);
}

proptest! {
    #[test]
    fn no_bytes_whatever_make_it_panic(packet in proptest::collection::vec(any::<u8>(), 0..600), turn in any::<usize>()) {
        let mut out = Vec::new();
        answer(&packet, &zone(), Transport::Udp, turn, &mut out);
    }

    #[test]
    fn a_bent_query_never_makes_it_panic_nor_answer_beyond_its_limit(
        name in "[a-z0-9_.-]{0,40}",
        kind in any::<u16>(),
        bends in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let Ok(name) = HickoryName::from_str(&format!("{name}.mysql.db.svc.cluster.local.")) else { return Ok(()) };
        let mut message = Message::query();
        message.add_query(Question::query(name, RecordType::from(kind)));
        let mut packet = message.to_vec().unwrap();
        for (at, byte) in bends {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        let mut out = Vec::new();
        if answer(&packet, &zone(), Transport::Udp, 0, &mut out) == AnswerOutcome::Answered {
            prop_assert!(out.len() <= 1232);
        }
    }
}

#[test]
fn the_targets_of_a_service_share_its_weight_however_many_they_are() {
    assert_eq!([1, 3, 100, 101, 65_535, 65_536, 1 << 20].map(super::srv_weight), [100, 33, 1, 1, 1, 1, 1]);
}
