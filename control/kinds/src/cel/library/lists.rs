//! Lists and sets: Kubernetes' `lists`, cel-go's `ext.Lists` version 3 and `ext.Sets`.

use crate::cel::{
    access::optional,
    eval::{Answer, EvalError, Run, failure, traversal},
    list::List,
    operators::{arithmetic, equal, equal_counted, order},
    value::Value,
};

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    Some(match (name, values) {
        ("isSorted", [Value::List(list)]) => is_sorted(run, list),
        ("sum", [Value::List(list)]) => sum(run, list),
        ("min" | "max", [Value::List(list)]) => extreme(run, name, list),
        ("indexOf" | "lastIndexOf", [Value::List(list), item]) => charge_all(run, list).map(|()| {
            let mut places = list.iter().enumerate().filter(|(_, one)| equal(one, item)).map(|(at, _)| at as i64);
            Value::Int(if name == "indexOf" { places.next() } else { places.last() }.unwrap_or(-1))
        }),
        ("slice", [Value::List(list), Value::Int(from), Value::Int(to)]) => slice(run, list, *from, *to),
        ("sort", [Value::List(list)]) => sort(run, list),
        ("distinct", [Value::List(list)]) => distinct(run, list),
        ("reverse", [Value::List(list)]) => run.charge(list.len() as u64).map(|()| {
            let mut items: Vec<Value<'v>> = list.iter().collect();
            items.reverse();
            Value::list(items)
        }),
        ("flatten", [Value::List(list)]) => flatten(run, list, 1),
        ("flatten", [Value::List(list), Value::Int(depth)]) => flatten(run, list, *depth),
        ("first", [Value::List(list)]) => run.charge(1).map(|()| optional(list.get(0))),
        ("last", [Value::List(list)]) => {
            run.charge(1).map(|()| optional(list.len().checked_sub(1).and_then(|at| list.get(at))))
        }
        ("lists.range", [Value::Int(count)]) => {
            let count = (*count).max(0);
            run.charge(count.unsigned_abs()).map(|()| Value::list((0..count).map(Value::Int).collect()))
        }
        ("sets.contains", [Value::List(a), Value::List(b)]) => {
            charge_pairs(run, a, b, 1).and_then(|()| contains(run, a, b)).map(Value::Bool)
        }
        ("sets.equivalent", [Value::List(a), Value::List(b)]) => {
            charge_pairs(run, a, b, 2).and_then(|()| Ok(contains(run, a, b)? && contains(run, b, a)?)).map(Value::Bool)
        }
        ("sets.intersects", [Value::List(a), Value::List(b)]) => {
            charge_pairs(run, a, b, 1).and_then(|()| intersects(run, a, b)).map(Value::Bool)
        }
        _ => return None,
    })
}

/// What each pair of items costs, before any is looked at.
fn charge_pairs(run: &mut Run<'_, '_>, a: &List<'_>, b: &List<'_>, factor: u64) -> Result<(), EvalError> {
    let pairs = (a.len() as u64).saturating_mul(b.len() as u64);
    run.charge(pairs.saturating_mul(factor).saturating_add(1))
}

/// Whether every item of `b` is in `a`.
fn contains<'v>(run: &mut Run<'_, 'v>, a: &List<'v>, b: &List<'v>) -> Result<bool, EvalError> {
    for item in b.iter() {
        if !holds(run, a, &item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether any item of `b` is in `a`.
fn intersects<'v>(run: &mut Run<'_, 'v>, a: &List<'v>, b: &List<'v>) -> Result<bool, EvalError> {
    for item in b.iter() {
        if holds(run, a, &item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `item` is in `list`. The look at each item was paid for; what is within them costs as it does for `==`.
fn holds<'v>(run: &mut Run<'_, 'v>, list: &List<'v>, item: &Value<'v>) -> Result<bool, EvalError> {
    let mut work = 0;
    for one in list.iter() {
        let found = equal_counted(&one, item, &mut work);
        // The look itself is counted as 1 by the comparison.
        work = work.saturating_sub(1);
        if work >= 10 {
            run.charge(work / 10)?;
            work %= 10;
        }
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Cost of looking at everything in the list once.
fn charge_all<'v>(run: &mut Run<'_, 'v>, list: &List<'v>) -> Result<(), EvalError> {
    for item in list.iter() {
        charge_whole(run, &item)?;
    }
    Ok(())
}

fn charge_whole<'v>(run: &mut Run<'_, 'v>, value: &Value<'v>) -> Result<(), EvalError> {
    match value {
        Value::String(_) | Value::Bytes(_) => run.charge(traversal(value.size()).max(1)),
        Value::List(list) => {
            run.charge(1)?;
            charge_all(run, list)
        }
        Value::Map(map) => {
            run.charge(1)?;
            map.entries().iter().try_for_each(|(key, value)| {
                charge_whole(run, key)?;
                charge_whole(run, value)
            })
        }
        _ => run.charge(1),
    }
}

fn is_sorted<'v>(run: &mut Run<'_, 'v>, list: &List<'v>) -> Answer<'v> {
    charge_all(run, list)?;
    let mut before: Option<Value<'v>> = None;
    for item in list.iter() {
        if let Some(before) = &before
            && order(before, &item).ok_or(EvalError::NoOverload)?.is_gt()
        {
            return Ok(Value::Bool(false));
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'v>(run: &mut Run<'_, 'v>, list: &List<'v>) -> Answer<'v> {
    charge_all(run, list)?;
    let mut items = list.iter();
    let Some(mut total) = items.next() else { return Ok(Value::Int(0)) };
    for item in items {
        total = arithmetic("_+_", total, item).map_err(|_| failure("integer overflow"))?;
    }
    Ok(total)
}

fn extreme<'v>(run: &mut Run<'_, 'v>, name: &str, list: &List<'v>) -> Answer<'v> {
    charge_all(run, list)?;
    let mut items = list.iter();
    let Some(mut found) = items.next() else { return Err(failure(format!("{name} called on empty list"))) };
    for item in items {
        let is_less = order(&item, &found).ok_or(EvalError::NoOverload)?;
        if if name == "min" { is_less.is_lt() } else { is_less.is_gt() } {
            found = item;
        }
    }
    Ok(found)
}

fn slice<'v>(run: &mut Run<'_, 'v>, list: &List<'v>, from: i64, to: i64) -> Answer<'v> {
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let Some((start, end)) = range.filter(|(start, end)| start <= end && *end <= list.len()) else {
        return Err(failure(format!("cannot slice({from}, {to}), list is length {}", list.len())));
    };
    run.charge((end - start) as u64)?;
    Ok(Value::list((start..end).filter_map(|at| list.get(at)).collect()))
}

fn sort<'v>(run: &mut Run<'_, 'v>, list: &List<'v>) -> Answer<'v> {
    charge_all(run, list)?;
    run.charge((list.len() as u64).saturating_mul(u64::from(list.len().max(1).ilog2())))?;
    let mut items: Vec<Value<'v>> = list.iter().collect();
    if items.windows(2).any(|pair| order(&pair[0], &pair[1]).is_none()) {
        return Err(failure("list elements must be comparable"));
    }
    items.sort_by(|a, b| order(a, b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Value::list(items))
}

fn distinct<'v>(run: &mut Run<'_, 'v>, list: &List<'v>) -> Answer<'v> {
    let pairs = (list.len() as u64).saturating_mul(list.len() as u64);
    run.charge(pairs.saturating_mul(2).saturating_add(11))?;
    let mut items: Vec<Value<'v>> = Vec::new();
    for item in list.iter() {
        let mut work = 0;
        if !items.iter().any(|known| equal_counted(known, &item, &mut work)) {
            items.push(item);
        }
        run.charge(traversal(work.saturating_sub(items.len() as u64)))?;
    }
    Ok(Value::list(items))
}

fn flatten<'v>(run: &mut Run<'_, 'v>, list: &List<'v>, depth: i64) -> Answer<'v> {
    if depth < 0 {
        return Err(failure("level must be non-negative"));
    }
    let mut items = Vec::new();
    gather(run, list, depth.min(64), &mut items)?;
    Ok(Value::list(items))
}

fn gather<'v>(run: &mut Run<'_, 'v>, list: &List<'v>, depth: i64, out: &mut Vec<Value<'v>>) -> Result<(), EvalError> {
    for item in list.iter() {
        run.charge(1)?;
        match item {
            Value::List(inner) if depth > 0 => gather(run, &inner, depth - 1, out)?,
            other => out.push(other),
        }
    }
    Ok(())
}
