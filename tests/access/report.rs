//! What came of a run: agreements by part, causes by number, and each question whose answers differ.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use crate::{asked::Asked, comparison::differences, exchange::Answer, justified::justified, kit::Result};

/// Counts, and the text of what differs.
#[derive(Default)]
pub struct Report {
    parts: BTreeMap<&'static str, Agreement>,
    causes: BTreeMap<String, Cause>,
    justified: BTreeMap<&'static str, BTreeMap<String, usize>>,
    details: String,
}

#[derive(Default)]
struct Agreement {
    agree: usize,
    all: usize,
}

struct Cause {
    count: usize,
    example: String,
}

impl Report {
    /// Takes in both answers to what was asked.
    pub fn add(&mut self, asked: &Asked, ours: &Answer, theirs: &Answer) {
        let agreement = self.parts.entry(asked.part).or_default();
        agreement.all += 1;
        let mut found = differences(ours, theirs);
        found.retain(|difference| match justified(asked, difference, ours, theirs) {
            Some(reason) => {
                *self.justified.entry(reason).or_default().entry(difference.cause()).or_default() += 1;
                false
            }
            None => true,
        });
        if found.is_empty() {
            agreement.agree += 1;
            return;
        }
        writeln!(self.details, "== {}: {} asks {}", asked.part, asked.who, asked.what).expect("writing to a String");
        for difference in &found {
            let text = format!(
                "  {}\n    fairlead:       {}\n    kube-apiserver: {}\n",
                difference.place, difference.ours, difference.theirs
            );
            self.details.push_str(&text);
            let example = || Cause { count: 0, example: format!("{} asks {}\n{text}", asked.who, asked.what) };
            let cause = format!("{} {}", asked.part, difference.cause());
            self.causes.entry(cause).or_insert_with(example).count += 1;
        }
    }

    /// Whether every difference is justified.
    pub fn agrees(&self) -> bool {
        self.causes.is_empty()
    }

    /// The table by part.
    pub fn summary(&self) -> String {
        let mut text = format!("{:<14} {:>7} {:>7}\n", "part", "agree", "all");
        for (part, row) in &self.parts {
            writeln!(text, "{part:<14} {:>7} {:>7}", row.agree, row.all).expect("writing to a String");
        }
        for (reason, causes) in &self.justified {
            writeln!(text, "{} justified: {reason}", causes.values().sum::<usize>()).expect("writing to a String");
        }
        writeln!(text, "{} causes of difference", self.causes.len()).expect("writing to a String");
        text
    }

    /// Writes `causes.txt`, `justified.txt` and `questions.txt` into `dir`.
    pub fn write(&self, dir: &Path) -> Result {
        std::fs::create_dir_all(dir)?;
        let mut causes: Vec<_> = self.causes.iter().collect();
        causes.sort_by_key(|(name, cause)| (std::cmp::Reverse(cause.count), *name));
        let shown = causes.iter().map(|(name, cause)| format!("{}x {name}\n  {}\n", cause.count, cause.example));
        std::fs::write(dir.join("causes.txt"), format!("{}\n{}", self.summary(), shown.collect::<String>()))?;
        let mut text = String::new();
        for (reason, causes) in &self.justified {
            writeln!(text, "{reason}")?;
            for (cause, count) in causes {
                writeln!(text, "  {count}x {cause}")?;
            }
        }
        std::fs::write(dir.join("justified.txt"), text)?;
        Ok(std::fs::write(dir.join("questions.txt"), &self.details)?)
    }
}
