//! Indexes of an indexed Job as text: `1,3-5,7`.

/// One interval, both ends included.
type Interval = (i64, i64);

/// Why a text names no indexes. The words are those of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexesError {
    /// An index or interval does not come after the one before it.
    #[error("non-increasing order, previous: {previous}, current: {current}")]
    NonIncreasing { previous: i64, current: i64 },
    /// `1-2-3`
    #[error(
        "the fragment {fragment:?} violates the requirement that an index interval can have at most two parts \
         separated by '-'"
    )]
    TooManyParts { fragment: String },
    /// It is no number.
    #[error("cannot convert string to integer for index: {index:?}")]
    NotANumber { index: String },
    /// It is not below the completions.
    #[error("too large index: {index:?}")]
    TooLarge { index: String },
}

/// How many indexes a text names. Each is below `completions`, and they increase.
pub fn count(text: &str, completions: i64) -> Result<i64, IndexesError> {
    let mut total = 0;
    let mut last = None;
    for part in parts(text) {
        let (first, end) = interval(part, completions)?;
        if let Some(previous) = last.filter(|last| *last >= first) {
            return Err(IndexesError::NonIncreasing { previous, current: first });
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// An index that both texts name. Malformed parts are passed over.
pub fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let intervals =
        |text| -> Vec<Interval> { parts(text).filter_map(|part| interval(part, completions).ok()).collect() };
    let (completed, failed) = (intervals(completed), intervals(failed));
    let (mut completed, mut failed) = (completed.iter().peekable(), failed.iter().peekable());
    while let (Some((c, c_end)), Some((f, f_end))) = (completed.peek(), failed.peek()) {
        if c <= f_end && f <= c_end {
            return Some(*c.max(f));
        }
        if c <= f {
            completed.next()
        } else {
            failed.next()
        };
    }
    None
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(move |_| !text.is_empty())
}

fn interval(text: &str, completions: i64) -> Result<Interval, IndexesError> {
    let ends: Vec<&str> = text.split('-').collect();
    if ends.len() > 2 {
        return Err(IndexesError::TooManyParts { fragment: text.to_owned() });
    }
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(IndexesError::NotANumber { index: text.to_owned() }),
        Ok(index) if index >= completions => Err(IndexesError::TooLarge { index: text.to_owned() }),
        Ok(index) => Ok(index),
    };
    let first = index(ends[0])?;
    let Some(end) = ends.get(1) else { return Ok((first, first)) };
    let end = index(end)?;
    if first >= end {
        return Err(IndexesError::NonIncreasing { previous: first, current: end });
    }
    Ok((first, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_increase_and_stay_below_the_completions() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        let refused = |text| count(text, 5).unwrap_err().to_string();
        assert_eq!(refused("5"), "too large index: \"5\"");
        assert_eq!(refused("3,1"), "non-increasing order, previous: 3, current: 1");
        assert_eq!(refused("3-3"), "non-increasing order, previous: 3, current: 3");
        assert_eq!(refused("x"), "cannot convert string to integer for index: \"x\"");
        assert_eq!(
            refused("1-2-3"),
            "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts \
             separated by '-'"
        );
    }

    #[test]
    fn the_first_index_of_both_is_found() {
        assert_eq!(overlap("0-3,7", "4,6-8", 10), Some(7));
        assert_eq!(overlap("0-3,9", "4-8", 10), None);
        assert_eq!(overlap("", "1", 10), None);
    }
}
