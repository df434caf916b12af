//! No Service has the port of a node's agent: whoever comes first, and after an upgrade.

use super::*;
use crate::kinds::node;

fn node(name: &str, port: u16) -> Value {
    json!({"metadata": {"name": name}, "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}})
}

impl Lab {
    /// The transaction by which the Node says so of its agent, or goes, as of `snapshot`.
    fn plan_node(&self, snapshot: &Snapshot, name: &str, port: Option<u16>) -> Result<Transaction, Status> {
        let kind = Kind::from(&node::KIND);
        let stored = snapshot.get(NODES, name);
        let old: Option<Value> = stored.map(|stored| serde_json::from_slice(&stored.json()).unwrap());
        let mut new = port.map(|port| node(name, port));
        let claimant = Claimant { kind: &kind, namespace: None, name };
        let records = allocator().allocate(snapshot, &claimant, old.as_ref(), new.as_mut())?;
        let key = Key { resource: NODES.into(), name: name.into() };
        let expect = stored.map_or(Expect::Absent, |stored| Expect::At(stored.revision));
        let change = new.map_or(Change::Delete, |new| Change::Put(encode::draft(&kind, &new)));
        let mut writes = vec![Write { key, expect, change }];
        writes.extend(records);
        Ok(Transaction { require: Vec::new(), writes })
    }

    /// The Node says so of its agent, or goes.
    async fn put_node(&self, name: &str, port: Option<u16>) -> Result<(), Status> {
        let plan = self.plan_node(&self.store.snapshot(), name, port)?;
        self.store.commit(plan).await.unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_service_gets_the_port_of_no_agent_by_name_or_by_itself_until_the_last_has_moved() {
    let lab = Lab::new();
    for (name, port) in [("a", 30005), ("b", 30005), ("c", 10250)] {
        lab.put_node(name, Some(port)).await.unwrap();
    }
    let refused = lab.put("asks", node_port(30005)).await.unwrap_err();
    assert_eq!(refused.code, 422);
    let words = "spec.ports[0].nodePort: Invalid value: 30005: provided port is the port on which the agent of a node";
    assert!(refused.message.contains(words), "{}", refused.message);
    let checked = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30005,
        "ports": [{"port": 80}]});
    let refused = lab.put("checked", checked).await.unwrap_err();
    assert!(refused.message.contains("spec.healthCheckNodePort: Invalid value: 30005"), "{}", refused.message);
    for n in 0..40 {
        let given = lab.put(&format!("s{n}"), node_port(0)).await.unwrap();
        assert_ne!(given["ports"][0]["nodePort"], 30005);
    }
    assert_eq!(lab.put("late", node_port(0)).await.unwrap_err().code, 500, "no other port is left");

    lab.put_node("a", Some(10250)).await.unwrap();
    assert!(lab.put("asks", node_port(30005)).await.is_err(), "b's agent listens there still");
    lab.put_node("b", None).await.unwrap();
    lab.put("asks", node_port(30005)).await.unwrap();
    assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_node_whose_agent_has_the_port_of_a_service_joins_and_the_service_keeps_it() {
    let lab = Lab::new();
    lab.put("web", node_port(30006)).await.unwrap();
    lab.put_node("a", Some(30006)).await.unwrap();
    assert_eq!(lab.stored("web").unwrap().1["spec"]["ports"][0]["nodePort"], 30006);
    assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 0);
    let conflicts = super::super::audit::audit(&allocator(), &lab.store.snapshot()).conflicts;
    assert!(conflicts.len() == 1 && conflicts[0].contains("30006 of Service default/web"), "{conflicts:?}");
    lab.put_node("a", Some(30007)).await.unwrap();
    lab.put_node("a", Some(30006)).await.unwrap();
    // That the node leaves it takes nothing from the Service, either.
    lab.put_node("a", None).await.unwrap();
    let refused = lab.put("other", node_port(30006)).await.unwrap_err();
    assert!(refused.message.contains("provided port is already allocated"), "{}", refused.message);
}

#[tokio::test]
async fn an_audit_makes_the_records_of_agents_ports_and_removes_those_of_agents_that_are_gone() {
    let lab = Lab::new();
    for name in ["a", "b"] {
        let key = Key { resource: NODES.into(), name: name.into() };
        let change = Change::Put(encode::draft(&Kind::from(&node::KIND), &node(name, 30008)));
        lab.store.write_one(Write { key, expect: Expect::Absent, change }).await.unwrap();
    }
    lab.store.write_one(Records::new().take_agent_port(30009)).await.unwrap();
    assert!(lab.put("gone", node_port(30009)).await.is_err());
    assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 2);
    assert!(lab.put("held", node_port(30008)).await.is_err());
    lab.put("gone", node_port(30009)).await.unwrap();
    assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 0);
}

#[tokio::test]
async fn of_a_service_and_a_node_that_take_one_port_at_once_one_is_stored() {
    let lab = Lab::new();
    let snapshot = lab.store.snapshot();
    let service = lab.plan(&snapshot, "web", Some(node_port(30010))).unwrap();
    lab.put_node("a", Some(30010)).await.unwrap();
    let results = lab.store.commit_all(vec![service]).await;
    assert!(matches!(&results[0], Err(CommitError::Conflict { key, .. }) if &*key.name == "30010"));
}

#[tokio::test]
async fn a_port_that_one_node_takes_as_the_last_other_leaves_it_stays_the_agents() {
    for taker_is_first in [true, false] {
        let lab = Lab::new();
        lab.put_node("leaves", Some(30011)).await.unwrap();
        let snapshot = lab.store.snapshot();
        let mut order = [("takes", Some(30011)), ("leaves", Some(10250))];
        if !taker_is_first {
            order.reverse();
        }
        let plans = order.map(|(name, port)| lab.plan_node(&snapshot, name, port).unwrap());
        let results = lab.store.commit_all(plans.into()).await;
        assert!(results[0].is_ok(), "{:?}", results[0]);
        assert!(matches!(&results[1], Err(CommitError::Conflict { key, .. }) if &*key.name == "30011"), "{results:?}");
        // As the API does: planned anew.
        let (name, port) = order[1];
        lab.put_node(name, port).await.unwrap();
        assert!(lab.put("asks", node_port(30011)).await.is_err(), "first the taker: {taker_is_first}");
        assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn nodes_that_take_a_port_of_agents_at_once_do_not_hinder_one_another() {
    let lab = Lab::new();
    lab.put_node("first", Some(30012)).await.unwrap();
    let snapshot = lab.store.snapshot();
    let plans = ["a", "b", "c"].map(|name| lab.plan_node(&snapshot, name, Some(30012)).unwrap());
    assert!(lab.store.commit_all(plans.into()).await.iter().all(Result::is_ok));
}
