//! The outcomes of a run: in a file, and as lines of its progress.

use crate::client::Result;
use crate::outcome::Outcome;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The outcomes so far.
pub struct Results {
    pub outcomes: Vec<Outcome>,
    path: PathBuf,
    file: File,
    rounds: u32,
    started: Instant,
    steps: usize,
    steps_done: usize,
}

impl Results {
    /// Appends to the file `path`. A round has `steps` measurements.
    pub fn create(path: &Path, steps: usize, rounds: u32) -> Result<Results> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Results {
            outcomes: vec![],
            path: path.into(),
            file: file.map_err(|e| format!("{}: {e}", path.display()))?,
            rounds,
            started: Instant::now(),
            steps: steps * rounds as usize,
            steps_done: 0,
        })
    }

    /// Adds an outcome.
    pub fn end(&mut self, mut outcome: Outcome, result: Result<()>) -> Result<()> {
        outcome.failure = result.err();
        writeln!(self.file, "{}", outcome.to_json()).map_err(|e| format!("{}: {e}", self.path.display()))?;
        if outcome.workload != "total" {
            self.steps_done += 1;
            self.say_progress(&outcome);
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    fn say_progress(&self, outcome: &Outcome) {
        let spent = self.started.elapsed();
        let left = spent.mul_f64((self.steps - self.steps_done) as f64 / self.steps_done as f64);
        let said = match &outcome.failure {
            Some(failure) => format!("FAILED: {failure}"),
            None => crate::report::headline(outcome),
        };
        eprintln!(
            "round {}/{}  {:<14} {:<12} {said}   [{} left]",
            outcome.round,
            self.rounds,
            outcome.workload,
            outcome.label,
            minutes(left)
        );
    }
}

fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
