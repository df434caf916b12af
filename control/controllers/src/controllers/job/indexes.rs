//! A set of completion indexes as intervals, and its text in a Job's status: `1,3-5,7`.

use std::{collections::BTreeSet, fmt};

/// Indexes as intervals, both ends included, in order, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(usize, usize)>);

impl Indexes {
    /// The indexes below `completions` that a text names. Parts that are none are passed over.
    pub fn parse(text: &str, completions: usize) -> Self {
        let mut intervals = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (first.parse(), last.parse()),
                None => (part.parse(), part.parse()),
            };
            if let (Ok(first), Ok(last)) = (first, last)
                && first < completions
                && first <= last
            {
                intervals.push((first, completions.saturating_sub(1).min(last)));
            }
        }
        Self::joined(intervals)
    }

    fn joined(mut intervals: Vec<(usize, usize)>) -> Self {
        intervals.sort_unstable();
        let mut joined: Vec<(usize, usize)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// These and `others`.
    pub fn with(&self, others: &BTreeSet<usize>) -> Self {
        let singles = others.iter().map(|index| (*index, *index));
        Self::joined(self.0.iter().copied().chain(singles).collect())
    }

    /// The indexes of both.
    pub fn merge(&self, others: &Self) -> Self {
        Self::joined(self.0.iter().chain(&others.0).copied().collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().fold(0, |sum, (first, last)| sum.saturating_add(last - first).saturating_add(1))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `index` is one of them.
    pub fn contains(&self, index: usize) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes both have.
    pub fn overlap(&self, others: &Self) -> usize {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), others.0.iter().peekable());
        let mut count: usize = 0;
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                count = count.saturating_add(last - first + 1);
            }
            if a.1 <= b.1 {
                mine.next()
            } else {
                theirs.next()
            };
        }
        count
    }

    /// The first `count` indexes below `completions` that are not among these. Costs as much as there are intervals
    /// and results, not as there are indexes.
    pub fn first_missing(&self, count: usize, completions: usize) -> Vec<usize> {
        let mut missing = Vec::new();
        let mut next = 0;
        for &(first, last) in self.0.iter().chain([&(completions, completions)]) {
            let until = first.min(completions);
            missing.extend((next..until).take(count.saturating_sub(missing.len())));
            next = next.max(last.saturating_add(1));
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Indexes {
        Indexes::parse(text, 100)
    }

    #[test]
    fn intervals_join_and_read_back_as_kubernetes_writes_them() {
        for (text, written, len) in [
            ("", "", 0),
            ("0", "0", 1),
            ("0,1", "0,1", 2),
            ("0-2", "0-2", 3),
            ("0,1,2,5", "0-2,5", 4),
            ("1,x,3-y,7-5,9", "1,9", 2),
            ("98-200,300", "98,99", 2),
        ] {
            assert_eq!((of(text).to_string().as_str(), of(text).len()), (written, len), "{text}");
        }
        assert_eq!(of("0-1,4").with(&BTreeSet::from([2, 6])).to_string(), "0-2,4,6");
        assert_eq!(of("0-1,4").merge(&of("2-3,9")).to_string(), "0-4,9");
        assert!(Indexes::parse("0-4", 0).is_empty());
    }

    #[test]
    fn membership_and_overlap_count_single_indexes() {
        let some = of("1,3-5,9");
        let found: Vec<usize> = (0..12).filter(|index| some.contains(*index)).collect();
        assert_eq!(found, [1, 3, 4, 5, 9]);
        assert_eq!(some.overlap(&of("0-3,5-20")), 4);
        assert_eq!(some.overlap(&of("")), 0);
    }

    #[test]
    fn the_first_missing_indexes_fill_the_gaps_in_order() {
        assert_eq!(of("1,3-5").first_missing(3, 10), [0, 2, 6]);
        assert_eq!(of("1,3-5").first_missing(9, 7), [0, 2, 6]);
        assert_eq!(of("0-9").first_missing(3, 5), [] as [usize; 0]);
        assert_eq!(of("").first_missing(2, 5), [0, 1]);
    }
}
