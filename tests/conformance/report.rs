//! What became of the specs: a table by group, a line for each failure, and a file with the output of each.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use crate::kit::Result;

/// One spec that was selected.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `[sig-network] Services should … [Conformance]`
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// Why it failed or skipped itself.
    pub why: String,
    /// What it logged.
    pub output: String,
}

/// What became of a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, panicked, timed out or was interrupted.
    Failed,
    /// It found that it does not apply to this cluster.
    Skipped,
}

/// Whether nothing failed and something ran.
pub fn all_passed(specs: &[Spec]) -> bool {
    let count = |outcome| specs.iter().filter(|spec| spec.outcome == outcome).count();
    count(Outcome::Failed) == 0 && count(Outcome::Passed) > 0
}

/// `specs.txt`: a line for each; `summary.txt`; `failed/N.txt`: name, reason and output of each failed one.
pub fn write(specs: &[Spec], out: &Path) -> Result {
    let mut lines: Vec<String> = specs
        .iter()
        .map(|spec| format!("{:<7} {:>7.1} {}\n", format!("{:?}", spec.outcome), spec.seconds, spec.name))
        .collect();
    lines.sort();
    std::fs::write(out.join("specs.txt"), lines.concat())?;
    std::fs::write(out.join("summary.txt"), summary(specs))?;
    let failed = out.join("failed");
    if failed.exists() {
        std::fs::remove_dir_all(&failed)?;
    }
    std::fs::create_dir(&failed)?;
    for (number, spec) in failures(specs).enumerate() {
        let text = format!("{}\n\n{}\n\n{}", spec.name, spec.why, spec.output);
        std::fs::write(failed.join(format!("{}.txt", number + 1)), text)?;
    }
    Ok(())
}

/// The failed specs with the first line of why, then the table.
pub fn summary(specs: &[Spec]) -> String {
    let mut text = String::new();
    for (number, spec) in failures(specs).enumerate() {
        let why = spec.why.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let _infallible = writeln!(text, "failed {:>3} {}\n           {}", number + 1, spec.name, why.trim());
    }
    let mut groups: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for spec in specs {
        let column = match spec.outcome {
            Outcome::Passed => 0,
            Outcome::Failed => 1,
            Outcome::Skipped => 2,
        };
        groups.entry(group(&spec.name)).or_default()[column] += 1;
        groups.entry("total").or_default()[column] += 1;
    }
    let total = groups.remove("total").unwrap_or_default();
    let _infallible = writeln!(text, "\n{:<20} {:>7} {:>7} {:>8}", "group", "passed", "failed", "skipped");
    for (group, [passed, failed, skipped]) in groups.into_iter().chain([("total", total)]) {
        let _infallible = writeln!(text, "{group:<20} {passed:>7} {failed:>7} {skipped:>8}");
    }
    text
}

fn failures(specs: &[Spec]) -> impl Iterator<Item = &Spec> {
    specs.iter().filter(|spec| spec.outcome == Outcome::Failed)
}

/// `sig-network` of `[sig-network] Services …`.
fn group(name: &str) -> &str {
    name.split(['[', ']']).find(|part| part.starts_with("sig-")).unwrap_or("other")
}
