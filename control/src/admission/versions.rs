//! The objects of one request, in the versions in which webhooks and policies want to see them.

use std::sync::Arc;

use serde_json::Value;

use super::attributes::Attributes;
use crate::{
    definitions::conversion,
    kinds::{Kind, Storage},
    status::Status,
    store::Object,
};

/// The new and the old object. Both begin in the version that is stored.
pub struct Versioned<'a> {
    /// Null on deletion.
    object: Value,
    /// The version in which `object` is now.
    kind: Arc<Kind>,
    /// As stored; null on creation.
    old: &'a Value,
    /// The same in other versions.
    olds: Vec<(Arc<Kind>, Value)>,
    /// What `old` was read from, if that is an object.
    stored_old: Option<&'a Object>,
    stored: Arc<Kind>,
    /// Forms have one version.
    is_form: bool,
}

impl<'a> Versioned<'a> {
    /// Of a request. `stored_old` is what `old` was read from.
    pub fn new(attributes: &Attributes<'_>, object: Value, old: &'a Value, stored_old: Option<&'a Object>) -> Self {
        let stored = attributes.served.stored().unwrap_or(attributes.served).clone();
        let is_form = attributes.form.is_some();
        Self { object, kind: stored.clone(), old, olds: Vec::new(), stored_old, stored, is_form }
    }

    /// Has the new object in this version from now on, and the old one at hand in it.
    pub async fn convert(&mut self, kind: &Arc<Kind>) -> Result<(), Status> {
        if self.is_form {
            return Ok(());
        }
        if !is_same(&self.kind, kind) {
            let object = std::mem::take(&mut self.object);
            self.object = converted(object, &self.kind, kind, self.stored_old).await?;
            self.kind = kind.clone();
        }
        if !is_same(kind, &self.stored) && !self.olds.iter().any(|(known, _)| is_same(known, kind)) {
            let old = converted(self.old.clone(), &self.stored, kind, None).await?;
            self.olds.push((kind.clone(), old));
        }
        Ok(())
    }

    /// The new object in the version of the last [`Self::convert`].
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The old object in the same version.
    pub fn old(&self) -> &Value {
        self.old_as(&self.kind)
    }

    fn old_as(&self, kind: &Kind) -> &Value {
        self.olds.iter().find(|(known, _)| is_same(known, kind)).map_or(self.old, |(_, old)| old)
    }

    /// Puts another object, of the same version, in the place of the new one.
    pub fn replace(&mut self, object: Value) {
        self.object = object;
    }

    /// Has the new object in the stored version from now on.
    pub async fn convert_to_stored(&mut self) -> Result<(), Status> {
        let stored = self.stored.clone();
        self.convert(&stored).await
    }

    /// The new object in the stored version.
    pub async fn into_stored(mut self) -> Result<Value, Status> {
        self.convert_to_stored().await?;
        Ok(self.object)
    }
}

fn is_same(a: &Kind, b: &Kind) -> bool {
    a.group == b.group && a.version == b.version
}

/// An object of one version in another.
async fn converted(object: Value, from: &Arc<Kind>, to: &Kind, old: Option<&Object>) -> Result<Value, Status> {
    if object.is_null() || is_same(from, to) {
        return Ok(object);
    }
    let stored = match &from.storage {
        Storage::As(_) => conversion::to_stored(from, object, old).await?,
        Storage::Stored | Storage::Virtual | Storage::Computed => object,
    };
    conversion::from_stored(to, stored).await
}
