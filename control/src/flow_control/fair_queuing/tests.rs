//! Whose turn it is: requests by hand, and floods of a simulated second or more.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::*;
use crate::flow_control::seat_holders::SeatHolder;

/// A request that notes its turn.
struct Numbered {
    number: usize,
    woken: Rc<RefCell<Vec<usize>>>,
}

impl Wake for Numbered {
    fn wake(&mut self) {
        self.woken.borrow_mut().push(self.number);
    }
}

/// A level, and the requests that came to their turn.
struct Level {
    set: QueueSet<Numbered>,
    woken: Rc<RefCell<Vec<usize>>>,
    next: usize,
}

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn user(user: u64) -> SeatHolder {
    SeatHolder { user, namespace: None }
}

/// A hash that is good enough for a hand.
fn flow(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl Level {
    fn new(seats: usize, queuing: Option<Queuing>) -> Self {
        let set = QueueSet::new(SeatLimit::Seats(seats), queuing, Duration::ZERO);
        Self { set, woken: Rc::default(), next: 0 }
    }

    fn queued(seats: usize, queues: usize, hand_size: usize, queue_length_limit: usize) -> Self {
        Self::new(seats, Some(Queuing { queues, hand_size, queue_length_limit }))
    }

    /// A request of a user whose requests are one flow; its number, and what came of it.
    fn arrive(&mut self, now: u64, of: u64, width: usize) -> (usize, Arrival) {
        let number = self.next;
        self.next += 1;
        let work = ArrivingWork { flow: flow(of), holder: user(of), width, is_heartbeat: false };
        let request = Numbered { number, woken: self.woken.clone() };
        (number, self.set.arrive(ms(now), work, request))
    }

    /// A heartbeat of a node.
    fn beat(&mut self, now: u64, of: u64) -> (usize, Arrival) {
        let number = self.next;
        self.next += 1;
        let work = ArrivingWork { flow: flow(of), holder: user(of), width: 1, is_heartbeat: true };
        let request = Numbered { number, woken: self.woken.clone() };
        (number, self.set.arrive(ms(now), work, request))
    }

    /// The requests whose turn came since this was asked before.
    fn woken(&self) -> Vec<usize> {
        std::mem::take(&mut self.woken.borrow_mut())
    }
}

fn ticket((_, arrival): (usize, Arrival)) -> Ticket {
    match arrival {
        Arrival::Started(ticket) | Arrival::Queued(ticket, _) => ticket,
        Arrival::Refused(why) => panic!("{why:?}"),
    }
}

#[test]
fn what_finds_a_seat_starts_at_once_and_what_does_not_waits_for_one() {
    let mut level = Level::queued(2, 1, 1, 10);
    let [first, second] = [1, 2].map(|of| level.arrive(0, of, 1));
    assert!(matches!((first.1, second.1), (Arrival::Started(_), Arrival::Started(_))));
    let third = level.arrive(0, 3, 1);
    assert!(matches!(third.1, Arrival::Queued(_, 1)));
    assert!(level.woken().is_empty());
    assert_eq!(level.set.leave(ms(5), &ticket(first)), Some(Left::Executing));
    assert_eq!(level.woken(), [third.0]);
    for request in [second, third] {
        level.set.leave(ms(6), &ticket(request));
    }
    assert!(level.set.is_idle() && level.set.queues().count() == 0 && level.set.holders.is_empty());
    assert_eq!(level.set.leave(ms(7), &ticket(third)), None);
}

#[test]
fn a_full_queue_refuses_and_a_level_without_queues_does_at_once() {
    let mut level = Level::queued(1, 1, 1, 2);
    let first = level.arrive(0, 1, 1);
    let waiting = [level.arrive(0, 2, 1), level.arrive(0, 3, 1)];
    assert_eq!(level.arrive(0, 4, 1).1, Arrival::Refused(FlowRefusal::QueueFull));
    assert_eq!(level.set.waiting(), 2);
    assert_eq!(level.set.leave(ms(1), &ticket(waiting[0])), Some(Left::Waiting));
    assert!(matches!(level.arrive(1, 4, 1).1, Arrival::Queued(_, 2)));
    level.set.leave(ms(2), &ticket(first));
    assert_eq!(level.woken(), [waiting[1].0], "the one that went does not come to its turn");

    let mut level = Level::new(1, None);
    let first = level.arrive(0, 1, 1);
    assert_eq!(level.arrive(0, 2, 1).1, Arrival::Refused(FlowRefusal::ConcurrencyLimit));
    level.set.leave(ms(1), &ticket(first));
    assert!(matches!(level.arrive(1, 2, 1).1, Arrival::Started(_)));
}

#[test]
fn an_exempt_level_refuses_nothing() {
    let mut level =
        Level { set: QueueSet::new(SeatLimit::Exempt, None, Duration::ZERO), woken: Rc::default(), next: 0 };
    assert!((0..10_000).all(|_| matches!(level.arrive(0, 1, 5).1, Arrival::Started(_))));
    assert_eq!(level.set.executing(), (10_000, 50_000));
}

#[test]
fn no_user_takes_the_seats_of_others_in_a_level_with_queues_or_without() {
    for queuing in [Some(Queuing { queues: 64, hand_size: 6, queue_length_limit: 50 }), None] {
        let mut level = Level::new(98, queuing);
        let stolen = (0..1000).map(|_| level.arrive(0, 1, 1)).filter(|(_, a)| matches!(a, Arrival::Started(_))).count();
        assert_eq!(stolen, 49, "half of all");
        for other in 2..10 {
            assert!(matches!(level.arrive(0, other, 1).1, Arrival::Started(_)), "{other} has a seat at once");
        }
    }
}

#[test]
fn who_holds_a_share_does_not_hold_up_others_in_the_same_queue() {
    // One queue: the greedy user's requests are before that of the other.
    let mut level = Level::queued(10, 1, 1, 100);
    for _ in 0..50 {
        level.arrive(0, 1, 1);
    }
    let taken = level.set.executing().0;
    assert!(taken < 10, "{taken}");
    let other = level.arrive(0, 2, 1);
    assert!(matches!(other.1, Arrival::Started(_)));
    assert_eq!(level.woken(), [other.0]);
}

#[test]
fn a_wide_request_waits_until_there_is_room_and_is_not_passed_by_narrow_ones_for_ever() {
    let mut level = Level::queued(10, 8, 1, 100);
    let mut running: Vec<(Ticket, u64)> = (0..10).map(|of| (ticket(level.arrive(0, of, 1)), 10)).collect();
    let wide = level.arrive(1, 10, 8);
    let mut tickets = BTreeMap::from([(wide.0, ticket(wide))]);
    let mut users = 11..;
    let turn = (2..500).find(|now| {
        for _ in 0..2 {
            // Twice as many as there are seats for, each of a user who holds nothing.
            let narrow = level.arrive(*now, users.next().unwrap(), 1);
            tickets.insert(narrow.0, ticket(narrow));
        }
        let (ended, left): (Vec<_>, Vec<_>) = running.iter().copied().partition(|(_, end)| end <= now);
        running = left;
        for (ticket, _) in ended {
            level.set.leave(ms(*now), &ticket);
        }
        let woken = level.woken();
        running.extend(woken.iter().map(|number| (tickets[number], now + 10)));
        woken.contains(&wide.0)
    });
    assert!(turn.is_some_and(|turn| turn < 200), "{turn:?}");
}

#[test]
fn what_is_wider_than_its_level_goes_alone() {
    let mut level = Level::queued(10, 8, 1, 100);
    let first = ticket(level.arrive(0, 1, 1));
    let wide = level.arrive(0, 2, 50);
    assert!(matches!(wide.1, Arrival::Queued(..)));
    level.set.leave(ms(1), &first);
    assert_eq!(level.woken(), [wide.0]);
}

#[test]
fn a_request_that_comes_back_is_before_those_that_came_after_it() {
    let mut level = Level::queued(1, 1, 1, 1);
    let first = ticket(level.arrive(0, 1, 1));
    let second = level.arrive(0, 2, 1);
    level.set.leave(ms(1), &first);
    assert_eq!(level.woken(), [second.0]);
    let third = level.arrive(2, 3, 1);
    let back = Numbered { number: 100, woken: level.woken.clone() };
    assert!(matches!(level.set.come_back(ms(3), first, back), Arrival::Queued(_, 2)), "however many wait");
    level.set.leave(ms(4), &ticket(second));
    assert_eq!(level.woken(), [100]);
    level.set.leave(ms(5), &first);
    assert_eq!(level.woken(), [third.0]);
}

#[test]
fn heartbeats_have_seats_that_lists_of_all_nodes_do_not_take() {
    // As `node-high`: 500 agents list all nodes, each list as wide as it gets.
    let mut level = Level::queued(98, 64, 6, 50);
    let first = ticket(level.beat(0, 0));
    level.set.leave(ms(1), &first);
    let lists: Vec<(usize, Arrival)> = (0..500).map(|node| level.arrive(2, node, 5)).collect();
    let started = lists.iter().filter(|(_, arrival)| matches!(arrival, Arrival::Started(_))).count();
    assert_eq!((started, level.set.executing()), (14, (14, 70)), "a quarter is kept");
    let beats: Vec<Ticket> = (0..28)
        .map(|node| {
            let (_, arrival) = level.beat(3, node);
            assert!(matches!(arrival, Arrival::Started(_)), "{node}, whose own list may wait");
            ticket((0, arrival))
        })
        .collect();
    let late = level.beat(3, 100);
    assert!(matches!(late.1, Arrival::Queued(_, 1)));
    assert_eq!(level.set.waiting(), 500 - 14 + 1);
    let (_, Arrival::Started(list)) = lists[0] else { panic!("it has its seats") };
    level.set.leave(ms(4), &list);
    assert_eq!(level.woken(), [late.0], "it goes before the lists that came before it");
    for beat in beats.iter().chain([&ticket(late)]) {
        level.set.leave(ms(5), beat);
    }
    assert_eq!(level.set.executing(), (14, 70), "and what heartbeats do not need is kept for the next ones");
    assert_eq!(level.set.heartbeat_queue().len(), 0);
}

#[test]
fn a_small_level_keeps_a_seat_for_heartbeats_and_the_smallest_serves_others_nevertheless() {
    for seats in 1..=7 {
        let mut level = Level::queued(seats, 4, 1, 10);
        let first = ticket(level.beat(0, 0));
        level.set.leave(ms(1), &first);
        // Each of another user: shares are not what keeps them out.
        let others = (1..=10).map(|of| level.arrive(2, of, 1)).collect::<Vec<_>>();
        let started = others.iter().filter(|(_, arrival)| matches!(arrival, Arrival::Started(_))).count();
        assert_eq!(started, if seats == 1 { 1 } else { seats - 1 }, "{seats}");
        let (_, beat) = level.beat(3, 11);
        assert_eq!(matches!(beat, Arrival::Started(_)), seats > 1, "{seats}");
    }
}

#[test]
fn what_is_wider_than_a_nodes_part_of_the_lane_waits_in_a_queue() {
    let mut level = Level::queued(10, 4, 1, 10);
    let running: Vec<Ticket> = (1..=9).map(|of| ticket(level.arrive(0, of, 1))).collect();
    let work = ArrivingWork { flow: flow(20), holder: user(20), width: 8, is_heartbeat: true };
    let wide = Numbered { number: 100, woken: level.woken.clone() };
    assert!(matches!(level.set.arrive(ms(1), work, wide), Arrival::Queued(Ticket { is_heartbeat: false, .. }, 1)));
    let (_, beat) = level.beat(1, 21);
    assert!(matches!(beat, Arrival::Started(_)), "it is not behind what is wide");
    drop(running);
}

#[test]
fn one_node_has_few_seats_for_its_heartbeats_and_holds_up_no_others() {
    for queuing in [Some(Queuing { queues: 64, hand_size: 6, queue_length_limit: 50 }), None] {
        let mut level = Level::new(98, queuing);
        let stolen: Vec<(usize, Arrival)> = (0..1000).map(|_| level.beat(0, 1)).collect();
        assert_eq!(level.set.executing(), (4, 4));
        assert_eq!(level.set.waiting(), queuing.map_or(0, |queuing| queuing.queue_length_limit));
        assert!((2..90).all(|node| matches!(level.beat(0, node).1, Arrival::Started(_))));
        // Some had to be put in the queue first.
        level.woken();
        level.set.leave(ms(1), &ticket(stolen[0]));
        let next = queuing.map(|_| stolen[4].0);
        assert_eq!(level.woken(), next.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_heartbeat_that_waits_can_go_and_one_that_comes_back_is_the_first() {
    let mut level = Level::queued(1, 4, 1, 10);
    let first = ticket(level.beat(0, 1));
    let [gone, second] = [2, 3].map(|node| level.beat(0, node));
    assert!(level.set.find_waiting(&ticket(gone)).is_some());
    assert_eq!(level.set.leave(ms(1), &ticket(gone)), Some(Left::Waiting));
    level.set.leave(ms(2), &first);
    assert_eq!(level.woken(), [second.0]);
    let third = level.beat(3, 4);
    let back = Numbered { number: 100, woken: level.woken.clone() };
    assert!(matches!(level.set.come_back(ms(3), first, back), Arrival::Queued(..)));
    level.set.leave(ms(4), &ticket(second));
    assert_eq!(level.woken(), [100]);
    level.set.leave(ms(5), &first);
    level.set.leave(ms(6), &ticket(third));
    assert!(level.set.is_idle());
}

#[test]
fn with_more_seats_or_without_queues_what_waits_is_served_nevertheless() {
    let mut level = Level::queued(1, 4, 1, 10);
    let first = ticket(level.arrive(0, 1, 1));
    let waiting: Vec<usize> = (2..6).map(|of| level.arrive(0, of, 1).0).collect();
    level.set.configure(ms(1), SeatLimit::Seats(3), None);
    let mut woken = level.woken();
    assert_eq!(woken.len(), 2);
    level.set.leave(ms(2), &first);
    woken.extend(level.woken());
    assert_eq!((woken.len(), waiting.len()), (3, 4));
    level.set.configure(ms(3), SeatLimit::Seats(0), None);
    for executing in level.set.executing_requests().iter().map(|e| e.ticket).collect::<Vec<_>>() {
        level.set.leave(ms(4), &executing);
    }
    assert_eq!(level.woken().len(), 1, "a level without a seat serves one at a time");
}

/// What became of the requests of each user in a simulation.
struct Outcome {
    /// How long each of its requests waited, in milliseconds.
    waits: BTreeMap<u64, Vec<u64>>,
    refused: BTreeMap<u64, usize>,
}

/// Each millisecond each user sends so many requests, as `rates` has them in thousandths, and each takes `service`.
fn simulate(level: &mut Level, rates: &[(u64, u64)], service: u64, time: u64) -> Outcome {
    let mut running: BTreeMap<usize, (Ticket, u64)> = BTreeMap::new();
    let mut known: BTreeMap<usize, (Ticket, u64, u64)> = BTreeMap::new();
    let mut outcome = Outcome { waits: BTreeMap::new(), refused: BTreeMap::new() };
    for now in 0..time {
        let ended: Vec<usize> = running.iter().filter(|(_, (_, end))| *end <= now).map(|(n, _)| *n).collect();
        for number in ended {
            let (ticket, _) = running.remove(&number).unwrap();
            level.set.leave(ms(now), &ticket);
        }
        for (of, rate) in rates {
            for _ in 0..(rate * (now + 1) / 1000 - rate * now / 1000) {
                let (number, arrival) = level.arrive(now, *of, 1);
                match arrival {
                    Arrival::Started(ticket) if level.woken.borrow().contains(&number) => {
                        known.insert(number, (ticket, *of, now));
                    }
                    Arrival::Started(ticket) => {
                        outcome.waits.entry(*of).or_default().push(0);
                        running.insert(number, (ticket, now + service));
                    }
                    Arrival::Queued(ticket, _) => drop(known.insert(number, (ticket, *of, now))),
                    Arrival::Refused(_) => *outcome.refused.entry(*of).or_default() += 1,
                }
            }
        }
        for number in level.woken() {
            let (ticket, of, arrived) = known[&number];
            outcome.waits.entry(of).or_default().push(now - arrived);
            running.insert(number, (ticket, now + service));
        }
    }
    outcome
}

/// 10 seats of 10 ms: 1,000 requests a second. Twenty users send eight times as many together, and user 2 less than its
/// fair share. What became of it, and how long user 2 waited at the most.
fn flood_by_many(queues: usize, queue_length_limit: usize) -> (Outcome, u64) {
    let mut level = Level::queued(10, queues, 6.min(queues), queue_length_limit);
    let floods = (11..=30).map(|user| (user, 400));
    let outcome = simulate(&mut level, &floods.chain([(2, 30)]).collect::<Vec<_>>(), 10, 3000);
    let longest = *outcome.waits[&2].iter().max().expect("it is served");
    (outcome, longest)
}

#[test]
fn floods_that_fill_a_level_delay_no_flow_that_stays_below_its_fair_share() {
    let (outcome, longest) = flood_by_many(64, 50);
    assert!(longest <= 30, "three times of service: {longest}");
    assert_eq!(outcome.refused.get(&2), None);
    assert!(outcome.waits[&2].len() >= 85, "{}", outcome.waits[&2].len());
    let served: usize = (11..=30).map(|user| outcome.waits[&user].len()).sum();
    assert!(served > 2800, "together they have all that is left: {served}");
    assert!((11..=30).all(|user| outcome.refused[&user] > 500), "the floods are refused: {:?}", outcome.refused);

    // That no user takes the seats of others does not bring it about: in one queue user 2 waits behind all others.
    let (_, longest) = flood_by_many(1, 500);
    assert!(longest > 200, "{longest}");
}

#[test]
fn elephants_leave_a_mouse_a_queue_of_its_hand() {
    // Ten elephants send five times as much as there are seats for, together.
    let mut level = Level::queued(20, 128, 6, 50);
    let mut rates: Vec<(u64, u64)> = (1..=10).map(|elephant| (elephant, 1000)).collect();
    rates.extend((11..=15).map(|mouse| (mouse, 20)));
    let outcome = simulate(&mut level, &rates, 10, 3000);
    for mouse in 11..=15 {
        let longest = outcome.waits[&mouse].iter().max().unwrap();
        assert!(*longest <= 50, "{mouse}: {longest}");
        assert_eq!(outcome.refused.get(&mouse), None);
    }
    let served: Vec<usize> = (1..=10).map(|elephant| outcome.waits[&elephant].len()).collect();
    let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
    assert!(*most < 2 * least, "elephants get the same: {served:?}");
}
