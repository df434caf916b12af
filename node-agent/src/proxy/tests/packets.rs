//! Hostile packets through the packet hooks, by BPF_PROG_TEST_RUN: every one gets a verdict, and what is let through
//! has checksums that are as right as they came.

use std::net::Ipv4Addr;

use aya::{
    maps::MapInfo,
    programs::{SchedClassifier, TestRun, TestRunOptions, loaded_programs},
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    node::{BACKEND_PORT, NODE_IP, Node, node_port_service},
    two_nodes::{EXTERNAL, OTHER_NODE, OTHER_POD, STRANGER, TwoNodes, there},
};
use crate::{fuzzing::fuzz, world::Service};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 30);
/// TC_ACT_UNSPEC, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_REDIRECT.
const VERDICTS: [i32; 4] = [-1, 0, 2, 7];
const DROPPED: i32 = 2;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ETHERNET: usize = 14;
/// A test run takes no frame without a whole IPv4 header: shorter ones never meet a program.
const SHORTEST: usize = ETHERNET + 20;

#[test]
fn every_packet_gets_a_verdict_and_keeps_its_checksums() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.start();
    let here = nodes.here();
    let service = Service { external_ips: vec![EXTERNAL], ..node_port_service("web", SERVICE, 30080) };
    nodes.node.serve(service, [here, there()]);
    let host = nodes.node.host.clone();
    let hooks = ["uplink_ingress", "uplink_egress"].map(|name| hook(&nodes.node, name));
    // On a thread inside, since a test run takes the namespace of its caller.
    host.run(move || {
        fuzz(vec((any::<bool>(), packet()), 1..5), |packets| {
            for (outwards, packet) in packets {
                let frame = packet.frame();
                let (verdict, out) = run(&hooks[usize::from(outwards)], &frame).map_err(TestCaseError::fail)?;
                prop_assert!(VERDICTS.contains(&verdict), "{packet:?}: verdict {verdict}");
                if verdict != DROPPED && checksums_hold(&frame) {
                    prop_assert!(checksums_hold(&out), "{packet:?} became {out:02x?}");
                }
            }
            Ok(())
        });
    });
}

/// The loaded program `name` of this node: the one that uses its maps.
fn hook(node: &Node, name: &'static str) -> SchedClassifier {
    let flows = MapInfo::from_pin(node.pinned_map("FLOWS")).unwrap().id();
    let of_this_node = |maps: Option<Vec<u32>>| maps.is_some_and(|maps| maps.contains(&flows));
    let program = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.name_as_str() == Some(name) && program.map_ids().is_ok_and(of_this_node))
        .unwrap_or_else(|| panic!("{name} is not loaded"));
    SchedClassifier::from_program_info(program, name.into()).unwrap()
}

fn run(program: &SchedClassifier, frame: &[u8]) -> Result<(i32, Vec<u8>), String> {
    let mut out = vec![0; 4096];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    let result = program.test_run(options).map_err(|error| format!("{frame:02x?}: {error:?}"))?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value as i32, out))
}

/// A packet in an Ethernet frame, valid but for its damage.
#[derive(Clone, Debug)]
struct TestPacket {
    header: Header,
    /// Of an ICMP error: the packet that it is about.
    quoted: Header,
    kind: u8,
    payload: Vec<u8>,
    damage: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
}

#[derive(Clone, Debug)]
struct Header {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    protocol: u8,
    /// Options, in words of four bytes.
    options: u8,
    fragment: u16,
    ttl: u8,
    tcp_flags: u8,
}

fn header() -> impl Strategy<Value = Header> {
    const ADDRESSES: &[Ipv4Addr] = &[
        NODE_IP,
        SERVICE,
        EXTERNAL,
        STRANGER,
        OTHER_NODE,
        OTHER_POD,
        Ipv4Addr::new(10, 244, 0, 2),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::UNSPECIFIED,
    ];
    const PORTS: &[u16] = &[30080, 30081, 80, 53, BACKEND_PORT, 40000, 40001, 0, 65535];
    let end = || (select(ADDRESSES), select(PORTS));
    let fragment = prop_oneof![6 => Just(0_u16), 1 => Just(0x4000), 1 => Just(0x2000), 1 => any::<u16>()];
    let protocol = prop_oneof![4 => Just(TCP), 4 => Just(UDP), 3 => Just(ICMP), 1 => any::<u8>()];
    let options = prop_oneof![4 => Just(0_u8), 1 => 0..=10_u8];
    (end(), end(), protocol, options, fragment, any::<u8>(), any::<u8>()).prop_map(
        |(source, destination, protocol, options, fragment, ttl, tcp_flags)| Header {
            source,
            destination,
            protocol,
            options,
            fragment,
            ttl,
            tcp_flags,
        },
    )
}

fn packet() -> impl Strategy<Value = TestPacket> {
    let damage = prop_oneof![3 => Just(Vec::new()), 1 => vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)];
    let cut = prop_oneof![4 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (header(), header(), select(&[3_u8, 11, 12, 0, 8][..]), vec(any::<u8>(), 0..64), damage, cut).prop_map(
        |(header, quoted, kind, payload, damage, cut)| TestPacket { header, quoted, kind, payload, damage, cut },
    )
}

impl TestPacket {
    fn frame(&self) -> Vec<u8> {
        let body = match self.header.protocol {
            ICMP => {
                let quoted = self.quoted.packet(&self.quoted.transport(&self.payload));
                let mut icmp = [&[self.kind, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
                let sum = checksum(&[&icmp]);
                icmp[2..4].copy_from_slice(&sum);
                icmp
            }
            _ => self.header.transport(&self.payload),
        };
        let mut frame = [&[2; 12][..], &[8, 0], &self.header.packet(&body)].concat();
        for (at, byte) in &self.damage {
            // Behind the Ethernet header, since frames of other protocols pass unread.
            let at = ETHERNET + at.index(frame.len() - ETHERNET);
            frame[at] = *byte;
        }
        if let Some(cut) = self.cut {
            frame.truncate(SHORTEST + cut.index(frame.len() - SHORTEST + 1));
        }
        frame
    }
}

impl Header {
    fn packet(&self, body: &[u8]) -> Vec<u8> {
        let words = 5 + self.options;
        let length = (usize::from(words) * 4 + body.len()) as u16;
        let mut header = vec![0x40 | words, 0];
        header.extend(length.to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.source.0.octets());
        header.extend(self.destination.0.octets());
        // No operation, RFC 791.
        header.resize(usize::from(words) * 4, 1);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum);
        header.extend(body);
        header
    }

    /// A TCP segment, a UDP datagram, or `payload` as it is.
    fn transport(&self, payload: &[u8]) -> Vec<u8> {
        let ports = [self.source.1.to_be_bytes(), self.destination.1.to_be_bytes()].concat();
        let (mut bytes, at) = match self.protocol {
            TCP => ([&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.tcp_flags, 4, 0, 0, 0, 0, 0]].concat(), 16),
            UDP => ([&ports[..], &((8 + payload.len()) as u16).to_be_bytes(), &[0, 0]].concat(), 6),
            _ => return payload.to_vec(),
        };
        bytes.extend(payload);
        let sum = match checksum(&[&self.pseudo_header(bytes.len()), &bytes]) {
            [0, 0] if self.protocol == UDP => [0xff, 0xff],
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum);
        bytes
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let (source, destination) = (self.source.0.octets(), self.destination.0.octets());
        [&source[..], &destination, &[0, self.protocol], &(length as u16).to_be_bytes()].concat()
    }
}

/// The Internet checksum of `parts`, each of which but the last has an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// Whether a frame holds a whole IPv4 packet whose checksums are right.
fn checksums_hold(frame: &[u8]) -> bool {
    let holds = || -> Option<bool> {
        let packet = frame.get(ETHERNET..).filter(|_| frame[12..ETHERNET] == [8, 0])?;
        let words = usize::from(packet.first()? & 15);
        let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let (header, body) = packet.get(..length)?.split_at_checked(words * 4)?;
        let whole = packet.first()? >> 4 == 4 && words >= 5 && header[6] & 0x3f == 0 && header[7] == 0;
        if !whole || checksum(&[header]) != [0, 0] {
            return Some(false);
        }
        let pseudo = [&header[12..20], &[0, header[9]], &(body.len() as u16).to_be_bytes()].concat();
        Some(match header[9] {
            ICMP => checksum(&[body]) == [0, 0],
            TCP => body.len() >= 20 && checksum(&[&pseudo, body]) == [0, 0],
            UDP => body.len() >= 8 && (body[6..8] == [0, 0] || checksum(&[&pseudo, body]) == [0, 0]),
            _ => true,
        })
    };
    holds().unwrap_or(false)
}
