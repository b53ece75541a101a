// SPDX-License-Identifier: GPL-2.0

//! Counts test points and prints them, for all guests together.

use crate::ktap::{Outcome, Report};
use crate::skips::Skips;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines of a test's output that are shown when it failed.
pub const OUTPUT_LINES: usize = 20;

/// The points of all scenarios.
#[derive(Debug, Default)]
pub struct Tally {
    skips: Skips,
    counts: Mutex<Counts>,
}

/// What has come out so far.
#[derive(Debug, Default)]
pub struct Counts {
    number: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Points that failed as expected, by the issue that is to mend them.
    expected: BTreeMap<u32, usize>,
    /// Tests that ran once more because QEMU failed.
    repeated: usize,
}

impl Tally {
    /// Counts a skip as a failure unless `skips` lists it.
    pub fn new(skips: Skips) -> Self {
        Self {
            skips,
            counts: Mutex::default(),
        }
    }

    /// Counts and prints a point.
    pub fn point(&self, name: &str, outcome: &Outcome, notes: &[String]) {
        let surprise = match outcome {
            Outcome::Skip(reason) if !self.skips.expects(name, reason) => Some(vec![format!(
                "it was skipped ({reason}), and the selftests' file \"skips\" does not list that"
            )]),
            _ => None,
        };
        let mut counts = self.counts();
        // In one piece, so that nothing of another scenario gets in between.
        match surprise {
            Some(notes) => print!("{}", counts.point(name, &Outcome::Fail, &notes)),
            None => print!("{}", counts.point(name, outcome, notes)),
        }
    }

    /// A point that failed for this reason.
    pub fn problem(&self, name: &str, text: String) {
        self.point(name, &Outcome::Fail, &[text]);
    }

    /// The points of a test program of this name.
    pub fn report(&self, name: &str, report: &Report) {
        for point in &report.points {
            let name = format!("{name} {}", point.name);
            self.point(name.trim_end(), &point.outcome, &point.notes);
        }
        for problem in &report.problems {
            self.problem(name, problem.clone());
        }
    }

    /// A test is run once more.
    pub fn repeat(&self) {
        self.counts().repeated += 1;
    }

    /// What has come out.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Counts a test point; returns its lines.
    fn point(&mut self, name: &str, outcome: &Outcome, notes: &[String]) -> String {
        self.number += 1;
        let number = self.number;
        match outcome {
            Outcome::Pass => {
                self.passed += 1;
                format!("ok {number} {name}\n")
            }
            Outcome::Skip(reason) => {
                self.skipped += 1;
                format!("ok {number} {name} # SKIP {reason}\n")
            }
            Outcome::ExpectedFailure { issue } => {
                *self.expected.entry(*issue).or_default() += 1;
                format!("{}ok {number} {name} # XFAIL issue {issue}\n", shown(notes))
            }
            Outcome::Fail => {
                self.failed += 1;
                format!("{}not ok {number} {name}\n", shown(notes))
            }
        }
    }

    /// A run without an executed test is none.
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// The last lines of a run; the very last counts the points.
    pub fn summary(&self) -> String {
        let mut text = format!("1..{}\n", self.number);
        for (issue, number) in &self.expected {
            text += &format!("# {number} expected failures, which issue {issue} is to mend\n");
        }
        if self.skipped != 0 {
            text += &format!("# {} expected skips\n", self.skipped);
        }
        if self.repeated != 0 {
            text += &format!("# {} tests run once more, as QEMU failed\n", self.repeated);
        }
        text + &format!(
            "{} passed, {} failed, {} skipped\n",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The last of the notes, as comments.
fn shown(notes: &[String]) -> String {
    let mut text = String::new();
    if notes.len() > OUTPUT_LINES {
        text += "# ... (the rest is in the logs)\n";
    }
    let last = &notes[notes.len().saturating_sub(OUTPUT_LINES)..];
    for line in last.iter().flat_map(|note| note.lines()) {
        text += &format!("# {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ktap::judge;

    fn tally(skips: &str) -> Tally {
        Tally::new(Skips::parse(skips).unwrap())
    }

    #[test]
    fn nothing_run_is_no_success() {
        let tally = tally("* - exit status 4");
        assert!(!tally.counts().is_success());
        tally.report("a", &judge(4, []));
        assert!(!tally.counts().is_success());
        tally.report("a", &judge(0, ["1..1", "ok 1 a"]));
        assert!(tally.counts().is_success());
        tally.report("a", &judge(1, ["1..1", "ok 1 a"]));
        let counts = tally.counts();
        assert!(!counts.is_success());
        assert!(
            counts
                .summary()
                .ends_with("\n2 passed, 1 failed, 1 skipped\n")
        );
    }

    #[test]
    fn a_skip_that_is_not_listed_is_a_failure() {
        let tally = tally("release/x/a.sh *_swap no swap*");
        let lines = [
            "1..2",
            "ok 1 a_swap # SKIP no swap here",
            "ok 2 b # SKIP no swap here",
        ];
        tally.report("release/x/a.sh", &judge(0, lines));
        tally.report(
            "debug/x/a.sh",
            &judge(0, ["1..1", "ok 1 a_swap # SKIP no swap"]),
        );
        let counts = tally.counts();
        assert_eq!((counts.failed, counts.skipped), (2, 1));
    }

    #[test]
    fn expected_failures_are_counted_by_issue() {
        let tally = tally("");
        let lines = [
            "1..3",
            "ok 1 a # XFAIL issue 17",
            "ok 2 b # XFAIL issue 18",
            "ok 3 c # XFAIL issue 17",
        ];
        tally.report("r", &judge(0, lines));
        let counts = tally.counts();
        assert!(!counts.is_success(), "none has passed");
        let summary = counts.summary();
        assert!(summary.contains("# 2 expected failures, which issue 17 is to mend\n"));
        assert!(summary.contains("# 1 expected failures, which issue 18 is to mend\n"));
    }

    #[test]
    fn a_point_is_numbered_and_has_its_notes() {
        let mut counts = Counts::default();
        assert_eq!(counts.point("a", &Outcome::Pass, &[]), "ok 1 a\n");
        let notes = ["one\ntwo".to_owned()];
        assert_eq!(
            counts.point("b", &Outcome::Fail, &notes),
            "# one\n# two\nnot ok 2 b\n"
        );
        let skip = Outcome::Skip("why".to_owned());
        assert_eq!(counts.point("c", &skip, &[]), "ok 3 c # SKIP why\n");
    }
}
