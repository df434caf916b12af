//! The options in a URL's query: ListOptions, GetOptions, DeleteOptions, CreateOptions and so on, read once.

use serde::{Deserialize, de::DeserializeOwned};

use crate::api::{
    Status,
    selector::{FieldSelector, LabelSelector},
};

/// All options of a request; those that a verb does not know are ignored by it.
#[derive(Debug, Default)]
pub struct Query {
    pub label_selector: LabelSelector,
    pub field_selector: FieldSelector,
    pub watch: bool,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub resource_version: Option<Version>,
    pub resource_version_match: Option<VersionMatch>,
    pub limit: Option<usize>,
    pub r#continue: Option<String>,
    pub timeout_seconds: Option<u64>,
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub include_object: IncludeObject,
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
}

/// `resourceVersion`: `0` asks for any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Any,
    Of(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// What becomes of unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What a Table's rows carry beside cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    label_selector: Option<String>,
    field_selector: Option<String>,
    watch: Option<String>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    resource_version: Option<String>,
    resource_version_match: Option<String>,
    limit: Option<String>,
    r#continue: Option<String>,
    timeout_seconds: Option<String>,
    dry_run: Option<String>,
    field_validation: Option<String>,
    include_object: Option<String>,
    grace_period_seconds: Option<String>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<String>,
}

impl Query {
    pub fn of(query: &str) -> Result<Self, Status> {
        if query.is_empty() {
            return Ok(Self::default());
        }
        let raw: Raw = read(query)?;
        Ok(Self {
            label_selector: raw.label_selector.as_deref().unwrap_or_default().parse().map_err(Status::bad_request)?,
            field_selector: raw.field_selector.as_deref().unwrap_or_default().parse().map_err(Status::bad_request)?,
            watch: boolean("watch", &raw.watch)?.unwrap_or(false),
            allow_watch_bookmarks: boolean("allowWatchBookmarks", &raw.allow_watch_bookmarks)?.unwrap_or(false),
            send_initial_events: boolean("sendInitialEvents", &raw.send_initial_events)?,
            resource_version: match raw.resource_version.as_deref().unwrap_or_default() {
                "" => None,
                "0" => Some(Version::Any),
                text => Some(Version::Of(number("resourceVersion", text)?)),
            },
            resource_version_match: match raw.resource_version_match.as_deref().unwrap_or_default() {
                "" => None,
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                other => {
                    return Err(Status::bad_request(format!(
                        "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                    )));
                }
            },
            limit: optional("limit", &raw.limit)?.filter(|limit| *limit > 0),
            r#continue: raw.r#continue.filter(|token| !token.is_empty()),
            timeout_seconds: optional("timeoutSeconds", &raw.timeout_seconds)?,
            dry_run: match raw.dry_run.as_deref().unwrap_or_default() {
                "" => false,
                "All" => true,
                other => return Err(unsupported("dryRun", other, "\"All\"")),
            },
            field_validation: match raw.field_validation.as_deref().unwrap_or_default() {
                "" | "Warn" => FieldValidation::Warn,
                "Strict" => FieldValidation::Strict,
                "Ignore" => FieldValidation::Ignore,
                other => {
                    return Err(unsupported("fieldValidation", other, "\"\", \"Ignore\", \"Strict\", \"Warn\""));
                }
            },
            include_object: match raw.include_object.as_deref().unwrap_or_default() {
                "" | "Metadata" => IncludeObject::Metadata,
                "None" => IncludeObject::None,
                "Object" => IncludeObject::Object,
                other => return Err(unsupported("includeObject", other, "\"Metadata\", \"None\", \"Object\"")),
            },
            grace_period_seconds: optional("gracePeriodSeconds", &raw.grace_period_seconds)?,
            propagation_policy: raw.propagation_policy.filter(|policy| !policy.is_empty()),
            orphan_dependents: boolean("orphanDependents", &raw.orphan_dependents)?,
        })
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, Status> {
    let uri = format!("/?{query}").parse().map_err(|e| Status::bad_request(format!("bad query: {e}")))?;
    let axum::extract::Query(value) = axum::extract::Query::<T>::try_from_uri(&uri)
        .map_err(|e| Status::bad_request(format!("bad query: {}", e.body_text())))?;
    Ok(value)
}

/// As Kubernetes reads query booleans: present and empty is true.
fn boolean(name: &str, text: &Option<String>) -> Result<Option<bool>, Status> {
    match text.as_deref() {
        None => Ok(None),
        Some("" | "true" | "True" | "TRUE" | "1" | "t") => Ok(Some(true)),
        Some("false" | "False" | "FALSE" | "0" | "f") => Ok(Some(false)),
        Some(other) => Err(Status::bad_request(format!("{name}: {other:?} is not a boolean"))),
    }
}

fn optional<T: std::str::FromStr>(name: &str, text: &Option<String>) -> Result<Option<T>, Status> {
    text.as_deref().filter(|text| !text.is_empty()).map(|text| number(name, text)).transpose()
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|_| Status::bad_request(format!("{name}: Invalid value: {text:?}: strconv.ParseUint: invalid syntax")))
}

fn unsupported(name: &str, value: &str, supported: &str) -> Status {
    Status::bad_request(format!("{name}: Unsupported value: {value:?}: supported values: {supported}"))
}
