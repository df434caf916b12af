//! Kubernetes' quantities: `quantity("500m")`.

use std::cmp::Ordering;

use crate::cel::{
    eval::{Answer, EvalError, Run, failure, traversal},
    value::{Opaque, Value},
};

/// Why a text is no quantity. The words are those of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No digits, two points, or more than can be told.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    /// A number with a unit that quantities do not have.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount, in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(i128);

const ONE: i128 = 1_000_000_000;

impl Quantity {
    /// Reads `1.5Gi`. What is finer than a billionth is rounded up, as in Kubernetes.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        use QuantityError::Form;
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(Form);
        }
        let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| Form)?;
        let (base, exponent) = scale(suffix).ok_or(QuantityError::Suffix)?;
        let mut value = digits.checked_mul(ONE).ok_or(Form)?;
        for _ in 0..exponent.max(0) {
            value = value.checked_mul(base).ok_or(Form)?;
        }
        let mut divisor: i128 = 1;
        for _ in 0..fraction.len() {
            divisor = divisor.checked_mul(10).ok_or(Form)?;
        }
        for _ in 0..(-exponent).max(0) {
            divisor = divisor.checked_mul(base).ok_or(Form)?;
        }
        let value = value / divisor + i128::from(value % divisor != 0);
        Ok(Self(if negative { -value } else { value }))
    }

    /// By amount.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }

    fn as_integer(self) -> Option<i64> {
        (self.0 % ONE == 0).then(|| i64::try_from(self.0 / ONE).ok()).flatten()
    }
}

/// Base and exponent of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        "Pi" => (1024, 5),
        "Ei" => (1024, 6),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10, Some(exponent).filter(|exponent| (-18..=18).contains(exponent))?)
        }
    })
}

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    use Opaque::Quantity as Q;
    let made = |found: Option<i128>| match found {
        Some(found) => Ok(Value::Opaque(Q(Quantity(found)))),
        None => Err(failure("quantity overflow")),
    };
    let answer = match (name, values) {
        ("quantity", [Value::String(text)]) => {
            let parsed = Quantity::parse(text).map(|found| Value::Opaque(Q(found))).map_err(EvalError::from);
            return Some(run.charge(traversal(text.len() as u64)).and(parsed));
        }
        ("isQuantity", [Value::String(text)]) => {
            let is = Quantity::parse(text).is_ok();
            return Some(run.charge(traversal(text.len() as u64)).map(|()| Value::Bool(is)));
        }
        ("sign", [Value::Opaque(Q(a))]) => Ok(Value::Int(a.0.signum() as i64)),
        ("isInteger", [Value::Opaque(Q(a))]) => Ok(Value::Bool(a.as_integer().is_some())),
        ("asInteger", [Value::Opaque(Q(a))]) => {
            a.as_integer().map(Value::Int).ok_or_else(|| failure("cannot convert value to integer"))
        }
        ("asApproximateFloat", [Value::Opaque(Q(a))]) => Ok(Value::Double(a.0 as f64 / ONE as f64)),
        ("isGreaterThan", [Value::Opaque(Q(a)), Value::Opaque(Q(b))]) => Ok(Value::Bool(a.compare(b).is_gt())),
        ("isLessThan", [Value::Opaque(Q(a)), Value::Opaque(Q(b))]) => Ok(Value::Bool(a.compare(b).is_lt())),
        ("compareTo", [Value::Opaque(Q(a)), Value::Opaque(Q(b))]) => Ok(Value::Int(a.compare(b) as i64)),
        ("add", [Value::Opaque(Q(a)), Value::Opaque(Q(b))]) => made(a.0.checked_add(b.0)),
        ("sub", [Value::Opaque(Q(a)), Value::Opaque(Q(b))]) => made(a.0.checked_sub(b.0)),
        ("add", [Value::Opaque(Q(a)), Value::Int(b)]) => {
            made(i128::from(*b).checked_mul(ONE).and_then(|b| a.0.checked_add(b)))
        }
        ("sub", [Value::Opaque(Q(a)), Value::Int(b)]) => {
            made(i128::from(*b).checked_mul(ONE).and_then(|b| a.0.checked_sub(b)))
        }
        _ => return None,
    };
    Some(run.charge(1).and(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_whatever_their_suffix() {
        let quantity = |text| Quantity::parse(text).unwrap();
        assert_eq!(quantity("1Gi").as_integer(), Some(1 << 30));
        assert!(quantity("500m").compare(&quantity("0.5")).is_eq());
        assert!(quantity("1e3").compare(&quantity("1k")).is_eq());
        assert!(quantity("-1").compare(&quantity("0")).is_lt());
        for wrong in ["", "m", "1.2.3", "1Kii", "1e999", "99999999999999999999999999999999999999999999"] {
            assert!(Quantity::parse(wrong).is_err(), "{wrong}");
        }
    }
}
