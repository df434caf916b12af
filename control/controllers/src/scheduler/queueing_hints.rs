//! Whether the change of a placed pod may help a pod that no node could take, as each plugin that rejected it sees it:
//! pure. Source: the `isSchedulableAfterPodChange` of kube-scheduler's plugins.
//!
//! Two hints go further than theirs, whose pods wait for the next flush: the end of a pod with anti-affinity, which may
//! have kept others away, and the end of a pod that is wanted, since the first of a group need not find its like.

use super::{
    neighbours::NamespaceLabels,
    pod::Needs,
    rejection::{Plugin, Rejections},
};

/// What became of a placed pod.
#[derive(Clone, Copy)]
pub enum PodChange<'c> {
    /// It was placed.
    Placed(&'c Needs),
    /// It is on its node as before, with other needs.
    Updated {
        /// What it needed.
        before: &'c Needs,
        /// What it needs now.
        after: &'c Needs,
    },
    /// It left its node.
    Ended(&'c Needs),
}

/// A pod that no node could take.
#[derive(Clone, Copy)]
pub struct Waiting<'w> {
    /// What decides where it can run.
    pub needs: &'w Needs,
    /// Who refused it.
    pub rejections: &'w Rejections,
}

/// Whether the change may help the pod. `has_room` tells whether the node of the change can take it now, as far as the
/// node alone can tell.
pub fn may_help(waiting: Waiting, change: PodChange, known: &NamespaceLabels, has_room: impl Fn() -> bool) -> bool {
    let is_by = |plugin| waiting.rejections.may_be_by(plugin);
    (is_by(Plugin::InterPodAffinity) && helps_affinity(waiting.needs, change, known))
        || (is_by(Plugin::PodTopologySpread) && helps_spread(waiting.needs, change))
        || (leaves_room(change, is_by) && has_room())
}

fn helps_affinity(waiting: &Needs, change: PodChange, known: &NamespaceLabels) -> bool {
    let own = &waiting.neighbours;
    let wants = |pod: &Needs| own.has_wanted(&pod.neighbours, known);
    let avoids = |pod: &Needs| own.avoids(&pod.neighbours, known);
    match change {
        PodChange::Placed(pod) => wants(pod),
        PodChange::Updated { before, after } => (!wants(before) && wants(after)) || (avoids(before) && !avoids(after)),
        PodChange::Ended(pod) => avoids(pod) || wants(pod) || pod.neighbours.has_anti_affinity(),
    }
}

fn helps_spread(waiting: &Needs, change: PodChange) -> bool {
    // Terminating pods are not counted.
    let counts = |pod: &Needs| !pod.terminating && waiting.spread.selects(waiting, pod);
    match change {
        PodChange::Placed(pod) | PodChange::Ended(pod) => waiting.spread.selects(waiting, pod),
        PodChange::Updated { before, after } => counts(before) != counts(after),
    }
}

/// Whether the change gives back what one of the plugins found missing.
fn leaves_room(change: PodChange, is_by: impl Fn(Plugin) -> bool) -> bool {
    match change {
        PodChange::Placed(_) => false,
        PodChange::Updated { before, after } => {
            is_by(Plugin::NodeResourcesFit) && before.requests.exceeds(&after.requests)
        }
        PodChange::Ended(pod) => {
            is_by(Plugin::NodeResourcesFit) || (is_by(Plugin::NodePorts) && !pod.host_ports.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scheduler::pod::PodInfo;

    fn pod(labels: Value, more: Value) -> Needs {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "default", "labels": labels},
            "spec": {"containers": [{"name": "c"}]}});
        for (key, value) in more.as_object().expect("an object") {
            pod["spec"][key] = value.clone();
        }
        PodInfo::read(&serde_json::from_value(pod).expect("a valid pod")).needs
    }

    fn app(name: &str) -> Needs {
        pod(json!({"app": name}), json!({}))
    }

    fn with_affinity(kind: &str, app: &str) -> Needs {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}});
        pod(json!({}), json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))
    }

    fn spread_with(app: &str) -> Needs {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": app}}});
        pod(json!({}), json!({"topologySpreadConstraints": [constraint]}))
    }

    fn helps(waiting: &Needs, rejected_by: &[Plugin], change: PodChange) -> bool {
        let rejections = rejected_by.iter().copied().collect();
        may_help(Waiting { needs: waiting, rejections: &rejections }, change, &NamespaceLabels::new(), || true)
    }

    const AFFINITY: &[Plugin] = &[Plugin::InterPodAffinity];
    const SPREAD: &[Plugin] = &[Plugin::PodTopologySpread];
    const RESOURCES: &[Plugin] = &[Plugin::NodeResourcesFit];

    #[test]
    fn a_pod_waits_for_what_the_plugins_that_rejected_it_look_at() {
        let (web, db) = (app("web"), app("db"));
        let near = with_affinity("podAffinity", "db");
        assert!(helps(&near, AFFINITY, PodChange::Placed(&db)) && !helps(&near, AFFINITY, PodChange::Placed(&web)));
        assert!(!helps(&near, RESOURCES, PodChange::Placed(&db)), "its neighbour is there, room is not");
        assert!(helps(&near, RESOURCES, PodChange::Ended(&web)) && !helps(&near, AFFINITY, PodChange::Ended(&web)));
        assert!(helps(&near, &[Plugin::NodeAffinity, Plugin::InterPodAffinity], PodChange::Placed(&db)));
        let spread = spread_with("web");
        assert!(helps(&spread, SPREAD, PodChange::Ended(&web)) && !helps(&spread, SPREAD, PodChange::Ended(&db)));
        assert!(helps(&spread, SPREAD, PodChange::Placed(&web)), "another domain has more now");
        assert!(!helps(&spread, RESOURCES, PodChange::Placed(&web)));
        assert!(!helps(&near, &[Plugin::TaintToleration], PodChange::Ended(&db)), "its node is tainted as before");
        assert!(helps(&near, &[], PodChange::Placed(&db)), "nobody was asked");
    }

    #[test]
    fn a_placed_pod_that_gets_other_labels_helps_those_whose_rules_it_meets_now() {
        let (web, db) = (app("web"), app("db"));
        let update = |before, after| PodChange::Updated { before, after };
        let near = with_affinity("podAffinity", "db");
        assert!(helps(&near, AFFINITY, update(&web, &db)) && !helps(&near, AFFINITY, update(&db, &web)));
        let apart = with_affinity("podAntiAffinity", "db");
        assert!(helps(&apart, AFFINITY, update(&db, &web)) && !helps(&apart, AFFINITY, update(&web, &db)));
        assert!(!helps(&apart, RESOURCES, update(&db, &web)));
        let spread = spread_with("db");
        assert!(helps(&spread, SPREAD, update(&db, &web)) && helps(&spread, SPREAD, update(&web, &db)));
        let other = app("other");
        assert!(!helps(&spread, SPREAD, update(&web, &other)), "it counted for nothing, and does so now");
        let going = Needs { terminating: true, ..db.clone() };
        assert!(helps(&spread, SPREAD, update(&db, &going)), "it is not counted any more");
    }

    #[test]
    fn a_pod_that_shrinks_or_gives_its_port_back_helps_those_that_lacked_it() {
        let asking =
            |cpu: &str| pod(json!({}), json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}));
        let (small, large) = (asking("1"), asking("2"));
        let waiting = asking("1");
        assert!(helps(&waiting, RESOURCES, PodChange::Updated { before: &large, after: &small }));
        assert!(!helps(&waiting, RESOURCES, PodChange::Updated { before: &small, after: &large }));
        let with_port =
            pod(json!({}), json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}));
        let ports = &[Plugin::NodePorts];
        assert!(helps(&with_port, ports, PodChange::Ended(&with_port)));
        assert!(!helps(&with_port, ports, PodChange::Ended(&small)));
    }

    #[test]
    fn the_end_of_a_pod_with_anti_affinity_helps_those_that_it_may_have_kept_away() {
        let hermit = with_affinity("podAntiAffinity", "web");
        let web = app("web");
        assert!(helps(&web, AFFINITY, PodChange::Ended(&hermit)));
        assert!(!helps(&web, SPREAD, PodChange::Ended(&hermit)));
    }
}
