//! Unification: what the type variables of an expression stand for, so that its types fit together.

use super::{
    signatures::PARAMETERS,
    typing::{Type, mentions, same},
};

/// What the type variables stand for, by their places; nothing where that is open.
#[derive(Clone, Debug, Default)]
pub struct Bindings(Vec<Option<Type>>);

impl Bindings {
    /// A variable that stands for nothing yet.
    pub fn fresh(&mut self) -> Type {
        self.0.push(None);
        Type::Var(self.0.len() - 1)
    }

    /// The place of the first of as many fresh variables as a signature has parameters.
    pub fn fresh_parameters(&mut self) -> usize {
        let first = self.0.len();
        self.0.extend([const { None }; PARAMETERS]);
        first
    }

    /// The type with its variables replaced by what they stand for.
    pub fn resolve(&self, found: &Type) -> Type {
        match found {
            Type::Var(at) => match self.0.get(*at).and_then(Option::as_ref) {
                Some(bound) => self.resolve(bound),
                None => Type::Var(*at),
            },
            Type::List(item) => Type::list(self.resolve(item)),
            Type::Map(key, value) => Type::map(self.resolve(key), self.resolve(value)),
            Type::Optional(inner) => Type::Optional(Box::new(self.resolve(inner))),
            other => other.clone(),
        }
    }

    /// Makes two types one, if they can be.
    pub fn unify(&mut self, expected: &Type, found: &Type) -> bool {
        let (expected, found) = (self.resolve(expected), self.resolve(found));
        match (&expected, &found) {
            (Type::Var(a), Type::Var(b)) if a == b => true,
            (Type::Var(at), other) | (other, Type::Var(at)) => {
                if mentions(other, *at) {
                    return false;
                }
                self.0[*at] = Some(other.clone());
                true
            }
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Map(k, v), Type::Map(l, w)) => self.unify(k, l) && self.unify(v, w),
            // Null is a value of whatever can be absent.
            (Type::Null, other) | (other, Type::Null) if can_be_null(other) => true,
            (a, b) => same(a, b),
        }
    }
}

fn can_be_null(found: &Type) -> bool {
    matches!(
        found,
        Type::Object(_) | Type::Timestamp | Type::Duration | Type::Opaque(_) | Type::Message(_) | Type::Optional(_)
    )
}
