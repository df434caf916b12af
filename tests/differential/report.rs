//! What came of a run: agreements by kind and by verb, causes by number, and each request that differs with both
//! answers.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use crate::{
    comparison::Difference,
    exchange::Answer,
    kit::Result,
    request::{Memory, Request},
};

/// Counts, and the text of what differs.
#[derive(Default)]
pub struct Report {
    kinds: BTreeMap<String, Agreement>,
    verbs: BTreeMap<&'static str, Agreement>,
    causes: BTreeMap<String, Cause>,
    justified: BTreeMap<&'static str, Justification>,
    details: String,
    /// Whether requests that agree are shown, too.
    shows_all: bool,
}

/// How many requests agree.
#[derive(Clone, Copy, Default)]
struct Agreement {
    agree: usize,
    all: usize,
}

/// What one reason was given for, and how often.
type Justification = BTreeMap<String, usize>;

struct Cause {
    count: usize,
    example: String,
}

/// One request with both answers, compared.
pub struct Compared<'a> {
    pub kind: &'a str,
    pub request: &'a Request,
    /// What our server knew when it was sent.
    pub memory: &'a Memory,
    pub ours: &'a Answer,
    pub theirs: &'a Answer,
    /// Those without justification.
    pub differences: &'a [Difference],
    /// Why others are meant, and which.
    pub justified: &'a [(&'static str, String)],
}

impl Report {
    /// An empty one, which shows only requests that differ or all.
    pub fn new(shows_all: bool) -> Self {
        Self { shows_all, ..Self::default() }
    }

    pub fn add(&mut self, compared: &Compared) {
        let agrees = compared.differences.is_empty();
        for agreement in [
            self.kinds.entry(compared.kind.to_owned()).or_default(),
            self.verbs.entry(compared.request.verb).or_default(),
        ] {
            agreement.all += 1;
            agreement.agree += usize::from(agrees);
        }
        for (reason, cause) in compared.justified {
            *self.justified.entry(reason).or_default().entry(cause.clone()).or_default() += 1;
        }
        if agrees && !self.shows_all {
            return;
        }
        let request = sent(compared);
        writeln!(self.details, "== {request}").expect("writing to a String");
        for difference in compared.differences {
            let text = format!(
                "  {}\n    fairlead:       {}\n    kube-apiserver: {}\n",
                difference.place,
                cut(&difference.ours, 1500),
                cut(&difference.theirs, 1500)
            );
            self.details.push_str(&text);
            let cause = self
                .causes
                .entry(difference.cause())
                .or_insert_with(|| Cause { count: 0, example: format!("{}\n{text}", cut(&request, 600)) });
            cause.count += 1;
        }
        writeln!(self.details, "  fairlead answered:       {} {}", compared.ours.code, compared.ours.body)
            .expect("writing to a String");
        writeln!(self.details, "  kube-apiserver answered: {} {}", compared.theirs.code, compared.theirs.body)
            .expect("writing to a String");
    }

    /// Requests without an unjustified difference, and all.
    pub fn agreement(&self) -> (usize, usize) {
        self.kinds.values().fold((0, 0), |(agree, all), one| (agree + one.agree, all + one.all))
    }

    /// Writes `causes.txt`, `justified.txt` and `requests.txt` into `dir`.
    pub fn write(&self, dir: &Path) -> Result {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("causes.txt"), format!("{}{}", self.summary(), self.causes()))?;
        std::fs::write(dir.join("justified.txt"), self.justifications())?;
        Ok(std::fs::write(dir.join("requests.txt"), &self.details)?)
    }

    /// The tables by kind and verb.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (title, rows) in [
            ("kind", self.kinds.iter().map(|(name, rows)| (name.as_str(), rows)).collect::<Vec<_>>()),
            ("verb", self.verbs.iter().map(|(name, rows)| (*name, rows)).collect()),
        ] {
            writeln!(text, "{title:<36} {:>6} {:>6}", "agree", "all").expect("writing to a String");
            for (name, row) in rows {
                writeln!(text, "{name:<36} {:>6} {:>6}", row.agree, row.all).expect("writing to a String");
            }
            text.push('\n');
        }
        for (reason, causes) in &self.justified {
            writeln!(text, "{} justified: {reason}", causes.values().sum::<usize>()).expect("writing to a String");
        }
        let (agree, all) = self.agreement();
        writeln!(text, "{agree} of {all} requests agree; {} causes of difference\n", self.causes.len())
            .expect("writing to a String");
        text
    }

    /// What each reason was given for.
    pub fn justifications(&self) -> String {
        let causes = |all: &Justification| -> String {
            all.iter().map(|(cause, count)| format!("  {count}x {cause}\n")).collect()
        };
        self.justified
            .iter()
            .map(|(reason, all)| format!("{}x {reason}\n{}\n", all.values().sum::<usize>(), causes(all)))
            .collect()
    }

    /// The causes, the most frequent first, each with an example.
    pub fn causes(&self) -> String {
        let mut causes: Vec<_> = self.causes.iter().collect();
        causes.sort_by_key(|(name, cause)| (std::cmp::Reverse(cause.count), *name));
        let shown = causes.iter().map(|(name, cause)| format!("{}x {name}\n  {}\n", cause.count, cause.example));
        shown.collect()
    }
}

fn sent(compared: &Compared) -> String {
    let (request, memory) = (compared.request, compared.memory);
    let body = String::from_utf8_lossy(&request.bytes(memory)).into_owned();
    format!(
        "{} {} accept: {} content-type: {}\n  {body}",
        request.method,
        request.url(memory),
        request.accept,
        request.content_type
    )
}

fn cut(text: &str, length: usize) -> String {
    if text.chars().count() > length { text.chars().take(length).chain(['…']).collect() } else { text.to_owned() }
}
