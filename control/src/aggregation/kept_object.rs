//! Objects that are kept as they must be: what has to be done to one, and how it is done. Whoever keeps objects has a
//! work queue of their names, so that a write which fails is tried again after the queue's back-off, and is told of
//! once for each try.

use http::{Request, header};
use kube::Client;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::engine::{Failure, api_code};

/// What has to be done to one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Repair {
    /// It is missing.
    Create(Value),
    /// It is to be this.
    Replace(Value),
    /// The object with this UID must not be: another of the name is left alone.
    Delete {
        /// `metadata.uid`
        uid: String,
    },
}

impl Repair {
    /// Does it to the object `name` in `collection`. What somebody else changed first is a failure as well: the next
    /// pass sees what there is then.
    pub async fn carry_out(self, client: &Client, collection: &str, name: &str) -> Result<(), Failure> {
        let path = format!("{collection}/{name}");
        let deletes = matches!(self, Self::Delete { .. });
        let (request, body, operation) = match self {
            Self::Create(object) => (Request::post(collection), object, "create an object that is kept"),
            Self::Replace(object) => (Request::put(path), object, "repair an object that is kept"),
            Self::Delete { uid } => {
                (Request::delete(path), json!({"preconditions": {"uid": uid}}), "delete an object that is kept")
            }
        };
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string().into_bytes());
        let request =
            request.map_err(|error| Failure::Malformed { what: "the request", message: error.to_string() })?;
        match client.request::<IgnoredAny>(request).await {
            Ok(_) => Ok(()),
            // It is gone, or another has its name.
            Err(error) if deletes && matches!(api_code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Failure::request(operation)(error)),
        }
    }
}
