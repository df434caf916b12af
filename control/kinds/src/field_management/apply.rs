//! Server-side apply: merges a configuration into an object, takes out what its manager applied before and no longer
//! names, and refuses to change what others own.

use serde_json::{Value, json};

use super::{
    check::{check, message},
    compare::{Difference, State, compare},
    conflict::{self, Conflict},
    last_applied,
    leaves::leaves,
    managers::{Manager, Managers, Operation},
    merge::merge,
    prune::prune,
    reset::strip,
    shape::ItemError,
    tracker::{ManagersText, Tracker},
    versions::{as_stored, shown, type_of},
};
use crate::status::Status;

/// Whom the fields belong to that an object had before anybody applied it, and kept account of its managers.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What an apply makes of an object.
#[derive(Debug)]
pub struct Applied {
    /// The object in the version of the request. Neither decoded nor defaulted yet: it may have nulls.
    pub object: Value,
    /// Who owns its fields.
    pub managers: ManagersText,
}

impl Tracker<'_> {
    /// Applies `config`, in the version of the request, to `live`, an object of the stored kind, of which `managers`
    /// own the fields. Without `live` the configuration is all there is.
    pub fn apply(&self, live: Option<&Value>, managers: &str, config: &Value, force: bool) -> Result<Applied, Status> {
        self.check_config(config)?;
        let failed = |error: ItemError| Status::plain_error(format!("failed to merge config: {error}"));
        let before;
        let managers = match live {
            Some(live) if Managers::stored(managers).is_ok_and(|managers| managers.is_empty()) => {
                before = self.updated(None, live, Managers::default(), BEFORE_FIRST_APPLY).map_err(failed)?;
                &before
            }
            _ => managers,
        };
        let mut result = match self.attempt(live, managers, config, force).map_err(failed)? {
            Ok(applied) => applied,
            Err(mut conflicts) => {
                if self.manager == "kubectl" {
                    last_applied::forgive(
                        self.served,
                        live.map(|live| shown(self.served, live)).as_deref(),
                        &mut conflicts,
                    );
                }
                if !conflicts.is_empty() {
                    return Err(conflict::status(conflicts));
                }
                let forced = self.attempt(live, managers, config, true).map_err(failed)?;
                forced.map_err(conflict::status)?
            }
        };
        if self.manager == "kubectl" {
            last_applied::renew(&mut result.object, config);
        }
        Ok(result)
    }

    /// Refuses a configuration of another kind, or that does not fit the schema.
    fn check_config(&self, config: &Value) -> Result<(), Status> {
        let text = |field: &str| config[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let shown_kind = match version.split_once('/') {
            None => format!("/{version}, Kind={kind}"),
            Some(_) => format!("{version}, Kind={kind}"),
        };
        if version != self.served.api_version() || kind != self.served.kind {
            return Err(Status::bad_request(format!("invalid object type: {shown_kind}")));
        }
        if config["metadata"]["managedFields"].is_array() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let errors = check(type_of(self.served), config);
        if errors.is_empty() {
            return Ok(());
        }
        let name = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
        Err(Status::plain_error(format!(
            "failed to create typed patch object ({}/{}; {shown_kind}): {}",
            name("namespace"),
            name("name"),
            message(&errors)
        )))
    }

    fn attempt<'m>(
        &'m self,
        live: Option<&Value>,
        managers: &'m str,
        config: &'m Value,
        force: bool,
    ) -> Result<Result<Applied, Vec<Conflict<'m>>>, ItemError> {
        let of = type_of(self.served);
        let nothing = json!({"apiVersion": self.served.api_version(), "kind": &*self.served.kind});
        let shown_live = live.map(|live| shown(self.served, live));
        let current = shown_live.as_deref().unwrap_or(&nothing);
        let merged = merge(of, Some(current), Some(config))?.unwrap_or(Value::Null);

        // What was stored here was read before.
        let mut others: Managers<'m> = Managers::stored(managers).unwrap_or_default();
        let id = self.id(self.manager, Operation::Apply);
        let last = others.take(&id);
        let mut applied = leaves(of, config)?;
        self.filter().apply(&mut applied);
        let time = last.as_ref().and_then(|last| last.time.clone());
        let object = match last {
            Some(last) => {
                let version = last.id.api_version.to_string();
                prune(self, merged, (&version, last.into_fields()), &applied, &mut others)?
            }
            None => merged,
        };

        let old = if live.is_some() { State::Is(current) } else { State::Zero };
        let mut difference: Difference<'_> = compare(of.as_written(), old, State::Is(&object))?;
        self.filter().apply_to(&mut difference);
        let stored = as_stored(self.served, &object);
        let conflicts = self.disown(&mut others, &difference, (live, &stored), Some(&id))?;
        if !force && !conflicts.is_empty() {
            return Ok(Err(conflicts));
        }
        let unchanged = live.is_some() && object == *current;
        let now = (!unchanged && self.subresource != Some("scale")).then(|| self.now.to_owned());
        let time = now.or_else(|| time.map(std::borrow::Cow::into_owned));
        drop((difference, stored));
        let mut others: Managers<'_> = others;
        strip(&mut applied);
        others.put(Manager::new(id, time, applied));
        others.drop_idle();
        let managers = others.print();
        Ok(Ok(Applied { object, managers }))
    }
}
