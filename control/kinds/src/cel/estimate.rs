//! What an expression may cost at most, by the sizes that are declared of its variables.
//!
//! Source: `cel-go/checker/cost.go`, with the sizes and costs of `k8s.io/apiserver/pkg/cel/library/cost.go`.

use std::sync::Arc;

use super::{
    ast::{Expr, Fold, Kind, Literal},
    check::Scope,
    signatures::QUALIFIED,
    typing::{Decl, Type},
};

/// The most that the expression may cost. `types` are those of its parts, by id.
pub fn max_cost(expr: &Expr, types: &[Type], scope: &Scope) -> u64 {
    Estimator { types, scope, locals: Vec::new() }.of(expr).cost
}

/// What is known of a part of an expression.
#[derive(Clone, Default)]
struct KnownEstimate {
    cost: u64,
    /// Its largest size; `None` if nothing bounds it.
    size: Option<u64>,
    /// What is declared of it.
    decl: Option<Arc<Decl>>,
    /// The largest size of its items, where it is not declared.
    item: Option<u64>,
}

struct Estimator<'e> {
    types: &'e [Type],
    scope: &'e Scope,
    locals: Vec<(&'e str, KnownEstimate)>,
}

/// Ten characters cost 1.
fn traversal(size: u64) -> u64 {
    size.div_ceil(10)
}

impl<'e> Estimator<'e> {
    fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id).unwrap_or(&Type::Dyn)
    }

    fn size(&self, expr: &Expr, known: &KnownEstimate) -> u64 {
        match &expr.kind {
            Kind::Literal(Literal::String(text)) => return text.chars().count() as u64,
            Kind::Literal(Literal::Bytes(bytes)) => return bytes.len() as u64,
            Kind::Literal(_) => return 1,
            _ => {}
        }
        if let Some(size) = known.size {
            return size;
        }
        if let Some(decl) = &known.decl {
            return decl.max_elements;
        }
        if self.type_of(expr).is_scalar() { 1 } else { u64::MAX }
    }

    fn of(&mut self, expr: &'e Expr) -> KnownEstimate {
        match &expr.kind {
            Kind::Literal(_) => KnownEstimate::default(),
            Kind::Ident(name) => match self.locals.iter().rev().find(|(known, _)| known == name) {
                Some((_, known)) => KnownEstimate { cost: 1, ..known.clone() },
                None => KnownEstimate { cost: 1, decl: self.scope.decl(name).cloned(), ..KnownEstimate::default() },
            },
            Kind::Select { operand, field, test } => {
                let inner = self.of(operand);
                let decl = inner.decl.as_ref().and_then(|decl| decl.field(field).or_else(|| decl.element()).cloned());
                let cost = if *test { inner.cost } else { inner.cost.saturating_add(1) };
                KnownEstimate { cost, decl, ..KnownEstimate::default() }
            }
            Kind::OptionalSelect { operand, field } => {
                let inner = self.of(operand);
                let decl = inner.decl.as_ref().and_then(|decl| decl.field(field).or_else(|| decl.element()).cloned());
                KnownEstimate { cost: inner.cost.saturating_add(1), decl, ..KnownEstimate::default() }
            }
            Kind::List(items) => {
                let mut all = KnownEstimate { cost: 10, size: Some(items.len() as u64), ..KnownEstimate::default() };
                for (item, _) in items {
                    let known = self.of(item);
                    all.cost = all.cost.saturating_add(known.cost);
                    all.item = all.item.max(Some(self.size(item, &known)));
                }
                all
            }
            Kind::Map(entries) => {
                let parts = entries.iter().flat_map(|(key, value, _)| [key, value]);
                let cost = parts.map(|part| self.of(part).cost).fold(30, u64::saturating_add);
                KnownEstimate { cost, size: Some(entries.len() as u64), ..KnownEstimate::default() }
            }
            Kind::Struct { fields, .. } => {
                let cost = fields.iter().map(|(_, value, _)| self.of(value).cost).fold(40, u64::saturating_add);
                KnownEstimate { cost, ..KnownEstimate::default() }
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Call { name, target, arguments } => self.call(name, target.as_deref(), arguments),
        }
    }

    fn fold(&mut self, fold: &'e Fold) -> KnownEstimate {
        let range = self.of(&fold.range);
        let init = self.of(&fold.init);
        let before = self.locals.len();
        let turns = self.size(&fold.range, &range);
        let gathers = matches!(fold.init.kind, Kind::List(_) | Kind::Map(_));
        let accumulator = KnownEstimate { size: gathers.then_some(turns).or(init.size), cost: 0, ..init.clone() };
        self.locals.push((&fold.accumulator, accumulator));
        let element = range.decl.as_ref().and_then(|decl| decl.element().cloned());
        let value = KnownEstimate { decl: element, size: range.item, ..KnownEstimate::default() };
        let is_list = matches!(self.type_of(&fold.range), Type::List(_));
        let key = KnownEstimate::default();
        match (&fold.second, is_list) {
            (Some(second), _) => {
                self.locals.push((&fold.variable, key));
                self.locals.push((second, value));
            }
            (None, true) => self.locals.push((&fold.variable, value)),
            (None, false) => self.locals.push((&fold.variable, key)),
        }
        let condition = self.of(&fold.condition);
        let step = self.of(&fold.step);
        self.locals.truncate(before + 1);
        let result = self.of(&fold.result);
        self.locals.truncate(before);
        let each = condition.cost.saturating_add(step.cost);
        // A loop that never runs binds a variable.
        let is_bind = matches!(&fold.range.kind, Kind::List(items) if items.is_empty());
        let turned = if is_bind { 0 } else { turns.saturating_mul(each) };
        let cost = [range.cost, init.cost, result.cost, turned].into_iter().fold(0, u64::saturating_add);
        let size = if is_bind { result.size } else { gathers.then_some(turns) };
        KnownEstimate { cost, size, item: step.item, decl: None }
    }

    /// `sets.contains`, where `target` is no value but the first part of a function's name.
    fn qualified(&self, name: &str, target: &Expr) -> Option<String> {
        let Kind::Ident(prefix) = &target.kind else { return None };
        let is_variable = self.locals.iter().any(|(known, _)| known == prefix) || self.scope.find(prefix).is_some();
        (QUALIFIED.contains(&prefix.as_str()) && !is_variable).then(|| format!("{prefix}.{name}"))
    }

    fn call(&mut self, name: &'e str, target: Option<&'e Expr>, arguments: &'e [Expr]) -> KnownEstimate {
        let qualified = target.and_then(|target| self.qualified(name, target));
        let (name, target) = match &qualified {
            Some(qualified) => (qualified.as_str(), None),
            None => (name, target),
        };
        let operands: Vec<&'e Expr> = target.into_iter().chain(arguments).collect();
        let known: Vec<KnownEstimate> = operands.iter().map(|operand| self.of(operand)).collect();
        let sizes: Vec<u64> = operands.iter().zip(&known).map(|(operand, known)| self.size(operand, known)).collect();
        let costs = known.iter().map(|known| known.cost).fold(0, u64::saturating_add);
        let size = |at: usize| sizes.get(at).copied().unwrap_or(0);
        let with = |own: u64| KnownEstimate { cost: costs.saturating_add(own), ..KnownEstimate::default() };
        let sized = |own: u64, size: u64| KnownEstimate { size: Some(size), ..with(own) };
        let is_text = |at: usize| {
            operands.get(at).is_some_and(|operand| matches!(self.type_of(operand), Type::String | Type::Bytes))
        };
        match name {
            "_&&_" | "_||_" => KnownEstimate { cost: costs, ..KnownEstimate::default() },
            "_?_:_" if known.len() == 3 => {
                let (yes, no) = (&known[1], &known[2]);
                let cost = known[0].cost.saturating_add(yes.cost.max(no.cost));
                let decl = yes.decl.clone().filter(|_| no.decl.is_some());
                KnownEstimate { cost, size: Some(size(1).max(size(2))), decl, item: yes.item.max(no.item) }
            }
            "dyn" => KnownEstimate { cost: costs.saturating_add(1), ..known.into_iter().next().unwrap_or_default() },
            "_==_" | "_!=_" => with(traversal(size(0).min(size(1)))),
            "_<_" | "_<=_" | "_>_" | "_>=_" if is_text(0) => with(traversal(size(0).min(size(1)))),
            "_+_" => {
                let sum = size(0).saturating_add(size(1));
                match operands.first().map(|operand| self.type_of(operand)) {
                    Some(Type::String | Type::Bytes) => sized(traversal(sum), sum),
                    Some(Type::List(_)) => KnownEstimate {
                        item: known[0].item.max(known.get(1).and_then(|known| known.item)),
                        ..sized(1, sum)
                    },
                    _ => with(1),
                }
            }
            "_[_]" | "_[?_]" => {
                let decl = known.first().and_then(|known| known.decl.as_ref()?.element().cloned());
                KnownEstimate { decl, size: known.first().and_then(|known| known.item), ..with(1) }
            }
            "@in" if matches!(operands.get(1).map(|operand| self.type_of(operand)), Some(Type::List(_))) => {
                with(size(1))
            }
            "startsWith" | "endsWith" => with(traversal(size(1))),
            "contains" => with(traversal(size(0)).saturating_mul(traversal(size(1)))),
            "matches" | "find" | "findAll" => {
                let pattern = size(1).div_ceil(4);
                sized(traversal(size(0).saturating_add(1)).saturating_mul(pattern), size(0))
            }
            "string" | "bytes" if is_text(0) => sized(traversal(size(0)), size(0).saturating_mul(4)),
            "format" => with(traversal(size(0))),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" if !is_text(0) => {
                let element = known.first().and_then(|known| known.decl.as_ref()?.element().cloned());
                let each = match operands.first().map(|operand| self.type_of(operand)) {
                    Some(Type::List(item)) if !item.is_scalar() => {
                        let declared = element.map(|decl| decl.max_elements);
                        let most = declared.or(known.first().and_then(|known| known.item)).unwrap_or(u64::MAX);
                        traversal(most).saturating_add(1)
                    }
                    _ => 1,
                };
                with(size(0).saturating_mul(each))
            }
            "sort" | "distinct" | "slice" | "reverse" | "flatten" => {
                let own = match name {
                    "distinct" => size(0).saturating_mul(size(0)).saturating_mul(2).saturating_add(11),
                    _ => size(0),
                };
                KnownEstimate { item: known.first().and_then(|known| known.item), ..sized(own, size(0)) }
            }
            "lists.range" => with(size(0)),
            "indexOf" | "lastIndexOf" => with(traversal(size(0))),
            "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" => sized(traversal(size(0)), size(0)),
            "charAt" => sized(1, 4),
            "replace" => {
                let largest = match size(1) {
                    0 | 1 => size(0).saturating_add(1).saturating_mul(size(2)).saturating_add(size(0)),
                    _ => size(0).saturating_mul(size(2).max(1)),
                };
                sized(traversal(size(0).saturating_mul(2)), largest)
            }
            "split" => sized(traversal(size(0).saturating_mul(2)), size(0)),
            "join" => {
                let element = known.first().and_then(|known| known.decl.as_ref()?.element().cloned());
                let item = element.map(|decl| decl.max_elements).or(known.first().and_then(|known| known.item));
                let separators = size(0).saturating_sub(1).saturating_mul(size(1));
                let total = size(0).saturating_mul(item.unwrap_or(u64::MAX)).saturating_add(separators);
                sized(traversal(total), total)
            }
            "sets.contains" | "sets.intersects" => with(size(0).saturating_mul(size(1)).saturating_add(1)),
            "sets.equivalent" => with(size(0).saturating_mul(size(1)).saturating_mul(2).saturating_add(1)),
            "cidr" | "isCIDR" | "ip" | "isIP" | "isURL" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                with(traversal(size(0)))
            }
            "ip.isCanonical" => with(traversal(size(0).saturating_mul(2))),
            "containsIP" => with(4_u64.saturating_add(if is_text(1) { traversal(size(1)) } else { 0 })),
            "containsCIDR" => with(7_u64.saturating_add(if is_text(1) { traversal(size(1)) } else { 0 })),
            "validate" => with(traversal(size(1)).saturating_mul(40)),
            _ => with(1),
        }
    }
}
