//! Loops: over lists and maps, with a result that each step changes.

use std::rc::Rc;

use super::{
    ast::{Expr, Fold, Kind, MAP_INSERT},
    eval::{Answer, EvalError, Run, failure, traversal},
    list::List,
    operators,
    value::{Map, Value},
};

impl<'a, 'v> Run<'a, 'v> {
    /// Runs a loop; answers with its result.
    pub(super) fn fold(&mut self, fold: &'a Fold) -> Answer<'v> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init)?;
        let items: Items<'v> = match range {
            Value::List(list) => Items::List(list),
            Value::Map(map) if fold.second.is_some() => {
                self.charge(traversal(map.len() as u64))?;
                Items::Entries(map.entries())
            }
            Value::Map(map) => {
                self.charge(traversal(map.len() as u64))?;
                Items::Keys(map.keys())
            }
            _ => return Err(EvalError::NoOverload),
        };
        let base = self.locals.len();
        self.locals.push((&fold.accumulator, init));
        let result = self.turns(fold, &items, base).and_then(|()| self.eval(&fold.result));
        self.locals.truncate(base);
        result
    }

    /// Runs the loop; the accumulator stands at `base` of the locals.
    fn turns(&mut self, fold: &'a Fold, items: &Items<'v>, base: usize) -> Result<(), EvalError> {
        for at in 0..items.len() {
            let Some((first, second)) = items.get(at, fold.second.is_some()) else { break };
            self.locals.truncate(base + 1);
            self.locals.push((&fold.variable, first));
            if let (Some(name), Some(value)) = (&fold.second, second) {
                self.locals.push((name, value));
            }
            match self.eval(&fold.condition)? {
                Value::Bool(true) => {}
                _ => break,
            }
            // An empty loop must cost something, too.
            self.charge(1)?;
            let value = self.step(fold, base)?;
            self.locals[base].1 = value;
        }
        self.locals.truncate(base + 1);
        Ok(())
    }

    /// One step. What it adds to its result is added in place.
    fn step(&mut self, fold: &'a Fold, base: usize) -> Answer<'v> {
        let adds = |expr: &'a Expr| match &expr.kind {
            Kind::Call { name, target: None, arguments } if name == "_+_" || name == MAP_INSERT => {
                match arguments.as_slice() {
                    [before, added] if matches!(&before.kind, Kind::Ident(name) if *name == fold.accumulator) => {
                        Some((name.as_str(), added))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        let (name, added) = match (adds(&fold.step), &fold.step.kind) {
            (Some(found), _) => found,
            (None, Kind::Call { name, target: None, arguments }) if name == "_?_:_" && arguments.len() == 3 => {
                match adds(&arguments[1]) {
                    Some(found) => match self.eval(&arguments[0])? {
                        Value::Bool(true) => found,
                        Value::Bool(false) => return self.eval(&arguments[2]),
                        _ => return Err(EvalError::NoOverload),
                    },
                    None => return self.eval(&fold.step),
                }
            }
            _ => return self.eval(&fold.step),
        };
        let added = self.eval(added)?;
        self.charge(2)?;
        let before = std::mem::replace(&mut self.locals[base].1, Value::Null);
        match (name, before, added) {
            (MAP_INSERT, Value::Map(Map::Made(mut entries)), Value::Map(more)) => {
                for (key, value) in more.entries() {
                    self.charge(traversal(entries.len() as u64))?;
                    if entries.iter().any(|(known, _)| operators::equal(known, &key)) {
                        return Err(failure(format!("insert failed: key {key:?} already exists")));
                    }
                    Rc::make_mut(&mut entries).push((key, value));
                }
                Ok(Value::Map(Map::Made(entries)))
            }
            (_, before, added) => self.arithmetic("_+_", before, added),
        }
    }
}

/// What a loop goes over.
enum Items<'v> {
    List(List<'v>),
    Keys(Vec<Value<'v>>),
    Entries(Vec<(Value<'v>, Value<'v>)>),
}

impl<'v> Items<'v> {
    fn len(&self) -> usize {
        match self {
            Items::List(list) => list.len(),
            Items::Keys(keys) => keys.len(),
            Items::Entries(entries) => entries.len(),
        }
    }

    fn get(&self, at: usize, both: bool) -> Option<(Value<'v>, Option<Value<'v>>)> {
        match self {
            Items::List(list) if both => Some((Value::Int(i64::try_from(at).ok()?), Some(list.get(at)?))),
            Items::List(list) => Some((list.get(at)?, None)),
            Items::Keys(keys) => Some((keys.get(at)?.clone(), None)),
            Items::Entries(entries) => entries.get(at).map(|(key, value)| (key.clone(), Some(value.clone()))),
        }
    }
}
