//! Indexes of an indexed Job as text: `1,3-5,7`.

/// One interval, both ends included.
type Interval = (i64, i64);

/// How many indexes a text names, or why it names none. Each is below `completions`, and they increase.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last = None;
    for part in parts(text) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
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

fn interval(text: &str, completions: i64) -> Result<Interval, String> {
    let ends: Vec<&str> = text.split('-').collect();
    if ends.len() > 2 {
        return Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    let first = index(ends[0])?;
    let Some(end) = ends.get(1) else { return Ok((first, first)) };
    let end = index(end)?;
    if first >= end {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
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
        assert_eq!(count("5", 5), Err("too large index: \"5\"".into()));
        assert_eq!(count("3,1", 5), Err("non-increasing order, previous: 3, current: 1".into()));
        assert_eq!(count("3-3", 5), Err("non-increasing order, previous: 3, current: 3".into()));
        assert_eq!(count("x", 5), Err("cannot convert string to integer for index: \"x\"".into()));
        assert!(count("1-2-3", 5).unwrap_err().starts_with("the fragment \"1-2-3\" violates"));
    }

    #[test]
    fn the_first_index_of_both_is_found() {
        assert_eq!(overlap("0-3,7", "4,6-8", 10), Some(7));
        assert_eq!(overlap("0-3,9", "4-8", 10), None);
        assert_eq!(overlap("", "1", 10), None);
    }
}
