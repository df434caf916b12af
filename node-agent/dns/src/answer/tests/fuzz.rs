//! Hostile DNS messages, made of the protocol's own parts: as queries of clients, and as responses of other resolvers.

use std::time::{Duration, Instant};

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{cached_response::CachedResponse, fuzzing::fuzz, response::limit};

#[test]
fn a_query_of_any_parts_gets_a_readable_response_within_its_limit_or_none() {
    let zone = zone();
    fuzz((message(), select(&[Transport::Udp, Transport::Tcp][..]), any::<usize>()), |(packet, transport, turn)| {
        let mut out = vec![0xff; 40];
        if answer(&packet, &zone, transport, turn, &mut out) != AnswerOutcome::Answered {
            return Ok(());
        }
        let edns = query::parse(&packet).ok().and_then(|query| query.edns);
        prop_assert!(out.len() <= limit(edns, transport), "{} bytes to {packet:02x?}", out.len());
        prop_assert_eq!(&out[..2], &packet[..2]);
        let read = Message::from_vec(&out);
        prop_assert!(read.is_ok(), "{:?} of {out:02x?}, the response to {packet:02x?}", read.err());
        Ok(())
    });
}

#[test]
fn a_response_of_any_parts_is_kept_and_given_out_within_the_clients_limit_or_refused() {
    let asked = packet("www.example.org.", RecordType::A);
    fuzz((message(), 0..10_000_u64, select(&[Transport::Udp, Transport::Tcp][..])), |(response, later, transport)| {
        let query = query::parse(&asked).expect("a valid query");
        let now = Instant::now();
        let Some(cached) = CachedResponse::read(&response, query.question.len(), now) else { return Ok(()) };
        let mut out = Vec::new();
        cached.write(&query, now + Duration::from_secs(later), transport, &mut out);
        prop_assert!(out.len() <= limit(query.edns, transport), "{} bytes of {response:02x?}", out.len());
        prop_assert_eq!(&out[..2], &asked[..2]);
        Ok(())
    });
}

/// A header and parts of records in any order, a question first more often than not.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![3 => Just(0x0100_u16), 1 => Just(0x8180), 1 => any::<u16>()];
    let count = || prop_oneof![3 => 0..3_u16, 1 => any::<u16>()];
    let questions = prop_oneof![4 => Just(1_u16), 1 => any::<u16>()];
    let header = (any::<u16>(), flags, questions, count(), count(), count()).prop_map(|(id, flags, a, b, c, d)| {
        [id, flags, a, b, c, d].iter().flat_map(|word| word.to_be_bytes()).collect()
    });
    let question = prop_oneof![
        3 => (name(), any_type(), any_class()).prop_map(|(name, kind, class)| [name, kind, class].concat()),
        1 => vec(any::<u8>(), 0..20),
    ];
    (header, question, vec(part(), 0..12)).prop_map(|(header, question, parts): (Vec<u8>, Vec<u8>, Vec<Vec<u8>>)| {
        [header, question, parts.concat()].concat()
    })
}

/// A whole record, or less than one.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![vec(any::<u8>(), 0..24), name()];
    let length = prop_oneof![4 => Just(None), 1 => any::<u16>().prop_map(Some)];
    let record = (name(), any_type(), any_class(), any::<u32>(), length, data).prop_map(
        |(name, kind, class, ttl, length, data)| {
            let length = length.unwrap_or(data.len() as u16);
            [name, kind, class, ttl.to_be_bytes().to_vec(), length.to_be_bytes().to_vec(), data].concat()
        },
    );
    prop_oneof![4 => record, 1 => name(), 1 => vec(any::<u8>(), 1..6)]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: &[&str] = &[
        "web.default.svc.cluster.local",
        "_tcp._tcp.web.default.svc.cluster.local",
        "mysql.db.svc.cluster.local",
        "7.0.96.10.in-addr.arpa",
        "alias.default.svc.cluster.local",
        "loop.default.svc.cluster.local",
        "www.example.org",
        "dns-version.cluster.local",
        "",
    ];
    let known = select(NAMES).prop_map(|name| {
        let labels = name.split('.').filter(|label| !label.is_empty());
        let wire = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        wire.chain([0]).collect::<Vec<u8>>()
    });
    let label = || (0..=255_u8, vec(any::<u8>(), 0..8)).prop_map(|(length, bytes)| [vec![length], bytes].concat());
    let pointer = (0xc0..=0xff_u8, any::<u8>()).prop_map(|(high, low)| vec![high, low]);
    prop_oneof![
        5 => known,
        1 => Just(vec![0]),
        1 => pointer,
        1 => vec(label(), 0..5).prop_map(|labels| labels.concat()),
        1 => Just([&[63][..], &[b'a'; 63]].concat().repeat(4)),
    ]
}

fn any_type() -> impl Strategy<Value = Vec<u8>> {
    let known = select(&[1_u16, 2, 5, 6, 12, 16, 28, 33, 41, 251, 252, 255][..]);
    prop_oneof![4 => known, 1 => any::<u16>()].prop_map(|kind: u16| kind.to_be_bytes().to_vec())
}

fn any_class() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => Just(1_u16), 1 => Just(255), 1 => any::<u16>()].prop_map(|class: u16| class.to_be_bytes().to_vec())
}
