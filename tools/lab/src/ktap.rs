// SPDX-License-Identifier: GPL-2.0

//! Reads KTAP (Documentation/dev-tools/ktap.rst), as selftests and KUnit print it.

/// How a test point came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    /// Not run, with the reason.
    Skip(String),
    /// Failed, as it will until the issue of this number is closed.
    ExpectedFailure {
        issue: u32,
    },
}

/// A test point that has no subtests of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Names of the point and, before it, of what it is nested in, joined by ".".
    pub name: String,
    pub outcome: Outcome,
    /// The lines before the point that are not KTAP, "# " taken off.
    pub notes: Vec<String>,
}

/// What a test program printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub points: Vec<Point>,
    /// What is wrong with the output as a whole: each is a failure.
    pub problems: Vec<String>,
}

/// One level of nesting that is being read.
struct Level {
    indent: usize,
    plan: Option<usize>,
    seen: usize,
    /// Index in `points` of the first that belongs to this level.
    first: usize,
}

/// Reads the output of one test program or of one KUnit suite.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Report {
    let mut report = Report::default();
    let mut levels: Vec<Level> = Vec::new();
    let mut notes: Vec<String> = Vec::new();

    for line in lines {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let text = text.trim_end();

        if text.starts_with("KTAP version ") || text.starts_with("TAP version ") {
            close(&mut levels, &mut report, |level| level.indent >= indent);
            levels.push(Level::new(indent, &report));
        } else if let Some(plan) = plan(text) {
            close(&mut levels, &mut report, |level| level.indent > indent);
            level_at(&mut levels, indent, &report).plan = Some(plan);
        } else if let Some((ok, name, directive)) = point(text) {
            let below = close(&mut levels, &mut report, |level| level.indent > indent);
            level_at(&mut levels, indent, &report).seen += 1;
            let notes = std::mem::take(&mut notes);
            match below {
                // A parent: its subtests are what counts, but it may fail on its own.
                Some(first) => {
                    let mut failed = false;
                    for sub in &mut report.points[first..] {
                        sub.name = format!("{name}.{}", sub.name);
                        failed |= sub.outcome == Outcome::Fail;
                    }
                    if !ok && !failed {
                        report
                            .problems
                            .push(format!("{name} failed, though no part of it did"));
                    }
                }
                None => report.points.push(Point {
                    name: name.to_owned(),
                    outcome: outcome(ok, directive),
                    notes,
                }),
            }
        } else if text.starts_with("Bail out!") {
            report.problems.push(text.to_owned());
        } else if !text.is_empty() {
            let note = text.strip_prefix('#').unwrap_or(text).trim_start();
            notes.push(note.to_owned());
        }
    }
    close(&mut levels, &mut report, |_| true);
    report
}

impl Level {
    fn new(indent: usize, report: &Report) -> Self {
        Level {
            indent,
            plan: None,
            seen: 0,
            first: report.points.len(),
        }
    }
}

/// The level of this indent, which is made if the output has not opened it.
fn level_at<'a>(levels: &'a mut Vec<Level>, indent: usize, report: &Report) -> &'a mut Level {
    if levels.last().is_none_or(|level| level.indent < indent) {
        levels.push(Level::new(indent, report));
    }
    levels.last_mut().expect("there is a level")
}

/// Ends the innermost levels while `which` holds, and says where the points of
/// the outermost of them begin.
fn close(
    levels: &mut Vec<Level>,
    report: &mut Report,
    which: impl Fn(&Level) -> bool,
) -> Option<usize> {
    let mut first = None;
    while levels.last().is_some_and(&which) {
        let level = levels.pop().expect("there is a level");
        match level.plan {
            Some(plan) if plan != level.seen => report
                .problems
                .push(format!("{plan} tests were planned, {} ran", level.seen)),
            None => report.problems.push("there is no plan line".to_owned()),
            _ => (),
        }
        first = Some(level.first);
    }
    first
}

fn plan(text: &str) -> Option<usize> {
    let number = text.strip_prefix("1..")?;
    number.split_whitespace().next()?.parse().ok()
}

/// Whether it is ok, its name, and its directive, which may be empty.
fn point(text: &str) -> Option<(bool, &str, &str)> {
    let (ok, rest) = match text.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = rest.split_once('#').unwrap_or((rest, ""));
    Some((ok, name.trim(), directive.trim()))
}

/// How a point came out. An expected failure without an issue is a failure: nobody would mend it.
fn outcome(ok: bool, directive: &str) -> Outcome {
    let issue = directive
        .strip_prefix("XFAIL issue ")
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match (ok, issue, directive.strip_prefix("SKIP")) {
        (true, Some(issue), _) => Outcome::ExpectedFailure { issue },
        (true, None, Some(reason)) => Outcome::Skip(reason.trim().to_owned()),
        (true, None, None) if !directive.starts_with("XFAIL") => Outcome::Pass,
        _ => Outcome::Fail,
    }
}

/// What a test program's exit status and output amount to.
///
/// `status` is that of a kselftest: 4 if all was skipped.
pub fn judge<'a>(status: i32, lines: impl IntoIterator<Item = &'a str>) -> Report {
    const SKIPPED: i32 = 4;
    let mut report = parse(lines);
    let failed = report
        .points
        .iter()
        .any(|point| point.outcome == Outcome::Fail);
    let passed = report
        .points
        .iter()
        .any(|point| point.outcome == Outcome::Pass);

    if report.points.is_empty() && status == SKIPPED {
        report.points.push(Point {
            name: String::new(),
            outcome: Outcome::Skip("exit status 4".to_owned()),
            notes: Vec::new(),
        });
        report.problems.clear();
    } else if report.points.is_empty() && report.problems.is_empty() {
        report.problems.push("it printed no test point".to_owned());
    }
    if status != 0 && !failed && (status != SKIPPED || passed) {
        report.problems.push(format!("exit status {status}"));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(report: &Report) -> Vec<(&str, &Outcome)> {
        report
            .points
            .iter()
            .map(|point| (point.name.as_str(), &point.outcome))
            .collect()
    }

    #[test]
    fn flat_output_with_every_outcome() {
        let report = judge(
            1,
            "TAP version 13\n\
             1..3\n\
             # hello\n\
             ok 1 loads\n\
             # min_order is '9', expected '5'\n\
             not ok 2 - knobs\n\
             ok 3 hotplug # SKIP no memory device\n\
             # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0\n"
                .lines(),
        );
        assert_eq!(
            outcomes(&report),
            [
                ("loads", &Outcome::Pass),
                ("knobs", &Outcome::Fail),
                ("hotplug", &Outcome::Skip("no memory device".into())),
            ]
        );
        assert_eq!(report.points[1].notes, ["min_order is '9', expected '5'"]);
        assert_eq!(report.problems, [""; 0]);
    }

    const KUNIT: &str = "KTAP version 1
1..1
    KTAP version 1
    # Subtest: page_hinting_policy
    # module: page_hinting
    1..3
    # watermark_below_low: ASSERTION FAILED at rust/policy.rs:10
    not ok 1 watermark_below_low
        KTAP version 1
        # Subtest: batch
        ok 1 one block
        ok 2 full
        1..2
    ok 2 batch
    ok 3 pacing # SKIP not yet
# page_hinting_policy: pass:1 fail:1 skip:1 total:3
not ok 1 page_hinting_policy
";

    #[test]
    fn nested_kunit_output_counts_the_leaves() {
        let report = parse(KUNIT.lines());
        assert_eq!(
            outcomes(&report),
            [
                ("page_hinting_policy.watermark_below_low", &Outcome::Fail),
                ("page_hinting_policy.batch.one block", &Outcome::Pass),
                ("page_hinting_policy.batch.full", &Outcome::Pass),
                (
                    "page_hinting_policy.pacing",
                    &Outcome::Skip("not yet".into())
                ),
            ]
        );
        assert_eq!(report.problems, [""; 0]);
    }

    #[test]
    fn a_parent_that_fails_alone_is_a_problem() {
        let text = KUNIT.replace("    not ok 1 water", "    ok 1 water");
        let report = parse(text.lines());
        assert_eq!(
            report.problems,
            ["page_hinting_policy failed, though no part of it did"]
        );
    }

    #[test]
    fn two_documents_in_a_row() {
        let text = KUNIT.repeat(2);
        let report = parse(text.lines());
        assert_eq!(report.points.len(), 8);
        assert_eq!(report.problems, [""; 0]);
    }

    #[test]
    fn a_test_that_ended_early_is_a_problem() {
        let report = judge(0, ["TAP version 13", "1..3", "ok 1 a", "ok 2 b"]);
        assert_eq!(report.problems, ["3 tests were planned, 2 ran"]);
        let report = judge(0, ["TAP version 13", "ok 1 a"]);
        assert_eq!(report.problems, ["there is no plan line"]);
    }

    #[test]
    fn a_nested_test_that_ended_early_is_a_problem() {
        let text = KUNIT.replace("    ok 3 pacing # SKIP not yet\n", "");
        let report = parse(text.lines());
        assert_eq!(report.problems, ["3 tests were planned, 2 ran"]);
    }

    #[test]
    fn bailing_out_is_a_problem() {
        let report = judge(1, ["TAP version 13", "1..1", "Bail out! no root", "ok 1 a"]);
        assert_eq!(report.problems, ["Bail out! no root", "exit status 1"]);
    }

    #[test]
    fn silence_and_a_bad_status_are_problems() {
        assert_eq!(judge(0, []).problems, ["it printed no test point"]);
        assert_eq!(
            judge(139, ["TAP version 13", "1..1", "ok 1 a"]).problems,
            ["exit status 139"]
        );
        assert_eq!(
            judge(0, ["TAP version 13", "1..1", "not ok 1 a # SKIP broken"]).points[0].outcome,
            Outcome::Fail
        );
    }

    #[test]
    fn an_expected_failure_names_its_issue() {
        let report = judge(0, ["1..2", "ok 1 a # XFAIL issue 17", "ok 2 b # XFAIL"]);
        assert_eq!(
            outcomes(&report),
            [
                ("a", &Outcome::ExpectedFailure { issue: 17 }),
                ("b", &Outcome::Fail),
            ]
        );
    }

    #[test]
    fn status_4_is_a_skip() {
        let report = judge(4, ["sh: no such device"]);
        assert_eq!(
            outcomes(&report),
            [("", &Outcome::Skip("exit status 4".into()))]
        );
        assert_eq!(report.problems, [""; 0]);
        let report = judge(4, ["TAP version 13", "1..1", "ok 1 a # SKIP none"]);
        assert_eq!(report.problems, [""; 0]);
        let report = judge(4, ["TAP version 13", "1..1", "ok 1 a"]);
        assert_eq!(report.problems, ["exit status 4"]);
    }
}
