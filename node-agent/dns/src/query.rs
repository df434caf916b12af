//! A query as it came in, checked and located but not copied (RFC 1035, section 4; EDNS: RFC 6891).

use super::{name, name::Name, response};

/// Record type A.
pub const TYPE_A: u16 = 1;
/// Record type NS.
pub const TYPE_NS: u16 = 2;
/// Record type CNAME.
pub const TYPE_CNAME: u16 = 5;
/// Record type SOA.
pub const TYPE_SOA: u16 = 6;
/// Record type PTR.
pub const TYPE_PTR: u16 = 12;
/// Record type TXT.
pub const TYPE_TXT: u16 = 16;
/// Record type SRV (RFC 2782).
pub const TYPE_SRV: u16 = 33;
/// Record type OPT (RFC 6891).
pub const TYPE_OPT: u16 = 41;
/// Record type IXFR (RFC 1995).
pub const TYPE_IXFR: u16 = 251;
/// Record type AXFR.
pub const TYPE_AXFR: u16 = 252;
/// Record type `*`, any type.
pub const TYPE_ANY: u16 = 255;
/// Class IN, the Internet.
pub const CLASS_IN: u16 = 1;
/// Any class, in queries only.
pub const CLASS_ANY: u16 = 255;

/// Bytes of the header.
pub const HEADER_LEN: usize = 12;
/// QR: a response.
pub const FLAG_RESPONSE: u16 = 0x8000;
/// AA: from the authority of the name.
pub const FLAG_AUTHORITATIVE: u16 = 0x0400;
/// TC: more than the transport takes.
pub const FLAG_TRUNCATED: u16 = 0x0200;
/// RD: the client wants recursion.
pub const FLAG_RECURSION_DESIRED: u16 = 0x0100;
/// RA: recursion is offered.
pub const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
/// CD: no DNSSEC validation (RFC 4035).
pub const FLAG_CHECKING_DISABLED: u16 = 0x0010;

/// A query for the SOA of `zone`, as any client would send it. `None` where that is no domain name.
pub fn soa_query(id: u16, zone: &str) -> Option<Vec<u8>> {
    let name = Name::parse(zone)?;
    // One question, nothing else.
    let header = [id, FLAG_RECURSION_DESIRED, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    Some([&header, name.wire(), &TYPE_SOA.to_be_bytes(), &CLASS_IN.to_be_bytes()].concat())
}

/// Response codes (RFC 1035, 6891); above 15 they need EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// The name exists, with or without records of the type.
    NoError = 0,
    /// The query could not be read.
    FormErr = 1,
    /// No resolver answered.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// An opcode that this server does not know.
    NotImp = 4,
    /// A zone transfer, a class other than the Internet's, or a foreign name asked for without recursion.
    Refused = 5,
    /// An EDNS version that this server does not know.
    BadVers = 16,
}

/// What the client says in its OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP answer the client takes, in bytes; at least 512.
    pub udp_size: u16,
    /// 0 is the only one there is; others are answered with BADVERS (RFC 6891).
    pub version: u8,
    /// The DO bit: the client wants DNSSEC records.
    pub dnssec_ok: bool,
}

/// One question and how to answer it.
#[derive(Debug)]
pub struct Query<'a> {
    /// The client's own number of the query, repeated in the answer.
    pub id: u16,
    /// The header's second word, host order (RFC 1035, section 4.1.1).
    pub flags: u16,
    /// Name, type and class as they came: copied to the answer with the client's own spelling (0x20).
    pub question: &'a [u8],
    /// Record type asked for, host order.
    pub qtype: u16,
    /// 1 is the Internet, the only class with records here.
    pub qclass: u16,
    /// `None` for a client of RFC 1035 alone, whose UDP answers end at 512 bytes.
    pub edns: Option<Edns>,
    lower: [u8; name::MAX_LEN],
    lower_len: usize,
}

impl Query<'_> {
    /// The queried name in wire form, lower case.
    pub fn name(&self) -> &[u8] {
        &self.lower[..self.lower_len]
    }

    /// The same question as a query to another resolver: recursion wanted, our own EDNS, nothing else of the client's.
    pub fn for_upstream(&self, id: u16) -> Vec<u8> {
        self.packet(id, self.question)
    }

    /// This query, asking for `name` instead.
    pub fn about(&self, name: &Name) -> Vec<u8> {
        let kind_and_class = &self.question[self.question.len() - 4..];
        self.packet(self.id, &[name.wire(), kind_and_class].concat())
    }

    fn packet(&self, id: u16, question: &[u8]) -> Vec<u8> {
        let flags = FLAG_RECURSION_DESIRED | self.flags & FLAG_CHECKING_DISABLED;
        let mut packet = [id, flags, 1, 0, 0, 1].map(u16::to_be_bytes).concat();
        packet.extend_from_slice(question);
        response::opt(&mut packet, self.edns.is_some_and(|edns| edns.dnssec_ok), 0, &[]);
        packet
    }
}

/// Why a packet is no query that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// Too short for a header, or itself a response: answering it could start a loop.
    Drop,
    /// Answered by the header alone.
    Refuse(ResponseCode),
}

/// Reads the one question and the OPT record of `packet`. Never panics, whatever the bytes.
pub fn parse(packet: &[u8]) -> Result<Query<'_>, Unanswerable> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let header = |at| word(at).ok_or(Unanswerable::Drop);
    let (id, flags) = (header(0)?, header(2)?);
    let (questions, answers, authorities, additionals) = (header(4)?, header(6)?, header(8)?, header(10)?);
    if flags & FLAG_RESPONSE != 0 {
        return Err(Unanswerable::Drop);
    }
    if flags & OPCODE_MASK != 0 {
        return Err(Unanswerable::Refuse(ResponseCode::NotImp));
    }
    let malformed = Unanswerable::Refuse(ResponseCode::FormErr);
    if questions != 1 || answers != 0 || authorities != 0 {
        return Err(malformed);
    }
    let mut lower = [0; name::MAX_LEN];
    let name_len = lowered_name(&packet[HEADER_LEN..], &mut lower).ok_or(malformed)?;
    let name_end = HEADER_LEN + name_len;
    let (qtype, qclass) = (word(name_end).ok_or(malformed)?, word(name_end + 2).ok_or(malformed)?);
    let question_end = name_end + 4;
    let edns = opt_record(&packet[question_end..], additionals).map_err(|()| malformed)?;
    let question = &packet[HEADER_LEN..question_end];
    Ok(Query { id, flags, question, qtype, qclass, edns, lower, lower_len: name_len })
}

/// Copies the name at the start of `bytes` in lower case; its length. Compression has nothing to point at in a
/// question.
fn lowered_name(bytes: &[u8], lower: &mut [u8; name::MAX_LEN]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length > 63 || at + 1 + length > name::MAX_LEN {
            return None;
        }
        let label = bytes.get(at..at + 1 + length)?;
        for (to, from) in lower[at..].iter_mut().zip(label) {
            *to = from.to_ascii_lowercase();
        }
        at += 1 + length;
        if length == 0 {
            return Some(at);
        }
    }
}

/// The OPT record among the additional records; more than one is an error (RFC 6891, section 6.1.1).
fn opt_record(mut bytes: &[u8], additionals: u16) -> Result<Option<Edns>, ()> {
    let mut found = None;
    for _ in 0..additionals {
        let name_len = skipped_name(bytes).ok_or(())?;
        let fixed: &[u8; 10] = bytes[name_len..].first_chunk().ok_or(())?;
        let [t0, t1, c0, c1, _, version, z0, _, l0, l1] = *fixed;
        if u16::from_be_bytes([t0, t1]) == TYPE_OPT {
            if found.is_some() || name_len != 1 {
                return Err(());
            }
            let udp_size = u16::from_be_bytes([c0, c1]).max(512);
            found = Some(Edns { udp_size, version, dnssec_ok: z0 & 0x80 != 0 });
        }
        let record_len = name_len + 10 + usize::from(u16::from_be_bytes([l0, l1]));
        bytes = bytes.get(record_len..).ok_or(())?;
    }
    Ok(found)
}

/// Length of the name at the start of `bytes` as it stands there, a compression pointer ending it.
pub fn skipped_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

const OPCODE_MASK: u16 = 0x7800;

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x03WeB\x01x\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";

    #[test]
    fn the_question_keeps_its_spelling_and_the_name_is_lowered() {
        let query = parse(QUERY).unwrap();
        assert_eq!((query.id, query.qtype, query.qclass), (0x1234, TYPE_A, CLASS_IN));
        assert_eq!(query.name(), b"\x03web\x01x\0");
        assert_eq!(query.question, b"\x03WeB\x01x\0\0\x01\0\x01");
        assert_eq!(query.edns, Some(Edns { udp_size: 1232, version: 0, dnssec_ok: true }));
    }

    #[test]
    fn every_cut_of_a_query_is_refused_or_dropped() {
        for end in 0..QUERY.len() {
            assert!(parse(&QUERY[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn responses_are_dropped_and_other_opcodes_not_implemented() {
        let mut response = QUERY.to_vec();
        response[2] |= 0x80;
        assert_eq!(parse(&response).unwrap_err(), Unanswerable::Drop);
        let mut notify = QUERY.to_vec();
        notify[2] |= 0x20;
        assert_eq!(parse(&notify).unwrap_err(), Unanswerable::Refuse(ResponseCode::NotImp));
    }

    #[test]
    fn a_name_over_255_bytes_and_a_pointer_are_malformed() {
        let mut long = QUERY[..12].to_vec();
        for _ in 0..5 {
            long.push(63);
            long.extend([b'x'; 63]);
        }
        long.extend(b"\0\0\x01\0\x01");
        assert_eq!(parse(&long).unwrap_err(), Unanswerable::Refuse(ResponseCode::FormErr));
        let pointer = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01";
        assert_eq!(parse(pointer).unwrap_err(), Unanswerable::Refuse(ResponseCode::FormErr));
    }
}
