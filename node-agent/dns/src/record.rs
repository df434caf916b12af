//! Resource records in wire form, and the time they live.

use std::net::Ipv4Addr;

use super::{
    name::Name,
    query::{CLASS_IN, TYPE_A, TYPE_CNAME, TYPE_NS, TYPE_PTR, TYPE_SOA, TYPE_SRV, TYPE_TXT},
};

/// Seconds a client may keep an answer about the cluster: short, for it is answered on the client's own node.
pub const TTL: u32 = 5;

/// Bytes of one A record whose owner is a pointer to the question.
pub const A_LEN: usize = 16;

/// A records, each [`A_LEN`] bytes, owned by whatever name the question has: the pointer `c0 0c` names it.
pub fn a_behind_question(addresses: &[Ipv4Addr]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(addresses.len() * A_LEN);
    for address in addresses {
        a(&mut bytes, QUESTION, *address);
    }
    bytes.into()
}

/// What [`a_behind_question`] was made of.
pub fn addresses(prepared: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    prepared.chunks_exact(A_LEN).filter_map(|record| record.last_chunk::<4>()).map(|octets| Ipv4Addr::from(*octets))
}

/// Owner "the name in the question".
pub const QUESTION: &[u8] = &[0xc0, 0x0c];

/// An A record.
pub fn a(out: &mut Vec<u8>, owner: &[u8], address: Ipv4Addr) {
    record(out, owner, TYPE_A, &[&address.octets()]);
}

/// RFC 2782: the target must not be compressed.
pub fn srv(out: &mut Vec<u8>, owner: &[u8], weight: u16, port: u16, target: &Name) {
    record(out, owner, TYPE_SRV, &[&[0, 0], &weight.to_be_bytes(), &port.to_be_bytes(), target.wire()]);
}

/// A PTR record.
pub fn ptr(out: &mut Vec<u8>, owner: &[u8], target: &Name) {
    record(out, owner, TYPE_PTR, &[target.wire()]);
}

/// A CNAME record.
pub fn cname(out: &mut Vec<u8>, owner: &[u8], target: &Name) {
    record(out, owner, TYPE_CNAME, &[target.wire()]);
}

/// An NS record.
pub fn ns(out: &mut Vec<u8>, owner: &[u8], host: &Name) {
    record(out, owner, TYPE_NS, &[host.wire()]);
}

/// `text` of at most 255 bytes.
pub fn txt(out: &mut Vec<u8>, owner: &[u8], text: &str) {
    record(out, owner, TYPE_TXT, &[&[text.len() as u8], text.as_bytes()]);
}

/// The zone's SOA; its last field bounds how long a client may believe that a name is not there (RFC 2308).
pub fn soa(out: &mut Vec<u8>, origin: &Name, primary: &Name, contact: &Name, serial: u32) {
    let timers = [serial, 7200, 1800, 86400, TTL].map(u32::to_be_bytes).concat();
    record(out, origin.wire(), TYPE_SOA, &[primary.wire(), contact.wire(), &timers]);
}

fn record(out: &mut Vec<u8>, owner: &[u8], kind: u16, data: &[&[u8]]) {
    let length: usize = data.iter().map(|part| part.len()).sum();
    out.extend_from_slice(owner);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&TTL.to_be_bytes());
    out.extend_from_slice(&(length as u16).to_be_bytes());
    for part in data {
        out.extend_from_slice(part);
    }
}
