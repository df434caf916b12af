//! Where two answers disagree.

use serde_json::Value;

use crate::exchange::Answer;

/// One disagreement.
#[derive(Clone, Debug)]
pub struct Difference {
    /// `code`, `header warning`, or a path of the body with `[]` for any item: `spec.containers[].image`.
    pub place: String,
    /// As JSON; empty where there is nothing.
    pub ours: String,
    pub theirs: String,
}

impl Difference {
    /// What the report counts by: values are left out of it where the place says enough.
    pub fn cause(&self) -> String {
        match self.place.as_str() {
            "code" | "body" => format!("{}: {} | {}", self.place, shape(&self.ours), shape(&self.theirs)),
            place if place.contains("message") || place.starts_with("header") => {
                format!("{place}: {} | {}", shape(&self.ours), shape(&self.theirs))
            }
            place => format!("{place}: {} | {}", brief(&self.ours), brief(&self.theirs)),
        }
    }
}

/// All disagreements of two normalised answers. Where the codes differ, nothing else is compared.
pub fn differences(ours: &Answer, theirs: &Answer) -> Vec<Difference> {
    if ours.code != theirs.code {
        return vec![Difference { place: "code".into(), ours: told(ours), theirs: told(theirs) }];
    }
    let mut found = Vec::new();
    if ours.content_type != theirs.content_type {
        let (ours, theirs) = (ours.content_type.clone(), theirs.content_type.clone());
        found.push(Difference { place: "header content-type".into(), ours, theirs });
    }
    if ours.warnings != theirs.warnings {
        let (ours, theirs) = (ours.warnings.join("; "), theirs.warnings.join("; "));
        found.push(Difference { place: "header warning".into(), ours, theirs });
    }
    compare(&ours.body, &theirs.body, "", &mut found);
    found
}

/// The code and what it was given for.
fn told(answer: &Answer) -> String {
    format!("{} {}", answer.code, answer.body["message"].as_str().unwrap_or_default())
}

fn compare(ours: &Value, theirs: &Value, place: &str, found: &mut Vec<Difference>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let mut keys: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                match (ours.get(key), theirs.get(key)) {
                    (Some(ours), Some(theirs)) => compare(ours, theirs, &inner, found),
                    (ours, theirs) => found.push(Difference { place: inner, ours: json(ours), theirs: json(theirs) }),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (ours, theirs) in ours.iter().zip(theirs) {
                compare(ours, theirs, &format!("{place}[]"), found);
            }
        }
        (ours, theirs) if ours != theirs => {
            let place = if place.is_empty() { "body" } else { place };
            found.push(Difference { place: place.to_owned(), ours: json(Some(ours)), theirs: json(Some(theirs)) });
        }
        _ => {}
    }
}

fn json(value: Option<&Value>) -> String {
    value.map(Value::to_string).unwrap_or_default()
}

fn brief(text: &str) -> String {
    match text.chars().count() {
        0 => "nothing".to_owned(),
        1..60 => text.to_owned(),
        _ => text.chars().take(60).chain(['…']).collect(),
    }
}

/// A message without its values: what stands in quotes and numbers.
fn shape(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for (at, c) in text.replace("\\\"", "\"").chars().enumerate() {
        match c {
            '"' => {
                quoted = !quoted;
                if !quoted {
                    out.push_str("\"\"");
                }
            }
            _ if quoted => {}
            c if c.is_ascii_digit() && at >= 3 => {
                if !out.ends_with('#') {
                    out.push('#');
                }
            }
            c => out.push(c),
        }
    }
    if out.chars().count() > 150 { out.chars().take(150).chain(['…']).collect() } else { out }
}
