//! JSONPath templates as kubectl's `-o jsonpath=`: text, `{.path}`, filters, `{range}…{end}`. Pure.

mod parser;

use std::str::FromStr;

use anyhow::bail;
use serde_json::Value;

use parser::Parser;
pub use parser::TemplateError;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// `..field`, at any depth.
    Anywhere(String),
    Index(i64),
    Slice(i64, Option<i64>),
    All,
    Union(Vec<String>),
    Filter {
        path: Vec<Step>,
        test: Option<(Comparison, Value)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        // kubectl accepts a bare path too.
        let text = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
        Ok(Self(Parser::new(&text).parts(false)?))
    }
}

impl Template {
    /// The text for `root`. A path that leads nowhere is an error only at a field that a single object lacks, as for
    /// kubectl.
    pub fn render(&self, root: &Value) -> anyhow::Result<String> {
        let mut out = String::new();
        render(&self.0, root, &mut out)?;
        Ok(out)
    }

    /// The values that the template's paths lead to, for columns.
    pub fn values<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        self.0
            .iter()
            .filter_map(|part| match part {
                Part::Path(steps) => Some(walk(steps, vec![root])),
                _ => None,
            })
            .flatten()
            .collect()
    }
}

fn render(parts: &[Part], at: &Value, out: &mut String) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let found = walk(steps, vec![at]);
                if found.is_empty() && matches!(steps.last(), Some(Step::Index(_))) {
                    bail!("error executing jsonpath: array index out of bounds");
                }
                let texts: Vec<String> = found.into_iter().map(text_of).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range(steps, body) => {
                for item in walk(steps, vec![at]) {
                    render(body, item, out)?;
                }
            }
        }
    }
    Ok(())
}

/// A value as a template shows it.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn walk<'v>(steps: &[Step], mut at: Vec<&'v Value>) -> Vec<&'v Value> {
    for step in steps {
        at = at.into_iter().flat_map(|value| take(step, value)).collect();
    }
    at
}

fn take<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Union(names), Value::Object(map)) => names.iter().filter_map(|name| map.get(name)).collect(),
        (Step::Anywhere(name), value) => {
            let mut found = Vec::new();
            anywhere(name, value, &mut found);
            found
        }
        (Step::Index(i), Value::Array(items)) => {
            let position = match usize::try_from(*i) {
                Ok(position) => Some(position),
                Err(_) => usize::try_from(i.unsigned_abs()).ok().and_then(|back| items.len().checked_sub(back)),
            };
            position.and_then(|position| items.get(position)).into_iter().collect()
        }
        (Step::Slice(from, to), Value::Array(items)) => {
            let bound = |i: i64| {
                let distance = usize::try_from(i.unsigned_abs()).unwrap_or(usize::MAX);
                if i < 0 { items.len().saturating_sub(distance) } else { distance.min(items.len()) }
            };
            let (from, to) = (bound(*from), to.map_or(items.len(), bound));
            items.get(from..to.max(from)).unwrap_or_default().iter().collect()
        }
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Filter { path, test }, Value::Array(items)) => {
            items.iter().filter(|item| holds(path, test.as_ref(), item)).collect()
        }
        _ => Vec::new(),
    }
}

fn anywhere<'v>(name: &str, value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(name));
            map.values().for_each(|inner| anywhere(name, inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| anywhere(name, inner, found)),
        _ => {}
    }
}

fn holds(path: &[Step], test: Option<&(Comparison, Value)>, item: &Value) -> bool {
    let found = walk(path, vec![item]);
    let Some((comparison, wanted)) = test else { return !found.is_empty() };
    found.iter().any(|value| {
        let order = match (value, wanted) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) if *a == b => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match comparison {
            Comparison::Equal => order.is_some_and(|o| o.is_eq()),
            Comparison::NotEqual => !order.is_some_and(|o| o.is_eq()),
            Comparison::Less => order.is_some_and(|o| o.is_lt()),
            Comparison::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Comparison::Greater => order.is_some_and(|o| o.is_gt()),
            Comparison::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(template: &str) -> String {
        let root = json!({"items": [
            {"metadata": {"name": "a", "labels": {"app.io/x": "1"}}, "status": {"podIP": "10.0.0.1",
                "ok": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "b"}, "status": {"podIP": "10.0.0.2", "ok": [{"type": "Ready", "status": "False"}],
                "n": 3}}]});
        let template: Template = template.parse().expect(template);
        template.render(&root).expect("renders")
    }

    #[test]
    fn the_templates_people_write_work() {
        let cases = [
            ("{.items[*].metadata.name}", "a b"),
            (".items[0].metadata.name", "a"),
            ("{.items[-1:].metadata.name}", "b"),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.podIP}{\"\\n\"}{end}", "a\t10.0.0.1\nb\t10.0.0.2\n"),
            ("{.items[?(@.status.n>2)].metadata.name}", "b"),
            ("{.items[?(@.metadata.name==\"a\")].status.podIP}", "10.0.0.1"),
            ("{.items[0].status.ok[?(@.type=='Ready')].status}", "True"),
            ("{..name}", "a b"),
            ("{.items[0].metadata.labels.app\\.io/x}", "1"),
            ("{.items[0].metadata['name','missing']} end", "a end"),
            ("{$.items[0].metadata}", "{\"name\":\"a\",\"labels\":{\"app.io/x\":\"1\"}}"),
        ];
        for (template, expected) in cases {
            assert_eq!(shown(template), expected, "{template}");
        }
    }

    #[test]
    fn a_broken_template_is_refused() {
        for template in ["{.a", "{range .a}", "{end}", "{.a[?(@.b=1)]}", "{\"x}"] {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
        let told = |template: &str| template.parse::<Template>().expect_err(template).to_string();
        assert_eq!(told("{range .a}"), "{range} without {end}");
        assert_eq!(told("{.a"), "missing '}', or something unknown before it");
    }
}
