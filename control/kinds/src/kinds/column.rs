//! Columns of the Table form, which `kubectl get` prints.

use std::borrow::Cow;

/// One column of the Table form.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its heading.
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `date`.
    pub r#type: Cow<'static, str>,
    /// OpenAPI format: `name` for the column of the name, else empty.
    pub format: Cow<'static, str>,
    /// What the cells say.
    pub description: Cow<'static, str>,
    /// 0 is shown always, 1 with `-o wide`.
    pub priority: i32,
}

/// What Kubernetes' schema says of `metadata.creationTimestamp`.
const CREATION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It \
    is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It \
    is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl Column {
    /// The column of the object's name.
    pub const fn name() -> Self {
        let description = "Name must be unique within a namespace. Is required when creating resources, although some \
            resources may allow a client to request the generation of an appropriate name automatically. Name is \
            primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: \
            https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
        Self::new("Name", "string", "name", description, 0)
    }

    /// The column of the object's age.
    pub const fn age() -> Self {
        Self::text("Age", CREATION)
    }

    /// The column of the time when the object was created, of kinds without columns of their own.
    pub const fn created_at() -> Self {
        Self::new("Created At", "date", "", CREATION, 0)
    }

    /// A column of texts.
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", "", description, 0)
    }

    /// A column of points in time, shown as they are.
    pub const fn date(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "date", "", description, 0)
    }

    /// A column of numbers.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "integer", "", description, 0)
    }

    /// A column of `true` and `false`.
    pub const fn boolean(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "boolean", "", description, 0)
    }

    /// A column of texts that is shown with `-o wide` only.
    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", "", description, 1)
    }

    /// A column of names that is shown with `-o wide` only.
    pub const fn wide_name(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", "name", description, 1)
    }

    /// A column of names of other objects.
    pub const fn name_of(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", "name", description, 0)
    }

    const fn new(
        name: &'static str,
        r#type: &'static str,
        format: &'static str,
        description: &'static str,
        priority: i32,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            r#type: Cow::Borrowed(r#type),
            format: Cow::Borrowed(format),
            description: Cow::Borrowed(description),
            priority,
        }
    }
}
