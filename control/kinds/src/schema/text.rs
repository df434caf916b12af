//! Reads the data files, `kubernetes/*.schema`: their format, and nothing of what the types are for.
//!
//! ```text
//! core.v1.PodSpec | PodSpec is a description of a pod.
//!   containers 2 []core.v1.Container! required list=map:name patch=merge:name | List of containers …
//! core.v1.NodeSelector atomic | … replaced as a whole by server-side apply
//! meta.v1.Unstructured open | … any other fields may stand beside the known ones
//! meta.v1.Time = time | Time is a wrapper around time.Time …
//! ```
//!
//! A line without indentation names a type, below it stand its fields: name, protobuf number, type, attributes, `|`,
//! description.
//! - The number is `-` where there is none, and `2.5` for number 5 of a message that is embedded in the object as
//!   number 2.
//! - `[]T` is a list, `{}T` a map from text. A name with dots is a type of its own; others are `string`, `int32`,
//!   `time` …
//! - After the type: `?` zero is another thing than absent, `!` always written, `?!` zero is another thing than absent,
//!   and absent is written as `null`; without any, zero means absent.
//! - `list=atomic|set|map:KEY,KEY`, `map=atomic`, `patch=merge:KEY` (no KEY for plain values), `patch=replace`,
//!   `retain-keys`, `required`.

use std::collections::HashMap;

use super::{
    Definition, Field, FieldNumber, ListType, Merge, Node, Numbered, Numbers, Object, Text, Type, TypeId, Types, Zero,
    full_name,
};

/// Written by `cargo xtask schema`.
pub const BUILTIN: &[&str] = &[
    include_str!("kubernetes/admissionregistration.v1.schema"),
    include_str!("kubernetes/admissionregistration.v1alpha1.schema"),
    include_str!("kubernetes/admissionregistration.v1beta1.schema"),
    include_str!("kubernetes/apiextensions.v1.schema"),
    include_str!("kubernetes/apiregistration.v1.schema"),
    include_str!("kubernetes/apps.v1.schema"),
    include_str!("kubernetes/apps.v1beta1.schema"),
    include_str!("kubernetes/apps.v1beta2.schema"),
    include_str!("kubernetes/authentication.v1.schema"),
    include_str!("kubernetes/authorization.v1.schema"),
    include_str!("kubernetes/autoscaling.v1.schema"),
    include_str!("kubernetes/autoscaling.v2.schema"),
    include_str!("kubernetes/batch.v1.schema"),
    include_str!("kubernetes/certificates.v1.schema"),
    include_str!("kubernetes/coordination.v1.schema"),
    include_str!("kubernetes/core.v1.schema"),
    include_str!("kubernetes/discovery.v1.schema"),
    include_str!("kubernetes/events.v1.schema"),
    include_str!("kubernetes/extensions.v1beta1.schema"),
    include_str!("kubernetes/flowcontrol.v1.schema"),
    include_str!("kubernetes/meta.v1.schema"),
    include_str!("kubernetes/networking.v1.schema"),
    include_str!("kubernetes/node.v1.schema"),
    include_str!("kubernetes/policy.v1.schema"),
    include_str!("kubernetes/rbac.v1.schema"),
    include_str!("kubernetes/resource.v1.schema"),
    include_str!("kubernetes/scalars.schema"),
    include_str!("kubernetes/scheduling.v1.schema"),
    include_str!("kubernetes/storage.v1.schema"),
];

/// Reads files that together define every type they refer to.
///
/// Panics on malformed data, which is a constant of this program.
pub fn read(files: &[&'static str]) -> Types {
    let mut reader = Reader::default();
    let lines = || files.iter().flat_map(|file| file.lines()).filter(|l| !l.is_empty() && !l.starts_with('#'));
    for line in lines().filter(|line| !line.starts_with(' ')) {
        reader.name(line);
    }
    let mut current = None;
    for line in lines() {
        match (line.strip_prefix("  "), current) {
            (None, _) => current = Some(reader.types.by_name[&*full_name(first_word(line))]),
            (Some(field), Some(object)) => reader.field(object, field),
            (Some(_), None) => panic!("a field without a type: {line}"),
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    types: Types,
    /// Types without a name, each once.
    unnamed: HashMap<&'static str, TypeId>,
    /// Protobuf numbers and field names by object, until all fields are known and sorted.
    numbers: HashMap<TypeId, Vec<(&'static str, &'static str)>>,
}

impl Reader {
    /// A line that names a type.
    fn name(&mut self, line: &'static str) {
        let (head, description) = parts(line);
        let mut words = head.split(' ');
        let name = full_name(words.next().unwrap_or_default());
        let r#type = match (words.next(), words.next()) {
            (None, _) => Type::Object(Object::default()),
            (Some("atomic"), _) => Type::Object(Object { atomic: true, ..Object::default() }),
            (Some("open"), _) => Type::Object(Object { others: Some(self.r#type("any")), ..Object::default() }),
            (Some("="), Some(word)) => scalar(word).unwrap_or_else(|| panic!("unknown type {word}: {line}")),
            _ => panic!("malformed type: {line}"),
        };
        let definition = Definition { name: name.clone().into(), description: description.into() };
        let id = self.add(Node { r#type, definition: Some(definition) });
        self.types.by_name.insert(name.into(), id);
    }

    fn add(&mut self, node: Node) -> TypeId {
        let id = TypeId(u32::try_from(self.types.nodes.len()).expect("a few hundred types"));
        self.types.nodes.push(node);
        id
    }

    fn field(&mut self, object: TypeId, line: &'static str) {
        let (head, description) = parts(line);
        let mut words = head.split(' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("a field has a name, a number and a type: {line}"));
        let (name, number, r#type) = (word(), word(), word());
        let plain = r#type.trim_end_matches(['?', '!']);
        let (r#type, zero) = match &r#type[plain.len()..] {
            "" => (plain, Zero::Absent),
            "?" => (plain, Zero::Kept),
            "!" => (plain, Zero::Written),
            "?!" => (plain, Zero::Null),
            mark => panic!("unknown mark {mark}: {line}"),
        };
        let mut field = Field {
            name: name.into(),
            r#type: self.r#type(r#type),
            description: description.into(),
            required: false,
            zero,
            merge: Merge::default(),
        };
        words.for_each(|attribute| apply(&mut field, attribute));
        if number != "-" {
            self.numbers.entry(object).or_default().push((number, name));
        }
        match &mut self.types.nodes[object.0 as usize].r#type {
            Type::Object(object) => object.fields.push(field),
            other => panic!("{other:?} has no fields: {line}"),
        }
    }

    fn r#type(&mut self, word: &'static str) -> TypeId {
        if let Some(id) = self.unnamed.get(word) {
            return *id;
        }
        let r#type = match (word.strip_prefix("[]"), word.strip_prefix("{}"), scalar(word)) {
            (Some(item), _, _) => Type::List(self.r#type(item)),
            (_, Some(value), _) => Type::Map(self.r#type(value)),
            (_, _, Some(scalar)) => scalar,
            _ => {
                let name = full_name(word);
                return self.types.by_name(&name).unwrap_or_else(|| panic!("unknown type {word}"));
            }
        };
        let id = self.add(Node { r#type, definition: None });
        self.unnamed.insert(word, id);
        id
    }

    fn finish(mut self) -> Types {
        for (at, node) in self.types.nodes.iter_mut().enumerate() {
            let Type::Object(object) = &mut node.r#type else { continue };
            object.fields.sort_by(|a, b| a.name.cmp(&b.name));
            let id = TypeId(u32::try_from(at).expect("a few hundred types"));
            object.number_of = vec![FieldNumber::default(); object.fields.len()];
            for (number, name) in self.numbers.remove(&id).unwrap_or_default() {
                let field = object.position(name).expect("the field was read just now");
                insert(&mut object.numbers, number, field);
                object.number_of[field] = field_number(number);
            }
        }
        let types = &self.types;
        let always_written = |node: &Node| match &node.r#type {
            Type::Object(object) => {
                (0..object.fields.len()).filter(|at| types.is_always_written(&object.fields[*at])).collect()
            }
            _ => Vec::new(),
        };
        let found: Vec<Vec<usize>> = types.nodes.iter().map(always_written).collect();
        for (node, found) in self.types.nodes.iter_mut().zip(found) {
            if let Type::Object(object) = &mut node.r#type {
                object.always_written = found;
            }
        }
        self.types
    }
}

/// Puts a field under its number, `5`, or `2.5` within an embedded message.
fn insert(numbers: &mut Numbers, number: &str, field: usize) {
    let (outer, inner) = number.split_once('.').map_or((number, None), |(outer, inner)| (outer, Some(inner)));
    let outer = outer.parse().unwrap_or_else(|_| panic!("malformed number {number}"));
    match inner {
        None => drop(numbers.insert(outer, Numbered::Field(field))),
        Some(inner) => {
            match numbers.entry(outer).or_insert_with(|| Numbered::Embedded(Numbers::new())) {
                Numbered::Embedded(embedded) => insert(embedded, inner, field),
                Numbered::Field(_) => panic!("number {number} is within a field"),
            };
        }
    }
}

fn field_number(number: &str) -> FieldNumber {
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("malformed number {number}")));
    let mut next = || parts.next().unwrap_or(0);
    match (next(), next(), next(), next()) {
        (number, 0, 0, 0) => FieldNumber { embedded: [0, 0], number },
        (outer, number, 0, 0) => FieldNumber { embedded: [outer, 0], number },
        (outermost, outer, number, 0) => FieldNumber { embedded: [outermost, outer], number },
        _ => panic!("number {number} is within too many messages"),
    }
}

fn apply(field: &mut Field, attribute: &'static str) {
    let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
    match (key, value.split_once(':').unwrap_or((value, ""))) {
        ("required", _) => field.required = true,
        ("retain-keys", _) => field.merge.retain_keys = true,
        ("map", ("atomic", _)) => field.merge.atomic_map = true,
        ("list", ("atomic", _)) => field.merge.list = Some(ListType::Atomic),
        ("list", ("set", _)) => field.merge.list = Some(ListType::Set),
        ("list", ("map", keys)) => field.merge.list = Some(ListType::Map(keys.split(',').map(Text::from).collect())),
        ("patch", ("replace", _)) => field.merge.replace = true,
        ("patch", ("merge", key)) => field.merge.key = Some(key.into()),
        _ => panic!("unknown attribute {attribute} of {}", field.name),
    }
}

fn scalar(word: &str) -> Option<Type> {
    Some(match word {
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "time" => Type::Time,
        "micro-time" => Type::MicroTime,
        "quantity" => Type::Quantity,
        "int-or-string" => Type::IntOrString,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "bool" => Type::Bool,
        "any" => Type::Any,
        _ => return None,
    })
}

/// What stands before and after the `|`.
fn parts(line: &'static str) -> (&'static str, &'static str) {
    let (head, description) = line.split_once('|').unwrap_or((line, ""));
    (head.trim(), description.trim())
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}
