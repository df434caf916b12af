//! The FlowSchemas and PriorityLevelConfigurations of a store, read once. What is not valid does not count; the
//! mandatory ones are there even when somebody deleted or damaged them.
//!
//! Pure. Source: `digestConfigObjects` of `k8s.io/apiserver`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    borrowing::SeatShare,
    classification::{Distinguisher, FlowRule},
    fair_queuing::Queuing,
};
use crate::{
    kinds::flowcontrol::{bootstrap, flow_schema, priority_level_configuration},
    store::Snapshot,
};

/// The resources of the store that decide.
pub const RESOURCES: [&str; 2] =
    ["flowschemas.flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"];

/// The schema that takes what no other does.
pub const CATCH_ALL: &str = "catch-all";
/// The type of the condition that says whether a FlowSchema's level is missing.
pub const DANGLING: &str = "Dangling";

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSpec {
    /// Empty for a mandatory one that is not stored.
    pub uid: String,
    /// Its seats.
    pub share: SeatShare,
    /// What becomes of requests for which there is no seat.
    pub response: LimitResponse,
}

/// `spec.type`, and `spec.limited.limitResponse` of limited ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitResponse {
    /// There is always one.
    Exempt,
    /// They are refused.
    Reject,
    /// They wait.
    Queue(Queuing),
}

/// A FlowSchema.
#[derive(Clone, Debug)]
pub struct SchemaSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Empty for a mandatory one that is not stored.
    pub uid: String,
    /// The lowest one takes a request.
    pub precedence: i64,
    /// The name of its level.
    pub level: Arc<str>,
    /// What tells its flows apart.
    pub distinguisher: Option<Distinguisher>,
    /// Which requests are its.
    pub rules: Vec<FlowRule>,
}

/// All that decides.
#[derive(Clone, Debug)]
pub struct FlowControlSpec {
    /// By name, with the mandatory ones.
    pub levels: BTreeMap<Arc<str>, LevelSpec>,
    /// In the order in which they are asked, with the mandatory ones; each has its level.
    pub schemas: Vec<SchemaSpec>,
    /// What the status of each stored FlowSchema has to say, where it does not.
    pub stale_conditions: Vec<DanglingCondition>,
}

/// Whether the level of a stored FlowSchema is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DanglingCondition {
    /// The FlowSchema.
    pub schema: String,
    /// The level that it names.
    pub level: String,
    /// That level is not there.
    pub is_dangling: bool,
}

impl FlowControlSpec {
    /// What the objects of `snapshot` say.
    pub fn of(snapshot: &Snapshot) -> Self {
        let read = |resource| {
            snapshot.list(resource, "", None).filter_map(move |(_, object)| {
                serde_json::from_slice::<Value>(&object.json())
                    .inspect_err(|error| tracing::error!(%error, resource, "cannot read an object of flow control"))
                    .ok()
            })
        };
        let [schemas, levels] = RESOURCES;
        Self::of_objects(&read(schemas).collect::<Vec<_>>(), &read(levels).collect::<Vec<_>>())
    }

    /// The same of objects alone.
    pub fn of_objects(schemas: &[Value], levels: &[Value]) -> Self {
        let stored = levels.iter().filter_map(|level| {
            let errors = (priority_level_configuration::KIND.validate)(level, None);
            note_broken("PriorityLevelConfiguration", level, errors.len());
            errors.is_empty().then(|| (name_of(level), LevelSpec::of(&level["spec"], uid_of(level))))
        });
        let mut levels: BTreeMap<Arc<str>, LevelSpec> = stored.collect();
        let stale_conditions = schemas.iter().filter_map(|schema| DanglingCondition::stale(schema, &levels)).collect();
        for (name, spec) in bootstrap::priority_levels().filter(|(name, _)| bootstrap::MANDATORY.contains(name)) {
            levels.entry(name.into()).or_insert_with(|| LevelSpec::of(&spec, String::new()));
        }
        let stored = schemas.iter().filter_map(|schema| {
            let errors = (flow_schema::KIND.validate)(schema, None);
            note_broken("FlowSchema", schema, errors.len());
            errors.is_empty().then(|| SchemaSpec::of(name_of(schema), &schema["spec"], uid_of(schema)))
        });
        let mut schemas: Vec<SchemaSpec> = stored.filter(|schema| levels.contains_key(&schema.level)).collect();
        for (name, spec) in bootstrap::flow_schemas().filter(|(name, _)| bootstrap::MANDATORY.contains(name)) {
            if !schemas.iter().any(|schema| &*schema.name == name) {
                schemas.push(SchemaSpec::of(name.into(), &spec, String::new()));
            }
        }
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Self { levels, schemas, stale_conditions }
    }
}

fn note_broken(kind: &str, object: &Value, errors: usize) {
    if errors > 0 {
        tracing::warn!(kind, name = &*name_of(object), "an object of flow control is not valid, and does not count");
    }
}

fn name_of(object: &Value) -> Arc<str> {
    object["metadata"]["name"].as_str().unwrap_or_default().into()
}

fn uid_of(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

impl LevelSpec {
    fn of(spec: &Value, uid: String) -> Self {
        let exempt = spec["type"] == "Exempt";
        let part = if exempt { &spec["exempt"] } else { &spec["limited"] };
        let share = SeatShare {
            shares: part["nominalConcurrencyShares"].as_u64().unwrap_or(if exempt { 0 } else { 30 }),
            lendable_percent: part["lendablePercent"].as_u64().unwrap_or(0),
            borrowing_limit_percent: part["borrowingLimitPercent"].as_u64(),
        };
        let queuing = &part["limitResponse"]["queuing"];
        let number = |field: &str| queuing[field].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        let response = match part["limitResponse"]["type"].as_str() {
            _ if exempt => LimitResponse::Exempt,
            Some("Queue") => LimitResponse::Queue(Queuing {
                queues: number("queues"),
                hand_size: number("handSize"),
                queue_length_limit: number("queueLengthLimit"),
            }),
            _ => LimitResponse::Reject,
        };
        Self { uid, share, response }
    }
}

impl SchemaSpec {
    fn of(name: Arc<str>, spec: &Value, uid: String) -> Self {
        Self {
            name,
            uid,
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            level: spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default().into(),
            distinguisher: Distinguisher::of(spec),
            rules: FlowRule::all_of(spec),
        }
    }
}

impl DanglingCondition {
    /// What a stored FlowSchema has to say of its level, unless it does.
    fn stale(schema: &Value, levels: &BTreeMap<Arc<str>, LevelSpec>) -> Option<Self> {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
        let is_dangling = !levels.contains_key(level);
        let wanted = Self { schema: name_of(schema).to_string(), level: level.to_owned(), is_dangling };
        let mut stored = schema["status"]["conditions"].as_array().into_iter().flatten();
        let is_said = stored.find(|condition| condition["type"] == DANGLING).is_some_and(|condition| {
            condition["status"] == wanted.status()
                && condition["reason"] == wanted.reason()
                && condition["message"] == wanted.message()
        });
        (!is_said).then_some(wanted)
    }

    /// `status` of the condition.
    pub fn status(&self) -> &'static str {
        if self.is_dangling { "True" } else { "False" }
    }

    /// `reason` of the condition.
    pub fn reason(&self) -> &'static str {
        if self.is_dangling { "NotFound" } else { "Found" }
    }

    /// `message` of the condition, in Kubernetes' words.
    pub fn message(&self) -> String {
        let what = if self.is_dangling { "but there is no such object" } else { "and it exists" };
        format!("This FlowSchema references the PriorityLevelConfiguration object named {:?} {what}", self.level)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXEMPT: &str = "exempt";

    fn stored() -> (Vec<Value>, Vec<Value>) {
        bootstrap::objects().partition(|object| object["kind"] == "FlowSchema")
    }

    #[test]
    fn default_objects_are_read_in_the_order_of_their_precedence() {
        let (schemas, levels) = stored();
        let spec = FlowControlSpec::of_objects(&schemas, &levels);
        assert_eq!((spec.schemas.len(), spec.levels.len()), (11, 8));
        let names: Vec<&str> = spec.schemas.iter().map(|schema| &*schema.name).collect();
        assert_eq!(names[..2], ["exempt", "probes"]);
        assert_eq!(names[5..7], ["kube-controller-manager", "kube-scheduler"], "the name breaks the tie");
        assert_eq!(names.last(), Some(&CATCH_ALL));
        assert_eq!(spec.levels["catch-all"].response, LimitResponse::Reject);
        let queuing = Queuing { queues: 64, hand_size: 6, queue_length_limit: 50 };
        assert_eq!(spec.levels["node-high"].response, LimitResponse::Queue(queuing));
        assert_eq!(spec.levels["exempt"].response, LimitResponse::Exempt);
        assert_eq!(spec.stale_conditions.len(), 11, "none says yet that its level is there");
    }

    #[test]
    fn mandatory_objects_hold_when_they_are_missing_or_damaged() {
        let none = FlowControlSpec::of_objects(&[], &[]);
        let names: Vec<&str> = none.schemas.iter().map(|schema| &*schema.name).collect();
        assert_eq!(names, [EXEMPT, CATCH_ALL]);
        assert_eq!(none.levels.keys().map(|name| &**name).collect::<Vec<_>>(), [CATCH_ALL, EXEMPT]);

        let (mut schemas, mut levels) = stored();
        for object in schemas.iter_mut().chain(&mut levels) {
            if object["metadata"]["name"] == CATCH_ALL || object["metadata"]["name"] == EXEMPT {
                object["spec"] = json!({"rules": "nonsense", "type": 7});
            }
        }
        let damaged = FlowControlSpec::of_objects(&schemas, &levels);
        assert_eq!((damaged.schemas.len(), damaged.levels.len()), (11, 8));
        assert_eq!(damaged.levels[EXEMPT].response, LimitResponse::Exempt);
        assert_eq!(damaged.schemas.first().map(|schema| &*schema.name), Some(EXEMPT));
        assert!(!damaged.schemas[0].rules.is_empty());
    }

    #[test]
    fn a_schema_without_its_level_takes_nothing_and_is_said_to_dangle() {
        let (schemas, mut levels) = stored();
        levels.retain(|level| level["metadata"]["name"] != "workload-low");
        let mut spec = FlowControlSpec::of_objects(&schemas, &levels);
        assert!(!spec.schemas.iter().any(|schema| &*schema.name == "service-accounts"));
        spec.stale_conditions.retain(|condition| condition.is_dangling);
        let [condition] = &spec.stale_conditions[..] else { panic!("{:?}", spec.stale_conditions) };
        assert_eq!(
            (condition.schema.as_str(), condition.status(), condition.reason()),
            ("service-accounts", "True", "NotFound")
        );
        assert_eq!(
            condition.message(),
            "This FlowSchema references the PriorityLevelConfiguration object named \"workload-low\" but there is no \
             such object"
        );

        let mut said = schemas;
        for schema in &mut said {
            let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap().to_owned();
            let is_dangling = level == "workload-low";
            let wanted = DanglingCondition { schema: String::new(), level, is_dangling };
            schema["status"] = json!({"conditions": [{"type": DANGLING, "status": wanted.status(),
                "reason": wanted.reason(), "message": wanted.message()}]});
        }
        assert_eq!(FlowControlSpec::of_objects(&said, &levels).stale_conditions, []);
    }
}
