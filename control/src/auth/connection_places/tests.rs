//! Who has a place, and who makes room.

use futures::FutureExt;

use super::*;

fn places() -> ConnectionPlaces {
    places_with(6)
}

fn places_with(nodes: usize) -> ConnectionPlaces {
    ConnectionPlaces::new(PlaceLimits { strangers: 8, of_one_address: 4, nodes, of_one_node: 3, system: 4, users: 10 })
}

fn node(name: &str) -> Identity {
    Identity::authenticated(format!("system:node:{name}"), vec!["system:nodes".into()])
}

fn user(name: &str) -> Identity {
    Identity::authenticated(name.to_owned(), Vec::new())
}

fn connect(places: &ConnectionPlaces, from: u8, who: Option<&Identity>) -> ConnectionPlace {
    let place = places.admit([10, 0, 0, from].into());
    if let Some(who) = who {
        place.belongs_to(who);
    }
    place
}

fn is_cut(place: &ConnectionPlace) -> bool {
    place.is_cut().now_or_never().is_some()
}

#[test]
fn strangers_make_room_for_strangers_and_cut_nobody_who_is_known() {
    let places = places();
    let known = [connect(&places, 1, Some(&node("a"))), connect(&places, 1, Some(&user("joe")))];
    let strangers: Vec<_> = (0..100).map(|from| connect(&places, from, None)).collect();
    assert_eq!(strangers.iter().filter(|place| is_cut(place)).count(), 92);
    assert!(known.iter().all(|place| !is_cut(place)));
    let late = connect(&places, 1, None);
    late.belongs_to(&Identity::anonymous());
    assert!(late.is_strangers());
    late.belongs_to(&node("b"));
    drop(connect(&places, 1, None));
    assert!(!late.is_strangers() && !is_cut(&late), "nodes get in whatever strangers do");
}

#[test]
fn one_that_is_cut_while_it_shows_who_it_is_stays() {
    let places = places();
    let first = connect(&places, 1, None);
    let _others: Vec<_> = (0..4).map(|_| connect(&places, 1, None)).collect();
    assert!(is_cut(&first));
    first.belongs_to(&node("a"));
    assert!(!is_cut(&first));
}

#[test]
fn each_node_has_a_place_and_none_takes_those_of_others() {
    let places = places();
    let of = |name: &str, count: u8| (0..count).map(|_| connect(&places, 1, Some(&node(name)))).collect::<Vec<_>>();
    let greedy = of("a", 9);
    let known = |held: &[ConnectionPlace]| held.iter().filter(|place| !place.is_strangers()).count();
    assert_eq!(known(&greedy), 3);
    let others: Vec<_> = (0..9).flat_map(|name| of(&format!("n{name}"), 1)).collect();
    assert_eq!(known(&others), 9, "the first of each, though the nodes' places are taken");
    drop((greedy, others));
    assert_eq!((places.nodes.taken(), places.strangers.open()), (0, 0));
}

#[test]
fn ten_thousand_connections_of_one_user_at_one_address_are_served_and_give_places_back_when_others_come() {
    for most_open in [20_000, 1 << 20] {
        let places = ConnectionPlaces::new(PlaceLimits::for_descriptors(most_open));
        let admin = Identity::authenticated("admin".into(), vec![MASTERS.into()]);
        let held: Vec<_> = (0..10_000).map(|_| connect(&places, 1, Some(&admin))).collect();
        assert!(held.iter().all(|place| !place.is_strangers() && !is_cut(place)), "{most_open}");
        // Whoever comes has their own share, and no place of the crowd's before those that are free.
        let ann: Vec<_> = (0..500).map(|_| connect(&places, 2, Some(&user("ann")))).collect();
        assert!(ann.iter().all(|place| !place.is_strangers()) && !held.iter().any(is_cut));
        let nodes: Vec<_> = (0..5_000).map(|number| connect(&places, 3, Some(&node(&format!("n{number}"))))).collect();
        assert!(nodes.iter().chain(&ann).all(|place| !place.is_strangers() && !is_cut(place)));
        let strangers: Vec<_> = (0..200).map(|_| connect(&places, 4, None)).collect();
        assert!(!strangers.iter().any(is_cut), "nobody has taken the places of strangers");
        let cut = held.iter().filter(|place| is_cut(place)).count();
        assert!(cut > 0 && 10_000 - cut + 5_500 <= places.limits().total(), "{cut} of {most_open}");
    }
}

#[test]
fn users_share_their_places_and_a_connection_beyond_is_served_until_it_must_make_room() {
    let places = places_with(0);
    let of = |name: &str, count| (0..count).map(|from| connect(&places, from, Some(&user(name)))).collect::<Vec<_>>();
    let known = |held: &[ConnectionPlace]| held.iter().filter(|place| !place.is_strangers()).count();
    let joe = of("joe", 14);
    assert_eq!((known(&joe), places.users.taken(), places.borrowed.open()), (12, 5, 7));
    assert!(!joe.iter().any(is_cut));
    let ann = of("ann", 7);
    assert_eq!((known(&ann), joe.iter().any(is_cut)), (2, false), "in places that were free");
    let admin = Identity::authenticated("kubernetes-admin".into(), vec![MASTERS.into()]);
    assert!(!connect(&places, 100, Some(&admin)).is_strangers());
    assert_eq!((0..14).filter(|at| is_cut(&joe[*at])).collect::<Vec<_>>(), [5], "it was the administrator's place");
}

#[test]
fn users_beyond_their_share_borrow_what_is_free_and_give_it_back_when_nodes_come() {
    let places = places_with(12);
    let of_daemon_set = user("agent");
    let held: Vec<_> = (0..28).map(|from| connect(&places, from, Some(&of_daemon_set))).collect();
    let strangers = |held: &[ConnectionPlace]| held.iter().filter(|place| place.is_strangers()).count();
    assert_eq!((places.users.taken(), places.borrowed.open(), strangers(&held)), (5, 17, 6));
    assert!(held.iter().all(|place| !is_cut(place)));
    assert_eq!(places.beyond_share.load(Ordering::Relaxed), 6);
    // Strangers cut none of those that have borrowed.
    let crowd: Vec<_> = (0..100).map(|from| connect(&places, from, None)).collect();
    assert_eq!(held.iter().filter(|place| is_cut(place)).count(), 6);
    drop(crowd);
    let nodes: Vec<_> = (0..8).map(|number| connect(&places, number, Some(&node(&format!("n{number}"))))).collect();
    let cut: Vec<usize> = (0..22).filter(|at| is_cut(&held[*at])).collect();
    assert_eq!(cut, [5, 6, 7, 8], "the oldest that have borrowed");
    assert!(nodes.iter().all(|place| !place.is_strangers() && !is_cut(place)));
    assert_eq!((places.borrowed.open(), places.borrowed.returned()), (13, 4));
    // One whose user holds less again has a place of its own from its next request on.
    let mut held: Vec<_> = held.into_iter().map(Some).collect();
    held[0] = None;
    let late = held[12].as_ref().unwrap();
    late.belongs_to(&of_daemon_set);
    assert_eq!((places.users.taken(), places.borrowed.open()), (5, 12));
    drop((held, nodes));
    assert_eq!((places.borrowed.open(), places.beyond_share.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn one_account_at_one_address_does_not_borrow_all_and_beyond_that_holds_what_an_address_may() {
    let places = places_with(12);
    let account = Identity::service_account("shop", "busy");
    let held: Vec<_> = (0..100).map(|_| connect(&places, 1, Some(&account))).collect();
    assert_eq!((places.users.taken(), places.borrowed.open(), places.strangers.open()), (4, 18, 4));
    assert_eq!(held.iter().filter(|place| is_cut(place)).count(), 74);
    let joe: Vec<_> = (0..4).map(|from| connect(&places, from, Some(&user("joe")))).collect();
    assert!(joe.iter().all(|place| !place.is_strangers()), "others find places, and places to borrow");
    let _nodes: Vec<_> = (0..8).map(|number| connect(&places, 2, Some(&node(&format!("n{number}"))))).collect();
    assert!(joe.iter().all(|place| !is_cut(place)), "who has borrowed most gives back first");
    assert_eq!(held[4..22].iter().filter(|place| is_cut(place)).count(), 8);
}

#[test]
fn a_borrowed_place_whose_credential_is_withdrawn_is_a_strangers() {
    let places = places();
    let joe: Vec<_> = (0..6).map(|from| connect(&places, from, Some(&user("joe")))).collect();
    assert_eq!((places.borrowed.open(), places.strangers.open()), (1, 0));
    joe[5].belongs_to_nobody();
    assert_eq!((places.borrowed.open(), places.strangers.open()), (0, 1));
    assert!(joe[5].is_strangers() && !is_cut(&joe[5]));
}

#[test]
fn a_stranger_who_is_being_answered_makes_room_last() {
    let places = places();
    let held: Vec<_> = (0..4).map(|_| connect(&places, 1, None)).collect();
    let asked = held[0].begin_request().unwrap();
    let next = connect(&places, 1, None);
    assert!(!is_cut(&held[0]) && is_cut(&held[1]) && held[0].is_asked());
    drop(asked);
    assert!(!held[0].is_asked());
    next.belongs_to(&user("joe"));
    assert!(next.begin_request().is_none());
}

#[test]
fn a_stranger_has_little_time_and_a_known_user_beyond_their_share_has_not() {
    let places = places_with(0);
    let (unanswered, stay) = (Duration::from_secs(10), Duration::from_secs(60));
    let must_go = |place: &ConnectionPlace| place.stranger_must_go_at(unanswered, stay);
    let place = connect(&places, 1, None);
    assert_eq!(must_go(&place), None, "the handshake and idle connections have limits of their own");
    let (before, asked) = (Instant::now(), place.begin_request().unwrap());
    let (at, after) = (must_go(&place).unwrap(), Instant::now());
    assert!(before + unanswered <= at && at <= after + unanswered);
    drop(asked);
    assert_eq!(must_go(&place), Some(at - unanswered + stay));
    let joe: Vec<_> = (2..14).map(|from| connect(&places, from, Some(&user("joe")))).collect();
    place.belongs_to(&user("joe"));
    assert!(place.is_strangers() && must_go(&place).is_none());
    place.belongs_to_nobody();
    assert!(must_go(&place).is_some());
    assert_eq!(joe.len(), 12);
}

#[test]
fn a_connection_whose_credential_is_withdrawn_is_a_strangers_again() {
    let places = places();
    let known = connect(&places, 1, Some(&user("joe")));
    let mut waiting = std::pin::pin!(known.is_cut());
    assert!(waiting.as_mut().now_or_never().is_none());
    known.belongs_to_nobody();
    assert!(known.is_strangers() && places.users.taken() == 0 && places.strangers.open() == 1);
    let _others: Vec<_> = (0..4).map(|_| connect(&places, 1, None)).collect();
    assert!(is_cut(&known) && waiting.now_or_never().is_some());
    // One that had to make room while it showed who it was is cut as soon as that is not good any more.
    let late = connect(&places, 1, None);
    let mut waiting = std::pin::pin!(late.is_cut());
    let _others: Vec<_> = (0..4).map(|_| connect(&places, 1, None)).collect();
    late.belongs_to(&user("ann"));
    assert!(waiting.as_mut().now_or_never().is_none());
    late.belongs_to_nobody();
    assert!(waiting.now_or_never().is_some());
}

#[test]
fn classes_follow_from_the_name_and_groups() {
    let class = |name: &str, groups: &[&str]| {
        Class::of(&Identity::authenticated(name.into(), groups.iter().map(|group| (*group).into()).collect()))
    };
    assert_eq!(class("system:node:a", &["system:nodes"]), Class::Node);
    assert_eq!(class("system:kube-scheduler", &[]), Class::System);
    assert_eq!(Class::of(&Identity::service_account("a", "b")), Class::User);
    assert_eq!(class("system:bootstrap:abcdef", &[BOOTSTRAPPERS]), Class::User);
    assert_eq!(class("joe", &[]), Class::User);
    assert_eq!(Class::of(&Identity::anonymous()), Class::Stranger);
}

#[test]
fn the_limits_follow_from_the_descriptors() {
    let usual = PlaceLimits::for_descriptors(1 << 20);
    assert_eq!((usual.total(), usual.strangers, usual.of_one_address), (MOST, 2048, 256));
    assert_eq!((usual.nodes, usual.system, usual.users), (8192, 1024, 5120));
    for few in [0, 64, 256, 1024, 4096] {
        let limits = PlaceLimits::for_descriptors(few);
        assert!(limits.total() <= usize::try_from(few).unwrap().max(LEAST), "{limits:?}");
        assert!(limits.of_one_address <= limits.strangers && limits.of_one_node <= limits.nodes);
        assert!(limits.strangers > 0 && limits.system > 0 && limits.users > 0);
    }
}

#[tokio::test]
async fn the_time_of_a_stranger_runs_from_when_they_are_one() {
    let must_go = async |place: &ConnectionPlace| {
        let overstays = place.overstays(Duration::from_millis(10), Duration::from_millis(20));
        tokio::time::timeout(Duration::from_secs(30), overstays).await.is_ok()
    };
    // Whose credential is withdrawn while a request is under way, of which none is counted.
    let places = places();
    let known = connect(&places, 1, Some(&user("joe")));
    assert!(known.begin_request().is_none());
    let waiting = must_go(&known);
    let withdrawn = async {
        tokio::task::yield_now().await;
        known.belongs_to_nobody();
    };
    assert!(tokio::join!(waiting, withdrawn).0, "though no request comes any more");
    // Who had a user beyond their share, and shows nothing with a later request.
    let _crowd: Vec<_> = (0..22).map(|_| connect(&places, 2, Some(&user("ann")))).collect();
    let beyond = connect(&places, 3, Some(&user("ann")));
    assert!(beyond.is_strangers() && beyond.0.held.lock().is_beyond_share());
    let _asked = beyond.begin_request().unwrap();
    let waiting = must_go(&beyond);
    let anonymous = async {
        tokio::task::yield_now().await;
        beyond.belongs_to(&Identity::anonymous());
    };
    assert!(tokio::join!(waiting, anonymous).0, "though no request comes any more");
}

#[test]
fn one_that_arrives_while_all_places_are_lent_waits_beside_those_that_arrived_before() {
    let limits = PlaceLimits { strangers: 64, of_one_address: 16, nodes: 64, of_one_node: 8, system: 32, users: 96 };
    let places = ConnectionPlaces::new(limits);
    let _held: Vec<_> = (0..limits.total()).map(|_| connect(&places, 1, Some(&user("joe")))).collect();
    let arrive = |from: u8| places.arrive([10, 0, 1, from].into());
    let arrived: Vec<_> = (0..limits.total() / WAITING_ROOM).map(|number| arrive(number as u8)).collect();
    let made_room = || arrived.iter().filter(|waiting| waiting.is_cut().now_or_never().is_some()).count();
    assert_eq!((made_room(), places.arrivals.waiting()), (0, 8));
    let _late = arrive(100);
    assert_eq!(made_room(), 1);
}

#[test]
fn who_borrows_and_gets_a_share_of_their_own_has_nobody_cut() {
    let places = places_with(12);
    let mut joe: Vec<_> = (0..27).map(|from| Some(connect(&places, from, Some(&user("joe"))))).collect();
    let borrowers = |held: &[Option<ConnectionPlace>]| held.iter().flatten().filter(|place| is_cut(place)).count();
    assert_eq!((places.users.taken(), places.borrowed.open()), (5, 17));
    joe[0] = None;
    joe[10].as_ref().unwrap().belongs_to(&user("joe"));
    assert_eq!((places.users.taken(), places.borrowed.open(), borrowers(&joe)), (5, 16, 0));
}
