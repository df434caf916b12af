//! Macros that the parser leaves to us: loops with two variables, and those of optional values.

use super::ast::{Expr, Fold, Issue, Kind, Literal, MAP_INSERT, Reader, place};

/// The name of the result in the loops that macros become.
const RESULT: &str = "@result";

impl Reader<'_> {
    /// `list.all(index, item, …)`, `map.transformList(key, value, …)` and the like, and the macros of optional values.
    pub(super) fn two_variables(&mut self, at: usize, name: &str, target: &Expr, arguments: &[Expr]) -> Option<Expr> {
        let is_optional = matches!(name, "optMap" | "optFlatMap") && arguments.len() == 2;
        let is_loop = matches!(name, "all" | "exists" | "existsOne" | "exists_one") && arguments.len() == 3
            || matches!(name, "transformList" | "transformMap" | "transformMapEntry")
                && (3..=4).contains(&arguments.len());
        if is_optional {
            return Some(self.optional_macro(at, name, target, arguments));
        }
        if !is_loop {
            return None;
        }
        let mut variables = Vec::new();
        for argument in &arguments[..2] {
            match &argument.kind {
                Kind::Ident(name) => variables.push(name.clone()),
                _ => {
                    let (line, column) = place(self.text, argument.at);
                    let message = "argument must be a simple name".to_owned();
                    self.issues.push(Issue { line, column, message });
                    return Some(self.expr(at, Kind::Literal(Literal::Null)));
                }
            }
        }
        let last = arguments[arguments.len() - 1].clone();
        let filter = (arguments.len() == 4).then(|| arguments[2].clone());
        let result = |reader: &mut Self| reader.expr(at, Kind::Ident(RESULT.to_owned()));
        let call = |reader: &mut Self, name: &str, arguments: Vec<Expr>| {
            reader.expr(at, Kind::Call { name: name.to_owned(), target: None, arguments })
        };
        let truth = |reader: &mut Self, value: bool| reader.expr(at, Kind::Literal(Literal::Bool(value)));
        let (init, condition, step, end) = match name {
            "all" | "exists" => {
                let is_all = name == "all";
                let so_far = result(self);
                let so_far = if is_all { so_far } else { call(self, "!_", vec![so_far]) };
                let condition = call(self, "@not_strictly_false", vec![so_far]);
                let before = result(self);
                let step = call(self, if is_all { "_&&_" } else { "_||_" }, vec![before, last]);
                (truth(self, is_all), condition, step, result(self))
            }
            "existsOne" | "exists_one" => {
                let (before, same) = (result(self), result(self));
                let one = self.expr(at, Kind::Literal(Literal::Int(1)));
                let more = call(self, "_+_", vec![before, one.clone()]);
                let step = call(self, "_?_:_", vec![last, more, same]);
                let count = result(self);
                let end = call(self, "_==_", vec![count, one]);
                (self.expr(at, Kind::Literal(Literal::Int(0))), truth(self, true), step, end)
            }
            _ => {
                let before = result(self);
                let (init, added) = match name {
                    "transformList" => (Kind::List(Vec::new()), self.expr(at, Kind::List(vec![(last, false)]))),
                    "transformMap" => {
                        let key = self.expr(at, Kind::Ident(variables[0].clone()));
                        (Kind::Map(Vec::new()), self.expr(at, Kind::Map(vec![(key, last, false)])))
                    }
                    _ => (Kind::Map(Vec::new()), last),
                };
                let joined = if name == "transformList" { "_+_" } else { MAP_INSERT };
                let step = call(self, joined, vec![before, added]);
                let step = match filter {
                    None => step,
                    Some(filter) => {
                        let same = result(self);
                        call(self, "_?_:_", vec![filter, step, same])
                    }
                };
                (self.expr(at, init), truth(self, true), step, result(self))
            }
        };
        let mut variables = variables.into_iter();
        let fold = Fold {
            range: target.clone(),
            variable: variables.next().unwrap_or_default(),
            second: variables.next(),
            accumulator: RESULT.to_owned(),
            init,
            condition,
            step,
            result: end,
        };
        Some(self.expr(at, Kind::Fold(Box::new(fold))))
    }

    /// `x.optMap(v, f(v))`: a value where `x` has one.
    fn optional_macro(&mut self, at: usize, name: &str, target: &Expr, arguments: &[Expr]) -> Expr {
        let Kind::Ident(variable) = &arguments[0].kind else {
            let (line, column) = place(self.text, arguments[0].at);
            let message = format!("{name}() variable name must be a simple identifier");
            self.issues.push(Issue { line, column, message });
            return self.expr(at, Kind::Literal(Literal::Null));
        };
        let call = |reader: &mut Self, name: &str, target: Option<Expr>, arguments: Vec<Expr>| {
            let target = target.map(Box::new);
            reader.expr(at, Kind::Call { name: name.to_owned(), target, arguments })
        };
        let has = call(self, "hasValue", Some(target.clone()), Vec::new());
        let value = call(self, "value", Some(target.clone()), Vec::new());
        // A loop that is never run binds the variable.
        let (range, never) =
            (self.expr(at, Kind::List(Vec::new())), self.expr(at, Kind::Literal(Literal::Bool(false))));
        let step = self.expr(at, Kind::Ident(variable.clone()));
        let fold = Fold {
            range,
            variable: "#unused".to_owned(),
            second: None,
            accumulator: variable.clone(),
            init: value,
            condition: never,
            step,
            result: arguments[1].clone(),
        };
        let bound = self.expr(at, Kind::Fold(Box::new(fold)));
        let some = match name {
            "optMap" => call(self, "optional.of", None, vec![bound]),
            _ => bound,
        };
        let none = call(self, "optional.none", None, Vec::new());
        call(self, "_?_:_", None, vec![has, some, none])
    }
}
