//! Whether an expression looks at a field of a variable: `claims.email`, `has(claims.email)`, `claims.?email`.

use super::{
    ast::{Expr, Kind},
    check::Program,
};

impl Program {
    /// Whether the expression names `field` of `variable` anywhere.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        selects(&self.expr, variable, field)
    }
}

fn selects(expr: &Expr, variable: &str, field: &str) -> bool {
    let inside = |expr: &Expr| selects(expr, variable, field);
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => false,
        Kind::Select { operand, field: found, .. } | Kind::OptionalSelect { operand, field: found } => {
            let is_variable = matches!(&operand.kind, Kind::Ident(name) if name == variable);
            is_variable && found == field || inside(operand)
        }
        Kind::Call { target, arguments, .. } => target.as_deref().is_some_and(inside) || arguments.iter().any(inside),
        Kind::List(items) => items.iter().any(|(item, _)| inside(item)),
        Kind::Map(entries) => entries.iter().any(|(key, value, _)| inside(key) || inside(value)),
        Kind::Struct { fields, .. } => fields.iter().any(|(_, value, _)| inside(value)),
        Kind::Fold(fold) => {
            [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter().any(inside)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cel::{Scope, Type, compile};

    #[test]
    fn a_field_is_found_wherever_it_stands() {
        let scope = Scope::default().with("claims", Type::map(Type::String, Type::Dyn)).with("other", Type::Dyn);
        let selects = |text: &str| compile(text, &scope, &Type::Dyn).unwrap().selects("claims", "email");
        for text in [
            "claims.email",
            "has(claims.email)",
            "claims.?email.orValue('')",
            "[1].all(x, claims.email == 'a')",
            "{'a': [claims.email.b]}",
            "other.f ? claims.email : ''",
        ] {
            assert!(selects(text), "{text}");
        }
        for text in ["claims.mail", "other.email", "claims['email']", "claims.a.email", "'claims.email'"] {
            assert!(!selects(text), "{text}");
        }
    }
}
