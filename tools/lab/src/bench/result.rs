// SPDX-License-Identifier: GPL-2.0

//! result.json: all that was measured, part by part.

use super::config::Config;
use super::row::{Of, Row};
use crate::interrupt::Interrupted;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The file. A part that runs again replaces what it had said.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub rows: Vec<Row>,
    pub parts: BTreeMap<String, Record>,
}

/// A run of a part.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it began.
    pub date: String,
    pub took_s: f64,
    pub quick: bool,
    pub machine: Machine,
    /// Why it ended early, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Sentences for the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
}

/// What it ran on.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub lab: String,
    pub git: Option<String>,
    pub host_kernel: Option<String>,
    pub host_cpus: usize,
    pub host_memory_mib: u64,
    /// "kvm" or "tcg", and why.
    pub accel: String,
    pub accel_reason: String,
    pub qemu: String,
    pub guest_kernel: String,
}

impl Machine {
    /// For the captions of pictures.
    pub fn caption(&self) -> String {
        let accel = match self.accel.as_str() {
            "tcg" => "TCG: emulated CPUs",
            _ => "KVM",
        };
        format!(
            "Linux {}, QEMU {}, {accel}; host with {} CPUs",
            self.guest_kernel, self.qemu, self.host_cpus
        )
    }
}

/// A course over time, or whatever its x is, for a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub case: String,
    pub config: Config,
    pub metric: String,
    pub x_unit: String,
    pub unit: String,
    pub points: Vec<(f64, f64)>,
}

/// What a part has measured so far.
#[derive(Debug, Default)]
pub struct Measured {
    pub rows: Vec<Row>,
    pub series: Vec<Series>,
    pub notes: Vec<String>,
}

impl Measured {
    /// What could not be measured, by this error, is told in a row for each case, and the
    /// part goes on; but not when the user has interrupted.
    pub fn unless_failed<'a, S: AsRef<str>>(
        &mut self,
        outcome: Result<()>,
        cases: &'a [S],
        row: impl Fn(&'a str) -> Of<'a>,
    ) -> Result<()> {
        let Err(error) = outcome else {
            return Ok(());
        };
        if error.is::<Interrupted>() {
            return Err(error);
        }
        // The end of a guest's log follows, which is kept.
        let why = format!("{error:#}");
        let why: Vec<_> = why.lines().take(3).map(str::trim).collect();
        let why = why.join(" ");
        for case in cases {
            self.rows.push(Row::failed(row(case.as_ref()), &why));
        }
        Ok(())
    }
}

impl Results {
    /// What is there; nothing if there is no file yet.
    pub fn read(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| {
                format!("{} is not a result of lab bench: remove it", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// From its text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// Replaces the file as a whole, so that a run which is ended leaves a good one.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let new = path.with_extension("json.new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts a part's new rows in the place of its old ones. A round that failed beside
    /// others that did not becomes a note of theirs.
    pub fn replace(&mut self, part: &str, rows: Vec<Row>, record: Record) {
        self.rows.retain(|row| row.part != part);
        let (failed, mut rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(Row::is_failed);
        for failed in failed {
            let twin = rows.iter_mut().find(|row| {
                (&row.case, row.config, &row.metric)
                    == (&failed.case, failed.config, &failed.metric)
            });
            match (twin, failed.note) {
                (Some(twin), Some(why)) if !twin.is_failed() => {
                    let note = twin.note.take().map_or(String::new(), |note| note + "; ");
                    twin.note = Some(format!("{note}a round failed: {why}"));
                }
                (Some(_), _) => (),
                (None, note) => rows.push(Row { note, ..failed }),
            }
        }
        self.rows.extend(rows);
        self.parts.insert(part.to_owned(), record);
    }

    /// The rows of a part.
    pub fn of_part(&self, part: &str) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.part == part)
    }

    /// A row.
    pub fn row(&self, part: &str, case: &str, config: Config, metric: &str) -> Option<&Row> {
        self.of_part(part)
            .find(|row| row.case == case && row.config == config && row.metric == metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(part: &str, value: f64) -> Row {
        let of = Of {
            part,
            case: "c",
            config: Config::PageHinting,
            metric: "m",
            unit: "s",
        };
        Row::of_values(of, &[value])
    }

    #[test]
    fn a_part_replaces_its_own_rows_alone() {
        let mut results = Results::default();
        results.replace("a", vec![row("a", 1.0), row("a", 2.0)], Record::default());
        results.replace("b", vec![row("b", 3.0)], Record::default());
        let again = Record {
            date: "later".into(),
            ..Record::default()
        };
        results.replace("a", vec![row("a", 4.0)], again);
        assert_eq!(results.rows, [row("b", 3.0), row("a", 4.0)]);
        assert_eq!(results.parts["a"].date, "later");
        assert_eq!(results.of_part("b").count(), 1);
    }

    #[test]
    fn a_round_that_failed_does_not_hide_the_others() {
        let good = row("a", 1.0);
        let of = Of {
            part: "a",
            case: "c",
            config: Config::PageHinting,
            metric: "m",
            unit: "s",
        };
        let other = Of { case: "d", ..of };
        let rows = vec![
            Row::failed(of, "gone"),
            good.clone(),
            Row::failed(other, "gone"),
        ];
        let mut results = Results::default();
        results.replace("a", rows, Record::default());
        let note = "a round failed: gone";
        let expected = [good.with_note(note), Row::failed(other, "gone")];
        assert_eq!(results.rows, expected);
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        assert_eq!(Results::read(&path).unwrap(), Results::default());
        let mut results = Results::default();
        results.replace("a", vec![row("a", 1.5)], Record::default());
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);
        fs::write(&path, "{}").unwrap();
        let error = Results::read(&path).unwrap_err();
        assert!(error.to_string().contains("not a result"), "{error:#}");
    }
}
