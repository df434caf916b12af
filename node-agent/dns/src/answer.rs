//! From the bytes of a query and the zone to the bytes of the response. Pure, and the path that every query takes.
//!
//! It never asks other servers: where they are needed it says so ([`AnswerOutcome`]).

use super::{
    name::Name,
    query::{
        self, CLASS_ANY, CLASS_IN, Query, ResponseCode, TYPE_A, TYPE_ANY, TYPE_AXFR, TYPE_CNAME, TYPE_IXFR, TYPE_NS,
        TYPE_PTR, TYPE_SOA, TYPE_SRV, TYPE_TXT, Unanswerable,
    },
    record,
    response::{Response, Transport},
    zone::{NameLookup, Zone},
};

/// What became of a query.
#[derive(Debug, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// The response is complete.
    Answered,
    /// Not a name of the cluster: nothing was written, other resolvers are to be asked.
    Elsewhere,
    /// The response holds an alias whose target is not a name of the cluster: other resolvers' records of it are to be
    /// appended.
    Chase(Name),
    /// Not to be answered at all.
    Drop,
}

/// Answers `packet` into `out`, which is cleared first. `turn` rotates the order of a name's addresses.
pub fn answer(packet: &[u8], zone: &Zone, transport: Transport, turn: usize, out: &mut Vec<u8>) -> AnswerOutcome {
    let query = match query::parse(packet) {
        Ok(query) => query,
        Err(Unanswerable::Drop) => return AnswerOutcome::Drop,
        Err(Unanswerable::Refuse(code)) => {
            Response::refuse(packet, code, out);
            return AnswerOutcome::Answered;
        }
    };
    if query.edns.is_some_and(|edns| edns.version > 0) {
        Response::start(&query, transport, out).finish(ResponseCode::BadVers);
        return AnswerOutcome::Answered;
    }
    if matches!(query.qtype, TYPE_AXFR | TYPE_IXFR) || !matches!(query.qclass, CLASS_IN | CLASS_ANY) {
        Response::start(&query, transport, out).finish(ResponseCode::Refused);
        return AnswerOutcome::Answered;
    }
    let meaning = zone.meaning(query.name());
    if meaning == NameLookup::Elsewhere {
        return AnswerOutcome::Elsewhere;
    }
    let response = Response::start(&query, transport, out);
    if !zone.is_synced() {
        // Clients would cache an NXDOMAIN that is sent now.
        response.finish(ResponseCode::ServFail);
        return AnswerOutcome::Answered;
    }
    write(&query, zone, meaning, turn, response)
}

fn write(
    query: &Query<'_>,
    zone: &Zone,
    meaning: NameLookup<'_>,
    turn: usize,
    mut response: Response<'_>,
) -> AnswerOutcome {
    let asked = |kind| query.qtype == kind || query.qtype == TYPE_ANY;
    response.set_authoritative();
    match meaning {
        NameLookup::Apex if query.qtype == TYPE_NS => {
            response.answer(|out| record::ns(out, record::QUESTION, zone.primary()));
            response.additional(|out| record::a(out, zone.primary().wire(), zone.server()));
        }
        NameLookup::Apex if asked(TYPE_SOA) => {
            response.answer(|out| record::soa(out, zone.origin(), zone.primary(), zone.contact(), zone.serial()));
        }
        NameLookup::Address(address) if asked(TYPE_A) => {
            response.answer(|out| record::a(out, record::QUESTION, address));
        }
        NameLookup::Addresses(prepared) if asked(TYPE_A) && !prepared.is_empty() => {
            response.addresses(prepared, None, turn)
        }
        NameLookup::Srv(srv) if asked(TYPE_SRV) => {
            let weight = srv_weight(srv.targets.len());
            for target in &srv.targets {
                response.answer(|out| record::srv(out, record::QUESTION, weight, target.port, &target.host));
            }
            for target in &srv.targets {
                for address in &target.addresses {
                    response.additional(|out| record::a(out, target.host.wire(), *address));
                }
            }
        }
        NameLookup::Version if asked(TYPE_TXT) => {
            response.answer(|out| record::txt(out, record::QUESTION, SPECIFICATION));
        }
        NameLookup::Reverse(names) if asked(TYPE_PTR) => {
            for name in names {
                response.answer(|out| record::ptr(out, record::QUESTION, name));
            }
        }
        NameLookup::Alias(target) => return alias(query, zone, target, turn, response),
        NameLookup::NoSuchName => return negative(zone, response, ResponseCode::NxDomain),
        _ => return negative(zone, response, ResponseCode::NoError),
    }
    response.finish(ResponseCode::NoError);
    AnswerOutcome::Answered
}

/// Each target's share of 100, and at least 1 however many there are.
fn srv_weight(targets: usize) -> u16 {
    100_usize.checked_div(targets).and_then(|share| u16::try_from(share).ok()).unwrap_or_default().max(1)
}

/// The CNAME, and what it leads to as far as that is in the zone. The response code is the last name's (RFC 6604).
fn alias(query: &Query<'_>, zone: &Zone, first: &Name, turn: usize, mut response: Response<'_>) -> AnswerOutcome {
    let (mut target, mut owner) = (first, [record::QUESTION[0], record::QUESTION[1]]);
    for _ in 0..MAX_CHAIN {
        let at = response.position();
        response.answer(|out| record::cname(out, &owner, target));
        if query.qtype == TYPE_CNAME || query.qtype == TYPE_ANY {
            response.finish(ResponseCode::NoError);
            return AnswerOutcome::Answered;
        }
        // Owner, type, class, TTL and length stand before the target, which a pointer can then name.
        owner = (0xc000 | (at + 12) as u16).to_be_bytes();
        match zone.meaning(target.wire()) {
            NameLookup::Alias(next) => target = next,
            NameLookup::Addresses(prepared) if query.qtype == TYPE_A && !prepared.is_empty() => {
                response.addresses(prepared, Some(owner), turn);
                response.finish(ResponseCode::NoError);
                return AnswerOutcome::Answered;
            }
            NameLookup::Elsewhere => {
                response.finish(ResponseCode::NoError);
                return AnswerOutcome::Chase(target.clone());
            }
            NameLookup::NoSuchName => return negative(zone, response, ResponseCode::NxDomain),
            _ => return negative(zone, response, ResponseCode::NoError),
        }
    }
    response.finish(ResponseCode::ServFail);
    AnswerOutcome::Answered
}

/// Its SOA bounds how long it is cached (RFC 2308, section 3).
fn negative(zone: &Zone, mut response: Response<'_>, code: ResponseCode) -> AnswerOutcome {
    response.authority(|out| record::soa(out, zone.origin(), zone.primary(), zone.contact(), zone.serial()));
    response.finish(code);
    AnswerOutcome::Answered
}

/// `dns-version.ORIGIN` (section 2.2 of the specification).
const SPECIFICATION: &str = "1.1.0";

/// Aliases followed within the zone.
const MAX_CHAIN: usize = 8;

#[cfg(test)]
mod tests;
