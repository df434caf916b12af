//! A response being written: header, question, sections, and the limit that the client's transport sets.

use super::{
    query::{
        Edns, FLAG_AUTHORITATIVE, FLAG_CHECKING_DISABLED, FLAG_RECURSION_AVAILABLE, FLAG_RECURSION_DESIRED,
        FLAG_RESPONSE, FLAG_TRUNCATED, HEADER_LEN, Query, ResponseCode, TYPE_OPT,
    },
    record::A_LEN,
};

/// How a response travels, which limits its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// What does not fit is cut, and the client told to come back over TCP.
    Udp,
    /// Up to 64 KiB.
    Tcp,
}

/// Largest response to `edns` over `transport`, in bytes.
pub fn limit(edns: Option<Edns>, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => edns.map_or(MIN_UDP, |edns| usize::from(edns.udp_size).min(MAX_UDP)),
    }
}

/// Writes into a buffer that [`Response::start`] clears; [`Response::finish`] completes the header.
pub struct Response<'o> {
    out: &'o mut Vec<u8>,
    /// End of the records, in bytes: the limit less the OPT record.
    limit: usize,
    id: u16,
    flags: u16,
    edns: Option<Edns>,
    counts: [u16; 3],
}

impl<'o> Response<'o> {
    /// Begins the response to `query` in `out`, which is cleared.
    pub fn start(query: &Query<'_>, transport: Transport, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER_LEN]);
        out.extend_from_slice(query.question);
        let copied = query.flags & (FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED);
        let flags = FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | copied;
        let opt = if query.edns.is_some() { OPT_LEN } else { 0 };
        Self { out, limit: limit(query.edns, transport) - opt, id: query.id, flags, edns: query.edns, counts: [0; 3] }
    }

    /// A header alone, for a packet whose question cannot be read. `packet` holds at least a header.
    pub fn refuse(packet: &[u8], code: ResponseCode, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(packet.get(..2).unwrap_or(&[0, 0]));
        let opcode = packet.get(2).map_or(0, |flags| flags & 0x79);
        out.extend_from_slice(&[0x80 | opcode, code as u8, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    /// Marks the response as the zone's own.
    pub fn set_authoritative(&mut self) {
        self.flags |= FLAG_AUTHORITATIVE;
    }

    /// Where the next record will start, in bytes from the start of the message.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// Adds one record to the answer section.
    pub fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.push(0, write) {
            self.flags |= FLAG_TRUNCATED;
        }
    }

    /// Adds one record to the authority section.
    pub fn authority(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.push(1, write);
    }

    /// Additional records are only a convenience: one that does not fit is left out (RFC 2181, section 9).
    pub fn additional(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.push(2, write);
    }

    /// Prepared A records ([`super::record::a_behind_question`]), beginning with the `turn`th; owned by `owner`, a
    /// compression pointer, or else by the question's name.
    pub fn addresses(&mut self, prepared: &[u8], owner: Option<[u8; 2]>, turn: usize) {
        let count = prepared.len() / A_LEN;
        let fitting = count.min(self.limit.saturating_sub(self.out.len()) / A_LEN);
        let start = turn.checked_rem(count).unwrap_or(0) * A_LEN;
        let from = self.out.len();
        let (before, after) = prepared.split_at(start);
        let first = after.len().min(fitting * A_LEN);
        self.out.extend_from_slice(&after[..first]);
        self.out.extend_from_slice(&before[..fitting * A_LEN - first]);
        if let Some(owner) = owner {
            self.out[from..].chunks_exact_mut(A_LEN).for_each(|record| record[..2].copy_from_slice(&owner));
        }
        self.counts[0] += fitting as u16;
        if fitting < count {
            self.flags |= FLAG_TRUNCATED;
        }
    }

    /// Tells a UDP client to come back over TCP.
    pub fn set_truncated(&mut self) {
        self.flags |= FLAG_TRUNCATED;
    }

    /// Completes the message as SERVFAIL; a client with EDNS is told `reason` (RFC 8914, code 23: network error).
    pub fn fail(mut self, reason: &str) {
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON)];
        if let Some(edns) = self.edns.take() {
            let mut option = [15, reason.len() as u16 + 2, 23].map(u16::to_be_bytes).concat();
            option.extend_from_slice(reason);
            opt(self.out, edns.dnssec_ok, 0, &option);
            self.counts[2] += 1;
        }
        self.finish(ResponseCode::ServFail);
    }

    /// Completes the message. Codes above 15 need the client's EDNS, as only it can cause them.
    pub fn finish(self, code: ResponseCode) {
        let code = code as u16;
        let mut additionals = self.counts[2];
        if let Some(edns) = self.edns {
            opt(self.out, edns.dnssec_ok, (code >> 4) as u8, &[]);
            additionals += 1;
        }
        let flags = self.flags | (code & 0x0f);
        let header = [self.id, flags, 1, self.counts[0], self.counts[1], additionals];
        for (place, word) in self.out.chunks_exact_mut(2).zip(header) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }

    fn push(&mut self, section: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mark = self.out.len();
        write(self.out);
        if self.out.len() > self.limit {
            self.out.truncate(mark);
            return false;
        }
        self.counts[section] += 1;
        true
    }
}

/// An OPT record (RFC 6891, section 6.1.2) with `options` as they are on the wire.
pub fn opt(out: &mut Vec<u8>, dnssec_ok: bool, extended_code: u8, options: &[u8]) {
    out.push(0);
    out.extend_from_slice(&TYPE_OPT.to_be_bytes());
    out.extend_from_slice(&(MAX_UDP as u16).to_be_bytes());
    out.extend_from_slice(&[extended_code, 0, if dnssec_ok { 0x80 } else { 0 }, 0]);
    out.extend_from_slice(&(options.len() as u16).to_be_bytes());
    out.extend_from_slice(options);
}

/// Bytes of a reason given to clients.
const MAX_REASON: usize = 200;

/// Without EDNS (RFC 1035, section 4.2.1).
const MIN_UDP: usize = 512;

/// Fits an IPv6 packet anywhere without fragments (the DNS flag day's value).
pub const MAX_UDP: usize = 1232;

/// Bytes of an OPT record without options.
pub const OPT_LEN: usize = 11;
