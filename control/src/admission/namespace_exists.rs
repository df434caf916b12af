//! NamespaceExists: nothing is created, changed or deleted in a namespace that does not exist.
//!
//! Source: `plugin/pkg/admission/namespace/exists`. Forms that are not stored, such as access reviews, are not asked
//! about here.

use super::{
    namespace::RESOURCE,
    plugins::{AdmissionContext, Plugin, Validate},
};
use crate::{
    admission_plugins::PluginName,
    status::{Status, Subject},
};

/// Every write in a namespace needs it.
pub static PLUGIN: Plugin = Plugin {
    validate: Some(Validate::Now(|context, _| must_exist(context))),
    delete: Some(|context, _| must_exist(context)),
    ..Plugin::named(PluginName::NamespaceExists)
};

fn must_exist(context: &AdmissionContext<'_>) -> Result<(), Status> {
    let request = context.request;
    match request.namespace {
        Some(name) if request.snapshot.get(RESOURCE, name).is_none() => {
            Err(Status::not_found(Subject { group: "", resource: RESOURCE, name }))
        }
        _ => Ok(()),
    }
}
