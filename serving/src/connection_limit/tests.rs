//! Who makes room, and that it is who a scan of all connections finds.

use proptest::prelude::*;

use super::*;
use crate::client_network::NETWORKS_OF_A_SITE;

fn address(last: u8) -> IpAddr {
    [10, 244, 0, last].into()
}

#[test]
fn one_address_cuts_its_own_connections_and_those_of_no_other() {
    let limit = ConnectionLimit::new(32, 512);
    let other = limit.admit(address(2));
    let mut held: Vec<_> = (0..32).map(|_| limit.admit(address(1))).collect();
    assert!(held.iter().all(|held| !held.cut.is_cancelled()));
    held.push(limit.admit(address(1)));
    let cut: Vec<usize> = (0..held.len()).filter(|at| held[*at].cut.is_cancelled()).collect();
    assert_eq!((cut, other.cut.is_cancelled()), (vec![0], false));
    // A place that was given back cuts nobody.
    held.truncate(32 - 1);
    let next = limit.admit(address(1));
    assert!(!held[1].cut.is_cancelled() && !next.cut.is_cancelled());
    drop((held, other, next));
    assert!(limit.all.lock().open.is_empty());
}

#[test]
fn all_addresses_together_have_a_limit() {
    let limit = ConnectionLimit::new(32, 512);
    let addresses = (0..u8::MAX).cycle().map(address);
    let held: Vec<_> = addresses.take(513).map(|from| limit.admit(from)).collect();
    assert_eq!(held.iter().filter(|held| held.cut.is_cancelled()).count(), 1);
    assert!(held[0].cut.is_cancelled());
    assert_eq!(limit.all.lock().open.len(), 512);
}

#[test]
fn the_oldest_on_which_nothing_is_asked_makes_room_first() {
    let limit = ConnectionLimit::new(3, 3);
    let held: Vec<_> = (0..3).map(|_| limit.admit(address(1))).collect();
    let _asked = held[0].begin_request();
    let next = limit.admit(address(1));
    let cut = |held: &[Counted]| held.iter().map(|held| held.cut.is_cancelled()).collect::<Vec<_>>();
    assert_eq!(cut(&held), [false, true, false]);
    let (asked, _of_next) = (held[2].begin_request(), next.begin_request());
    let last = limit.admit(address(2));
    assert_eq!(cut(&held), [true, true, false], "where all are asked, the oldest");
    drop(asked);
    assert!(!held[2].is_asked() && next.is_asked());
    assert_eq!((limit.open(), limit.cut()), (3, 2));
    drop((held, next, last));
    assert_eq!(limit.open(), 0);
}

#[test]
fn a_request_that_is_never_answered_protects_for_a_short_time_only() {
    let limit = ConnectionLimit::new(2, 2);
    let held = [limit.admit(address(1)), limit.admit(address(1))];
    let begun = Instant::now();
    let _asked = held[0].begin_at(begun);
    let nearly_over = begun + PROTECTED - Duration::from_millis(1);
    let _later = held[0].begin_at(nearly_over);
    let admit = |now| limit.admit_at(address(1), CancellationToken::new(), now);
    let in_handshake = admit(nearly_over);
    assert!(held[1].cut.is_cancelled() && !held[0].cut.is_cancelled());
    let _next = admit(begun + PROTECTED);
    assert!(held[0].cut.is_cancelled() && !in_handshake.cut.is_cancelled());
}

#[test]
fn a_handshake_is_spared_for_a_short_time_and_makes_room_before_what_is_asked() {
    let limit = ConnectionLimit::new(3, 3);
    let begun = Instant::now();
    let admit = |now| limit.admit_at(address(1), CancellationToken::new(), now);
    let (in_handshake, idle, asked) = (admit(begun), admit(begun), admit(begun));
    in_handshake.spare_at(begun);
    let _request = asked.begin_at(begun);
    let is_cut = || [&in_handshake, &idle, &asked].map(|held| held.cut.is_cancelled());
    let second = admit(begun + SPARED / 2);
    second.spare_at(begun + SPARED / 2);
    assert_eq!(is_cut(), [false, true, false], "on which nothing happens");
    let third = admit(begun + SPARED - Duration::from_millis(1));
    third.spare_at(begun + SPARED - Duration::from_millis(1));
    assert_eq!(is_cut(), [true, true, false], "where there is no other");
    let _fourth = admit(begun + SPARED + SPARED / 2);
    assert_eq!((is_cut(), second.cut.is_cancelled()), ([true, true, true], false), "neither lasts for ever");
    for held in [&second, &third] {
        held.spare_at(begun + SPARED + SPARED / 2);
    }
    third.spare_no_more();
    let _fifth = admit(begun + SPARED + SPARED / 2);
    assert_eq!([&second, &third].map(|held| held.cut.is_cancelled()), [false, true], "one is spared no more");
}

#[test]
fn the_subnets_of_one_ipv6_site_together_hold_as_much_as_some_of_them() {
    let limit = ConnectionLimit::new(8, 512);
    let subnet = |site: u16, subnet: u16| IpAddr::from([0x2001, 0xdb8, site, subnet, 0, 0, 0, 1]);
    let other = limit.admit(subnet(2, 0));
    let many: Vec<_> = (0..500).map(|number| limit.admit(subnet(1, number))).collect();
    assert_eq!(many.iter().filter(|held| !held.cut.is_cancelled()).count(), 8 * NETWORKS_OF_A_SITE);
    assert!(many.last().is_some_and(|last| !last.cut.is_cancelled()), "the oldest make room");
    let of_one: Vec<_> = (0..20).map(|_| limit.admit(subnet(2, 1))).collect();
    assert_eq!(of_one.iter().filter(|held| !held.cut.is_cancelled()).count(), 8);
    assert!(!other.cut.is_cancelled());
}

/// What may happen; numbers choose among the addresses, connections or requests that there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    Admit(usize),
    Close(usize),
    Begin(usize),
    Answer(usize),
    Spare(usize),
    SpareNoMore(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        6 => any::<usize>().prop_map(Step::Admit),
        1 => any::<usize>().prop_map(Step::Close),
        4 => any::<usize>().prop_map(Step::Begin),
        3 => any::<usize>().prop_map(Step::Answer),
        3 => any::<usize>().prop_map(Step::Spare),
        1 => any::<usize>().prop_map(Step::SpareNoMore),
        3 => (0_u64..1_500).prop_map(Step::Wait),
    ];
    proptest::collection::vec(one, 1..120)
}

/// Addresses of which some share a network, and some a site.
fn addresses() -> [IpAddr; 8] {
    [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8:0:1::1",
        "2001:db8:0:2::1",
        "2001:db8:1::1",
    ]
    .map(|address| address.parse().unwrap())
}

/// Who makes room, found by looking at each.
fn scan(all: &Connections, from: IpAddr, of_one: usize, of_all: usize, now: Instant) -> Option<u64> {
    let protection = |open: &Open| {
        let requests = open.requests.lock();
        let is_recent = |first| now.saturating_duration_since(first) < PROTECTED;
        if !requests.under_way.is_empty() && requests.first.is_some_and(is_recent) {
            return Protection::Asked;
        }
        match requests.spared_until.is_some_and(|until| now < until) {
            true => Protection::Spared,
            false => Protection::None,
        }
    };
    let first = |among: Vec<(&u64, &Open)>| among.into_iter().map(|(id, open)| (protection(open), *id)).min();
    for (scope, times) in ClientNetwork::of(from).scopes() {
        let is_of = |open: &Open| open.from.scopes().any(|(of, _)| of == scope);
        let same: Vec<_> = all.open.iter().filter(|(_, open)| is_of(open)).collect();
        if same.len() >= of_one * times {
            return first(same).map(|(_, id)| id);
        }
    }
    (all.open.len() >= of_all).then(|| first(all.open.iter().collect())).flatten().map(|(_, id)| id)
}

async fn check(steps: Vec<Step>, of_one: usize, of_all: usize) {
    let limit = ConnectionLimit::new(of_one, of_all);
    let (mut held, mut requests) = (Vec::<Counted>::new(), Vec::<CountedRequest>::new());
    let chosen = |number: usize, of: usize| number.checked_rem(of);
    for step in steps {
        match step {
            Step::Admit(number) => {
                let from = addresses()[number % addresses().len()];
                let ids = || limit.all.lock().open.keys().copied().collect::<BTreeSet<u64>>();
                let victim = scan(&limit.all.lock(), from, of_one, of_all, Instant::now());
                let mut wanted = ids();
                wanted.extend([limit.all.lock().next]);
                if let Some(victim) = victim {
                    wanted.remove(&victim);
                }
                held.push(limit.admit(from));
                assert_eq!(ids(), wanted);
            }
            Step::Close(number) => drop(chosen(number, held.len()).map(|at| held.swap_remove(at))),
            Step::Begin(number) => requests.extend(chosen(number, held.len()).map(|at| held[at].begin_request())),
            Step::Answer(number) => drop(chosen(number, requests.len()).map(|at| requests.swap_remove(at))),
            Step::Spare(number) => chosen(number, held.len()).into_iter().for_each(|at| held[at].spare()),
            Step::SpareNoMore(number) => chosen(number, held.len()).into_iter().for_each(|at| held[at].spare_no_more()),
            Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
        }
        let all = limit.all.lock();
        assert!(all.order.len() == all.open.len() && all.open.len() <= of_all && all.ends.len() <= all.open.len());
    }
    drop((held, requests));
    let all = limit.all.lock();
    assert!(all.open.is_empty() && all.order.is_empty() && all.of.is_empty() && all.ends.is_empty());
}

proptest! {
    #[test]
    fn who_makes_room_is_who_a_scan_of_all_finds(steps in steps(), of_one in 1_usize..4, of_all in 1_usize..12) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(steps, of_one, of_all));
    }
}
