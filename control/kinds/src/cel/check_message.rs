//! Type checking of objects that an expression makes, and of the functions that only mutations may call.

use super::{
    ast::Expr,
    check::Checker,
    message,
    signatures::{self, JSON_PATCH_PREFIX},
    typing::Type,
};

impl Checker<'_> {
    /// The type of `Type{field: value}`.
    pub(super) fn message(&mut self, expr: &Expr, name: &str, fields: &[(String, Expr, bool)]) -> Type {
        if !self.scope.has_patch_types || !message::is_type(name) {
            return self.issue(expr.at, format!("undeclared reference to '{name}' (in container '')"));
        }
        for (field, value, is_optional) in fields {
            let found = self.check(value);
            // cel-go tells the place of the colon.
            let at = self.text.get(..value.at).and_then(|before| before.rfind(':')).unwrap_or(value.at);
            let Some(expected) = message::field_type(name, field) else {
                self.issue(at, format!("undefined field '{field}'"));
                continue;
            };
            let expected = if *is_optional { Type::Optional(Box::new(expected)) } else { expected };
            if !self.unify(&expected, &found) {
                let found = self.resolve(&found);
                let message =
                    format!("expected type of field '{field}' is '{expected}' but provided type is '{found}'");
                self.issue(at, message);
            }
        }
        Type::Message(name.into())
    }

    /// Whether `name.f()` is a function of that name.
    pub(super) fn is_qualifier(&self, name: &str) -> bool {
        signatures::QUALIFIED.contains(&name)
            && (name != JSON_PATCH_PREFIX || self.scope.has_patch_types)
            && !self.is_variable(name)
    }
}
