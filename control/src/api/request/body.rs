//! From a body to a JSON value that has the shape of its kind: media types, strict decoding, unknown and duplicate
//! fields.

use std::str::Utf8Error;

use serde_json::Value;
use serde_yaml::options::DuplicateKeyPolicy;

use crate::{
    api::{Status, protobuf, subresource::SubresourceKind},
    audit::current,
    kinds::{Kind, Storage},
    request::{content_type::ContentType, query::FieldValidation},
    schema::{self, DecodeError, Schema, SentEmpties},
    warnings,
};

/// A body that was read, and what the client should be warned of.
pub struct Decoded {
    /// The object, as its schema has it.
    pub value: Value,
    /// Become headers `Warning` of the answer.
    pub warnings: Vec<String>,
    /// What was empty in an object of a built-in kind that is stored.
    pub empties: SentEmpties,
}

impl Decoded {
    /// The value. What the client should be warned of is told with the answer to the request that is being handled,
    /// be it a refusal.
    pub fn tell(self) -> Value {
        self.tell_sent().0
    }

    /// The same beside what was empty.
    pub fn tell_sent(self) -> (Value, SentEmpties) {
        self.warnings.into_iter().for_each(warnings::add);
        (self.value, self.empties)
    }
}

/// Why a value is no object of its kind.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableBody {
    /// A value of another type than the schema says.
    #[error(transparent)]
    Type(#[from] DecodeError),
    /// Unknown fields, which the client wants refused.
    #[error("strict decoding error: {0}")]
    Strict(String),
}

/// Why a body is no YAML.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// It is no text.
    #[error("the body is not UTF-8: {0}")]
    Utf8(Utf8Error),
    /// A name stands twice. The words are those of Kubernetes' reader.
    #[error("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map")]
    DuplicateKey { key: String, line: u64 },
    /// Everything else, in the words of our reader, without the text around the place.
    #[error("{}", .0.without_snippet())]
    Syntax(serde_yaml::Error),
}

impl From<serde_yaml::Error> for YamlError {
    fn from(error: serde_yaml::Error) -> Self {
        match error.without_snippet() {
            serde_yaml::Error::DuplicateMappingKey { key: Some(key), location } => {
                Self::DuplicateKey { key: key.clone(), line: location.line() }
            }
            _ => Self::Syntax(error),
        }
    }
}

/// What a body is read as: an object of a kind, or a form that stands for a part of one.
struct Expected<'a> {
    api_version: String,
    version: &'a str,
    kind: &'a str,
    schema: Schema,
    /// Whether it is a built-in kind that is stored, of which it is looked at what was sent empty.
    is_stored: bool,
}

impl Expected<'_> {
    fn decode(&self, body: &[u8]) -> Result<(schema::Decoded, SentEmpties), DecodeError> {
        match self.is_stored {
            true => self.schema.decode_sent(body),
            false => self.schema.decode(body).map(|decoded| (decoded, SentEmpties::NONE)),
        }
    }

    fn decode_value(&self, value: Value) -> Result<(schema::Decoded, SentEmpties), DecodeError> {
        match self.is_stored {
            true => self.schema.decode_sent_value(value),
            false => self.schema.decode_value(value).map(|decoded| (decoded, SentEmpties::NONE)),
        }
    }
}

impl<'a> From<&'a Kind> for Expected<'a> {
    fn from(kind: &'a Kind) -> Self {
        let (api_version, schema) = (kind.api_version(), kind.schema.clone());
        let is_stored = kind.custom.is_none() && matches!(kind.storage, Storage::Stored | Storage::As(_));
        Self { api_version, version: &kind.version, kind: &kind.kind, schema, is_stored }
    }
}

impl From<&SubresourceKind> for Expected<'static> {
    fn from(form: &SubresourceKind) -> Self {
        let SubresourceKind { group, version, kind, schema } = *form;
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let schema = Schema::builtin(schema).unwrap_or_else(Schema::unstructured);
        Self { api_version, version, kind, schema, is_stored: false }
    }
}

/// Reads a body as an object of `kind`: types are checked, unknown fields refused or dropped, as the client asks.
pub fn object(
    kind: &Kind,
    content_type: &ContentType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    read(&kind.into(), content_type, body, validation)
}

/// Reads a body as a form of a subresource, in the same way.
pub fn form(
    form: &SubresourceKind,
    content_type: &ContentType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    read(&form.into(), content_type, body, validation)
}

/// Reads a body as `DeleteOptions`, under whatever version the client names: that of the kind it deletes, often. Fields
/// of another type than theirs are refused: a precondition that is not understood must not be left out.
pub fn delete_options(content_type: &ContentType, body: &[u8]) -> Result<Value, Status> {
    const KIND: &str = "DeleteOptions";
    let value = value(content_type, body)?;
    let given = value["kind"].as_str().unwrap_or_default();
    if !matches!(given, "" | KIND) {
        let why = format!("the kind in the data ({given}) does not match the expected kind ({KIND})");
        return Err(Status::bad_request(why));
    }
    let schema = Schema::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
    let schema = schema.unwrap_or_else(Schema::unstructured);
    let expected = Expected { api_version: "v1".to_owned(), version: "v1", kind: KIND, schema, is_stored: false };
    let (decoded, _) = expected.decode_value(value).map_err(|error| cannot_be_handled(&expected, &error.into()))?;
    current::request_object(&decoded.value);
    Ok(decoded.value)
}

/// Checks a value by the kind's schema: one that was made from a stored object.
pub fn recheck(kind: &Kind, value: Value, validation: FieldValidation) -> Result<Decoded, UnreadableBody> {
    told(Expected::from(kind).decode_value(value)?, validation)
}

/// Checks a value as a form of a subresource, in the same way.
pub fn recheck_form(
    form: &SubresourceKind,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, UnreadableBody> {
    let expected = Expected::from(form);
    told(expected.decode_value(value)?, validation)
}

/// Refuses a value that is no object of `kind`.
pub fn must_be(kind: &Kind, value: Value, validation: FieldValidation) -> Result<Decoded, Status> {
    check(&kind.into(), value, validation)
}

fn read(
    expected: &Expected<'_>,
    content_type: &ContentType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let decoded = decode(expected, content_type, body, validation)?;
    current::request_object(&decoded.value);
    Ok(decoded)
}

fn decode(
    expected: &Expected<'_>,
    content_type: &ContentType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    // `null` is an object that says nothing, as in Go.
    let is_null = *content_type != ContentType::Protobuf && body.trim_ascii() == b"null";
    let body = if is_null { b"{}" } else { body };
    if *content_type != ContentType::Json {
        let mut value = value(content_type, body).map_err(|status| unrecognized(expected, body, status))?;
        fill_type(expected, &mut value)?;
        return check(expected, value, validation);
    }
    match expected.decode(body) {
        Ok(mut decoded) => {
            fill_type(expected, &mut decoded.0.value)?;
            checked(expected, decoded, validation)
        }
        Err(error) => {
            // An object of another kind is told so, and not which of its fields this kind lacks.
            let value = value(content_type, body).map_err(|status| unrecognized(expected, body, status));
            fill_type(expected, &mut value?)?;
            Err(cannot_be_handled(expected, &error.into()))
        }
    }
}

/// How much of a body an answer repeats.
const SHOWN: usize = 30;

/// A body that is no object at all is shown: as text if it may be JSON, else in hexadecimal.
fn unrecognized(expected: &Expected<'_>, body: &[u8], status: Status) -> Status {
    if status.code != 400 {
        return status;
    }
    let (start, more) = (&body[..body.len().min(SHOWN)], if body.len() > SHOWN { " ..." } else { "" });
    let shown = match body {
        [] => "<empty>".to_owned(),
        [b'{', ..] => String::from_utf8_lossy(start).into_owned(),
        _ => hex::encode(start),
    };
    let (kind, why) = (expected.kind, status.message);
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown}{more})"))
}

fn check(expected: &Expected<'_>, value: Value, validation: FieldValidation) -> Result<Decoded, Status> {
    let decoded = expected.decode_value(value).map_err(|error| cannot_be_handled(expected, &error.into()))?;
    checked(expected, decoded, validation)
}

/// Reads a body without a known kind.
pub fn value(content_type: &ContentType, body: &[u8]) -> Result<Value, Status> {
    let value: Value = match content_type {
        ContentType::Yaml => yaml(body, DuplicateKeyPolicy::Error)
            .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?,
        ContentType::Protobuf => protobuf::object(body)?,
        ContentType::Other(_) => return Err(Status::unsupported_media_type()),
        _ => serde_json::from_slice(body)
            .map_err(|e| Status::bad_request(format!("the body of the request is not valid JSON: {e}")))?,
    };
    if !value.is_object() {
        return Err(Status::bad_request("the body of the request is not an object"));
    }
    Ok(value)
}

/// Reads YAML, whose aliases can make much of little: what they stand for counts as if it were written out.
pub fn yaml(body: &[u8], duplicate_keys: DuplicateKeyPolicy) -> Result<Value, YamlError> {
    let text = std::str::from_utf8(body).map_err(YamlError::Utf8)?;
    let options = serde_yaml::options! {
        duplicate_keys: duplicate_keys,
        // `0644` is 420, as in YAML 1.1, which Kubernetes reads.
        legacy_octal_numbers: true,
        budget: serde_yaml::budget! {
            max_depth: 64,
            max_nodes: 500_000,
            max_total_scalar_bytes: 16 * 1024 * 1024,
            max_documents: 1,
        },
    };
    let mut value: Value = serde_yaml::from_str_with_options(text, options)?;
    make_whole(&mut value);
    Ok(value)
}

/// `1e3` and `1.0` are whole numbers once Kubernetes has made JSON of them.
fn make_whole(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT) {
                *number = (float as i64).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(make_whole),
        Value::Object(map) => map.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// Refuses another kind or version than the path says. What is not said is filled in, as in Kubernetes.
fn fill_type(expected: &Expected<'_>, value: &mut Value) -> Result<(), Status> {
    let given = |field: &str| value[field].as_str().unwrap_or_default();
    let (given_version, given_kind) = (given("apiVersion"), given("kind"));
    if !given_version.is_empty() && given_version != expected.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    if !given_kind.is_empty() && given_kind != expected.kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({given_kind}) does not match the expected kind ({})",
            expected.kind
        )));
    }
    value["apiVersion"] = expected.api_version.as_str().into();
    value["kind"] = expected.kind.into();
    Ok(())
}

fn cannot_be_handled(expected: &Expected<'_>, error: &UnreadableBody) -> Status {
    let Expected { kind, version, .. } = expected;
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

/// What becomes of unknown and duplicate fields: they refuse the object, are told of, or are left out silently. Unknown
/// fields are never stored, as in Kubernetes.
fn checked(
    expected: &Expected<'_>,
    decoded: (schema::Decoded, SentEmpties),
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    told(decoded, validation).map_err(|error| cannot_be_handled(expected, &error))
}

fn told(
    (decoded, empties): (schema::Decoded, SentEmpties),
    validation: FieldValidation,
) -> Result<Decoded, UnreadableBody> {
    let schema::Decoded { value, warnings } = decoded;
    let words = warnings.iter().map(ToString::to_string);
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => {
            Err(UnreadableBody::Strict(words.collect::<Vec<_>>().join(", ")))
        }
        FieldValidation::Warn => Ok(Decoded { value, warnings: words.collect(), empties }),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new(), empties }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{config_map, pod};

    fn config_map() -> Kind {
        Kind::from(&config_map::KIND)
    }

    fn read(content_type: ContentType, body: &str) -> Result<Decoded, Status> {
        object(&config_map(), &content_type, body.as_bytes(), FieldValidation::Strict)
    }

    #[test]
    fn null_is_an_object_that_says_nothing() {
        for content_type in [ContentType::Json, ContentType::Yaml] {
            let decoded = read(content_type, " null\n").unwrap();
            assert_eq!(decoded.value, serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap"}));
        }
        assert!(read(ContentType::Json, "[]").is_err());
    }

    #[test]
    fn aliases_cannot_make_much_of_little() {
        let large = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\nbinaryData:\n  a: &a {}\n  b: [{}]\n",
            "x".repeat(1 << 20),
            ["*a"; 90].join(",")
        );
        let doubling: String = (1..40).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
        for bomb in [large, format!("a0: &a0 x\n{doubling}"), format!("a: {}", "[".repeat(10_000))] {
            let refused = read(ContentType::Yaml, &bomb).err().unwrap();
            assert!(refused.message.contains("error converting YAML to JSON"), "{}", refused.message);
        }
    }

    /// What kube-apiserver 1.35.4 answered with for each.
    #[test]
    fn plain_scalars_are_those_of_yaml_1_1() {
        for (text, value) in [
            ("y", json!(true)),
            ("Y", json!(true)),
            ("no", json!(false)),
            ("off", json!(false)),
            ("On", json!(true)),
            ("\"y\"", json!("y")),
            ("0644", json!(420)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("1_000", json!(1000)),
            ("089", json!(89)),
            ("1e3", json!(1000)),
            ("1.", json!(1)),
            (".5", json!(0.5)),
            ("~", Value::Null),
            ("12:30:45", json!("12:30:45")),
            ("2020-01-01", json!("2020-01-01")),
            ("!!str 1", json!("1")),
            ("!!binary aGk=", json!("hi")),
        ] {
            let read = yaml(format!("a: {text}\n").as_bytes(), DuplicateKeyPolicy::Error).unwrap();
            assert_eq!(read["a"], value, "{text}");
        }
    }

    #[test]
    fn yaml_is_read_as_the_same_json_is() {
        let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, creationTimestamp: null}\ndata: {b: c}\n";
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "c"}});
        assert_eq!(read(ContentType::Yaml, yaml).unwrap().value, object);
        assert_eq!(read(ContentType::Json, &object.to_string()).unwrap().value, object);
    }

    #[test]
    fn an_object_of_another_kind_is_told_so_before_its_fields_are() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "data": 3, "spec": {}}).to_string();
        let refused = read(ContentType::Json, &pod).err().unwrap();
        assert!(refused.message.contains("the kind in the data (Pod) does not match"), "{}", refused.message);
        let refused =
            object(&Kind::from(&pod::KIND), &ContentType::Json, b"{\"kind\":", FieldValidation::Warn).err().unwrap();
        assert!(refused.message.contains("is not valid JSON"), "{}", refused.message);
    }

    #[test]
    fn unknown_fields_are_refused_told_of_or_left_out() {
        let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"nope":1}"#;
        let with = |validation| object(&config_map(), &ContentType::Json, text.as_bytes(), validation);
        let refused = with(FieldValidation::Strict).err().unwrap();
        assert!(refused.message.ends_with("strict decoding error: unknown field \"nope\""), "{}", refused.message);
        let warned = with(FieldValidation::Warn).unwrap();
        assert_eq!(warned.warnings, ["unknown field \"nope\""]);
        assert_eq!(warned.value["nope"], Value::Null);
        assert!(with(FieldValidation::Ignore).unwrap().warnings.is_empty());
    }
}
