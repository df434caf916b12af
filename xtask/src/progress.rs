//! What a task is doing, for people: a spinner or a bar on a terminal, one line per step anywhere else.

use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// One step under way. Dropped without [`Step::done`], it leaves no line.
pub struct Step {
    what: String,
    started: Instant,
    bar: ProgressBar,
}

impl Step {
    /// Begins a step and shows it.
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = ProgressBar::new_spinner();
        // On anything but a terminal indicatif draws nothing.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        if !std::io::stderr().is_terminal() {
            eprintln!("… {what}");
        }
        Self { what, started: Instant::now(), bar }
    }

    /// What the step is at just now.
    pub fn at(&self, detail: impl Into<String>) {
        self.bar.set_message(detail.into());
    }

    /// From now on a bar of this length.
    pub fn of(&self, length: u64) {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{bar:25}] {percent}% {wide_msg}") {
            self.bar.set_style(style);
        }
        self.bar.set_length(length);
    }

    /// How far the bar is, of the length given to [`Step::of`].
    pub fn position(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Ends the step with a line that says its `result` and how long it took.
    pub fn done(self, result: &str) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f32();
        let result = if result.is_empty() { String::new() } else { format!(": {result}") };
        eprintln!("✓ {}{result} ({seconds:.1} s)", self.what);
    }
}

/// Runs `command` as part of `step`, giving each line it writes to `watch`. On failure the last lines are in the error.
pub fn follow(step: &Step, command: &mut Command, mut watch: impl FnMut(&Step, &str)) -> anyhow::Result<()> {
    let shown = crate::command::show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (sender, lines) = std::sync::mpsc::sync_channel::<String>(64);
    let pump = |stream: Option<Box<dyn Read + Send>>, sender: std::sync::mpsc::SyncSender<String>| {
        std::thread::spawn(move || {
            let Some(stream) = stream else { return };
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })
    };
    let readers = [
        pump(out.map(|stream| Box::new(stream) as Box<dyn Read + Send>), sender.clone()),
        pump(err.map(|stream| Box::new(stream) as Box<dyn Read + Send>), sender),
    ];
    let mut tail: std::collections::VecDeque<String> = std::collections::VecDeque::new();
    for line in lines {
        watch(step, &line);
        tail.push_back(line);
        if tail.len() > 25 {
            tail.pop_front();
        }
    }
    for reader in readers {
        if reader.join().is_err() {
            bail!("the output of {shown} could not be read");
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status}):\n{}", tail.into_iter().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}
