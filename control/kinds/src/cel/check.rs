//! Type checking: every name is declared, every call has a signature that takes its arguments, and the whole is of the
//! type that is asked for. The messages are cel-go's.

use std::sync::Arc;

use super::{
    ast::{self, Expr, Fold, Issue, Kind, Literal},
    estimate, message,
    typing::{Decl, Type, same},
    unification::Bindings,
};

/// The variables that an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    variables: Vec<(String, Type)>,
    /// What is declared of some of them: their sizes bound what an expression costs.
    declared: Vec<(String, Arc<Decl>)>,
    /// Whether `Object{}` and `JSONPatch{}` may be made.
    pub(super) has_patch_types: bool,
}

impl Scope {
    /// With a variable of this type.
    pub fn with(mut self, name: &str, r#type: Type) -> Self {
        self.variables.push((name.to_owned(), r#type));
        self
    }

    /// With a variable that is declared like this.
    pub fn declare(mut self, name: &str, decl: &Arc<Decl>) -> Self {
        self.declared.push((name.to_owned(), decl.clone()));
        self.with(name, decl.cel_type())
    }

    /// With the types and functions by which a mutation says what it changes.
    pub fn with_patch_types(mut self) -> Self {
        self.has_patch_types = true;
        self
    }

    pub(super) fn find(&self, name: &str) -> Option<&Type> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, found)| found)
    }

    /// What is declared of a variable.
    pub fn decl(&self, name: &str) -> Option<&Arc<Decl>> {
        self.declared.iter().rev().find(|(known, _)| known == name).map(|(_, decl)| decl)
    }
}

/// An expression that can be evaluated.
#[derive(Clone, Debug)]
pub struct Program {
    /// As it was written.
    pub text: Arc<str>,
    /// Checked, with its types.
    pub expr: Arc<Expr>,
    /// Of the result.
    pub r#type: Type,
    /// The most that it may cost, from the sizes that are declared.
    pub max_cost: u64,
    /// The variables of the scope that it names.
    pub uses: Vec<String>,
}

/// Reads and checks an expression, whose result must be of the type `expected`. The error is as cel-go shows it.
pub fn compile(text: &str, scope: &Scope, expected: &Type) -> Result<Program, CompileError> {
    let wrong = |issues: Vec<Issue>| CompileError::Issues(ast::shown(&issues, text));
    let (expr, count) = ast::parse(text).map_err(wrong)?;
    let mut checker = Checker {
        text,
        scope,
        locals: Vec::new(),
        types: vec![Type::Dyn; count],
        bindings: Bindings::default(),
        issues: Vec::new(),
        uses: Vec::new(),
    };
    let found = checker.check(&expr);
    if !checker.issues.is_empty() {
        return Err(wrong(checker.issues));
    }
    let found = checker.resolve(&found);
    if !matches!(expected, Type::Dyn) && !same(&found, expected) {
        return Err(CompileError::Result(found));
    }
    let types: Vec<Type> = checker.types.iter().map(|found| checker.resolve(found)).collect();
    let max_cost = estimate::max_cost(&expr, &types, scope);
    Ok(Program { text: text.into(), expr: Arc::new(expr), r#type: found, max_cost, uses: checker.uses })
}

/// Why an expression cannot be evaluated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompileError {
    /// With the places in the text.
    #[error("{0}")]
    Issues(String),
    /// The result is of another type.
    #[error("the expression is of type {0}")]
    Result(Type),
}

pub(super) struct Checker<'s> {
    pub(super) text: &'s str,
    pub(super) scope: &'s Scope,
    /// Variables of loops, the innermost last.
    locals: Vec<(String, Type)>,
    /// By the id of an expression.
    types: Vec<Type>,
    pub(super) bindings: Bindings,
    issues: Vec<Issue>,
    uses: Vec<String>,
}

/// The type of the variable `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
/// As many issues as are told of one expression.
const MAX_ISSUES: usize = 20;

impl Checker<'_> {
    pub(super) fn issue(&mut self, at: usize, message: String) -> Type {
        if self.issues.len() < MAX_ISSUES {
            let (line, column) = ast::place(self.text, at);
            self.issues.push(Issue { line, column, message });
        }
        // What follows from an error is none of its own.
        Type::Dyn
    }

    pub(super) fn check(&mut self, expr: &Expr) -> Type {
        let found = self.kind(expr);
        if let Some(place) = self.types.get_mut(expr.id) {
            *place = found.clone();
        }
        found
    }

    fn kind(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select { operand, field, test } => {
                let operand = self.check(operand);
                let found = self.select(expr, &operand, field);
                if *test { Type::Bool } else { found }
            }
            Kind::OptionalSelect { operand, field } => {
                let operand = self.check(operand);
                match self.select(expr, &operand, field) {
                    found @ Type::Optional(_) => found,
                    found => Type::Optional(Box::new(found)),
                }
            }
            Kind::Call { name, target, arguments } => self.call(expr, name, target.as_deref(), arguments),
            Kind::List(items) => {
                let types = items.iter().map(|(item, optional)| {
                    let found = self.check(item);
                    self.unwrapped(found, *optional)
                });
                let types: Vec<Type> = types.collect();
                Type::list(self.common(expr, types))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for (key, value, optional) in entries {
                    keys.push(self.check(key));
                    let found = self.check(value);
                    values.push(self.unwrapped(found, *optional));
                }
                Type::map(self.common(expr, keys), self.common(expr, values))
            }
            Kind::Struct { name, fields } => self.message(expr, name, fields),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn ident(&mut self, expr: &Expr, name: &str) -> Type {
        if let Some((_, found)) = self.locals.iter().rev().find(|(known, _)| known == name) {
            return found.clone();
        }
        if let Some(found) = self.scope.find(name) {
            if !self.uses.iter().any(|used| used == name) {
                self.uses.push(name.to_owned());
            }
            return found.clone();
        }
        const TYPES: &[&str] = &[
            "bool",
            "int",
            "uint",
            "double",
            "string",
            "bytes",
            "list",
            "map",
            "null_type",
            "type",
            "optional_type",
            "net.IP",
            "net.CIDR",
        ];
        match TYPES.contains(&name) {
            true => Type::Meta,
            false => self.issue(expr.at, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Type, field: &str) -> Type {
        match self.resolve(operand) {
            Type::Dyn | Type::Var(_) => Type::Dyn,
            Type::Map(_, value) => *value,
            Type::Optional(inner) => {
                let found = self.select(expr, &inner, field);
                Type::Optional(Box::new(found))
            }
            Type::Message(name) => match message::field_type(&name, field) {
                Some(found) => found,
                None => self.issue(expr.at, format!("undefined field '{field}'")),
            },
            Type::Object(decl) => match decl.field(field) {
                Some(found) => found.cel_type(),
                None => self.issue(expr.at, format!("undefined field '{field}'")),
            },
            // To cel-go it is a variable whose name has a dot.
            Type::Opaque(AUTHORIZER) if field == "requestResource" => Type::Opaque(RESOURCE_CHECK),
            other => self.issue(expr.at, format!("type '{other}' does not support field selection")),
        }
    }

    /// The type within an optional item of a literal.
    fn unwrapped(&mut self, found: Type, optional: bool) -> Type {
        match (optional, self.resolve(&found)) {
            (true, Type::Optional(inner)) => *inner,
            (_, found) => found,
        }
    }

    /// The one type of all items of a literal.
    fn common(&mut self, expr: &Expr, types: Vec<Type>) -> Type {
        let mut types = types.into_iter();
        let Some(mut common) = types.next() else { return self.bindings.fresh() };
        for other in types {
            if matches!(self.resolve(&common), Type::Dyn) || matches!(self.resolve(&other), Type::Dyn) {
                common = Type::Dyn;
            } else if !self.unify(&common, &other) {
                let (a, b) = (self.resolve(&common), self.resolve(&other));
                return self.issue(expr.at, format!("expected type '{a}' but found '{b}'"));
            }
        }
        common
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Type {
        let range = self.check(&fold.range);
        let (first, second) = match self.resolve(&range) {
            Type::List(item) if fold.second.is_some() => (Type::Int, *item),
            Type::List(item) => (*item, Type::Dyn),
            Type::Map(key, value) => (*key, *value),
            Type::Dyn | Type::Var(_) => (Type::Dyn, Type::Dyn),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                (self.issue(fold.range.at, message), Type::Dyn)
            }
        };
        let accumulator = self.check(&fold.init);
        let before = self.locals.len();
        self.locals.push((fold.accumulator.clone(), accumulator.clone()));
        self.locals.push((fold.variable.clone(), first));
        if let Some(variable) = &fold.second {
            self.locals.push((variable.clone(), second));
        }
        let condition = self.check(&fold.condition);
        self.must_be(&fold.condition, &condition, &Type::Bool);
        let step = self.check(&fold.step);
        self.must_be(&fold.step, &step, &accumulator);
        self.locals.truncate(before + 1);
        let result = self.check(&fold.result);
        self.locals.truncate(before);
        if let Some(place) = self.types.get_mut(expr.id) {
            *place = result.clone();
        }
        result
    }

    fn must_be(&mut self, expr: &Expr, found: &Type, expected: &Type) {
        if !self.unify(expected, found) {
            let (expected, found) = (self.resolve(expected), self.resolve(found));
            self.issue(expr.at, format!("expected type '{expected}' but found '{found}'"));
        }
    }

    pub(super) fn is_variable(&self, name: &str) -> bool {
        self.locals.iter().any(|(known, _)| known == name) || self.scope.find(name).is_some()
    }

    /// The type with its variables replaced by what they stand for.
    pub(super) fn resolve(&self, found: &Type) -> Type {
        self.bindings.resolve(found)
    }

    /// Makes two types one, if they can be.
    pub(super) fn unify(&mut self, expected: &Type, found: &Type) -> bool {
        self.bindings.unify(expected, found)
    }
}
