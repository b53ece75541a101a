// SPDX-License-Identifier: GPL-2.0

//! What hinting smaller blocks gives back, and what it costs.

use super::chart::{Axis, Chart, Curve, draw};
use super::config::Config;
use super::footprint::{self, Plan, Setting};
use super::guest::initramfs;
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use anyhow::Result;
use plotters::style::RGBColor;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub static PART: Part = Part {
    name: "orders",
    title: "what hinting smaller blocks gives back, and what it costs",
    about: "\
The guest of part footprint, which unpacks, builds, cleans up and drops its caches, with
the module at each ``min_order`` and its defaults otherwise.  ``off``: with a balloon
that nobody hints by.  ``no THP`` is a host that backs the guest's memory with pages
of 4 KiB; the module is told so there (``host_granule_kb`` is 4).  It is flushed before
the begin.  Not part of ``all``.",
    metrics: &[
        Metric {
            name: INTEGRAL,
            what: "resident memory of the guest, summed up over the time from the begin to \
                   the end",
            better: Better::Less,
        },
        Metric {
            name: "end_free_mib",
            what: "of what stays resident at the end, what is free in the guest",
            better: Better::Less,
        },
        Metric {
            name: "build_s",
            what: "how long make took",
            better: Better::Less,
        },
        Metric {
            name: HINTER,
            what: "CPU time of the module's thread and of the kworkers, from the begin to the end",
            better: Better::Less,
        },
        Metric {
            name: "host_system_s",
            what: "CPU time of the QEMU process in the host's kernel: faults and discards",
            better: Better::Less,
        },
        Metric {
            name: "host_faults",
            what: "page faults of the QEMU process",
            better: Better::Less,
        },
        Metric {
            name: "requests",
            what: "requests to the host",
            better: Better::Less,
        },
        Metric {
            name: "hinted_mib",
            what: "what was hinted",
            better: Better::Neither,
        },
        Metric {
            name: "reused_mib",
            what: "hinted memory that was allocated again",
            better: Better::Less,
        },
    ],
    estimate: Duration::from_secs(28 * 60),
    quick_estimate: Duration::from_secs(4 * 60),
    run,
    draw: pictures,
};

const INTEGRAL: &str = "integral_gib_min";
const HINTER: &str = "hinter_ms";
/// The orders that are tried, and what is off.
const ORDERS: [Option<u32>; 9] = [
    None,
    Some(10),
    Some(9),
    Some(8),
    Some(7),
    Some(6),
    Some(4),
    Some(2),
    Some(0),
];

fn case_name(order: Option<u32>, thp: bool) -> String {
    let host = if thp { "THP" } else { "no THP" };
    match order {
        Some(order) => format!("min_order {order}, {host}"),
        None => format!("off, {host}"),
    }
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let rounds = ctx.choose(2, 1);
    let hosts: &[bool] = ctx.choose(&[true, false], &[true]);
    let plan = Plan::new(ctx.quick, true);
    let mut cases: Vec<_> = hosts
        .iter()
        .flat_map(|thp| ORDERS.map(|order| (order, *thp)))
        .collect();
    let initramfs = initramfs(ctx, &[])?;
    let mut seen: BTreeMap<String, Vec<(&str, &str, f64)>> = BTreeMap::new();
    ctx.progress.steps(rounds * cases.len());
    let outcome = (0..rounds).try_for_each(|round| {
        for (order, thp) in &cases {
            let name = case_name(*order, *thp);
            ctx.progress
                .step(&format!("{name}, round {} of {rounds}", round + 1));
            let setting = Setting {
                config: order.map_or(Config::Off, |_| Config::PageHinting),
                order: order.unwrap_or(9),
                thp: *thp,
                granule_kb: (!thp).then_some(4),
            };
            let log = format!("orders-{}-{round}", name.replace([',', ' '], "-"));
            let one = footprint::boot_one(ctx, &plan, setting, &log, &initramfs)?;
            let figures = seen.entry(name).or_default();
            figures.extend([
                (INTEGRAL, "GiB·min", one.integral_gib_min),
                ("end_free_mib", "MiB", one.end_free_mib),
                ("build_s", "s", one.build_s),
                (HINTER, "ms", one.hinters_s * 1e3),
                ("host_system_s", "s", one.host_system_s),
                ("host_faults", "", one.host_faults),
            ]);
            if order.is_some() {
                figures.extend([
                    ("requests", "", one.requests),
                    ("hinted_mib", "MiB", one.hinted_mib),
                    ("reused_mib", "MiB", one.reused_mib),
                ]);
            }
        }
        cases.reverse();
        Ok(())
    });
    for (order, thp) in hosts
        .iter()
        .flat_map(|thp| ORDERS.map(|order| (order, *thp)))
    {
        let case = case_name(order, thp);
        let config = order.map_or(Config::Off, |_| Config::PageHinting);
        let figures = seen.remove(&case).unwrap_or_default();
        for metric in PART.metrics {
            let mut of_metric = figures.iter().filter(|figure| figure.0 == metric.name);
            let values: Vec<f64> = of_metric.clone().map(|figure| figure.2).collect();
            let of = Of {
                part: PART.name,
                case: &case,
                config,
                metric: metric.name,
                unit: of_metric.next().map_or("", |figure| figure.1),
            };
            if !values.is_empty() {
                measured.rows.push(Row::of_values(of, &values));
            } else if metric.name == INTEGRAL {
                measured.rows.push(Row::failed(of, "no round came to it"));
            }
        }
    }
    outcome
}

fn pictures(results: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for (metric, label, file) in [
        (
            INTEGRAL,
            "resident memory over time (GiB·min)",
            "orders-integral.png",
        ),
        (HINTER, "CPU time of who hints (ms)", "orders-hinter.png"),
    ] {
        let curves: Vec<_> = [
            (true, RGBColor(0x1f, 0x5f, 0xa8)),
            (false, RGBColor(0xc4, 0x4e, 0x1c)),
        ]
        .into_iter()
        .filter_map(|(thp, color)| {
            let rows = ORDERS.iter().flatten().filter_map(|order| {
                let case = case_name(Some(*order), thp);
                let row = results.row(PART.name, &case, Config::PageHinting, metric)?;
                Some((f64::from(*order), row.median?, row.min?, row.max?))
            });
            let rows: Vec<_> = rows.collect();
            (!rows.is_empty()).then(|| Curve {
                label: if thp { "host with THP" } else { "no THP" }.to_owned(),
                color,
                points: rows.iter().map(|row| (row.0, row.1)).collect(),
                is_line: true,
                has_dots: true,
                whiskers: rows
                    .iter()
                    .map(|row| [(row.0, row.2), (row.0, row.3)])
                    .collect(),
            })
        })
        .collect();
        if curves.is_empty() {
            continue;
        }
        let title = format!("a guest that builds: {label}");
        draw(
            &dir.join(file),
            &Chart {
                title: title.clone(),
                caption: record.machine.caption(),
                x: Axis {
                    label: "min_order: the smallest blocks that are hinted".to_owned(),
                    is_log: false,
                },
                y: Axis {
                    label: label.to_owned(),
                    is_log: false,
                },
                curves,
            },
        )?;
        pictures.push(Picture {
            file: file.to_owned(),
            caption: title,
        });
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_curve() {
        let mut results = Results::default();
        for (i, order) in ORDERS.iter().flatten().enumerate() {
            for thp in [true, false] {
                let case = case_name(Some(*order), thp);
                for metric in [INTEGRAL, HINTER] {
                    let of = Of {
                        part: PART.name,
                        case: &case,
                        config: Config::PageHinting,
                        metric,
                        unit: "",
                    };
                    results.rows.push(Row::of_values(of, &[i as f64, 2.0]));
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let drawn = pictures(&results, &Record::default(), dir.path()).unwrap();
        assert_eq!(drawn.len(), 2);
        assert!(
            drawn
                .iter()
                .all(|picture| dir.path().join(&picture.file).exists())
        );
        let none = pictures(&Results::default(), &Record::default(), dir.path()).unwrap();
        assert!(none.is_empty());
    }
}
