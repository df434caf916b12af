//! From text to an expression: the crate `cel` parses, and what it calls macros of two variables are expanded here.

use cel::{
    common::ast::{self as parsed, EntryExpr, IdedExpr, LiteralValue, SourceInfo},
    parser::{ParseErrors, Parser},
};

/// One expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Counts the expressions of a text from 0.
    pub id: usize,
    /// Where it stands: a byte of the text.
    pub at: usize,
    pub kind: Kind,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub enum Kind {
    Literal(Literal),
    Ident(String),
    /// `operand.field`, or with `test` whether it is there.
    Select {
        operand: Box<Expr>,
        field: String,
        test: bool,
    },
    /// `operand.?field`
    OptionalSelect {
        operand: Box<Expr>,
        field: String,
    },
    Call {
        name: String,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    /// With whether each item is left out where it has no value: `[?x]`.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Type{field: value}`
    Struct {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
    Fold(Box<Fold>),
}

/// A loop over a list or map that changes a result.
#[derive(Clone, Debug)]
pub struct Fold {
    pub range: Expr,
    /// The item, or the key of a map; with `second`, the index or key.
    pub variable: String,
    /// The item or value.
    pub second: Option<String>,
    pub accumulator: String,
    pub init: Expr,
    /// The loop ends when it is false.
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// What is wrong at a place of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    pub message: String,
}

/// The longest text that is parsed.
const MAX_TEXT: usize = 100_000;
/// The deepest nesting that is parsed: what follows recurses as deeply.
const MAX_DEPTH: u16 = 64;

/// The name of the result in the loops that macros become.
const RESULT: &str = "@result";

/// Reads an expression; answers with how many expressions there are in it.
pub fn parse(text: &str) -> Result<(Expr, usize), Vec<Issue>> {
    if text.len() > MAX_TEXT {
        let message = format!("expression code point size exceeds limit: size: {}, limit {MAX_TEXT}", text.len());
        return Err(vec![Issue { line: 1, column: 1, message }]);
    }
    let parser = Parser::new().enable_optional_syntax(true).max_recursion_depth(MAX_DEPTH);
    let (expr, info) = parser.parse_with_source_info(text).map_err(issues)?;
    let mut reader = Reader { info, next: 0, issues: Vec::new(), text };
    let expr = reader.read(expr);
    if reader.issues.is_empty() { Ok((expr, reader.next)) } else { Err(reader.issues) }
}

fn issues(errors: ParseErrors) -> Vec<Issue> {
    let place = |n: isize| usize::try_from(n).unwrap_or(1).max(1);
    let issue = |error: cel::parser::ParseError| {
        let message = match error.msg.starts_with("Syntax error") {
            true => error.msg,
            false => format!("Syntax error: {}", error.msg),
        };
        Issue { line: place(error.pos.0), column: place(error.pos.1), message }
    };
    errors.errors.into_iter().map(issue).collect()
}

/// Issues as cel-go shows them: with the line that they are about.
pub fn shown(issues: &[Issue], text: &str) -> String {
    let one = |issue: &Issue| {
        let Issue { line, column, message } = issue;
        let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let dots = ".".repeat(column.saturating_sub(1).min(source.len()));
        format!("ERROR: <input>:{line}:{column}: {message}\n | {source}\n | {dots}^")
    };
    issues.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Line and column, from 1, of a byte of the text.
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

struct Reader<'t> {
    info: SourceInfo,
    next: usize,
    issues: Vec<Issue>,
    text: &'t str,
}

impl Reader<'_> {
    fn expr(&mut self, at: usize, kind: Kind) -> Expr {
        let id = self.next;
        self.next = self.next.saturating_add(1);
        Expr { id, at, kind }
    }

    fn boxed(&mut self, expr: IdedExpr) -> Box<Expr> {
        Box::new(self.read(expr))
    }

    fn all(&mut self, list: Vec<IdedExpr>) -> Vec<Expr> {
        list.into_iter().map(|expr| self.read(expr)).collect()
    }

    fn read(&mut self, expr: IdedExpr) -> Expr {
        let at = self.info.offset_for(expr.id).map_or(0, |(start, _)| start as usize);
        let kind = match expr.expr {
            parsed::Expr::Unspecified => Kind::Literal(Literal::Null),
            parsed::Expr::Literal(literal) => Kind::Literal(self::literal(literal)),
            parsed::Expr::Ident(name) => Kind::Ident(name),
            parsed::Expr::Select(select) => {
                Kind::Select { operand: self.boxed(*select.operand), field: select.field, test: select.test }
            }
            parsed::Expr::Call(call) => return self.call(at, call),
            parsed::Expr::List(list) => {
                let optional = list.optional_indices;
                let items = list.elements.into_iter().enumerate();
                Kind::List(items.map(|(index, item)| (self.read(item), optional.contains(&index))).collect())
            }
            parsed::Expr::Map(map) => Kind::Map(
                map.entries
                    .into_iter()
                    .filter_map(|entry| match entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            Some((self.read(entry.key), self.read(entry.value), entry.optional))
                        }
                        EntryExpr::StructField(_) => None,
                    })
                    .collect(),
            ),
            parsed::Expr::Struct(found) => {
                let fields = found.entries.into_iter().filter_map(|entry| match entry.expr {
                    EntryExpr::StructField(field) => Some((field.field, self.read(field.value), field.optional)),
                    EntryExpr::MapEntry(_) => None,
                });
                Kind::Struct { fields: fields.collect(), name: found.type_name }
            }
            parsed::Expr::Comprehension(fold) => {
                let fold = *fold;
                Kind::Fold(Box::new(Fold {
                    range: self.read(fold.iter_range),
                    variable: fold.iter_var,
                    second: fold.iter_var2,
                    accumulator: fold.accu_var,
                    init: self.read(fold.accu_init),
                    condition: self.read(fold.loop_cond),
                    step: self.read(fold.loop_step),
                    result: self.read(fold.result),
                }))
            }
        };
        self.expr(at, kind)
    }

    fn call(&mut self, at: usize, call: parsed::CallExpr) -> Expr {
        let parsed::CallExpr { func_name: name, target, args } = call;
        if name == "_?._" {
            let mut arguments = args.into_iter();
            if let (Some(operand), Some(field)) = (arguments.next(), arguments.next())
                && let parsed::Expr::Literal(LiteralValue::String(field)) = field.expr
            {
                let operand = self.boxed(operand);
                return self.expr(at, Kind::OptionalSelect { operand, field: field.inner().to_owned() });
            }
            return self.expr(at, Kind::Literal(Literal::Null));
        }
        let target = target.map(|target| self.boxed(*target));
        let arguments = self.all(args);
        match target {
            Some(target) => match self.two_variables(at, &name, &target, &arguments) {
                Some(expanded) => expanded,
                None => self.expr(at, Kind::Call { name, target: Some(target), arguments }),
            },
            None => self.expr(at, Kind::Call { name, target: None, arguments }),
        }
    }

    /// `list.all(index, item, …)`, `map.transformList(key, value, …)` and the like, and the macros of optional values.
    fn two_variables(&mut self, at: usize, name: &str, target: &Expr, arguments: &[Expr]) -> Option<Expr> {
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

/// Adds the entries of a map to the result of a loop.
pub const MAP_INSERT: &str = "cel.@mapInsert";

fn literal(literal: LiteralValue) -> Literal {
    match literal {
        LiteralValue::Null => Literal::Null,
        LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
        LiteralValue::Int(value) => Literal::Int(*value.inner()),
        LiteralValue::UInt(value) => Literal::Uint(*value.inner()),
        LiteralValue::Double(value) => Literal::Double(*value.inner()),
        LiteralValue::String(value) => Literal::String(value.inner().to_owned()),
        LiteralValue::Bytes(value) => Literal::Bytes(value.inner().to_vec()),
    }
}
