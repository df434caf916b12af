//! Texts: cel-go's `ext.Strings` version 2 and Kubernetes' regular expressions. Places count characters.

use std::{rc::Rc, sync::Arc};

use crate::cel::{
    convert::shown_duration,
    eval::{Answer, EvalError, MAX_TEXT, Run, failure, traversal},
    pattern::Pattern,
    value::{Opaque, Value},
};

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    Some(match (name, values) {
        ("contains", [Value::String(text), Value::String(part)]) => {
            let cost = traversal(text.len() as u64).saturating_mul(traversal(part.len() as u64));
            run.charge(cost).map(|()| Value::Bool(text.contains(&**part)))
        }
        ("startsWith", [Value::String(text), Value::String(part)]) => {
            run.charge(traversal(text.len() as u64)).map(|()| Value::Bool(text.starts_with(&**part)))
        }
        ("endsWith", [Value::String(text), Value::String(part)]) => {
            run.charge(traversal(text.len() as u64)).map(|()| Value::Bool(text.ends_with(&**part)))
        }
        ("matches", [Value::String(text), Value::String(pattern)]) => matches(run, text, pattern),
        ("find", [Value::String(text), Value::String(pattern)]) => find(run, text, pattern),
        ("findAll", [Value::String(text), Value::String(pattern)]) => find_all(run, text, pattern, -1),
        ("findAll", [Value::String(text), Value::String(pattern), Value::Int(most)]) => {
            find_all(run, text, pattern, *most)
        }
        ("charAt", [Value::String(text), Value::Int(at)]) => char_at(run, text, *at),
        ("indexOf" | "lastIndexOf", [Value::String(text), Value::String(part)]) => index(run, name, text, part, None),
        ("indexOf" | "lastIndexOf", [Value::String(text), Value::String(part), Value::Int(at)]) => {
            index(run, name, text, part, Some(*at))
        }
        ("lowerAscii", [Value::String(text)]) => changed(run, text, str::to_ascii_lowercase),
        ("upperAscii", [Value::String(text)]) => changed(run, text, str::to_ascii_uppercase),
        ("trim", [Value::String(text)]) => changed(run, text, |text| text.trim().to_owned()),
        ("replace", [Value::String(text), Value::String(from), Value::String(to)]) => replace(run, text, from, to, -1),
        ("replace", [Value::String(text), Value::String(from), Value::String(to), Value::Int(most)]) => {
            replace(run, text, from, to, *most)
        }
        ("split", [Value::String(text), Value::String(by)]) => split(run, text, by, -1),
        ("split", [Value::String(text), Value::String(by), Value::Int(most)]) => split(run, text, by, *most),
        ("substring", [Value::String(text), Value::Int(from)]) => substring(run, text, *from, None),
        ("substring", [Value::String(text), Value::Int(from), Value::Int(to)]) => {
            substring(run, text, *from, Some(*to))
        }
        ("strings.quote", [Value::String(text)]) => changed(run, text, quote),
        ("join", [Value::List(list)]) => join(run, list, ""),
        ("join", [Value::List(list), Value::String(by)]) => join(run, list, by),
        ("format", [Value::String(text), Value::List(list)]) => format(run, text, list),
        _ => return None,
    })
}

/// The compiled pattern, once a search of it in `text` is paid for.
fn pattern(run: &mut Run<'_, '_>, text: &str, pattern: &Rc<str>) -> Result<Arc<Pattern>, EvalError> {
    let cost = traversal(text.len() as u64 + 1).saturating_mul((pattern.len() as u64).div_ceil(4));
    run.charge(cost)?;
    let compiled = run.pattern(pattern)?;
    run.charge(cost.saturating_mul(compiled.factor().saturating_sub(1)))?;
    Ok(compiled)
}

fn matches<'v>(run: &mut Run<'_, 'v>, text: &str, pattern: &Rc<str>) -> Answer<'v> {
    Ok(Value::Bool(self::pattern(run, text, pattern)?.regex().is_match(text)))
}

fn find<'v>(run: &mut Run<'_, 'v>, text: &str, pattern: &Rc<str>) -> Answer<'v> {
    Ok(Value::text(self::pattern(run, text, pattern)?.regex().find(text).map_or("", |found| found.as_str())))
}

fn find_all<'v>(run: &mut Run<'_, 'v>, text: &str, pattern: &Rc<str>, most: i64) -> Answer<'v> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let compiled = self::pattern(run, text, pattern)?;
    let found: Vec<Value<'v>> =
        compiled.regex().find_iter(text).take(most).map(|found| Value::text(found.as_str())).collect();
    run.charge(found.len() as u64 / 10)?;
    Ok(Value::list(found))
}

fn changed<'v>(run: &mut Run<'_, 'v>, text: &str, change: impl Fn(&str) -> String) -> Answer<'v> {
    run.charge(traversal(text.len() as u64))?;
    Ok(Value::text(change(text)))
}

/// The byte at which the character `at` begins; that after the last one is the end.
fn byte_of(text: &str, at: i64) -> Result<usize, EvalError> {
    let out = || failure(format!("index out of range: {at}"));
    let at = usize::try_from(at).map_err(|_| out())?;
    let ends = std::iter::once(text.len());
    text.char_indices().map(|(byte, _)| byte).chain(ends).nth(at).ok_or_else(out)
}

fn char_at<'v>(run: &mut Run<'_, 'v>, text: &str, at: i64) -> Answer<'v> {
    run.charge(traversal(text.len() as u64).max(1))?;
    let from = byte_of(text, at)?;
    Ok(Value::text(text[from..].chars().next().map(String::from).unwrap_or_default()))
}

fn index<'v>(run: &mut Run<'_, 'v>, name: &str, text: &str, part: &str, at: Option<i64>) -> Answer<'v> {
    run.charge(traversal(text.len() as u64))?;
    let characters = |bytes: usize| text[..bytes].chars().count() as i64;
    let found = match (name, at) {
        ("indexOf", None) => text.find(part),
        ("indexOf", Some(at)) => {
            let from = byte_of(text, at)?;
            text[from..].find(part).map(|found| found + from)
        }
        (_, None) => text.rfind(part),
        (_, Some(at)) => {
            let last = byte_of(text, at)?;
            let end = last.saturating_add(part.len()).min(text.len());
            text.get(..end).and_then(|text| text.rfind(part))
        }
    };
    Ok(Value::Int(found.map_or(-1, characters)))
}

fn substring<'v>(run: &mut Run<'_, 'v>, text: &str, from: i64, to: Option<i64>) -> Answer<'v> {
    run.charge(traversal(text.len() as u64))?;
    let start = byte_of(text, from)?;
    let end = match to {
        Some(to) => byte_of(text, to)?,
        None => text.len(),
    };
    match text.get(start..end) {
        Some(part) => Ok(Value::text(part)),
        None => Err(failure(format!("invalid substring range. start: {from}, end: {}", to.unwrap_or_default()))),
    }
}

fn replace<'v>(run: &mut Run<'_, 'v>, text: &str, from: &str, to: &str, most: i64) -> Answer<'v> {
    run.charge(traversal(text.len() as u64 * 2))?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // Before anything is made: an empty text is found between all characters.
    let places = text.matches(from).count().min(most);
    let size = places.saturating_mul(to.len()).saturating_add(text.len());
    if size > MAX_TEXT {
        return Err(failure("text too long"));
    }
    run.charge(traversal(size as u64))?;
    Ok(Value::text(text.replacen(from, to, most)))
}

fn split<'v>(run: &mut Run<'_, 'v>, text: &str, by: &str, most: i64) -> Answer<'v> {
    run.charge(traversal(text.len() as u64 * 2))?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let parts: Vec<Value<'v>> = match (most, by) {
        (0, _) => Vec::new(),
        // Each character for itself, without the empty texts at both ends.
        (most, "") => {
            let mut parts: Vec<Value<'v>> = Vec::new();
            let mut rest = text;
            while let Some(c) = rest.chars().next() {
                if parts.len() + 1 == most {
                    parts.push(Value::text(rest));
                    break;
                }
                parts.push(Value::text(c.to_string()));
                rest = &rest[c.len_utf8()..];
            }
            parts
        }
        (most, by) => text.splitn(most, by).map(Value::text).collect(),
    };
    Ok(Value::list(parts))
}

fn join<'v>(run: &mut Run<'_, 'v>, list: &crate::cel::list::List<'v>, by: &str) -> Answer<'v> {
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        let Value::String(text) = &item else { return Err(EvalError::NoOverload) };
        let by = if at > 0 { by } else { "" };
        if out.len().saturating_add(by.len()).saturating_add(text.len()) > MAX_TEXT {
            return Err(failure("text too long"));
        }
        out.push_str(by);
        out.push_str(text);
        // Beside the characters: a list of empty texts is looked through, too.
        if at % 10 == 9 && out.len() < at {
            run.charge(1)?;
        }
    }
    run.charge(traversal(out.len() as u64 * 2))?;
    Ok(Value::text(out))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `"%s is %d".format([…])`
fn format<'v>(run: &mut Run<'_, 'v>, text: &str, list: &crate::cel::list::List<'v>) -> Answer<'v> {
    run.charge(traversal(text.len() as u64))?;
    let mut out = String::new();
    let mut next = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if out.len() > MAX_TEXT {
            return Err(failure("text too long"));
        }
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok().map(|digits| digits.min(100));
        }
        let Some(verb) = chars.next() else { return Err(failure("unexpected end of string")) };
        let Some(value) = list.get(next) else { return Err(failure(format!("index {next} out of range"))) };
        next += 1;
        run.charge(traversal(value.size()))?;
        formatted(verb, &value, precision, &mut out)?;
    }
    run.charge(traversal(out.len() as u64))?;
    Ok(Value::text(out))
}

fn formatted(verb: char, value: &Value<'_>, precision: Option<usize>, out: &mut String) -> Result<(), EvalError> {
    let wrong = |needs: &str| {
        Err(failure(format!(
            "error during formatting: {needs} clause can only be used on such values, was given {}",
            value.type_name()
        )))
    };
    match (verb, value) {
        ('s', value) => shown(value, out, 0)?,
        ('d', Value::Int(number)) => out.push_str(&number.to_string()),
        ('d', Value::Uint(number)) => out.push_str(&number.to_string()),
        ('d', _) => return wrong("decimal"),
        ('f', Value::Double(number)) => out.push_str(&format!("{number:.*}", precision.unwrap_or(6))),
        ('f', Value::Int(number)) => out.push_str(&format!("{:.*}", precision.unwrap_or(6), *number as f64)),
        ('f', _) => return wrong("fixed-point"),
        ('e', Value::Double(number)) => out.push_str(&format!("{number:.*e}", precision.unwrap_or(6))),
        ('e', _) => return wrong("scientific"),
        ('b', Value::Int(number)) => out.push_str(&format!("{}{:b}", sign(*number), number.unsigned_abs())),
        ('b', Value::Uint(number)) => out.push_str(&format!("{number:b}")),
        ('b', Value::Bool(value)) => out.push(if *value { '1' } else { '0' }),
        ('b', _) => return wrong("binary"),
        ('o', Value::Int(number)) => out.push_str(&format!("{}{:o}", sign(*number), number.unsigned_abs())),
        ('o', Value::Uint(number)) => out.push_str(&format!("{number:o}")),
        ('o', _) => return wrong("octal"),
        ('x', Value::Int(number)) => out.push_str(&format!("{}{:x}", sign(*number), number.unsigned_abs())),
        ('X', Value::Int(number)) => out.push_str(&format!("{}{:X}", sign(*number), number.unsigned_abs())),
        ('x', Value::Uint(number)) => out.push_str(&format!("{number:x}")),
        ('X', Value::Uint(number)) => out.push_str(&format!("{number:X}")),
        ('x', Value::String(text)) => text.bytes().for_each(|b| out.push_str(&format!("{b:02x}"))),
        ('X', Value::String(text)) => text.bytes().for_each(|b| out.push_str(&format!("{b:02X}"))),
        ('x' | 'X', _) => return wrong("hex"),
        (other, _) => {
            return Err(failure(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            )));
        }
    }
    Ok(())
}

fn sign(number: i64) -> &'static str {
    if number < 0 { "-" } else { "" }
}

fn shown(value: &Value<'_>, out: &mut String, depth: usize) -> Result<(), EvalError> {
    if out.len() > MAX_TEXT || depth > 64 {
        return Err(failure("text too long"));
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Uint(value) => out.push_str(&value.to_string()),
        Value::Double(value) => out.push_str(&value.to_string()),
        Value::String(text) => out.push_str(text),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Timestamp(at) => out.push_str(&at.to_string()),
        Value::Duration(nanos) => out.push_str(&shown_duration(*nanos)),
        Value::Type(name) => out.push_str(name),
        Value::List(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                shown(&item, out, depth + 1)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (at, (key, value)) in map.entries().iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                shown(key, out, depth + 1)?;
                out.push_str(": ");
                shown(value, out, depth + 1)?;
            }
            out.push('}');
        }
        Value::Opaque(Opaque::Ip(address)) => out.push_str(&address.to_string()),
        Value::Opaque(Opaque::Cidr(address, length)) => out.push_str(&format!("{address}/{length}")),
        Value::Optional(_) | Value::Opaque(_) | Value::Message(_) => {
            let message = format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, \
                maps, lists, types, durations, and timestamps, was given {}",
                value.type_name()
            );
            return Err(failure(message));
        }
    }
    Ok(())
}
