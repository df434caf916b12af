//! Named formats: `format.dns1123Label().validate("a")`, `format.named("uuid")`.

use crate::{
    cel::{
        access::optional,
        eval::{Answer, Run, traversal},
        value::{Opaque, Value},
    },
    custom::validate::formats,
    kinds::names,
};

/// Each format's name here and in a schema.
const FORMATS: &[&str] = &[
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    match (name, values) {
        ("format.named", [Value::String(wanted)]) => {
            let found = FORMATS.iter().find(|known| ***known == **wanted);
            let found = found.map(|name| Value::Opaque(Opaque::Format(name)));
            Some(run.charge(1).map(|()| optional(found)))
        }
        ("validate", [Value::Opaque(Opaque::Format(format)), Value::String(text)]) => {
            let cost = traversal(text.len() as u64 + 1).saturating_mul(40);
            Some(run.charge(cost).map(|()| {
                let errors: Vec<Value<'v>> = check(format, text).into_iter().map(Value::text).collect();
                optional((!errors.is_empty()).then(|| Value::list(errors)))
            }))
        }
        (name, []) => {
            let format = FORMATS.iter().find(|known| name.strip_prefix("format.") == Some(**known))?;
            Some(run.charge(1).map(|()| Value::Opaque(Opaque::Format(format))))
        }
        _ => None,
    }
}

fn check(format: &str, text: &str) -> Vec<String> {
    let simple = |schema: &str, why: &str| match formats::is(schema, text) && !text.is_empty() {
        true => Vec::new(),
        false => vec![why.to_owned()],
    };
    // A prefix may end with a dash, as the base of generated names does.
    let prefix = |check: fn(&str) -> Vec<String>| match text.strip_suffix('-') {
        Some(base) => check(&format!("{base}a")),
        None => check(text),
    };
    match format {
        "dns1123Label" => names::label(text),
        "dns1123Subdomain" => names::subdomain(text),
        "dns1035Label" => names::label_1035(text),
        "dns1123LabelPrefix" => prefix(names::label),
        "dns1123SubdomainPrefix" => prefix(names::subdomain),
        "dns1035LabelPrefix" => prefix(names::label_1035),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "uri" => simple("uri", "parse error: invalid URI for request"),
        "uuid" => simple("uuid", "does not match the UUID format"),
        "byte" => match formats::is("byte", text) {
            true => Vec::new(),
            false => vec!["invalid base64".to_owned()],
        },
        "date" => simple("date", "invalid date"),
        "datetime" => simple("datetime", "invalid datetime"),
        _ => Vec::new(),
    }
}
