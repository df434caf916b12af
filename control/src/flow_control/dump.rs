//! The pages under `/debug/api_priority_and_fairness/`, as Kubernetes has them: what each level, each queue and each
//! request does at this moment.

use std::sync::atomic::Ordering::Relaxed;

use jiff::Timestamp;

use super::{
    FlowControl,
    fair_queuing::{FlowRefusal, Ticket},
    levels::RunningLevel,
    policy::FlowPolicy,
    priority_level::FlowEntry,
};
use crate::request::path::{RequestPath, ResourcePath};

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
        for (name, running) in &self.inner.levels.lock().by_name {
            let (active, waiting, executing) = running.level.look(|set| {
                (set.queues().filter(|(_, queue)| queue.len() > 0).count(), set.waiting(), set.executing().0)
            });
            let LevelCounts { dispatched, refused, timed_out, cancelled } = LevelCounts::of(&policy, running);
            table.row(vec![
                name.to_string(),
                active.to_string(),
                (waiting == 0 && executing == 0).to_string(),
                running.is_quiescing.to_string(),
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
        for (name, running) in &self.inner.levels.lock().by_name {
            running.level.look(|set| {
                for (index, queue) in set.queues() {
                    let seats = queue.seats_waiting().to_string();
                    table.row(vec![
                        name.to_string(),
                        index.to_string(),
                        queue.len().to_string(),
                        queue.executing.to_string(),
                        queue.seats_in_use.to_string(),
                        format!("{:.8}ss", queue.next_dispatch),
                        seats.clone(),
                        seats,
                        format!("{:.8}ss", queue.expected_work()),
                    ]);
                }
            });
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
        for running in self.inner.levels.lock().by_name.values() {
            let level = &running.level;
            level.look(|set| {
                for (index, queue) in set.queues() {
                    for (place, waiting) in queue.requests().into_iter().enumerate() {
                        let at = (Some(index), Some(place));
                        let times = (level.time(waiting.arrived), None);
                        table.row(request_row(&waiting.request, &waiting.ticket, at, times, with_details));
                    }
                }
                for executing in set.executing_requests() {
                    let times = (level.time(executing.arrived), Some(level.time(executing.started)));
                    let at = (executing.ticket.queue, None);
                    table.row(request_row(&executing.request, &executing.ticket, at, times, with_details));
                }
            });
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
    fn of(policy: &FlowPolicy, running: &RunningLevel) -> Self {
        let sum = |count: &dyn Fn(&super::flow_stats::FlowStats) -> u64| -> u64 {
            let of_level = policy.schemas.iter().filter(|schema| schema.level.name == running.level.name);
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

/// What is shown of a request: `-1` where it has no queue, or no place in it since it executes.
fn request_row(
    entry: &FlowEntry,
    ticket: &Ticket,
    (queue, place): (Option<usize>, Option<usize>),
    (arrived, started): (Timestamp, Option<Timestamp>),
    with_details: bool,
) -> Vec<String> {
    let number = |index: Option<usize>| index.map_or_else(|| "-1".to_owned(), |index| index.to_string());
    let (request, seats) = (&entry.request, ticket.width.to_string());
    let path = match RequestPath::of(request.uri.path()) {
        Ok(RequestPath::Resource(path)) => path,
        Ok(RequestPath::Other(_)) | Err(_) => ResourcePath::default(),
    };
    let namespace = path.namespace.clone().unwrap_or_default();
    let distinguisher = match entry.schema.distinguisher {
        Some(super::classification::Distinguisher::User) => request.user.to_string(),
        Some(super::classification::Distinguisher::Namespace) => namespace.clone(),
        None => String::new(),
    };
    let mut row = vec![
        entry.schema.level.name.to_string(),
        entry.schema.name.to_string(),
        number(queue),
        number(place),
        distinguisher,
        arrived.to_string(),
        seats,
        "0".to_owned(),
        "0s".to_owned(),
        // A time of nothing, as Go writes it.
        started.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |started| started.to_string()),
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

/// A table as Go's `tabwriter` aligns it: a comma behind each cell but the last, columns at least eight wide.
struct DumpTable {
    rows: Vec<Vec<String>>,
}

impl DumpTable {
    fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|column| (*column).to_owned()).collect()] }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let widest = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            widest.unwrap_or_default().saturating_add(2).max(8)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                // A name may hold anything: it stays on its line.
                let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                match widths.get(column) {
                    Some(width) if column.saturating_add(1) < columns => {
                        text.push_str(&format!("{:<width$}", format!("{cell},")));
                    }
                    _ => text.push_str(&cell),
                }
            }
            text.push('\n');
        }
        text
    }
}
