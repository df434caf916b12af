//! The table of messages (`messages.txt`), read once.

use std::{collections::HashMap, sync::LazyLock};

/// All messages that can be read.
pub struct Messages(HashMap<&'static str, Message>);

/// One message: its fields by number.
#[derive(Debug, Default)]
pub struct Message {
    pub fields: HashMap<u32, Field>,
}

#[derive(Debug)]
pub struct Field {
    /// Its name in JSON; `None` where the fields of the message it holds stand in the outer object.
    pub name: Option<&'static str>,
    pub form: Form,
    pub scalar: Scalar,
    pub zero: Zero,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    One,
    List,
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Text,
    Int,
    Bool,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON text in a message of its own.
    Raw,
    /// A list of texts in a message of its own.
    Texts,
    Message(&'static str),
}

/// What becomes of a zero value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// It means that the field is absent.
    Absent,
    /// It is a value, as absent fields are not written at all.
    Kept,
}

impl Messages {
    pub fn all() -> &'static Messages {
        static ALL: LazyLock<Messages> = LazyLock::new(|| Messages::read(include_str!("messages.txt")));
        &ALL
    }

    /// `core.v1.Pod`
    pub fn by_name(&self, name: &str) -> Option<&Message> {
        self.0.get(name)
    }

    /// `("apps/v1", "Deployment")`
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        // `discovery.k8s.io` is the package `discovery`.
        let package = group.split('.').next().unwrap_or(group);
        self.by_name(&format!("{package}.{version}.{kind}"))
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Message)> {
        self.0.iter().map(|(name, message)| (*name, message))
    }

    /// Panics on a malformed table, which is a constant.
    fn read(table: &'static str) -> Self {
        let mut messages: HashMap<&'static str, Message> = HashMap::new();
        let mut current = "";
        for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if !line.starts_with(' ') {
                current = line;
                messages.entry(current).or_default();
                continue;
            }
            let (number, field) = field(line);
            messages.entry(current).or_default().fields.insert(number, field);
        }
        Self(messages)
    }
}

fn field(line: &'static str) -> (u32, Field) {
    let mut words = line.split_whitespace();
    let mut word = || words.next().expect("a field has a number, a name and a type");
    let number = word().parse().expect("a field starts with its number");
    let name = word();
    let (form, kind) = match word() {
        list if list.starts_with("[]") => (Form::List, &list[2..]),
        map if map.starts_with("{}") => (Form::Map, &map[2..]),
        one => (Form::One, one),
    };
    let (kind, zero) = match kind.strip_suffix(['?', '!']) {
        Some(kind) => (kind, Zero::Kept),
        None => (kind, Zero::Absent),
    };
    let scalar = match kind {
        "string" => Scalar::Text,
        "int" => Scalar::Int,
        "bool" => Scalar::Bool,
        "bytes" => Scalar::Bytes,
        "time" => Scalar::Time,
        "micro-time" => Scalar::MicroTime,
        "quantity" => Scalar::Quantity,
        "int-or-string" => Scalar::IntOrString,
        "raw" => Scalar::Raw,
        "strings" => Scalar::Texts,
        message => Scalar::Message(message),
    };
    (number, Field { name: (name != "-").then_some(name), form, scalar, zero })
}
