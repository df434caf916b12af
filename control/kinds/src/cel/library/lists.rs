//! Lists and sets: Kubernetes' `lists`, cel-go's `ext.Lists` version 3 and `ext.Sets`.

use crate::cel::{
    access::optional,
    eval::{Answer, EvalError, Run, failure, traversal},
    list::List,
    operators::{arithmetic, equal, order},
    value::Value,
};

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    Some(match (name, values) {
        ("isSorted", [Value::List(list)]) => is_sorted(run, list),
        ("sum", [Value::List(list)]) => sum(run, list),
        ("min" | "max", [Value::List(list)]) => extreme(run, name, list),
        ("indexOf" | "lastIndexOf", [Value::List(list), item]) => run.charge(list.len() as u64).map(|()| {
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
        ("sets.contains", [Value::List(a), Value::List(b)]) => pairs(run, a, b).map(|()| Value::Bool(contains(a, b))),
        ("sets.equivalent", [Value::List(a), Value::List(b)]) => {
            pairs(run, a, b).map(|()| Value::Bool(contains(a, b) && contains(b, a)))
        }
        ("sets.intersects", [Value::List(a), Value::List(b)]) => {
            pairs(run, a, b).map(|()| Value::Bool(b.iter().any(|item| a.iter().any(|one| equal(&one, &item)))))
        }
        _ => return None,
    })
}

/// What each pair of items costs, before any is looked at.
fn pairs(run: &mut Run<'_, '_>, a: &List<'_>, b: &List<'_>) -> Result<(), EvalError> {
    run.charge((a.len() as u64).saturating_mul(b.len() as u64).max(1))
}

/// Whether every item of `b` is in `a`.
fn contains<'v>(a: &List<'v>, b: &List<'v>) -> bool {
    b.iter().all(|item| a.iter().any(|one| equal(&one, &item)))
}

fn charge_all<'v>(run: &mut Run<'_, 'v>, list: &List<'v>) -> Result<(), EvalError> {
    let sizes = list.iter().map(|item| match item {
        Value::String(_) | Value::Bytes(_) => traversal(item.size()).max(1),
        _ => 1,
    });
    run.charge(sizes.fold(0, u64::saturating_add))
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
    run.charge((list.len() as u64).saturating_mul(list.len() as u64))?;
    let mut items: Vec<Value<'v>> = Vec::new();
    for item in list.iter() {
        if !items.iter().any(|known| equal(known, &item)) {
            items.push(item);
        }
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
