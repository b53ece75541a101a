// SPDX-License-Identifier: GPL-2.0

//! The report: where page_hinting loses, first; then all figures, and pictures.

use super::config::Config;
use super::result::{Record, Results};
use super::row::Row;
use super::{Better, Metric, Part};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A picture that a part has drawn.
pub struct Picture {
    /// In the report's directory.
    pub file: String,
    pub caption: String,
}

/// A row in which page_hinting is worse than an upstream configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss<'a> {
    pub ours: &'a Row,
    /// Those it is worse than, in their order.
    pub than: Vec<&'a Row>,
}

impl Loss<'_> {
    /// Whether the rounds of one and the other overlap for all that it loses to: it may
    /// then be chance.
    pub fn is_within_spread(&self, better: Better) -> bool {
        self.than
            .iter()
            .all(|row| overlap(self.ours, row, better) && self.ours.n > 1 && row.n > 1)
    }
}

/// Whether the best round of `a` is as good as the worst one of `b`.
fn overlap(a: &Row, b: &Row, better: Better) -> bool {
    match better {
        Better::Less => a.min.is_some_and(|min| b.max.is_none_or(|max| min <= max)),
        Better::More => a.max.zip(b.min).is_some_and(|(max, min)| max >= min),
        Better::Neither => true,
    }
}

/// Whether `a` is worse than `b`. What never got there is worse than what did.
fn is_worse(a: &Row, b: &Row, better: Better) -> bool {
    match (better, a.median, b.median) {
        (Better::Neither, ..) | (_, _, None) => false,
        (_, None, Some(_)) => true,
        (Better::Less, Some(a), Some(b)) => a > b,
        (Better::More, Some(a), Some(b)) => a < b,
    }
}

/// All rows in which page_hinting loses, a row that could not be measured included.
pub fn losses<'a>(results: &'a Results, parts: &[&Part]) -> Vec<(Loss<'a>, Better)> {
    let mut found = Vec::new();
    for part in parts {
        for ours in results
            .of_part(part.name)
            .filter(|row| row.config == Config::PageHinting)
        {
            let Some(metric) = metric(part, &ours.metric) else {
                continue;
            };
            let than: Vec<_> = results
                .of_part(part.name)
                .filter(|row| {
                    row.config.is_upstream() && row.case == ours.case && row.metric == ours.metric
                })
                .filter(|row| is_worse(ours, row, metric.better))
                .collect();
            if !than.is_empty() {
                found.push((Loss { ours, than }, metric.better));
            }
        }
    }
    found
}

fn metric<'a>(part: &'a Part, name: &str) -> Option<&'a Metric> {
    part.metrics.iter().find(|metric| metric.name == name)
}

/// The judgement, in plain words.
pub fn summary(results: &Results, parts: &[&Part]) -> String {
    let mut text = String::new();
    let all = losses(results, parts);
    let judged = results
        .rows
        .iter()
        .filter(|row| row.config == Config::PageHinting)
        .filter(|row| {
            let part = parts.iter().find(|part| part.name == row.part);
            part.and_then(|part| metric(part, &row.metric))
                .is_some_and(|metric| metric.better != Better::Neither)
        })
        .filter(|row| {
            results.of_part(&row.part).any(|other| {
                other.config.is_upstream() && other.case == row.case && other.metric == row.metric
            })
        })
        .count();
    if judged == 0 {
        text += "There is no row in which page_hinting could be compared with upstream.\n";
    } else if all.is_empty() {
        let _ = writeln!(
            text,
            "page_hinting loses to no upstream configuration in any of {judged} rows."
        );
    } else {
        let _ = writeln!(
            text,
            "page_hinting loses to an upstream configuration in {} of {judged} rows:\n",
            all.len()
        );
        for (loss, better) in &all {
            let _ = writeln!(text, "- {}", sentence(loss, *better));
        }
    }
    let failed: Vec<_> = results.rows.iter().filter(|row| row.is_failed()).collect();
    let ended = results
        .parts
        .iter()
        .filter_map(|(name, record)| Some((name, record.failed.as_ref()?)));
    let mut missing = String::new();
    for (name, why) in ended {
        let _ = writeln!(missing, "- {name} ended early: {}", one_line(why));
    }
    for row in failed {
        let _ = writeln!(
            missing,
            "- {}, {}, {}: {}: {}",
            row.part,
            row.case,
            row.config,
            row.metric,
            one_line(row.note.as_deref().unwrap_or("not measured"))
        );
    }
    if !missing.is_empty() {
        let _ = write!(text, "\nThis could not be measured:\n\n{missing}");
    }
    text
}

fn sentence(loss: &Loss<'_>, better: Better) -> String {
    let ours = loss.ours;
    let than: Vec<_> = loss
        .than
        .iter()
        .map(|row| format!("{} with {}", value(row), row.config))
        .collect();
    let doubt = if loss.is_within_spread(better) {
        " (the rounds overlap)"
    } else {
        ""
    };
    format!(
        "{}, {}: {} is {}, but {}{doubt}",
        ours.part,
        ours.case,
        ours.metric,
        value(ours),
        than.join(", ")
    )
}

/// A row's median with its unit.
fn value(row: &Row) -> String {
    match (row.median, row.n) {
        (Some(median), _) if row.unit.is_empty() => number(median),
        (Some(median), _) => format!("{} {}", number(median), row.unit),
        (None, 0) => "not measured".to_owned(),
        (None, _) => row.note.clone().unwrap_or_else(|| "never".to_owned()),
    }
}

/// Three digits or a bit more.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// Median, with the spread where there is one.
fn cell(row: Option<&Row>) -> String {
    let Some(row) = row else {
        return "-".to_owned();
    };
    if row.is_failed() {
        return "failed".to_owned();
    }
    let show = |value: Option<f64>| value.map_or("never".to_owned(), number);
    if row.n == 1 || (row.min == row.max && row.min.is_some()) {
        return show(row.median);
    }
    if row.min.is_none() {
        return "never".to_owned();
    }
    format!(
        "{} ({} to {})",
        show(row.median),
        show(row.min),
        show(row.max)
    )
}

/// A simple table of reStructuredText.
pub fn table(head: &[String], body: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|i| {
            let cells = body.iter().map(|row| row[i].chars().count());
            cells.chain([head[i].chars().count()]).max().unwrap_or(1)
        })
        .collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", line.join("  ").trim_end())
    };
    let rule: Vec<_> = widths.iter().map(|width| "=".repeat(*width)).collect();
    let mut text = line(&rule) + &line(head) + &line(&rule);
    for row in body {
        text += &line(row);
    }
    text + &line(&rule)
}

/// Writes the report and its pictures: where it is.
pub fn write(results: &Results, parts: &[&Part], dir: &Path) -> Result<PathBuf> {
    let mut text = String::from(
        ".. SPDX-License-Identifier: GPL-2.0\n\n\
         =======================================\n\
         page_hinting beside mm/page_reporting\n\
         =======================================\n\n\
         This was written by ``make bench``.\n\n",
    );
    text += &heading("Where page_hinting loses", '=');
    text += &summary(results, parts);
    text.push('\n');
    text += &heading("How to read it", '=');
    text += READING;
    text.push('\n');
    for part in parts {
        let Some(record) = results.parts.get(part.name) else {
            continue;
        };
        text += &section(results, part, record);
        let pictures = (part.draw)(results, record, dir)
            .with_context(|| format!("cannot draw the pictures of {}", part.name))?;
        for picture in pictures {
            let _ = write!(
                text,
                ".. figure:: {}\n   :alt: {}\n\n   {}\n\n",
                picture.file,
                one_line(&picture.caption),
                one_line(&picture.caption)
            );
        }
    }
    let path = dir.join("report.rst");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

const READING: &str = "\
``off``: nothing hints.  ``upstream-N``: mm/page_reporting with a delay of N ms
(2000 is its default).  ``page_hinting``: the module at its defaults.  All of
them run on the same kernel, one with the series; ``unpatched-off`` and
``unpatched-2000`` are the same configuration of the kernel without it.

A figure is the median of its rounds, with the least and the most in brackets;
``n`` is how many rounds there were.  The configurations take turns within each
round, in an order that alternates.  \"never\" stands for what did not come about
while it was watched, and counts as worse than any number; \"-\" for what does
not apply.
";

fn heading(text: &str, with: char) -> String {
    format!(
        "{text}\n{}\n\n",
        with.to_string().repeat(text.chars().count())
    )
}

fn section(results: &Results, part: &Part, record: &Record) -> String {
    let mut text = heading(&format!("{}: {}", part.name, part.title), '=');
    text += part.about.trim();
    let machine = &record.machine;
    let _ = write!(
        text,
        "\n\nRun at {}, for {:.0} s{}; {}{}, {} MiB; lab {}{}.\n\n",
        record.date,
        record.took_s,
        if record.quick { ", quick" } else { "" },
        machine.caption(),
        machine
            .host_kernel
            .as_ref()
            .map_or(String::new(), |kernel| format!(", Linux {kernel}")),
        machine.host_memory_mib,
        machine.lab,
        machine
            .git
            .as_ref()
            .map_or(String::new(), |git| format!(", {git}")),
    );
    if let Some(why) = &record.failed {
        let _ = write!(text, "**It ended early**: {}\n\n", one_line(why));
    }
    for note in &record.notes {
        let _ = write!(text, "{note}\n\n");
    }
    for metric in part.metrics {
        let better = match metric.better {
            Better::Less => "; less is better",
            Better::More => "; more is better",
            Better::Neither => "",
        };
        let _ = writeln!(text, "- ``{}``: {}{better}.", metric.name, metric.what);
    }
    text.push('\n');

    let mut cases: Vec<&str> = Vec::new();
    for row in results.of_part(part.name) {
        if !cases.contains(&&*row.case) {
            cases.push(&row.case);
        }
    }
    for case in cases {
        text += &heading(case, '-');
        text += &case_table(results, part, case);
        text.push('\n');
    }
    text
}

/// A case: a line for each metric, a column for each configuration.
fn case_table(results: &Results, part: &Part, case: &str) -> String {
    let rows: Vec<_> = results
        .of_part(part.name)
        .filter(|row| row.case == case)
        .collect();
    let configs: Vec<_> = rows
        .iter()
        .map(|row| row.config)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut metrics: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        if !metrics.iter().any(|(name, _)| *name == row.metric) {
            metrics.push((&row.metric, &row.unit));
        }
    }
    let head: Vec<_> = ["metric".to_owned(), "unit".to_owned()]
        .into_iter()
        .chain(configs.iter().map(|config| config.to_string()))
        .chain(["n".to_owned()])
        .collect();
    let body: Vec<_> = metrics
        .iter()
        .map(|(metric, unit)| {
            let of = |config: &Config| {
                rows.iter()
                    .copied()
                    .find(|row| row.metric == *metric && row.config == *config)
            };
            let n = configs.iter().filter_map(of).map(|row| row.n);
            let unit = if unit.is_empty() { "-" } else { unit };
            [(*metric).to_owned(), unit.to_owned()]
                .into_iter()
                .chain(configs.iter().map(|config| cell(of(config))))
                .chain([n.max().unwrap_or(0).to_string()])
                .collect()
        })
        .collect();
    let mut text = table(&head, &body);
    let mut notes: Vec<String> = Vec::new();
    for row in rows {
        if let Some(note) = &row.note {
            let note = format!("- {}, {}: {}", row.metric, row.config, one_line(note));
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    if !notes.is_empty() {
        let _ = write!(text, "\n{}\n", notes.join("\n"));
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::PARTS;
    use super::super::row::Of;
    use super::*;

    /// Of a quick run.
    const RECORDED: &str = include_str!("../../tests/data/bench.json");

    fn recorded() -> Results {
        Results::parse(RECORDED).unwrap()
    }

    /// A row of burst.
    fn row(config: Config, metric: &str, values: &[Option<f64>]) -> Row {
        let of = Of {
            part: "burst",
            case: "a case",
            config,
            metric,
            unit: "s",
        };
        Row::of(of, values)
    }

    fn results(rows: Vec<Row>) -> Results {
        let mut results = Results::default();
        results.replace("burst", rows, Record::default());
        results
    }

    #[test]
    fn a_loss_is_told_in_words() {
        let metric = "returned_95_s";
        let ours = Config::PageHinting;
        for (values, other, config, lost) in [
            (Some(1.0), Some(2.0), Config::Upstream0, false),
            (Some(2.0), Some(1.0), Config::Upstream0, true),
            (Some(2.0), Some(2.0), Config::Upstream0, false),
            (None, Some(9.0), Config::Upstream2000, true),
            (Some(9.0), None, Config::Upstream2000, false),
            (None, None, Config::Upstream2000, false),
            (Some(2.0), Some(1.0), Config::Unpatched2000, true),
        ] {
            let rows = vec![row(ours, metric, &[values]), row(config, metric, &[other])];
            let text = summary(&results(rows), &PARTS);
            assert_eq!(text.contains("loses to an upstream"), lost, "{text}");
            assert_eq!(text.contains("loses to no upstream"), !lost, "{text}");
        }
        // These are no rivals.
        for config in [Config::Off, Config::Host] {
            let rows = vec![
                row(ours, metric, &[Some(2.0)]),
                row(config, metric, &[Some(1.0)]),
            ];
            let text = summary(&results(rows), &PARTS);
            assert!(text.starts_with("There is no row"), "{text}");
        }
        let rows = vec![
            row(ours, metric, &[Some(2.0), Some(3.0)]),
            row(Config::Upstream250, metric, &[Some(1.0), Some(2.5)]),
        ];
        let text = summary(&results(rows), &PARTS);
        let sentence = "- burst, a case: returned_95_s is 2.50 s, but 1.75 s with upstream-250 \
                        (the rounds overlap)";
        assert!(text.contains(sentence), "{text}");
    }

    #[test]
    fn more_is_better_for_some() {
        let metric = "discard_2_mib_gib_s";
        let rows = vec![
            row(Config::PageHinting, metric, &[Some(1.0)]),
            row(Config::Upstream0, metric, &[Some(2.0)]),
        ];
        assert!(summary(&results(rows), &PARTS).contains("loses to an upstream"));
    }

    #[test]
    fn what_was_not_measured_is_told() {
        let of = Of {
            part: "burst",
            case: "4 GiB",
            config: Config::PageHinting,
            metric: "returned_95_s",
            unit: "s",
        };
        let rival = Row {
            case: "4 GiB".into(),
            ..row(Config::Upstream0, "returned_95_s", &[Some(1.0)])
        };
        let mut results = results(vec![Row::failed(of, "no\nmemory"), rival]);
        let record = Record {
            failed: Some("QEMU is gone".into()),
            ..Record::default()
        };
        results.replace("churn", Vec::new(), record);
        let text = summary(&results, &PARTS);
        assert!(text.contains("is not measured, but 1.00 s"), "{text}");
        assert!(text.contains("returned_95_s: no memory"), "{text}");
        assert!(text.contains("churn ended early: QEMU is gone"), "{text}");
    }

    #[test]
    fn a_recorded_run_makes_a_report() {
        let results = recorded();
        for row in &results.rows {
            let part = PARTS.iter().find(|part| part.name == row.part).unwrap();
            assert!(metric(part, &row.metric).is_some(), "{row:?}");
            assert!(row.is_failed() || row.samples.len() == row.n || row.n > 32);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = write(&results, &PARTS, dir.path()).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let judged = text.find("Where page_hinting loses").unwrap();
        assert!(judged < text.find("burst: ").unwrap());
        for (name, record) in &results.parts {
            assert!(text.contains(&format!("\n{name}: ")), "{name}");
            assert!(text.contains(&record.date));
        }
        assert!(text.contains("TCG: emulated CPUs"));
        // Each picture that is named is there.
        let named: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(".. figure:: "))
            .collect();
        assert!(named.contains(&"burst-95.png"), "{named:?}");
        for file in named {
            assert!(dir.path().join(file).is_file(), "{file}");
        }
    }

    #[test]
    fn tables_are_those_of_restructuredtext() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let text = table(&words("metric off"), &[words("a 1"), words("longer 22")]);
        let expected =
            "======  ===\nmetric  off\n======  ===\na       1\nlonger  22\n======  ===\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.0, 0.00062, 0.0123, 1.234, 45.67, 1234.5].map(number);
        assert_eq!(numbers, ["0", "6.2e-4", "0.012", "1.23", "45.7", "1234"]);
    }
}
