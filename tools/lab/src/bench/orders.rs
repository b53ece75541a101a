// SPDX-License-Identifier: GPL-2.0

//! What hinting smaller blocks gives back, and what it costs.

use super::chart::{Axis, Chart, Curve, draw};
use super::config::Config;
use super::footprint::{self, Plan, Seen, Setting};
use super::guest::initramfs;
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use anyhow::Result;
use plotters::style::RGBColor;
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
    estimate: Duration::from_secs(14 * 60),
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
    let hosts: &[bool] = ctx.choose(&[true, false], &[true]);
    let plan = Plan::new(ctx.quick, true);
    let initramfs = initramfs(ctx, &[])?;
    ctx.progress.steps(hosts.len() * ORDERS.len());
    for thp in hosts {
        for order in ORDERS {
            let case = case_name(order, *thp);
            ctx.progress.step(&case);
            let setting = Setting {
                config: order.map_or(Config::Off, |_| Config::PageHinting),
                order: order.unwrap_or(9),
                thp: *thp,
                granule_kb: (!thp).then_some(4),
            };
            let of = |metric, unit| Of {
                part: PART.name,
                case: &case,
                config: setting.config,
                metric,
                unit,
            };
            let log = format!("orders-{}", case.replace([',', ' '], "-"));
            let outcome = footprint::boot_one(ctx, &plan, setting, &log, &initramfs).map(|seen| {
                let figures = figures(&seen, order.is_some());
                let rows = figures
                    .into_iter()
                    .map(|(metric, unit, value)| Row::of_values(of(metric, unit), &[value]));
                measured.rows.extend(rows);
            });
            let failed = Of {
                case: &case,
                ..of(INTEGRAL, "GiB·min")
            };
            measured.unless_failed(outcome, &[&*case], |_| failed)?;
        }
    }
    Ok(())
}

/// What a run has shown; what the module counts, if it was there.
fn figures(seen: &Seen, hinted: bool) -> Vec<(&'static str, &'static str, f64)> {
    let mut figures = vec![
        (INTEGRAL, "GiB·min", seen.integral_gib_min),
        ("end_free_mib", "MiB", seen.end_free_mib),
        ("build_s", "s", seen.build_s),
        (HINTER, "ms", seen.hinters_s * 1e3),
        ("host_system_s", "s", seen.host_system_s),
        ("host_faults", "", seen.host_faults),
    ];
    if hinted {
        figures.extend([
            ("requests", "", seen.requests),
            ("hinted_mib", "MiB", seen.hinted_mib),
            ("reused_mib", "MiB", seen.reused_mib),
        ]);
    }
    figures
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
