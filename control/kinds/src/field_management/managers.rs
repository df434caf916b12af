//! `metadata.managedFields`: who owns which fields of an object.
//!
//! Between two writes the entries are text, as they are stored and sent. A write reads the list, but the fields of an
//! entry only if they may change.

use std::{borrow::Cow, cmp::Ordering};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{fields_v1, set::FieldSet};

/// How many managers that updated an object are told apart; the oldest are merged into one.
pub const MAX_UPDATE_MANAGERS: usize = 10;

/// How many entries a client may send. More than any object has, and few enough to be merged in no time.
const MAX_SENT: usize = 256;

/// Whom the changes of merged managers belong to.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply: what it leaves out the next time is removed.
    Apply,
    /// By any other write.
    Update,
}

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerId<'a> {
    pub name: Cow<'a, str>,
    pub operation: Operation,
    /// Of the object in the manager's requests. It tells apart only those that update.
    pub api_version: Cow<'a, str>,
    /// The subresource that it writes through; empty for the main resource.
    pub subresource: Cow<'a, str>,
}

impl ManagerId<'_> {
    /// Whether both are one manager.
    pub fn is_same(&self, other: &ManagerId<'_>) -> bool {
        (&self.name, self.operation, &self.subresource) == (&other.name, other.operation, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// As messages name a manager: `"kubectl" with subresource "status" using v1`.
impl std::fmt::Display for ManagerId<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// A manager and what it owns.
#[derive(Clone, Debug)]
pub struct Manager<'a> {
    pub id: ManagerId<'a>,
    /// When its fields changed last.
    pub time: Option<Cow<'a, str>>,
    fields: Fields<'a>,
}

/// The fields of an entry: as text until somebody asks.
#[derive(Clone, Debug)]
enum Fields<'a> {
    Text(&'a str),
    Set(FieldSet<'a>),
}

impl<'a> Manager<'a> {
    /// A manager of `fields`.
    pub fn new(id: ManagerId<'a>, time: Option<String>, fields: FieldSet<'a>) -> Self {
        Self { id, time: time.map(Cow::Owned), fields: Fields::Set(fields) }
    }

    /// What it owns.
    pub fn fields(&mut self) -> &mut FieldSet<'a> {
        if let Fields::Text(text) = self.fields {
            // Entries are only made of text that was read.
            self.fields = Fields::Set(fields_v1::parse(text).unwrap_or_default());
        }
        match &mut self.fields {
            Fields::Set(set) => set,
            Fields::Text(_) => unreachable!("the text was read just now"),
        }
    }

    /// Takes it apart into what it owns.
    pub fn into_fields(mut self) -> FieldSet<'a> {
        std::mem::take(self.fields())
    }

    fn owns_nothing(&self) -> bool {
        match &self.fields {
            Fields::Text(text) => *text == "{}",
            Fields::Set(set) => set.is_empty(),
        }
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub struct Managers<'a> {
    list: Vec<Manager<'a>>,
}

/// One entry as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    fields_v1: Option<&'a RawValue>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
}

/// Why entries that a client sent are not understood.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoApiVersion,
    #[error("missing fieldsType in managed fields entry {at}")]
    NoFieldsType { at: usize },
    #[error("invalid fieldsType {given:?} in managed fields entry {at}")]
    FieldsType { given: String, at: usize },
    #[error("more than {MAX_SENT} entries")]
    TooMany,
    #[error("error decoding set: {0}")]
    Fields(#[from] serde_json::Error),
}

impl<'a> Managers<'a> {
    /// Reads what is stored: text that [`Self::print`] made. Empty text means none.
    pub fn stored(text: &'a str) -> Result<Self, EntriesError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let entries: Vec<Entry<'a>> = serde_json::from_str(text)?;
        let list = entries.into_iter().map(|entry| {
            let operation = operation(&entry.operation)?;
            Ok(Manager {
                id: ManagerId {
                    name: entry.manager,
                    operation,
                    api_version: entry.api_version,
                    subresource: entry.subresource,
                },
                time: entry.time,
                fields: Fields::Text(entry.fields_v1.map_or("{}", RawValue::get)),
            })
        });
        Ok(Self { list: list.collect::<Result<_, EntriesError>>()? })
    }

    /// Reads what a client sent as the value of `managedFields`.
    pub fn sent(value: &'a Value) -> Result<Self, EntriesError> {
        if value.as_array().is_some_and(|entries| entries.len() > MAX_SENT) {
            return Err(EntriesError::TooMany);
        }
        let mut managers = Self::default();
        for (at, entry) in value.as_array().into_iter().flatten().enumerate() {
            let text = |field: &str| Cow::Borrowed(entry.get(field).and_then(Value::as_str).unwrap_or_default());
            let (operation, api_version) = (operation(&text("operation"))?, text("apiVersion"));
            if api_version.is_empty() {
                return Err(EntriesError::NoApiVersion);
            }
            match &*text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(EntriesError::NoFieldsType { at }),
                other => return Err(EntriesError::FieldsType { given: other.to_owned(), at }),
            }
            let fields = match entry.get("fieldsV1") {
                None | Some(Value::Null) => FieldSet::default(),
                Some(fields) => fields_v1::from_value(fields)?,
            };
            let id = ManagerId { name: text("manager"), operation, api_version, subresource: text("subresource") };
            let time = entry.get("time").and_then(Value::as_str).map(Cow::Borrowed);
            managers.put(Manager { id, time, fields: Fields::Set(fields) });
        }
        Ok(managers)
    }

    /// Whether nobody is known to own anything.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Manager<'a>> {
        self.list.iter_mut()
    }

    /// The manager with this id.
    pub fn get_mut(&mut self, id: &ManagerId<'_>) -> Option<&mut Manager<'a>> {
        self.list.iter_mut().find(|manager| manager.id.is_same(id))
    }

    /// Takes the manager with this id out.
    pub fn take(&mut self, id: &ManagerId<'_>) -> Option<Manager<'a>> {
        let at = self.list.iter().position(|manager| manager.id.is_same(id))?;
        Some(self.list.remove(at))
    }

    /// Puts a manager in, in the place of the one with the same id.
    pub fn put(&mut self, manager: Manager<'a>) {
        match self.get_mut(&manager.id) {
            Some(found) => *found = manager,
            None => self.list.push(manager),
        }
    }

    /// Keeps those for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&mut Manager<'a>) -> bool) {
        self.list.retain_mut(keep);
    }

    /// Drops those that own nothing.
    pub fn drop_idle(&mut self) {
        self.list.retain(|manager| !manager.owns_nothing());
    }

    /// Merges the oldest of those that update into one per version, until few enough are left.
    pub fn limit(&mut self) {
        let mut updaters: Vec<usize> =
            (0..self.list.len()).filter(|at| self.list[*at].id.operation == Operation::Update).collect();
        let mut excess = updaters.len().saturating_sub(MAX_UPDATE_MANAGERS);
        if excess == 0 {
            return;
        }
        updaters.sort_by(|a, b| self.list[*a].cmp_by_age(&self.list[*b]));
        let mut oldest: Vec<Manager<'a>> = Vec::new();
        let mut merged = vec![false; self.list.len()];
        for at in updaters {
            if excess == 0 {
                break;
            }
            let manager = self.list[at].clone();
            merged[at] = true;
            match oldest.iter_mut().find(|bucket| bucket.id.api_version == manager.id.api_version) {
                // The first of its version goes into the bucket once there is a second.
                None => oldest.push(manager),
                Some(bucket) => {
                    bucket.id.name = Cow::Borrowed(ANCIENT);
                    bucket.id.subresource = Cow::Borrowed("");
                    bucket.time = manager.time.clone();
                    let all = std::mem::take(bucket.fields()).union(manager.into_fields());
                    *bucket.fields() = all;
                    excess -= 1;
                }
            }
        }
        let mut at = 0;
        self.list.retain(|_| {
            at += 1;
            !merged[at - 1]
        });
        oldest.into_iter().for_each(|bucket| match self.take(&bucket.id) {
            Some(older) => {
                let fields = older.into_fields();
                let mut bucket = bucket;
                let all = std::mem::take(bucket.fields()).union(fields);
                *bucket.fields() = all;
                self.list.push(bucket);
            }
            None => self.list.push(bucket),
        });
    }

    /// The text that is stored and sent: a JSON array, or nothing where nobody owns anything.
    pub fn print(&mut self) -> String {
        if self.list.is_empty() {
            return String::new();
        }
        self.list.sort_by(|a, b| a.id.operation.cmp(&b.id.operation).then_with(|| a.cmp_by_age(b)));
        let mut out = String::with_capacity(1024);
        for manager in &self.list {
            out.push_str(if out.is_empty() { "[{" } else { ",{" });
            let ManagerId { name, operation, api_version, subresource } = &manager.id;
            let operation = match operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            };
            if !name.is_empty() {
                field(&mut out, "manager", name);
            }
            field(&mut out, "operation", operation);
            field(&mut out, "apiVersion", api_version);
            if let Some(time) = &manager.time {
                field(&mut out, "time", time);
            }
            field(&mut out, "fieldsType", "FieldsV1");
            out.push_str(",\"fieldsV1\":");
            match &manager.fields {
                Fields::Text(text) => out.push_str(text),
                Fields::Set(set) => fields_v1::print_to(&mut out, set),
            }
            if !subresource.is_empty() {
                field(&mut out, "subresource", subresource);
            }
            out.push('}');
        }
        out.push(']');
        out
    }
}

impl Manager<'_> {
    /// The oldest first; among equally old ones by name, version and subresource.
    fn cmp_by_age(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.id, &other.id);
        // `None` is less than any time. All times are in UTC and of one length.
        self.time
            .cmp(&other.time)
            .then_with(|| a.name.cmp(&b.name))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    }
}

fn operation(text: &str) -> Result<Operation, EntriesError> {
    match text {
        "Apply" => Ok(Operation::Apply),
        "Update" => Ok(Operation::Update),
        _ => Err(EntriesError::Operation),
    }
}

/// A field with a text, behind what stands before it.
fn field(out: &mut String, name: &str, value: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
    out.push_str(&Value::from(value).to_string());
}

/// The text of a list of managers that came from outside. Empty for none.
pub fn text_of(sent: &Value) -> Result<String, EntriesError> {
    let mut managers = Managers::sent(sent)?;
    Ok(if managers.is_empty() { String::new() } else { managers.print() })
}

/// Whether two texts of managers say the same but for the times.
pub fn same_but_times(a: &str, b: &str) -> bool {
    let (Ok(mut a), Ok(mut b)) = (Managers::stored(a), Managers::stored(b)) else { return false };
    for managers in [&mut a, &mut b] {
        managers.iter_mut().for_each(|manager| manager.time = None);
    }
    a.print() == b.print()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, time: &str, fields: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1",
            "fieldsV1": {format!("f:{fields}"): {}}})
    }

    #[test]
    fn entries_are_written_as_kubernetes_orders_them() {
        let sent = json!([
            entry("b", "2024-01-02T00:00:00Z", "x"),
            {"manager": "s", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {},
                "subresource": "status"},
            entry("a", "2024-01-02T00:00:00Z", "y"),
            {"manager": "z", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1"},
        ]);
        let mut managers = Managers::sent(&sent).unwrap();
        let text = managers.print();
        let expected = concat!(
            r#"[{"manager":"z","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{}},"#,
            r#"{"manager":"s","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{},"subresource":"status"},"#,
            r#"{"manager":"a","operation":"Update","apiVersion":"v1","time":"2024-01-02T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:y":{}}},"#,
            r#"{"manager":"b","operation":"Update","apiVersion":"v1","time":"2024-01-02T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:x":{}}}]"#
        );
        assert_eq!(text, expected);
        assert_eq!(Managers::stored(&text).unwrap().print(), expected);
        assert!(same_but_times(&text, &text.replace("2024", "2025")));
        assert!(!same_but_times(&text, &text.replace("f:y", "f:w")));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let with = |field: &str, value: Value| {
            let mut entry = entry("a", "2024-01-02T00:00:00Z", "x");
            entry[field] = value;
            Managers::sent(&json!([entry])).err().map(|error| error.to_string())
        };
        assert_eq!(with("operation", json!("Other")).unwrap(), "operation must be `Apply` or `Update`");
        assert_eq!(with("apiVersion", json!("")).unwrap(), "apiVersion must not be empty");
        assert_eq!(with("fieldsType", json!("")).unwrap(), "missing fieldsType in managed fields entry 0");
        assert!(with("fieldsV1", json!({"x": {}})).is_some());
        assert!(with("fieldsV1", json!(null)).is_none());
    }

    #[test]
    fn the_oldest_of_many_updaters_become_one() {
        let sent: Vec<_> = (0..13)
            .map(|n| entry(&format!("m{n:02}"), &format!("2024-01-{:02}T00:00:00Z", n + 1), &n.to_string()))
            .collect();
        let sent = json!(sent);
        let mut managers = Managers::sent(&sent).unwrap();
        managers.limit();
        assert_eq!(managers.list.len(), MAX_UPDATE_MANAGERS);
        let text = managers.print();
        let ancient = r#"[{"manager":"ancient-changes","operation":"Update","apiVersion":"v1","time":"2024-01-04T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:0":{},"f:1":{},"f:2":{},"f:3":{}}}"#;
        assert!(text.starts_with(ancient), "{text}");
        assert!(text.contains(r#""manager":"m04""#));
    }
}
