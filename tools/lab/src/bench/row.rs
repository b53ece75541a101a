// SPDX-License-Identifier: GPL-2.0

//! What was measured, a figure a row.

use super::config::Config;
use serde::{Deserialize, Serialize};

/// Most samples that are kept beside their median.
const MOST_SAMPLES: usize = 32;

/// A metric of a case in a configuration, over `n` rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub part: String,
    pub case: String,
    pub config: Config,
    pub metric: String,
    pub unit: String,
    /// None if at least half of the rounds did not get there, or none was measured.
    pub median: Option<f64>,
    pub min: Option<f64>,
    /// None as well if one of the rounds did not get there.
    pub max: Option<f64>,
    /// How many rounds there are; 0 if it could not be measured.
    pub n: usize,
    /// The rounds in their order, if they are few: null is one that did not get there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Option<f64>>,
    /// Why a figure is missing, or what is to be known about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a row is of, without its values.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    pub part: &'a str,
    pub case: &'a str,
    pub config: Config,
    pub metric: &'a str,
    pub unit: &'a str,
}

impl Row {
    /// From the rounds; None is one in which it never came to what is measured, as
    /// memory that was not back within the time that was watched. That is worse than
    /// any number, and so counts as more than any.
    pub fn of(of: Of<'_>, samples: &[Option<f64>]) -> Self {
        let mut sorted: Vec<f64> = samples
            .iter()
            .map(|value| value.unwrap_or(f64::INFINITY))
            .collect();
        sorted.sort_by(f64::total_cmp);
        let finite = |value: f64| value.is_finite().then_some(value);
        Row {
            part: of.part.to_owned(),
            case: of.case.to_owned(),
            config: of.config,
            metric: of.metric.to_owned(),
            unit: of.unit.to_owned(),
            median: median(&sorted).and_then(finite),
            min: sorted.first().copied().and_then(finite),
            max: sorted.last().copied().and_then(finite),
            n: samples.len(),
            samples: match samples.len() {
                ..=MOST_SAMPLES => samples.to_vec(),
                _ => Vec::new(),
            },
            note: None,
        }
    }

    /// From rounds that all have a value.
    pub fn of_values(of: Of<'_>, samples: &[f64]) -> Self {
        let samples: Vec<_> = samples.iter().copied().map(Some).collect();
        Self::of(of, &samples)
    }

    /// One that could not be measured, and why.
    pub fn failed(of: Of<'_>, why: &str) -> Self {
        let mut row = Self::of(of, &[]);
        row.note = Some(why.to_owned());
        row
    }

    /// Adds a note.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Whether nothing was measured, as opposed to what was and did not get there.
    pub fn is_failed(&self) -> bool {
        self.n == 0
    }
}

/// The middle of sorted values, or the mean of the two in the middle.
pub fn median(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(sorted[n / 2]),
        _ => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

/// The value below which a share of sorted values lies.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = (share * sorted.len() as f64).ceil() as usize;
    Some(sorted[rank.saturating_sub(1).min(last)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of<'_> = Of {
        part: "burst",
        case: "1 GiB",
        config: Config::Off,
        metric: "returned_95_s",
        unit: "s",
    };

    #[test]
    fn medians() {
        let row = Row::of_values(OF, &[3.0, 1.0, 2.0]);
        assert_eq!(
            (row.min, row.median, row.max, row.n),
            (Some(1.0), Some(2.0), Some(3.0), 3)
        );
        assert_eq!(Row::of_values(OF, &[4.0, 1.0]).median, Some(2.5));
    }

    #[test]
    fn what_never_came_counts_as_more_than_any_number() {
        let row = Row::of(OF, &[None, Some(1.0), Some(2.0)]);
        assert_eq!((row.min, row.median, row.max), (Some(1.0), Some(2.0), None));
        let row = Row::of(OF, &[None, Some(1.0)]);
        assert_eq!((row.min, row.median, row.max), (Some(1.0), None, None));
        let row = Row::of(OF, &[None]);
        assert_eq!((row.min, row.median, row.n), (None, None, 1));
        assert!(!row.is_failed());
        assert!(Row::failed(OF, "no memory").is_failed());
    }

    #[test]
    fn percentiles() {
        let values: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), Some(99.0));
        assert_eq!(percentile(&values, 0.5), Some(50.0));
        assert_eq!(percentile(&values[..3], 0.99), Some(3.0));
        assert_eq!(percentile(&[], 0.99), None);
    }
}
