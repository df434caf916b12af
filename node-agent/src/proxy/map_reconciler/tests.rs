//! Random lives of a few Services, against maps in memory that can fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use proptest::prelude::*;
use proxy_ebpf::ServiceKey;

use super::*;
use crate::{
    proxy::{
        image::key_of,
        maps::recording::RecordingMaps,
        table::{ThisNode, world_kit::*},
    },
    world::World,
};

/// One step: what Service `who` becomes.
#[derive(Clone, Debug)]
struct Step {
    who: u8,
    /// Ready, by bits; `None` deletes the Service.
    endpoints: Option<u8>,
    node_port: bool,
    /// Shared by all: they contend for it.
    external_ip: bool,
    /// Writes that succeed before the maps are full.
    budget: Option<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0u8..3,
        prop::option::weighted(0.8, 0u8..16),
        any::<bool>(),
        any::<bool>(),
        prop::option::weighted(0.2, 0usize..8),
    );
    let step = step.prop_map(|(who, endpoints, node_port, external_ip, budget)| Step {
        who,
        endpoints,
        node_port,
        external_ip,
        budget,
    });
    prop::collection::vec(step, 1..12)
}

fn apply_step(world: &World, step: &Step) -> World {
    let mut next = world.clone();
    next.revision += 1;
    let name = format!("s{}", step.who);
    match step.endpoints {
        None => remove(&mut next, &name),
        Some(bits) => {
            let mut service = service(&name, Ipv4Addr::new(10, 96, 0, step.who));
            service.ports[0].node_port = step.node_port.then_some(30000 + u16::from(step.who));
            service.external_ips = if step.external_ip { vec![Ipv4Addr::new(203, 0, 113, 1)] } else { Vec::new() };
            let hosts = (0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| endpoint(bit + 1, "here")).collect();
            put(&mut next, service, hosts);
        }
    }
    next
}

fn this_node() -> ThisNode {
    ThisNode { name: "here".into(), addresses: BTreeSet::new(), dns: None, reserved: BTreeSet::new() }
}

/// Every frontend with the addresses it leads to, as a program would find them.
fn seen(held: &Held) -> BTreeMap<ServiceKey, Vec<(u32, u16)>> {
    let backends = |set, generation, count| {
        let contents = held.sets.get(&set);
        (0..count)
            .map(|slot| {
                let id = contents
                    .and_then(|contents| contents.slots.get(&(generation, slot)))
                    .expect("a slot below the count");
                assert!(contents.unwrap().members.contains(id), "a backend that is picked is a member");
                let backend = held.backends.get(id).expect("a slot's backend");
                (backend.address_be, backend.port_be)
            })
            .collect()
    };
    held.heads.iter().map(|(key, head)| (*key, backends(head.set, head.generation, head.count))).collect()
}

/// The same by the table alone: of two that claim a frontend, either may have it.
fn wanted(table: &ServiceTable) -> BTreeMap<ServiceKey, Vec<Vec<(u32, u16)>>> {
    let mut wanted: BTreeMap<ServiceKey, Vec<Vec<(u32, u16)>>> = BTreeMap::new();
    for frontend in table.services.values().flat_map(|service| &service.frontends) {
        let backends =
            frontend.selection.backends.iter().map(|backend| (address_be(backend.address), backend.port.to_be()));
        wanted.entry(key_of(frontend)).or_default().push(backends.collect());
    }
    wanted
}

fn assert_serves(held: &Held, table: &ServiceTable) {
    let (seen, wanted) = (seen(held), wanted(table));
    assert_eq!(seen.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (key, backends) in seen {
        assert!(wanted[&key].contains(&backends), "{key:?} leads to {backends:?}, not one of {:?}", wanted[&key]);
    }
}

/// Replays the writes one by one: after each, what a program finds must be whole.
fn assert_whole_after_every_write(start: &Held, written: &[Op]) {
    let mut held = start.clone();
    for op in written {
        held.record(op);
        seen(&held);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clients_see_whole_sets_after_every_write_and_the_end_is_what_the_table_says(steps in steps()) {
        let (mut world, mut table) = (World::default(), ServiceTable::default());
        let mut reconciler = MapReconciler::adopt(RecordingMaps::default()).unwrap();
        for step in &steps {
            let next = apply_step(&world, step);
            let (next_table, changed) = table.advance(&world, &next, &this_node());
            let before = reconciler.maps().held.clone();
            reconciler.maps_mut().written.clear();
            reconciler.maps_mut().budget = step.budget;
            reconciler.apply(&next_table, &changed, Settings::default());
            assert_whole_after_every_write(&before, &reconciler.maps().written);
            if !reconciler.is_complete() {
                prop_assert!(!reconciler.problems().is_empty());
                reconciler.maps_mut().budget = None;
                reconciler.apply(&next_table, &BTreeSet::new(), Settings::default());
            }
            prop_assert!(reconciler.is_complete(), "{:?}", reconciler.problems());
            prop_assert_eq!(&reconciler.held, &reconciler.maps().held);
            assert_serves(&reconciler.held, &next_table);
            (world, table) = (next, next_table);
        }
        let leftovers: usize = reconciler.held.sets.values().map(|set| set.slots.len()).sum();
        let slots: usize = reconciler.held.heads.values().map(|head| (head.set, head.count)).collect::<BTreeMap<_, _>>().values().map(|count| *count as usize).sum();
        prop_assert_eq!(leftovers, slots, "nothing of an earlier generation is left");

        let mut adopting = MapReconciler::adopt(RecordingMaps { held: reconciler.held.clone(), ..RecordingMaps::default() }).unwrap();
        adopting.apply(&table, &BTreeSet::new(), Settings::default());
        assert_serves(&adopting.held, &table);
        // Which of two claimants has a frontend may change with a restart; nothing else does.
        if wanted(&table).values().all(|claims| claims.len() == 1) {
            prop_assert_eq!(&adopting.maps().written, &Vec::new(), "a restarted agent finds everything as it is");
        }
    }
}

#[test]
fn drift_found_at_adoption_is_repaired_and_strangers_are_removed() {
    let world = apply_step(
        &World::default(),
        &Step { who: 0, endpoints: Some(3), node_port: true, external_ip: false, budget: None },
    );
    let table = ServiceTable::new(&world, &this_node());
    let mut reconciler = MapReconciler::adopt(RecordingMaps::default()).unwrap();
    reconciler.apply(&table, &BTreeSet::new(), Settings::default());
    let good = reconciler.held.clone();

    let mut drifted = good.clone();
    let (key, head) = drifted.heads.iter().next().map(|(key, head)| (*key, *head)).unwrap();
    drifted.sets.get_mut(&head.set).unwrap().slots.remove(&(head.generation, 0));
    drifted.heads.insert(ServiceKey { port_be: 9, ..key }, head);
    drifted.backends.insert(99, *good.backends.values().next().unwrap());
    let mut adopting = MapReconciler::adopt(RecordingMaps { held: drifted, ..RecordingMaps::default() }).unwrap();
    adopting.apply(&table, &BTreeSet::new(), Settings::default());
    assert!(adopting.is_complete());
    assert_serves(&adopting.held, &table);
    assert_eq!(adopting.held.backends.len(), good.backends.len());
}

#[test]
fn an_endpoint_change_writes_no_other_service_and_its_head_after_its_slots() {
    let mut world = World::default();
    for who in 0..3 {
        world =
            apply_step(&world, &Step { who, endpoints: Some(1), node_port: false, external_ip: false, budget: None });
    }
    let table = ServiceTable::new(&world, &this_node());
    let mut reconciler = MapReconciler::adopt(RecordingMaps::default()).unwrap();
    reconciler.apply(&table, &BTreeSet::new(), Settings::default());
    reconciler.maps_mut().written.clear();

    let next =
        apply_step(&world, &Step { who: 1, endpoints: Some(2), node_port: false, external_ip: false, budget: None });
    let (next_table, changed) = table.advance(&world, &next, &this_node());
    assert_eq!(changed.len(), 1);
    reconciler.apply(&next_table, &changed, Settings::default());
    let kinds: Vec<&str> = reconciler.maps().written.iter().map(kind).collect();
    let expected =
        ["put backend", "put slot", "put member", "put head", "delete slot", "delete member", "delete backend"];
    // The first backend is another Service's too, so it is kept; ids of the others stay.
    let expected: Vec<&str> = expected.into_iter().filter(|kind| *kind != "delete backend").collect();
    assert_eq!(kinds, expected);
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::PutBackend(..) => "put backend",
        Op::PutSlot(..) => "put slot",
        Op::PutMember(..) => "put member",
        Op::PutHead(..) => "put head",
        Op::DeleteHead(..) => "delete head",
        Op::DeleteSlot(..) => "delete slot",
        Op::DeleteMember(..) => "delete member",
        Op::DeleteBackend(..) => "delete backend",
        Op::PutNodeAddress(..) | Op::DeleteNodeAddress(..) | Op::PutSettings(..) => "node",
    }
}

#[test]
fn a_full_map_is_said_with_its_limit_and_other_services_are_served() {
    let mut world = World::default();
    for who in 0..2 {
        world =
            apply_step(&world, &Step { who, endpoints: Some(1), node_port: false, external_ip: false, budget: None });
    }
    let table = ServiceTable::new(&world, &this_node());
    let mut reconciler = MapReconciler::adopt(RecordingMaps { budget: Some(5), ..RecordingMaps::default() }).unwrap();
    reconciler.apply(&table, &BTreeSet::new(), Settings::default());
    assert!(!reconciler.is_complete());
    assert_eq!(reconciler.maps().held.heads.len(), 1);
    assert!(reconciler.problems().iter().any(|problem| problem.contains("takes")), "{:?}", reconciler.problems());
}

#[test]
fn a_frontend_that_two_services_claim_goes_to_the_other_when_one_gives_it_up() {
    let both = |step: &World, who| {
        apply_step(step, &Step { who, endpoints: Some(1 << who), node_port: false, external_ip: true, budget: None })
    };
    let world = both(&both(&World::default(), 0), 1);
    let table = ServiceTable::new(&world, &this_node());
    let mut reconciler = MapReconciler::adopt(RecordingMaps::default()).unwrap();
    reconciler.apply(&table, &BTreeSet::new(), Settings::default());
    let without_first =
        apply_step(&world, &Step { who: 0, endpoints: None, node_port: false, external_ip: false, budget: None });
    let (next, changed) = table.advance(&world, &without_first, &this_node());
    reconciler.apply(&next, &changed, Settings::default());
    assert!(reconciler.is_complete());
    assert_serves(&reconciler.held, &next);
}

/// Run alone: `cargo test -p fairlead-node-agent --lib --release many_services -- --nocapture --ignored`.
#[test]
#[ignore = "measures: wants a release build and a quiet machine"]
fn many_services() {
    let mut world = World::default();
    for number in 0..50_000u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let [_, a, b, c] = (number * 2).to_be_bytes();
        let service = service(&format!("s{number:05}"), Ipv4Addr::new(10, 96, high, low));
        let endpoints =
            [endpoint_at(Ipv4Addr::new(10, a, b, c), "here"), endpoint_at(Ipv4Addr::new(10, a, b, c + 1), "there")];
        put(&mut world, service, endpoints.into());
    }
    let started = std::time::Instant::now();
    let table = ServiceTable::new(&world, &this_node());
    let made = started.elapsed();
    let mut reconciler = MapReconciler::adopt(RecordingMaps::default()).unwrap();
    reconciler.apply(&table, &BTreeSet::new(), Settings::default());
    println!("50,000 Services: table {made:?}, with images and plans {:?}", started.elapsed());
    let mut worst = std::time::Duration::ZERO;
    let (mut world, mut table) = (world, table);
    for number in 0..1000u32 {
        let mut next = world.clone();
        next.revision += 1;
        let service = Arc::unwrap_or_clone(world.services.get(&name(&format!("s{:05}", number * 50))).unwrap().clone());
        put(&mut next, service, vec![endpoint_at(Ipv4Addr::new(10, 250, (number >> 8) as u8, number as u8), "here")]);
        let started = std::time::Instant::now();
        let (next_table, changed) = table.advance(&world, &next, &this_node());
        reconciler.apply(&next_table, &changed, Settings::default());
        worst = worst.max(started.elapsed());
        (world, table) = (next, next_table);
    }
    println!("one endpoint change among them: worst of 1,000 {worst:?}");
    assert!(worst < std::time::Duration::from_millis(1));
}
