//! What objects look like, as data: one schema per kind drives decoding, merging, protobuf and OpenAPI.
//!
//! ```text
//!   kubernetes/*.schema ──text::read──▶ Types ◀── Schema { types, root } ──▶ decode   JSON -> checked Value
//!   (cargo xtask schema)                (arena)                         ├──▶ strategic merge: merge keys
//!                                                                       ├──▶ protobuf: field numbers
//!                                                                       └──▶ OpenAPI: definitions
//! ```
//!
//! - **Types**: an arena of type nodes that refer to each other by [`TypeId`]. All built-in kinds share one
//!   ([`Types::builtin`]).
//! - **Schema**: one type of an arena, the whole object of a kind.
//! - **Definition**: a type with a name (`io.k8s.api.core.v1.PodSpec`), which OpenAPI publishes under that name.
//!
//! The data says nothing about required values or ranges to the decoder: that is validation, which each kind has as
//! code.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, OnceLock},
};

use serde_json::{Map, Value};

mod alternatives;
mod custom;
pub mod decode;
mod go_time;
mod name_index;
mod quantities;
mod scalar;
mod sent_empties;
mod text;
mod written;

use name_index::NameIndex;

pub use decode::{DecodeError, Decoded, FieldWarning};
pub use scalar::{ZERO_MICRO_TIME, ZERO_TIME};
pub use sent_empties::{Empty, SentEmpties};

/// Text of the data files, or of a custom definition.
pub type Text = Cow<'static, str>;

/// A type's place in its [`Types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

/// An arena of types that refer to each other.
#[derive(Debug, Default)]
pub struct Types {
    nodes: Vec<Node>,
    by_name: HashMap<Text, TypeId>,
    /// The nodes from here on are of a custom kind. Decoding keeps values of another type there: its validation refuses
    /// them, in words of its own.
    lenient_from: Option<u32>,
    /// Which of the nodes can have quantities in them.
    with_quantities: OnceLock<Vec<bool>>,
}

#[derive(Debug)]
struct Node {
    r#type: Type,
    definition: Option<Definition>,
}

/// What OpenAPI says of a type that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// `io.k8s.api.core.v1.PodSpec`
    pub name: Text,
    /// Line breaks are written `\n`; see [`unescaped`].
    pub description: Text,
}

/// One type of value.
#[derive(Debug)]
pub enum Type {
    /// Named fields.
    Object(Object),
    /// Items of one type.
    List(TypeId),
    /// From free keys to values of one type.
    Map(TypeId),
    /// Any text.
    String,
    /// Base64 text.
    Bytes,
    /// RFC 3339 text, in seconds.
    Time,
    /// RFC 3339 text, in microseconds.
    MicroTime,
    /// `500m`, `1Gi`; also a number.
    Quantity,
    /// A whole number of 32 bits, or a text.
    IntOrString,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number of 64 bits with a fraction.
    Double,
    /// `true` or `false`.
    Bool,
    /// Any JSON, kept as it is.
    Any,
}

/// An object with known fields.
#[derive(Debug, Default)]
pub struct Object {
    /// Sorted by name.
    fields: Vec<Field>,
    /// Where each name stands among `fields`; made when one is looked for first.
    names: OnceLock<Option<NameIndex>>,
    /// By protobuf number.
    numbers: Numbers,
    /// The way back: the number of each of `fields`.
    number_of: Vec<FieldNumber>,
    /// Indexes of the fields of [`Self::always_written`].
    always_written: Vec<usize>,
    /// Server-side apply replaces the whole of it.
    pub atomic: bool,
    /// The type of fields that are not in `fields`; `None` where those are unknown fields, and left out.
    pub others: Option<TypeId>,
}

/// Fields by protobuf number. A message of Go's that is embedded in another has a number there, but its fields stand in
/// the outer object in JSON.
pub type Numbers = BTreeMap<u32, Numbered>;

/// Where a field stands in protobuf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldNumber {
    /// Numbers of the embedded messages that hold it, the outermost first; 0 where there is none.
    pub embedded: [u32; 2],
    /// Its number there; 0 if it has none.
    pub number: u32,
}

/// What a protobuf number stands for.
#[derive(Debug)]
pub enum Numbered {
    /// Index of a field of the object.
    Field(usize),
    /// An embedded message, whose fields are the object's own.
    Embedded(Numbers),
}

/// One field of an object.
#[derive(Debug)]
pub struct Field {
    /// As it stands in JSON.
    pub name: Text,
    /// What its values are.
    pub r#type: TypeId,
    /// Line breaks are written `\n`; see [`unescaped`].
    pub description: Text,
    /// OpenAPI's `required`, which clients read. Decoding asks for no field.
    pub required: bool,
    /// What its zero value means.
    pub zero: Zero,
    /// How patches and server-side apply merge it.
    pub merge: Merge,
}

/// What the zero value of a field means to Kubernetes (`omitempty` and pointers of its Go type).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zero {
    /// The same as an absent field.
    #[default]
    Absent,
    /// Another thing than an absent field: it is kept.
    Kept,
    /// Another thing than an absent field, which is written as `null`.
    Null,
    /// Written even if it is zero.
    Written,
}

/// How the values of a field merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Server-side apply: what makes two items of the list one; `None` for what is no list.
    pub list: Option<ListType>,
    /// Strategic merge: items with an equal value here are one item. Lists of plain values that merge have an empty
    /// key.
    pub key: Option<Text>,
    /// Strategic merge: a patch may say which keys of the old value stay (`$retainKeys`).
    pub retain_keys: bool,
    /// Server-side apply replaces the whole map.
    pub atomic_map: bool,
    /// Strategic merge: a patch replaces the value.
    pub replace: bool,
}

/// `x-kubernetes-list-type`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Server-side apply replaces the whole list.
    Atomic,
    /// Each value stands there once, and is owned by itself.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<Text>),
}

/// One type of an arena: what a kind's objects are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema {
    types: Arc<Types>,
    root: TypeId,
}

impl Types {
    /// The types of all built-in kinds.
    pub fn builtin() -> &'static Arc<Types> {
        static BUILTIN: LazyLock<Arc<Types>> = LazyLock::new(|| Arc::new(text::read(text::BUILTIN)));
        &BUILTIN
    }

    /// The type under a full name: `io.k8s.api.core.v1.PodSpec`.
    pub fn by_name(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The definition of a built-in version: `("apps/v1", "Deployment")`.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        // `discovery.k8s.io` is the package `discovery`.
        let package = group.split('.').next().unwrap_or(group);
        self.by_name(&full_name(&format!("{package}.{version}.{kind}")))
    }

    /// The type with this id.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.node(id).r#type
    }

    /// The name and description of a type, if it has a name.
    pub fn definition(&self, id: TypeId) -> Option<&Definition> {
        self.node(id).definition.as_ref()
    }

    /// Every type that has a name.
    pub fn definitions(&self) -> impl Iterator<Item = (TypeId, &Definition)> {
        (0..).zip(&self.nodes).filter_map(|(at, node)| Some((TypeId(at), node.definition.as_ref()?)))
    }

    /// The object type of `id`; `None` if it is another type.
    pub fn object(&self, id: TypeId) -> Option<&Object> {
        match self.get(id) {
            Type::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The zero value of a type: what `null` and nothing mean within a list or a map.
    pub fn zero(&self, id: TypeId) -> Value {
        match self.get(id) {
            Type::Object(_) | Type::Map(_) => Value::Object(Map::new()),
            Type::List(_) => Value::Array(Vec::new()),
            Type::String | Type::Bytes => "".into(),
            Type::Quantity => "0".into(),
            Type::Time => scalar::ZERO_TIME.into(),
            Type::MicroTime => scalar::ZERO_MICRO_TIME.into(),
            Type::IntOrString | Type::Int32 | Type::Int64 | Type::Double => 0.into(),
            Type::Bool => false.into(),
            Type::Any => Value::Null,
        }
    }

    /// Whether decoding keeps a value of another type, and nulls.
    pub fn is_lenient(&self, id: TypeId) -> bool {
        self.lenient_from.is_some_and(|first| id.0 >= first)
    }

    fn node(&self, id: TypeId) -> &Node {
        // An id is only ever made by the arena that it belongs to, which never shrinks.
        &self.nodes[id.0 as usize]
    }
}

impl Object {
    /// The fields, sorted by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.fields[at])
    }

    /// Fields by protobuf number.
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The field of this name and its protobuf number; the number is 0 if it has none.
    pub fn numbered(&self, name: &str) -> Option<(&Field, FieldNumber)> {
        let at = self.position(name)?;
        Some((&self.fields[at], self.number_of.get(at).copied().unwrap_or_default()))
    }

    /// The fields that Kubernetes writes although nobody set them.
    pub fn always_written(&self) -> impl Iterator<Item = &Field> {
        self.always_written.iter().map(|at| &self.fields[*at])
    }

    fn position(&self, name: &str) -> Option<usize> {
        match self.names.get_or_init(|| NameIndex::new(self.fields.iter().map(|field| &*field.name))) {
            Some(names) => {
                names.candidates(name).find(|at| self.fields.get(*at).is_some_and(|field| *field.name == *name))
            }
            None => self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok(),
        }
    }
}

impl Schema {
    /// The built-in schema under a full name: `io.k8s.api.core.v1.Pod`.
    pub fn builtin(name: &str) -> Option<Schema> {
        let types = Types::builtin();
        types.by_name(name).map(|root| Schema { types: types.clone(), root })
    }

    /// What every object has, whatever its kind: metadata, and any fields beside it.
    pub fn unstructured() -> Schema {
        let types = Types::builtin();
        let root = types.of_kind("meta.k8s.io/v1", "Unstructured").expect("the data files define it");
        Schema { types: types.clone(), root }
    }

    /// The name of its definition: `io.k8s.api.core.v1.Pod`. Empty if it has none.
    pub fn name(&self) -> &str {
        self.types.definition(self.root).map_or("", |definition| &*definition.name)
    }

    /// The arena that holds the types.
    pub fn types(&self) -> &Arc<Types> {
        &self.types
    }

    /// The type of the whole object.
    pub fn root(&self) -> TypeId {
        self.root
    }
}

/// A description with its line breaks: in the data files they are written `\n`, and a backslash is doubled.
pub fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
            other => out.push(other),
        }
    }
    out.into()
}

/// The name OpenAPI publishes for a name of the data files: `core.v1.PodSpec` is `io.k8s.api.core.v1.PodSpec`.
fn full_name(short: &str) -> String {
    match short.split('.').collect::<Vec<_>>()[..] {
        ["meta", ..] => format!("io.k8s.apimachinery.pkg.apis.{short}"),
        ["resource", _] => format!("io.k8s.apimachinery.pkg.api.{short}"),
        ["intstr", _] => format!("io.k8s.apimachinery.pkg.util.{short}"),
        ["runtime", _] => format!("io.k8s.apimachinery.pkg.{short}"),
        ["apiextensions", ..] => format!("io.k8s.apiextensions-apiserver.pkg.apis.{short}"),
        ["apiregistration", ..] => format!("io.k8s.kube-aggregator.pkg.apis.{short}"),
        _ => format!("io.k8s.api.{short}"),
    }
}

#[cfg(test)]
mod tests;
