//! Type checking of calls: a function has a signature that takes the arguments, and `<` and its like have two that can
//! be ordered.

use super::{
    ast::{Expr, Kind, MAP_INSERT},
    check::Checker,
    signatures,
    typing::{Type, instance, same},
};

impl Checker<'_> {
    pub(super) fn call(&mut self, expr: &Expr, name: &str, target: Option<&Expr>, arguments: &[Expr]) -> Type {
        // `sets.contains(…)` is a function of that name, unless `sets` is a variable.
        let qualified = target.and_then(|target| match &target.kind {
            Kind::Ident(prefix) if self.is_qualifier(prefix) => Some(format!("{prefix}.{name}")),
            _ => None,
        });
        let mut types = Vec::with_capacity(arguments.len() + 1);
        let (name, is_member) = match (&qualified, target) {
            (Some(qualified), _) => (qualified.as_str(), false),
            (None, Some(target)) => {
                types.push(self.check(target));
                (name, true)
            }
            (None, None) => (name, false),
        };
        for argument in arguments {
            let found = self.check(argument);
            types.push(found);
        }
        match name {
            "_<_" | "_<=_" | "_>_" | "_>=_" => return self.ordered(expr, name, &types),
            MAP_INSERT => return types.into_iter().next().unwrap_or(Type::Dyn),
            _ => {}
        }
        let Some(signatures) = signatures::of(name) else {
            return self.issue(expr.at, format!("undeclared reference to '{name}' (in container '')"));
        };
        let mut result: Option<Type> = None;
        let mut bindings = None;
        let before = self.bindings.clone();
        for signature in signatures {
            if signature.is_member != is_member || signature.arguments.len() != types.len() {
                continue;
            }
            self.bindings.clone_from(&before);
            let first = self.bindings.fresh_parameters();
            let takes = signature.arguments.iter().zip(&types).all(|(expected, found)| {
                let expected = instance(expected, first);
                self.unify(&expected, found)
            });
            if !takes {
                continue;
            }
            let found = self.resolve(&instance(&signature.result, first));
            result = Some(match result {
                None => {
                    bindings = Some(self.bindings.clone());
                    found
                }
                // Which one it is, is known when it is evaluated.
                Some(other) if same(&other, &found) => other,
                Some(_) => Type::Dyn,
            });
        }
        self.bindings = bindings.unwrap_or(before);
        match result {
            Some(found) => found,
            None => {
                let words = self.applied(&types, is_member);
                self.issue(expr.at, format!("found no matching overload for '{name}' applied to '{words}'"))
            }
        }
    }

    /// Two of one type that has an order, or two numbers.
    fn ordered(&mut self, expr: &Expr, name: &str, types: &[Type]) -> Type {
        let resolved: Vec<Type> = types.iter().map(|found| self.resolve(found)).collect();
        let is_number = |found: &Type| matches!(found, Type::Int | Type::Uint | Type::Double | Type::Dyn);
        let fits = match resolved.as_slice() {
            [Type::Dyn | Type::Var(_), _] | [_, Type::Dyn | Type::Var(_)] => true,
            [a, b] => {
                is_number(a) && is_number(b) || signatures::ORDERED.iter().any(|one| same(one, a) && same(one, b))
            }
            _ => false,
        };
        if fits {
            return Type::Bool;
        }
        let words = self.applied(types, false);
        self.issue(expr.at, format!("found no matching overload for '{name}' applied to '{words}'"))
    }

    fn applied(&self, types: &[Type], is_member: bool) -> String {
        let words: Vec<String> = types.iter().map(|found| self.resolve(found).to_string()).collect();
        match (is_member, words.split_first()) {
            (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
            _ => format!("({})", words.join(", ")),
        }
    }
}
