//! A response of another resolver, kept so that it can be given to any client that asks the same: ID, spelling of the
//! question, times to live and EDNS are each client's own.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    query::{
        Edns, FLAG_CHECKING_DISABLED, FLAG_RECURSION_AVAILABLE, FLAG_RECURSION_DESIRED, FLAG_RESPONSE, FLAG_TRUNCATED,
        HEADER_LEN, Query, TYPE_OPT, TYPE_SOA, skipped_name,
    },
    response::{OPT_LEN, Transport, limit, opt},
};

/// One response as it came, with the places of its TTLs.
#[derive(Debug, PartialEq, Eq)]
pub struct CachedResponse {
    /// The response code and the bit "authenticated data".
    flags: u16,
    counts: [u16; 3],
    /// All records but OPT. Their compression pointers hold as long as the question before them is as long as it was.
    records: Box<[u8]>,
    question_len: usize,
    /// Where times to live are in `records`.
    ttls: Box<[u16]>,
    /// How long it may be given out, from `stored`.
    lifetime: Duration,
    stored: Instant,
}

impl CachedResponse {
    /// Reads `response` to the question of `question_len` bytes that it carries. `None` for what cannot be kept:
    /// malformed, cut short, or in an order that does not allow OPT to be taken out.
    pub fn read(response: &[u8], question_len: usize, now: Instant) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*response.get(at)?, *response.get(at + 1)?]));
        let flags = word(2)?;
        if flags & FLAG_TRUNCATED != 0 {
            return None;
        }
        let mut counts = [word(6)?, word(8)?, word(10)?];
        let start = HEADER_LEN + question_len;
        let (mut at, mut end) = (start, None);
        let (mut ttls, mut shortest, mut negative) = (Vec::new(), u32::MAX, None);
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                if end.is_some() {
                    return None;
                }
                let fixed = at + skipped_name(response.get(at..)?)?;
                let (kind, data_len) = (word(fixed)?, usize::from(word(fixed + 8)?));
                let ttl = u32::from_be_bytes(*response.get(fixed + 4..)?.first_chunk()?);
                let next = fixed + 10 + data_len;
                let data = response.get(fixed + 10..next)?;
                if kind == TYPE_OPT {
                    if section != ADDITIONAL {
                        return None;
                    }
                    end = Some(at);
                } else {
                    ttls.push((fixed + 4 - start) as u16);
                    shortest = if section == 0 { shortest.min(ttl) } else { shortest };
                }
                if kind == TYPE_SOA && section == 1 {
                    let minimum = data.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
                    negative = minimum.map(|minimum| ttl.min(minimum));
                }
                at = next;
            }
        }
        if end.is_some() {
            counts[2] -= 1;
        }
        let lifetime = match counts[0] {
            0 => negative.unwrap_or(0).clamp(MIN_TTL, MAX_NEGATIVE_TTL),
            _ => shortest.clamp(MIN_TTL, MAX_TTL),
        };
        Some(Self {
            flags: flags & (0x000f | FLAG_AUTHENTICATED),
            counts,
            records: response.get(start..end.unwrap_or(at))?.into(),
            question_len,
            ttls: ttls.into(),
            lifetime: Duration::from_secs(lifetime.into()),
            stored: now,
        })
    }

    /// About what it takes of memory, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.records.len() + size_of_val(&*self.ttls)
    }

    /// RCODE, 0 to 15.
    pub fn code(&self) -> u16 {
        self.flags & 0x000f
    }

    /// Whether its TTL has not run out at `now`.
    pub fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.stored) < self.lifetime
    }

    /// Whether it is old, but may be given where nothing newer can be had (RFC 8767).
    pub fn is_usable_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.stored) < self.lifetime.saturating_add(MAX_STALE)
    }

    /// Whether it expires soon, and should be refreshed before the next client has to wait.
    pub fn is_nearly_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.stored) > self.lifetime * 9 / 10
    }

    /// Writes it as the response to `query`, whose question must be the one it was the response to.
    pub fn write(&self, query: &Query<'_>, now: Instant, transport: Transport, out: &mut Vec<u8>) {
        let age = now.saturating_duration_since(self.stored);
        let stale = age >= self.lifetime;
        let age = age.as_secs() as u32;
        let mut flags = self.flags | FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE;
        flags |= query.flags & (FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED);
        let opt_len = if query.edns.is_some() { OPT_LEN } else { 0 };
        let whole = HEADER_LEN + self.question_len + self.records.len() + opt_len;
        let mut counts = self.counts;
        let mut records: Range<usize> = 0..self.records.len();
        if whole > limit(query.edns, transport) || query.question.len() != self.question_len {
            flags |= FLAG_TRUNCATED;
            (counts, records) = ([0; 3], 0..0);
        }
        out.clear();
        let additionals = counts[2] + u16::from(query.edns.is_some());
        for word in [query.id, flags, 1, counts[0], counts[1], additionals] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(query.question);
        let start = out.len();
        out.extend_from_slice(&self.records[records.clone()]);
        if !records.is_empty() {
            for at in &self.ttls {
                let place = &mut out[start + usize::from(*at)..][..4];
                let ttl = u32::from_be_bytes([place[0], place[1], place[2], place[3]]).min(MAX_TTL);
                let left = if stale { STALE_TTL } else { ttl.saturating_sub(age) };
                place.copy_from_slice(&left.to_be_bytes());
            }
        }
        if let Some(Edns { dnssec_ok, .. }) = query.edns {
            opt(out, dnssec_ok, 0, &[]);
        }
    }
}

const FLAG_AUTHENTICATED: u16 = 0x0020;

/// The place of the additional section among the three that hold records.
const ADDITIONAL: usize = 2;
/// Bounds of what is kept, in seconds. A TTL of 0 is not repeated to a second client, but concurrent ones share it.
const MIN_TTL: u32 = 1;
const MAX_TTL: u32 = 3600;
const MAX_NEGATIVE_TTL: u32 = 300;

/// TTL of a stale response (RFC 8767, section 4), in seconds.
const STALE_TTL: u32 = 30;
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, str::FromStr};

    use hickory_proto::{
        op::{Message, MessageType, Query as Question},
        rr::{Name, RData, Record, RecordType, rdata::A},
    };
    use proptest::prelude::*;

    use super::{super::query, *};

    fn exchange(edns: bool) -> (Vec<u8>, Vec<u8>) {
        let name = Name::from_str("www.example.org.").unwrap();
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Question::query(name.clone(), RecordType::A));
        let query = message.to_vec().unwrap();
        message.metadata.message_type = MessageType::Response;
        message.add_answer(Record::from_rdata(name, 300, RData::A(A(Ipv4Addr::new(1, 2, 3, 4)))));
        if edns {
            message.set_edns(hickory_proto::op::Edns::new());
        }
        (query, message.to_vec().unwrap())
    }

    fn given(cached: &CachedResponse, packet: &[u8], now: Instant) -> Message {
        let mut out = Vec::new();
        cached.write(&query::parse(packet).unwrap(), now, Transport::Udp, &mut out);
        Message::from_vec(&out).unwrap()
    }

    #[test]
    fn time_passes_in_the_cache_and_edns_is_each_clients_own() {
        let (packet, response) = exchange(true);
        let question_len = query::parse(&packet).unwrap().question.len();
        let stored = Instant::now();
        let cached = CachedResponse::read(&response, question_len, stored).unwrap();
        let later = given(&cached, &packet, stored + Duration::from_secs(100));
        assert_eq!(later.answers[0].ttl, 200);
        assert!(later.edns.is_none());
        let over = stored + Duration::from_secs(301);
        assert!(!cached.is_fresh(over) && cached.is_usable_stale(over));
        assert_eq!(given(&cached, &packet, over).answers[0].ttl, 30);
    }

    /// RFC 6891, section 6.1.1.
    #[test]
    fn an_opt_record_outside_the_additional_section_is_malformed() {
        let (packet, mut response) = exchange(true);
        let question_len = query::parse(&packet).unwrap().question.len();
        assert!(CachedResponse::read(&response, question_len, Instant::now()).is_some());
        // From the additional section's count to the authority section's.
        (response[9], response[11]) = (1, 0);
        assert_eq!(CachedResponse::read(&response, question_len, Instant::now()), None);
    }

    proptest! {
        #[test]
        fn a_bent_response_never_makes_it_panic(bends in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
            let (packet, mut response) = exchange(true);
            for (at, byte) in bends {
                let at = at.index(response.len());
                response[at] = byte;
            }
            response.truncate(cut.index(response.len() + 1));
            let query = query::parse(&packet).unwrap();
            if let Some(cached) = CachedResponse::read(&response, query.question.len(), Instant::now()) {
                cached.write(&query, Instant::now() + Duration::from_secs(5), Transport::Udp, &mut Vec::new());
            }
        }
    }
}
