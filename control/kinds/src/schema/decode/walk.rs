//! Where decoding is, and what it found wrong there: paths, warnings, and errors in the words of Kubernetes.

use serde::de::Error;

use super::{
    MAX_LEVELS,
    restore::{self, ValueKind, cannot_restore},
};
use crate::schema::{Empty, SentEmpties, Type, TypeId, Types, scalar::ScalarError};

/// A field that is in the text but not in the schema, or there twice. An error under `fieldValidation=Strict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldWarning {
    /// The schema has no such field.
    Unknown {
        /// `spec.template.spec.contaners`
        path: String,
    },
    /// The text has the field twice; the last one counts.
    Duplicate {
        /// `spec.replicas`
        path: String,
    },
}

impl std::fmt::Display for FieldWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown { path } => write!(f, "unknown field \"{path}\""),
            Self::Duplicate { path } => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// The text is not an object of this kind.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// `spec.containers[0].ports[0].containerPort`; empty where the text is not JSON at all.
    pub path: String,
    /// In the words of Go's `encoding/json`.
    pub message: String,
    /// The same in the words in which Kubernetes refuses the value where a strategic merge patch has made it.
    pub of_patched: String,
}

impl DecodeError {
    /// Of the whole text.
    pub fn new(message: String) -> Self {
        Self { path: String::new(), of_patched: message.clone(), message }
    }
}

/// What Go calls one of a list of bytes.
const BYTE: &str = "uint8";

/// As many warnings as Kubernetes gathers of one object.
const MAX_WARNINGS: usize = 100;

/// Bytes of all paths that warnings were made with, those of fields that were warned of already among them. What would
/// be warned of beyond is left out silently: only keys of very many bytes lead so far, and nobody reads their paths.
const MAX_WARNED_BYTES: usize = 64 << 20;

/// The state of one decoding.
pub struct Walk<'t> {
    /// All types that the root can lead to.
    pub types: &'t Types,
    /// The way from the root to the value that is being read.
    path: Vec<PathStep<'t>>,
    warnings: Vec<FieldWarning>,
    /// See [`MAX_WARNED_BYTES`].
    warned_bytes: usize,
    /// Why decoding ended; serde's own error is only the signal.
    error: Option<DecodeError>,
    /// The first value of another type than its own that was passed over.
    mistyped: Option<DecodeError>,
    /// How many levels that nobody is warned of lead here.
    silent: usize,
    /// The empty lists and maps so far, if they are asked for.
    empties: Option<SentEmpties>,
}

/// One step of a path: a field, a key of a map, or an index.
pub enum PathStep<'t> {
    /// A field that the schema knows.
    Field {
        /// The type that has the field.
        object: TypeId,
        /// As it stands in JSON.
        name: &'t str,
    },
    /// Of a map with free keys.
    Key(String),
    /// Of a list, from 0.
    Index(usize),
}

impl<'t> Walk<'t> {
    /// At the root of an object.
    pub fn new(types: &'t Types) -> Self {
        Self {
            types,
            path: Vec::new(),
            warnings: Vec::new(),
            warned_bytes: 0,
            error: None,
            mistyped: None,
            silent: 0,
            empties: None,
        }
    }

    /// The same, of an object whose empty lists and maps are noted.
    pub fn noting_empties(types: &'t Types) -> Self {
        Self { empties: Some(SentEmpties::default()), ..Self::new(types) }
    }

    /// `spec.containers[0].image`, and `data.key` of a map.
    fn path(&self) -> String {
        self.path_with(append_name)
    }

    /// The same as validation names it: `data[key]`. `None` where names and keys are longer together than `longest`.
    fn path_of_field_error(&self, longest: usize) -> Option<String> {
        let length = |step: &PathStep<'_>| match step {
            PathStep::Field { name, .. } => name.len(),
            PathStep::Key(key) => key.len(),
            PathStep::Index(_) => 0,
        };
        let is_long = self.path.iter().map(length).fold(0, usize::saturating_add) > longest;
        (!is_long).then(|| self.path_with(|path, key| path.extend(["[", key, "]"])))
    }

    fn path_with(&self, append_key: impl Fn(&mut String, &str)) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                PathStep::Field { name, .. } => append_name(&mut out, name),
                PathStep::Key(key) => append_key(&mut out, key),
                PathStep::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        out
    }

    /// The fields on the way alone, as Go names the place of a value of another type: `spec.containers.image`.
    fn field_path(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            if let PathStep::Field { name, .. } = step {
                append_name(&mut out, name);
            }
        }
        out
    }

    /// Notes what is wrong with the field `name` of the object that is being read.
    pub fn warn(&mut self, name: &str, warning: impl FnOnce(String) -> FieldWarning) {
        if self.silent > 0 || self.warnings.len() >= MAX_WARNINGS || self.warned_bytes > MAX_WARNED_BYTES {
            return;
        }
        let mut path = self.path();
        append_name(&mut path, name);
        self.warned_bytes = self.warned_bytes.saturating_add(path.len());
        let warning = warning(path);
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// What was found: warnings, what was empty, and the reason why the text is no object of its kind, if it was JSON.
    pub fn finish(self) -> (Vec<FieldWarning>, SentEmpties, Option<DecodeError>) {
        (self.warnings, self.empties.unwrap_or_default(), self.error.or(self.mistyped))
    }

    /// `found`, which is of the kind `value`, stands where a value of the type `id` belongs. Ends decoding if that type
    /// reads itself; else the first such value is noted, and decoding goes on, as in Go.
    pub fn wrong_type<E: Error>(&mut self, found: &str, value: ValueKind, id: TypeId) -> Result<(), E> {
        if self.is_passed_over(id) {
            return Ok(());
        }
        // Types that read themselves are read as what they are written as.
        let expected = match self.types.get(id) {
            Type::Time | Type::MicroTime => "string".to_owned(),
            Type::IntOrString => "int32".to_owned(),
            _ => go_type(self.types, id),
        };
        let message = match self.types.get(id) {
            Type::Quantity => ScalarError::Quantity.to_string(),
            _ => self.cannot_unmarshal(found, &expected),
        };
        let of_patched = match self.types.get(id) {
            Type::Quantity => message.clone(),
            _ => cannot_restore(value, self.types, id)
                .unwrap_or_else(|| format!("json: cannot unmarshal {found} into Go value of type {expected}")),
        };
        self.refuse(DecodeError { path: self.path(), message, of_patched }, id)
    }

    /// The same where one of the bytes of a list belongs.
    pub fn wrong_byte(&mut self, found: &str, value: ValueKind) {
        if self.mistyped.is_some() {
            return;
        }
        let message = self.cannot_unmarshal(found, BYTE);
        let error = DecodeError { path: self.path(), message, of_patched: restore::scalar(value, BYTE) };
        self.mistyped = Some(error);
    }

    fn cannot_unmarshal(&self, found: &str, expected: &str) -> String {
        let owner = self.path.iter().rev().find_map(|step| match step {
            PathStep::Field { object, .. } => self.types.definition(*object),
            _ => None,
        });
        match owner {
            None => format!("json: cannot unmarshal {found} into Go value of type {expected}"),
            Some(definition) => {
                let (owner, path) = (definition.name.rsplit('.').next().unwrap_or_default(), self.field_path());
                format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {expected}")
            }
        }
    }

    /// The same for a text that is not of the form that the type `id` asks for.
    pub fn wrong_text<E: Error>(&mut self, reason: &ScalarError, id: TypeId) -> Result<(), E> {
        if self.is_passed_over(id) {
            return Ok(());
        }
        let message = reason.to_string();
        let of_patched = match self.types.get(id) {
            Type::Bytes => format!("error decoding from json: {message}"),
            _ => message.clone(),
        };
        self.refuse(DecodeError { path: self.path(), message, of_patched }, id)
    }

    /// Ends decoding: what stands here cannot be read.
    pub fn unreadable<E: Error>(&mut self, reason: &str) -> E {
        let path = self.path();
        self.fail(path, reason.to_owned())
    }

    /// Runs `read`, and warns of nothing that it finds.
    pub fn silently<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.silent = self.silent.saturating_add(1);
        let value = read(self);
        self.silent = self.silent.saturating_sub(1);
        value
    }

    /// Whether the value that is being read is an item of a list, or is in one.
    pub fn is_in_item(&self) -> bool {
        self.path.iter().any(|step| matches!(step, PathStep::Index(_)))
    }

    /// Notes that the value that is being read is empty, if that is asked for. Not of metadata, which is the same for
    /// all kinds and has no such rules, nor of what may stand in the place of a schema.
    pub fn note_empty(&mut self, empty: Empty) {
        let is_metadata = matches!(self.path.first(), Some(PathStep::Field { name: "metadata", .. }));
        if self.silent > 0 || is_metadata {
            return;
        }
        if let Some(mut empties) = self.empties.take() {
            empties.note(empty, |longest| self.path_of_field_error(longest));
            self.empties = Some(empties);
        }
    }

    /// Forgets what was empty in the value that is being read: it stood before, and only the last one counts.
    pub fn forget_empties(&mut self) {
        if let Some(mut empties) = self.empties.take() {
            empties.forget(|longest| self.path_of_field_error(longest));
            self.empties = Some(empties);
        }
    }

    /// Whether values of the type read themselves: one that cannot be read ends decoding.
    fn reads_itself(&self, id: TypeId) -> bool {
        matches!(self.types.get(id), Type::Time | Type::MicroTime | Type::Quantity | Type::IntOrString)
    }

    /// Whether nothing comes of a wrong value, as one was noted before it. Asked before its error is made, whose path
    /// has room for a key as long as the whole text.
    fn is_passed_over(&self, id: TypeId) -> bool {
        self.mistyped.is_some() && !self.reads_itself(id)
    }

    fn refuse<E: Error>(&mut self, error: DecodeError, id: TypeId) -> Result<(), E> {
        if self.reads_itself(id) {
            self.error = Some(error);
            return Err(E::custom(""));
        }
        self.mistyped.get_or_insert(error);
        Ok(())
    }

    fn fail<E: Error>(&mut self, path: String, message: String) -> E {
        self.error = Some(DecodeError { path, of_patched: message.clone(), message });
        E::custom("")
    }

    /// Runs `read` one level deeper.
    pub fn within<T, E: Error>(
        &mut self,
        step: PathStep<'t>,
        read: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<(T, Option<PathStep<'t>>), E> {
        if self.path.len() >= MAX_LEVELS {
            let path = self.path();
            return Err(self.fail(path, format!("exceeded the maximum nesting of {MAX_LEVELS} levels")));
        }
        self.path.push(step);
        let value = read(self)?;
        Ok((value, self.path.pop()))
    }
}

fn append_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// What Go calls a type: `[]v1.Container`.
fn go_type(types: &Types, id: TypeId) -> String {
    match types.get(id) {
        Type::Object(_) => types.definition(id).map_or("struct", |d| go_name(&d.name)).to_owned(),
        Type::List(item) => format!("[]{}", go_type(types, *item)),
        Type::Map(value) => format!("map[string]{}", go_type(types, *value)),
        Type::String => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Any => "interface {}".to_owned(),
    }
}

/// `v1.Container` of `io.k8s.api.core.v1.Container`.
fn go_name(definition: &str) -> &str {
    definition.rmatch_indices('.').nth(1).map_or(definition, |(at, _)| &definition[at + 1..])
}
