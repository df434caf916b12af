//! Whether two refusals name the same causes, although Go tells them in a way that is its own.

use serde_json::Value;

use crate::exchange::Answer;

const STRUCT: &str = "the text shows a value as kube-apiserver holds it in memory, a Go struct that is in no API";
const DIFF: &str = "the text shows what changed as lines of a Go struct that is in no API";
const TWICE: &str =
    "kube-apiserver checks metadata, and at times the whole, in two places on update and tells each cause twice";
const EMPTY: &str = "what is empty is shown alike, however it was written; kube-apiserver tells an empty map from none";
const ORDER: &str = "Go reads maps in random order, and so tells what is wrong with their keys";

/// How kube-apiserver shows a map with nothing in it, and how it shows none.
const EMPTY_MAP: &str = " value: {}: ";
const NOTHING: &str = " value: null: ";

/// Why two refusals of an object are alike; `None` where they are not.
pub fn alike(ours: &Answer, theirs: &Answer) -> Option<&'static str> {
    if ours.code != 422 || theirs.code != 422 || told(ours)? != told(theirs)? {
        return None;
    }
    let (ours, theirs) = (causes(ours)?, causes(theirs)?);
    let has_empties = theirs.iter().any(|cause| cause.message.contains(EMPTY_MAP));
    let nothing = |cause: Cause| Cause { message: cause.message.replace(EMPTY_MAP, NOTHING), ..cause };
    let (ours, theirs): (Vec<Cause>, Vec<Cause>) =
        (ours.into_iter().map(nothing).collect(), theirs.into_iter().map(nothing).collect());
    let mut why = if has_empties { EMPTY } else { STRUCT };
    let (mut ours, mut theirs): (Vec<Cause>, Vec<Cause>) = {
        let shown: Vec<Cause> = theirs.iter().map(without_struct).collect();
        if shown.iter().any(|cause| cause.message.contains('@')) {
            why = DIFF;
        }
        (ours.iter().map(|cause| like(cause, &shown)).collect(), shown)
    };
    if ours == theirs {
        return Some(why);
    }
    once(&mut ours);
    let all = theirs.len();
    once(&mut theirs);
    if ours == theirs {
        return Some(TWICE);
    }
    let moved: Vec<(&Cause, &Cause)> = ours.iter().zip(&theirs).filter(|(a, b)| a != b).collect();
    // What is told twice is told in two orders.
    let of_metadata = moved.iter().all(|(a, b)| a.is_of_metadata() && b.is_of_metadata());
    let may_move = of_metadata && all > theirs.len();
    let mut maps: Vec<String> = moved.into_iter().flat_map(|(a, b)| [a.map(), b.map()]).collect();
    maps.sort();
    maps.dedup();
    ours.sort();
    theirs.sort();
    (ours == theirs && (maps.len() == 1 || may_move)).then_some(if all > theirs.len() { TWICE } else { ORDER })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cause {
    field: String,
    reason: String,
    message: String,
}

impl Cause {
    fn is_of_metadata(&self) -> bool {
        self.field.starts_with("metadata.")
    }

    /// The map that the field is a key of: `spec.hard` of `spec.hard[cpu]`. What is asked for is told of limits, too.
    fn map(&self) -> String {
        let map = self.field.split('[').next().unwrap_or_default();
        let resources = [".limits", ".requests"].iter().find_map(|list| map.strip_suffix(list));
        resources.unwrap_or(map).to_owned()
    }
}

fn causes(answer: &Answer) -> Option<Vec<Cause>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |c: &Value| Cause { field: text(&c["field"]), reason: text(&c["reason"]), message: text(&c["message"]) };
    Some(answer.body["details"]["causes"].as_array()?.iter().map(of).collect())
}

/// What a message says beside its causes, which it repeats; `None` if it does not.
fn told(answer: &Answer) -> Option<String> {
    let list: Vec<String> = causes(answer)?.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    let list = match &once_each(list)[..] {
        [one] => one.clone(),
        list => format!("[{}]", list.join(", ")),
    };
    answer.body["message"].as_str()?.strip_suffix(&list).map(str::to_owned)
}

/// Go's list of errors names each once.
fn once_each(list: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for one in list {
        if !out.contains(&one) {
            out.push(one);
        }
    }
    out
}

fn once(causes: &mut Vec<Cause>) {
    let mut seen: Vec<Cause> = Vec::new();
    causes.retain(|cause| {
        let is_new = !seen.contains(cause);
        seen.push(cause.clone());
        is_new
    });
}

/// A cause of kube-apiserver without the struct that it shows.
fn without_struct(cause: &Cause) -> Cause {
    let mut cause = cause.clone();
    if let Some((before, _)) = cause.message.split_once("\n@@ ") {
        cause.message = format!("{before}\n@");
    } else if let Some((before, value, after)) = shown_value(&cause.message)
        && has_go_names(&value)
    {
        cause.message = format!("{before}{{}}{after}");
    }
    cause
}

/// A cause of ours with what [`without_struct`] left out of the same one of theirs left out.
fn like(cause: &Cause, theirs: &[Cause]) -> Cause {
    let mut like = cause.clone();
    if let Some((before, _)) = cause.message.split_once("\nchanged: ") {
        like.message = format!("{before}\n@");
    } else if let Some((before, value, after)) = shown_value(&cause.message)
        && value.is_object()
    {
        like.message = format!("{before}{{}}{after}");
    }
    if theirs.contains(&like) { like } else { cause.clone() }
}

/// `Invalid value: {…}: why` in three parts.
fn shown_value(message: &str) -> Option<(&str, Value, &str)> {
    let at = message.find("value: {")? + "value: ".len();
    let mut values = serde_json::Deserializer::from_str(&message[at..]).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let end = at + values.byte_offset();
    Some((&message[..at], value, &message[end..]))
}

/// Whether a field is named as in Go: `TargetPort`. The name of no field of the API starts so.
fn has_go_names(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            let is_go = |name: &String| name.starts_with(|c: char| c.is_ascii_uppercase());
            map.keys().any(is_go) || map.values().any(has_go_names)
        }
        Value::Array(items) => items.iter().any(has_go_names),
        _ => false,
    }
}
