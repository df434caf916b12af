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
const MAX_TEXT: usize = 32 << 10;
/// The deepest nesting that is parsed, and evaluated: both recurse as deeply.
const MAX_DEPTH: usize = 64;
/// The deepest expression that is evaluated: `1 + 1 + …` nests as well.
const MAX_LEVELS: usize = 256;
/// What the parser may recurse on. Memory is taken for what is used of it alone.
const STACK: usize = 32 << 20;

/// Reads an expression; answers with how many expressions there are in it.
pub fn parse(text: &str) -> Result<(Expr, usize), Vec<Issue>> {
    let refused = |message: String| vec![Issue { line: 1, column: 1, message }];
    if text.len() > MAX_TEXT {
        return Err(refused(format!(
            "expression code point size exceeds limit: size: {}, limit {MAX_TEXT}",
            text.len()
        )));
    }
    if nesting(text) > MAX_DEPTH {
        return Err(refused(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
    }
    // The parser recurses, and so does whatever frees a deep expression: neither on the stack of a request.
    let parsed = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("cel-parser".into()).stack_size(STACK);
        parser.spawn_scoped(scope, || parse_here(text)).map(|thread| thread.join())
    });
    match parsed {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(_)) => Err(refused("the parser failed on this expression".to_owned())),
        Err(error) => Err(refused(format!("cannot start a parser: {error}"))),
    }
}

fn parse_here(text: &str) -> Result<(Expr, usize), Vec<Issue>> {
    let parser = Parser::new().enable_optional_syntax(true);
    let (expr, info) = parser.parse_with_source_info(text).map_err(|errors| issues(errors, text.is_empty()))?;
    let mut reader = Reader { info, next: 0, issues: Vec::new(), text };
    let expr = reader.read(expr);
    if levels(&expr) > MAX_LEVELS {
        let message = format!("expression recursion limit exceeded: {MAX_LEVELS}");
        reader.issues.push(Issue { line: 1, column: 1, message });
    }
    if reader.issues.is_empty() { Ok((expr, reader.next)) } else { Err(reader.issues) }
}

/// How deeply brackets nest in a text, texts and comments within it left alone. Each `?` of a condition and each
/// operator before a value counts as a bracket, for the parser recurses on them as well.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut conditions, mut prefixes) = (0_usize, 0_usize, 0_usize, 0_usize);
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' => {
                let raw = matches!(before, 'r' | 'R');
                while let Some(inner) = chars.next() {
                    match inner {
                        '\\' if !raw => drop(chars.next()),
                        inner if inner == c => break,
                        _ => {}
                    }
                }
            }
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '(' | '[' | '{' => depth = depth.saturating_add(1),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' if !matches!(chars.peek(), Some('.')) && !matches!(before, '[' | '.') => {
                conditions = conditions.saturating_add(1);
            }
            _ => {}
        }
        prefixes = match c {
            '!' | '-' => prefixes.saturating_add(1),
            c if c.is_whitespace() => prefixes,
            _ => 0,
        };
        deepest = deepest.max(depth.saturating_add(conditions).saturating_add(prefixes));
        before = c;
    }
    deepest
}

/// How deeply an expression nests.
fn levels(expr: &Expr) -> usize {
    let (mut left, mut deepest) = (vec![(expr, 1_usize)], 0);
    while let Some((expr, level)) = left.pop() {
        deepest = deepest.max(level);
        let inner = level.saturating_add(1);
        match &expr.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } | Kind::OptionalSelect { operand, .. } => left.push((operand, inner)),
            Kind::Call { target, arguments, .. } => {
                left.extend(target.iter().map(|target| (&**target, inner)));
                left.extend(arguments.iter().map(|argument| (argument, inner)));
            }
            Kind::List(items) => left.extend(items.iter().map(|(item, _)| (item, inner))),
            Kind::Map(entries) => {
                left.extend(entries.iter().flat_map(|(key, value, _)| [(key, inner), (value, inner)]));
            }
            Kind::Struct { fields, .. } => left.extend(fields.iter().map(|(_, value, _)| (value, inner))),
            Kind::Fold(fold) => {
                let parts = [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result];
                left.extend(parts.map(|part| (part, inner)));
            }
        }
    }
    deepest
}

fn issues(errors: ParseErrors, is_empty: bool) -> Vec<Issue> {
    let place = |n: isize| usize::try_from(n).unwrap_or(1).max(1);
    // The end of a text with nothing in it is before its first column.
    let column = |n: isize| if is_empty { 0 } else { place(n) };
    let issue = |error: cel::parser::ParseError| {
        let message = match error.msg.starts_with("Syntax error") {
            true => error.msg,
            false => format!("Syntax error: {}", error.msg),
        };
        Issue { line: place(error.pos.0), column: column(error.pos.1), message }
    };
    errors.errors.into_iter().map(issue).collect()
}

/// Issues as cel-go shows them: with the line that they are about.
pub fn shown(issues: &[Issue], text: &str) -> String {
    let one = |issue: &Issue| {
        let Issue { line, column, message } = issue;
        let what = format!("ERROR: <input>:{line}:{column}: {message}");
        let Some(source) = text.lines().nth(line.saturating_sub(1)) else { return what };
        // Marks under what may be a wide character are wide.
        let mark = |c: char, narrow: char, wide: char| if c.len_utf8() > 1 { wide } else { narrow };
        let mut chars = source.chars();
        let dots: String = chars.by_ref().take(column.saturating_sub(1)).map(|c| mark(c, '.', '\u{ff0e}')).collect();
        let place = chars.next().map_or('^', |c| mark(c, '^', '\u{ff3e}'));
        format!("{what}\n | {source}\n | {dots}{place}")
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

/// Makes expressions of what was parsed.
pub(super) struct Reader<'t> {
    info: SourceInfo,
    next: usize,
    pub(super) issues: Vec<Issue>,
    pub(super) text: &'t str,
}

impl Reader<'_> {
    /// A further expression.
    pub(super) fn expr(&mut self, at: usize, kind: Kind) -> Expr {
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
