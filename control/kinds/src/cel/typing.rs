//! Types of expressions, and the declared shape of values: what a schema says of fields and sizes.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// The type of an expression.
#[derive(Clone, Debug)]
pub enum Type {
    /// Any; looked at when it is evaluated.
    Dyn,
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// 64 bits, signed
    Int,
    /// 64 bits, unsigned
    Uint,
    /// 64 bits, floating
    Double,
    /// Text in Unicode
    String,
    /// Octets
    Bytes,
    /// A moment
    Timestamp,
    /// A while, in nanoseconds
    Duration,
    /// The type of a type: `type(x)`.
    Meta,
    /// Elements of one type
    List(Box<Type>),
    /// Keys and values of one type each
    Map(Box<Type>, Box<Type>),
    /// With known fields.
    Object(Arc<Decl>),
    /// A value, or none
    Optional(Box<Type>),
    /// Of a library: `kubernetes.Quantity`.
    Opaque(&'static str),
    /// Made by an expression: `Object.spec`, `JSONPatch`.
    Message(Arc<str>),
    /// Not known yet: a place in the checker's bindings.
    Var(usize),
}

/// What is declared of a value: its type and, from a schema, its largest size.
#[derive(Debug)]
pub struct Decl {
    /// What kind of value it is.
    pub r#type: DeclType,
    /// Most characters, items or keys.
    pub max_elements: u64,
    /// Fewest bytes of it in a request.
    pub min_size: u64,
}

/// The shape of a declared value.
#[derive(Debug)]
pub enum DeclType {
    /// Anything but what follows.
    Scalar(Type),
    /// Elements of one type
    List(Arc<Decl>),
    /// From text.
    Map(Arc<Decl>),
    /// Field names as expressions write them: escaped.
    Object {
        /// For messages.
        name: String,
        /// By escaped name.
        fields: BTreeMap<String, Arc<Decl>>,
    },
}

impl Decl {
    /// The type of an expression with this value.
    pub fn cel_type(self: &Arc<Self>) -> Type {
        match &self.r#type {
            DeclType::Scalar(scalar) => scalar.clone(),
            DeclType::List(item) => Type::List(Box::new(item.cel_type())),
            DeclType::Map(value) => Type::Map(Box::new(Type::String), Box::new(value.cel_type())),
            DeclType::Object { .. } => Type::Object(self.clone()),
        }
    }

    /// The declaration of a field.
    pub fn field(&self, name: &str) -> Option<&Arc<Decl>> {
        match &self.r#type {
            DeclType::Object { fields, .. } => fields.get(name),
            _ => None,
        }
    }

    /// The declaration of items, or of the values of a map.
    pub fn element(&self) -> Option<&Arc<Decl>> {
        match &self.r#type {
            DeclType::List(element) | DeclType::Map(element) => Some(element),
            _ => None,
        }
    }
}

impl Type {
    /// `list(T)`
    pub fn list(item: Type) -> Self {
        Self::List(Box::new(item))
    }

    /// `map(K, V)`
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Box::new(key), Box::new(value))
    }

    /// Whether its size is always 1.
    pub fn is_scalar(&self) -> bool {
        use Type::{Bool, Double, Duration, Int, Null, Timestamp, Uint};
        matches!(self, Bool | Double | Duration | Int | Null | Timestamp | Uint)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dyn | Self::Var(_) => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Meta => "type",
            Self::List(item) => return write!(f, "list({item})"),
            Self::Map(key, value) => return write!(f, "map({key}, {value})"),
            Self::Optional(inner) => return write!(f, "optional_type({inner})"),
            Self::Object(decl) => match &decl.r#type {
                DeclType::Object { name, .. } => name,
                _ => "object",
            },
            Self::Opaque(name) => name,
            Self::Message(name) => name,
        })
    }
}

/// Whether a type has this variable in it.
pub fn mentions(found: &Type, variable: usize) -> bool {
    match found {
        Type::Var(at) => *at == variable,
        Type::List(inner) | Type::Optional(inner) => mentions(inner, variable),
        Type::Map(key, value) => mentions(key, variable) || mentions(value, variable),
        _ => false,
    }
}

/// A type of a signature with the parameters that begin at `first`.
pub fn instance(found: &Type, first: usize) -> Type {
    match found {
        Type::Var(at) => Type::Var(first + at),
        Type::List(item) => Type::list(instance(item, first)),
        Type::Map(key, value) => Type::map(instance(key, first), instance(value, first)),
        Type::Optional(inner) => Type::Optional(Box::new(instance(inner, first))),
        other => other.clone(),
    }
}

/// Whether two types without variables are one.
pub fn same(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => same(a, b),
        (Type::Map(k, v), Type::Map(l, w)) => same(k, l) && same(v, w),
        (Type::Object(a), Type::Object(b)) => {
            Arc::ptr_eq(a, b)
                || matches!((&a.r#type, &b.r#type), (DeclType::Object { name: a, .. }, DeclType::Object { name: b,
                    .. }) if a == b)
        }
        (Type::Opaque(a), Type::Opaque(b)) => a == b,
        (Type::Message(a), Type::Message(b)) => a == b,
        (Type::Dyn | Type::Var(_), Type::Dyn | Type::Var(_)) => true,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}
