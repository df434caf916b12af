//! `--config FILE`: a YAML map whose keys are the long flags of the verb. Turned into flags, so both mean the same by
//! construction.

use anyhow::{Context, bail};
use clap::{ArgAction, ArgMatches, Command, parser::ValueSource};
use serde_json::{Map, Value};

use crate::yaml;

/// One key of the file as words of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Counted from 1.
    pub line: usize,
    /// One word `--FLAG=VALUE` per value, and at least one.
    pub words: Vec<String>,
}

/// The flags that the file sets, without those that `given` has from the command line.
pub fn flags(file: &str, text: &str, verb: &Command, given: &ArgMatches) -> anyhow::Result<Vec<Flag>> {
    let value = yaml::read(text).with_context(|| file.to_owned())?;
    let map = match value {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => bail!("{file}: not a map; write one `flag-name: value` per line"),
    };
    let known: Vec<&clap::Arg> = verb
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|long| !matches!(long, "config" | "help" | "version")))
        .collect();
    let mut flags = Vec::new();
    for (key, value) in &map {
        let line = line_of(text, key);
        let Some(arg) = known.iter().find(|arg| arg.get_long() == Some(key)) else {
            let names = known.iter().filter_map(|arg| arg.get_long());
            let nearest = names.min_by_key(|name| strsim::damerau_levenshtein(name, key)).unwrap_or_default();
            bail!(
                "{file}, line {line}: unknown key \"{key}\"; did you mean \"{nearest}\"? the keys are the flags of \
                  `{} --help`",
                verb.get_display_name().unwrap_or(verb.get_name()).replace('-', " ")
            );
        };
        if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        let words = words(arg, key, value).map_err(|error| anyhow::anyhow!("{file}, line {line}: {error}"))?;
        if !words.is_empty() {
            flags.push(Flag { line, words });
        }
    }
    Ok(flags)
}

/// A value that no flag takes.
#[derive(Debug, thiserror::Error)]
enum ValueError {
    #[error("the value of {0} must be a text or a number")]
    NotAScalar(String),
    #[error("{key} is true or false, not {value}")]
    NotABool { key: String, value: Value },
}

fn words(arg: &clap::Arg, key: &str, value: &Value) -> Result<Vec<String>, ValueError> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(on) => Ok(on.to_string()),
        _ => Err(ValueError::NotAScalar(key.to_owned())),
    };
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Bool(true)) => Ok(vec![format!("--{key}")]),
        (ArgAction::SetTrue, Value::Bool(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, other) => Err(ValueError::NotABool { key: key.to_owned(), value: other.clone() }),
        (ArgAction::Append, Value::Array(items)) => {
            items.iter().map(|item| Ok(format!("--{key}={}", scalar(item)?))).collect()
        }
        (_, value) => Ok(vec![format!("--{key}={}", scalar(value)?)]),
    }
}

/// The line where a top-level key stands; keys are checked to be in the text by the parser.
fn line_of(text: &str, key: &str) -> usize {
    let starts = |line: &str| {
        let bare = line.trim_start_matches(['"', '\'', '{', ' ']);
        bare.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.lines().position(starts).map_or(1, |i| i + 1)
}
