//! Lists: of data, made by an expression, or joined of two without a copy: `a + b` costs as little as Kubernetes says.

use std::rc::Rc;

use serde_json::Value as Json;

use super::value::Value;
use crate::custom::structural::Structural;

/// A list.
#[derive(Clone)]
pub enum List<'v> {
    Made(Rc<Vec<Value<'v>>>),
    Data(&'v [Json], Option<&'v Structural>),
    /// The first list, the second, and how many items they have together. At most [`MAX_DEPTH`] of them are nested.
    Joined(Rc<(List<'v>, List<'v>, usize, usize)>),
}

/// Two lists with so few items together are copied into one.
const FEW: usize = 64;
/// How deeply joined lists nest before they are copied into one.
const MAX_DEPTH: usize = 64;
/// Most items of a list: what is joined takes no memory, but is counted.
const MOST: usize = 1 << 40;

impl<'v> List<'v> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            List::Made(items) => items.len(),
            List::Data(items, _) => items.len(),
            List::Joined(joined) => joined.2,
        }
    }

    fn depth(&self) -> usize {
        match self {
            List::Made(_) | List::Data(..) => 0,
            List::Joined(joined) => joined.3,
        }
    }

    /// The item at a place.
    pub fn get(&self, at: usize) -> Option<Value<'v>> {
        match self {
            List::Made(items) => items.get(at).cloned(),
            List::Data(items, schema) => {
                items.get(at).map(|item| Value::of(item, schema.and_then(|schema| schema.items.as_deref())))
            }
            List::Joined(joined) => {
                let (first, second, ..) = &**joined;
                match at.checked_sub(first.len()) {
                    None => first.get(at),
                    Some(at) => second.get(at),
                }
            }
        }
    }

    /// The items, made one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Value<'v>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// The schema of the list, if it is data.
    pub fn schema(&self) -> Option<&'v Structural> {
        match self {
            List::Data(_, schema) => *schema,
            List::Made(_) | List::Joined(_) => None,
        }
    }

    /// This list and then `other`. `None` if that is more than can be counted.
    pub fn join(self, other: List<'v>) -> Option<List<'v>> {
        let length = self.len().checked_add(other.len()).filter(|length| *length <= MOST)?;
        let depth = self.depth().max(other.depth()) + 1;
        match (self, other) {
            (only, none) | (none, only) if none.len() == 0 => Some(only),
            // What a loop gathers grows in place.
            (List::Made(mut items), other) if other.len() <= FEW => {
                Rc::make_mut(&mut items).extend(other.iter());
                Some(List::Made(items))
            }
            (first, second) if length <= FEW || depth > MAX_DEPTH && length <= 1 << 20 => {
                Some(List::Made(Rc::new(first.iter().chain(second.iter()).collect())))
            }
            (_, _) if depth > MAX_DEPTH => None,
            (first, second) => Some(List::Joined(Rc::new((first, second, length, depth)))),
        }
    }
}
