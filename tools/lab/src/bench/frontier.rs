// SPDX-License-Identifier: GPL-2.0

//! How fast freed memory is back, against what that costs who needs it again: one
//! picture of what burst and churn have measured.

use super::burst::{self, Pages};
use super::chart::{Axis, Chart, Curve, draw};
use super::churn;
use super::config::Config;
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::Duration;

pub static PART: Part = Part {
    name: "frontier",
    title: "how fast against how dear",
    about: "\
What is quick at giving memory back may hint memory that is needed again at once.
The picture has a configuration's time until 95 % of a burst is back (part burst) to
the right, and what it adds to the time of a cycle (part churn: 512 MiB, one task) over
``off`` upwards: the mean over the gaps as a dot, and from the least to the most of
them as a line.  Where 95 % were not back while it was watched the dot is at the end of
that time, and the legend says so.  Better is further down and further left.  ``off`` never gives
anything back, and costs nothing.  It is drawn from the last run of these parts.",
    metrics: &[
        Metric {
            name: BACK,
            what: "median time until 95 % of the burst is back",
            better: Better::Less,
        },
        Metric {
            name: COST,
            what: "time that is added to a cycle, in percent of its time when nothing is \
                   hinted; the median, the least and the most of the gaps",
            better: Better::Less,
        },
    ],
    estimate: Duration::from_secs(1),
    quick_estimate: Duration::from_secs(1),
    run,
    draw: picture,
};

const BACK: &str = "burst_95_s";
const COST: &str = "churn_cost_percent";
const CASE: &str = "1 GiB, THP; 512 MiB, 1 task";

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    ctx.progress.steps(1);
    ctx.progress.step("from burst and churn");
    measured.rows = rows(ctx.recorded)?;
    Ok(())
}

fn rows(recorded: &Results) -> Result<Vec<Row>> {
    let burst = burst::case_name(1024, Pages::Huge);
    let cases = churn::long_cases();
    let cycle = |case: &str, config| {
        let row = recorded.row(churn::PART.name, case, config, churn::CYCLE);
        row.and_then(|row| row.median)
    };
    let mut rows = Vec::new();
    for config in Config::PATCHED {
        let of = |metric, unit| Of {
            part: PART.name,
            case: CASE,
            config,
            metric,
            unit,
        };
        let costs: Vec<f64> = cases
            .iter()
            .filter_map(|case| {
                let off = cycle(case, Config::Off)?;
                Some((cycle(case, config)? / off - 1.0) * 100.0)
            })
            .collect();
        if config != Config::Off && !costs.is_empty() {
            rows.push(Row::of_values(of(COST, "%"), &costs));
        }
        let row = recorded.row(burst::PART.name, &burst, config, burst::RETURNED_95);
        if let Some(row) = row.filter(|row| !row.is_failed() && config != Config::Off) {
            rows.push(Row {
                case: CASE.to_owned(),
                part: PART.name.to_owned(),
                metric: BACK.to_owned(),
                ..row.clone()
            });
        }
    }
    let has = |metric: &str| rows.iter().any(|row| row.metric == metric);
    ensure!(
        has(BACK) && has(COST),
        "there are no figures of burst and churn yet, which it is made of: \
         run WHAT=burst,churn,frontier"
    );
    Ok(rows)
}

fn picture(results: &Results, _: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let curves: Vec<_> = Config::PATCHED
        .iter()
        .filter_map(|config| {
            let back = results.row(PART.name, CASE, *config, BACK)?;
            let cost = results.row(PART.name, CASE, *config, COST)?;
            let mean = cost.samples.iter().flatten().sum::<f64>() / cost.n as f64;
            // What was not back while it was watched was not for so long at least.
            let watched = burst::window(*config).as_secs_f64();
            let x = back.median.unwrap_or(watched);
            let mut curve = Curve::dots(*config, vec![(x, mean)]);
            if back.median.is_none() {
                curve.label = format!("{config}: not in {watched:.0} s");
            }
            curve.whiskers = vec![[(x, cost.min?), (x, cost.max?)]];
            Some(curve)
        })
        .collect();
    if curves.is_empty() {
        return Ok(Vec::new());
    }
    let title = "how fast memory is back, against what it costs who needs it again";
    draw(
        &dir.join("frontier.png"),
        &Chart {
            title: title.to_owned(),
            caption: measured_on(results),
            x: Axis {
                label: "seconds until 95 % of 1 GiB is back on the host (0.002 is at once)".into(),
                is_log: true,
            },
            y: Axis {
                label: "added to a cycle of 512 MiB (%): mean, least and most of the gaps".into(),
                is_log: false,
            },
            curves,
        },
    )?;
    Ok(vec![Picture {
        file: "frontier.png".to_owned(),
        caption: title.to_owned(),
    }])
}

/// What churn ran on.
fn measured_on(results: &Results) -> String {
    let record = results.parts.get(churn::PART.name);
    record.map_or(String::new(), |record| record.machine.caption())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Results {
        let mut results = Results::default();
        let row = |part, case: &str, config, metric, value| {
            let of = Of {
                part,
                case,
                config,
                metric,
                unit: "ms",
            };
            Row::of_values(of, &[value])
        };
        let burst = burst::case_name(1024, Pages::Huge);
        let ours = Config::PageHinting;
        results.rows = vec![
            row("burst", &burst, ours, burst::RETURNED_95, 0.02),
            row("burst", &burst, Config::Off, burst::RETURNED_95, 0.02),
        ];
        for (case, value) in churn::long_cases().iter().zip([700.0, 710.0, 720.0, 700.0]) {
            let off = row("churn", case, Config::Off, churn::CYCLE, 700.0);
            let row = row("churn", case, ours, churn::CYCLE, value);
            results.rows.extend([off, row]);
        }
        results
    }

    #[test]
    fn the_cost_is_over_off() {
        let mut results = recorded();
        results.rows.extend(rows(&results).unwrap());
        let of = |config, metric| results.row("frontier", CASE, config, metric);
        let cost = of(Config::PageHinting, COST).unwrap();
        assert!((cost.max.unwrap() - 20.0 / 7.0).abs() < 1e-9, "{cost:?}");
        assert_eq!((cost.min, cost.n), (Some(0.0), 4));
        let back = of(Config::PageHinting, BACK).unwrap();
        assert_eq!(back.median, Some(0.02));
        assert_eq!(of(Config::Off, BACK), None);
        // One that was not back is drawn as well.
        let ours = results
            .rows
            .iter_mut()
            .find(|row| (row.config, &*row.metric) == (Config::PageHinting, BACK));
        ours.unwrap().median = None;
        let dir = tempfile::tempdir().unwrap();
        let pictures = picture(&results, &Record::default(), dir.path()).unwrap();
        assert_eq!(pictures.len(), 1);
    }

    #[test]
    fn without_burst_and_churn_there_is_none() {
        let error = rows(&Results::default()).unwrap_err();
        assert!(error.to_string().contains("WHAT=burst,churn,frontier"));
    }
}
