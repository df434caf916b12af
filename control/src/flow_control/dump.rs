//! The pages under `/debug/api_priority_and_fairness/`, as Kubernetes has them: what each level, each queue and each
//! request does at this moment.
//!
//! While a lock is held, numbers and handles are copied, nothing is written.

mod table;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    FlowControl,
    classification::Distinguisher,
    fair_queuing::{
        Executing, FlowRefusal, Ticket,
        queue::{Queue, Waiting},
    },
    policy::{FlowPolicy, FlowSchema},
    priority_level::{FlowEntry, PriorityLevel, RequestBrief},
};
use crate::request::path::{RequestPath, ResourcePath};
use table::DumpTable;

/// The names of the pages under `/debug/api_priority_and_fairness/`.
pub const PAGES: [&str; 3] = ["dump_priority_levels", "dump_queues", "dump_requests"];

impl FlowControl {
    /// A page. `with_details` adds to requests what they ask for. `None` for one that there is not.
    pub fn page(&self, name: &str, with_details: bool) -> Option<String> {
        match name {
            "dump_priority_levels" => Some(self.levels_page()),
            "dump_queues" => Some(self.queues_page()),
            "dump_requests" => Some(self.requests_page(with_details)),
            _ => None,
        }
    }

    /// The levels, and whether each is about to go.
    fn running_levels(&self) -> Vec<(Arc<PriorityLevel>, bool)> {
        let levels = self.inner.levels.lock();
        levels.by_name.values().map(|running| (running.level.clone(), running.is_quiescing)).collect()
    }

    fn levels_page(&self) -> String {
        let mut table = DumpTable::new(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ]);
        let policy = self.inner.policy.load();
        for (level, is_quiescing) in self.running_levels() {
            let (active, waiting, executing) = level.look(|set| {
                (set.queues().filter(|(_, queue)| queue.len() > 0).count(), set.waiting(), set.executing().0)
            });
            let LevelCounts { dispatched, refused, timed_out, cancelled } = LevelCounts::of(&policy, &level);
            table.row(vec![
                level.name.to_string(),
                active.to_string(),
                (waiting == 0 && executing == 0).to_string(),
                is_quiescing.to_string(),
                waiting.to_string(),
                executing.to_string(),
                dispatched.to_string(),
                refused.to_string(),
                timed_out.to_string(),
                cancelled.to_string(),
            ]);
        }
        table.text()
    }

    /// Kubernetes shows queues with nothing to do as well; they are not kept here.
    fn queues_page(&self) -> String {
        let mut table = DumpTable::new(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ]);
        for (level, _) in self.running_levels() {
            let queues = level.look(|set| {
                let of = |(index, queue): (usize, &Queue<FlowEntry>)| {
                    let requests = [queue.len(), queue.executing, queue.seats_in_use, queue.seats_waiting()];
                    (index, requests, queue.next_dispatch, queue.expected_work())
                };
                set.queues().map(of).collect::<Vec<_>>()
            });
            for (index, [waiting, executing, in_use, seats], next_dispatch, work) in queues {
                table.row(vec![
                    level.name.to_string(),
                    index.to_string(),
                    waiting.to_string(),
                    executing.to_string(),
                    in_use.to_string(),
                    format!("{next_dispatch:.8}ss"),
                    seats.to_string(),
                    seats.to_string(),
                    format!("{work:.8}ss"),
                ]);
            }
        }
        table.text()
    }

    fn requests_page(&self, with_details: bool) -> String {
        const DETAILS: [&str; 8] =
            ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
        let mut columns = vec![
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
            "StartTime",
        ];
        columns.extend(DETAILS.iter().filter(|_| with_details));
        let mut table = DumpTable::new(&columns);
        for (level, _) in self.running_levels() {
            let shown: Vec<ShownRequest> = level.look(|set| {
                let queues = set.queues().map(|(index, queue)| (Some(index), queue));
                let waiting = queues.chain([(None, set.heartbeat_queue())]).flat_map(|(index, queue)| {
                    let requests = queue.requests().into_iter().enumerate();
                    requests.map(move |(place, waiting)| ShownRequest::waiting(waiting, index, place))
                });
                waiting.chain(set.executing_requests().into_iter().map(ShownRequest::executing)).collect()
            });
            for request in shown {
                table.row(request.row(&level, with_details));
            }
        }
        table.text()
    }
}

/// What was counted of a level's requests.
struct LevelCounts {
    dispatched: u64,
    refused: u64,
    timed_out: u64,
    cancelled: u64,
}

impl LevelCounts {
    fn of(policy: &FlowPolicy, level: &PriorityLevel) -> Self {
        let sum = |count: &dyn Fn(&super::flow_stats::FlowStats) -> u64| -> u64 {
            let of_level = policy.schemas.iter().filter(|schema| schema.level.name == level.name);
            of_level.map(|schema| count(&schema.stats)).sum()
        };
        Self {
            dispatched: sum(&|stats| stats.dispatched.load(Relaxed)),
            refused: sum(&|stats| FlowRefusal::ALL.iter().map(|why| stats.refused(*why)).sum()),
            timed_out: sum(&|stats| stats.refused(FlowRefusal::TimeOut)),
            cancelled: sum(&|stats| stats.refused(FlowRefusal::Cancelled)),
        }
    }
}

/// What is shown of a request, before it is written down.
struct ShownRequest {
    request: Arc<RequestBrief>,
    schema: Arc<FlowSchema>,
    ticket: Ticket,
    queue: Option<usize>,
    /// Its place in it, while it waits.
    place: Option<usize>,
    arrived: Duration,
    started: Option<Duration>,
}

impl ShownRequest {
    fn waiting(waiting: &Waiting<FlowEntry>, queue: Option<usize>, place: usize) -> Self {
        let place = Some(place);
        Self { queue, place, ..Self::of(&waiting.request, waiting.ticket, waiting.arrived) }
    }

    fn executing(executing: &Executing<FlowEntry>) -> Self {
        let started = Some(executing.started);
        Self { started, ..Self::of(&executing.request, executing.ticket, executing.arrived) }
    }

    fn of(entry: &FlowEntry, ticket: Ticket, arrived: Duration) -> Self {
        let (request, schema) = (entry.request.clone(), entry.schema.clone());
        Self { request, schema, ticket, queue: ticket.queue, place: None, arrived, started: None }
    }

    /// `-1` where it has no queue, or no place in it since it executes.
    fn row(&self, level: &PriorityLevel, with_details: bool) -> Vec<String> {
        let number = |index: Option<usize>| index.map_or_else(|| "-1".to_owned(), |index| index.to_string());
        let (request, schema) = (&self.request, &self.schema);
        let path = match RequestPath::of(request.uri.path()) {
            Ok(RequestPath::Resource(path) | RequestPath::Unserved(path)) => path,
            Ok(RequestPath::Other(_)) | Err(_) => ResourcePath::default(),
        };
        let namespace = path.namespace.clone().unwrap_or_default();
        let distinguisher = match schema.distinguisher {
            Some(Distinguisher::User) => request.user.to_string(),
            Some(Distinguisher::Namespace) => namespace.clone(),
            None => String::new(),
        };
        let started = self.started.map(|started| level.time(started).to_string());
        let mut row = vec![
            schema.level.name.to_string(),
            schema.name.to_string(),
            number(self.queue),
            number(self.place),
            distinguisher,
            level.time(self.arrived).to_string(),
            self.ticket.width.to_string(),
            "0".to_owned(),
            "0s".to_owned(),
            // A time of nothing, as Go writes it.
            started.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
        ];
        if with_details {
            let version = if path.group.is_empty() { path.version } else { format!("{}/{}", path.group, path.version) };
            row.extend([
                request.user.to_string(),
                request.verb.as_str().to_owned(),
                request.uri.path().to_owned(),
                namespace,
                path.name.unwrap_or_default(),
                version,
                path.resource,
                path.subresource.unwrap_or_default(),
            ]);
        }
        row
    }
}
