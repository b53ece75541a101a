// SPDX-License-Identifier: GPL-2.0

//! What a guest pays that frees and allocates the same memory in a loop.
//!
//! A boot serves one configuration and the cases of two gaps; the configurations are
//! booted by turns, in an order that alternates from the one pair of gaps to the other.

use super::chart::{Axis, Bars, draw_bars};
use super::config::{Config, in_turn};
use super::guest::{self, Boot, Subject};
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row, percentile};
use super::{Better, Ctx, Metric, Part};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

pub static PART: Part = Part {
    name: "churn",
    title: "what a guest pays that frees and allocates in a loop",
    about: "\
A guest of 2 GiB with two CPUs maps, touches and unmaps memory (huge pages) in a
loop, with an idle gap after each cycle, in one task or in two at a time: 60 s for
512 MiB in one task, 8 s for the others.  Before that the guest has touched and
freed more than it will need, in the configuration that is measured, and rested for
8 s, so that what could be hinted was hinted long ago.  Each configuration has a
boot for the gaps of 0 and 200 ms, and one for those of 20 and 1000 ms; the order of
the configurations in the second is the reverse of that in the first.  What hints memory that is soon needed again shows in the time
of a cycle, in page faults of the QEMU process, and in CPU time of guest and host.",
    metrics: &[
        Metric {
            name: CYCLE,
            what: "time of a cycle, map to unmap, without the gap: the mean of all; the \
                   least and the most are the means of consecutive windows of 10 s (of \
                   4 s in the cases of 8 s), and n is their number",
            better: Better::Less,
        },
        Metric {
            name: "cycle_p99_ms",
            what: "99 % of the cycles took no longer",
            better: Better::Less,
        },
        Metric {
            name: "cycle_se_ms",
            what: "standard error of the mean of all cycles",
            better: Better::Neither,
        },
        Metric {
            name: "host_faults",
            what: "page faults of the QEMU process on the host, a cycle",
            better: Better::Less,
        },
        Metric {
            name: "guest_cpu_ms",
            what: "CPU time of all of the guest, in its own accounting, a cycle",
            better: Better::Less,
        },
        Metric {
            name: "qemu_cpu_ms",
            what: "CPU time of the QEMU process, a cycle; under TCG the guest's own work is \
                   in it",
            better: Better::Less,
        },
        Metric {
            name: "qemu_system_ms",
            what: "of that, the share in the host's kernel, a cycle: faults and discards",
            better: Better::Less,
        },
    ],
    estimate: Duration::from_secs(37 * 60 - 30),
    quick_estimate: Duration::from_secs(180),
    run,
    draw,
};

/// Mean time of a cycle; the frontier is drawn with it.
pub const CYCLE: &str = "cycle_ms";
/// Memory of the guest in MiB.
const MEM_MIB: u64 = 2048;
/// What is touched and freed before the first case, in MiB: all that the cases use.
const BEFORE_MIB: u64 = 1100;
/// How long a guest is let be before it is measured.
const SETTLE: Duration = Duration::from_secs(8);

/// A way to churn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    mib: u32,
    tasks: u32,
    gap_ms: u32,
    seconds: u32,
    /// Of which windows the means are told.
    window_s: u32,
}

impl Case {
    fn name(&self) -> String {
        name(self.mib, self.tasks, self.gap_ms)
    }

    fn command(&self) -> String {
        format!(
            "/selftests/churn -t {} {} {} {}",
            self.mib, self.tasks, self.gap_ms, self.seconds
        )
    }
}

/// What a case is called.
fn name(mib: u32, tasks: u32, gap_ms: u32) -> String {
    let tasks = match tasks {
        1 => "1 task".to_owned(),
        n => format!("{n} tasks"),
    };
    format!("{mib} MiB, {tasks}, gap {gap_ms} ms")
}

const GAPS_MS: [u32; 4] = [0, 20, 200, 1000];

/// The names of the cases that are measured for a minute.
pub fn long_cases() -> Vec<String> {
    GAPS_MS.iter().map(|gap_ms| name(512, 1, *gap_ms)).collect()
}

/// The cases of each boot.
fn boots(quick: bool) -> Vec<Vec<Case>> {
    let case = |mib, tasks, gap_ms, seconds, window_s| Case {
        mib,
        tasks,
        gap_ms,
        seconds,
        window_s,
    };
    if quick {
        return vec![vec![case(512, 1, 0, 5, 3), case(512, 1, 200, 5, 3)]];
    }
    let of_gap = |gap_ms| {
        [
            case(512, 1, gap_ms, 60, 10),
            case(512, 2, gap_ms, 8, 4),
            case(64, 1, gap_ms, 8, 4),
            case(64, 2, gap_ms, 8, 4),
        ]
    };
    let [a, b, c, d] = GAPS_MS;
    let boot = |gaps: [u32; 2]| gaps.into_iter().flat_map(of_gap).collect();
    vec![boot([a, c]), boot([b, d])]
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let initramfs = guest::initramfs(ctx, &["churn", "memhog"])?;
    let boots = boots(ctx.quick);
    let cases: usize = boots.iter().map(Vec::len).sum();
    ctx.progress.steps(cases * Config::PATCHED.len());
    for (i, cases) in boots.iter().enumerate() {
        for config in in_turn(&Config::PATCHED, i as u32) {
            let mut left = cases.iter();
            let outcome = boot(
                ctx,
                &format!("churn-{i}-{config}"),
                &initramfs,
                config,
                |subject| {
                    while let Some(case) = left.as_slice().first() {
                        ctx.progress.step(&format!("{config}, {}", case.name()));
                        measured.rows.extend(measure(ctx, subject, config, case)?);
                        left.next();
                    }
                    Ok(())
                },
            );
            let names: Vec<_> = left.map(Case::name).collect();
            measured.unless_failed(outcome, &names, |case| row(case, config, CYCLE, "ms"))?;
        }
    }
    Ok(())
}

/// A guest that is ready to be measured.
fn boot(
    ctx: &Ctx<'_>,
    log: &str,
    initramfs: &[u8],
    config: Config,
    work: impl FnOnce(&mut Subject) -> Result<()>,
) -> Result<()> {
    let mut subject = Subject::boot(ctx, &Boot::plain(log, initramfs, MEM_MIB))?;
    subject.with(|subject| {
        subject.enter(config)?;
        subject.call(&format!("/selftests/memhog -t {BEFORE_MIB} < /dev/null"))?;
        subject.rest(SETTLE)?;
        work(subject)
    })?;
    subject.guest.quit()
}

fn row<'a>(case: &'a str, config: Config, metric: &'a str, unit: &'a str) -> Of<'a> {
    Of {
        part: PART.name,
        case,
        config,
        metric,
        unit,
    }
}

fn measure(ctx: &Ctx<'_>, subject: &mut Subject, config: Config, case: &Case) -> Result<Vec<Row>> {
    let busy = subject.busy()?;
    let host = subject.host()?;
    let output = subject.call(&case.command())?;
    let host = subject.host()?.since(&host);
    let busy = subject.busy()? - busy;

    let file = format!(
        "log/churn-{}-{}-{}-{config}.cycles",
        case.mib, case.tasks, case.gap_ms
    );
    let file = ctx.args.out.join(file);
    fs::write(&file, output.join("\n") + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    let cycles = parse(&output)?;
    let name = case.name();
    let count = cycles.len() as f64;
    let times = Times::of(&cycles, f64::from(case.window_s))?;
    let mut mean = Row::of_values(row(&name, config, CYCLE, "ms"), &times.windows);
    mean.median = Some(times.mean);
    let one = |metric, unit, value: f64| Row::of_values(row(&name, config, metric, unit), &[value]);
    Ok(vec![
        mean,
        one("cycle_p99_ms", "ms", times.p99),
        one("cycle_se_ms", "ms", times.standard_error),
        one("host_faults", "", host.faults as f64 / count),
        one("guest_cpu_ms", "ms", busy.as_secs_f64() * 1e3 / count),
        one("qemu_cpu_ms", "ms", host.cpu_s() * 1e3 / count),
        one("qemu_system_ms", "ms", host.system_s * 1e3 / count),
    ])
}

/// When each began in seconds, and how long it took in ms.
pub fn parse(output: &[String]) -> Result<Vec<(f64, f64)>> {
    output
        .iter()
        .map(|line| {
            let (start, took) = line.split_once(' ')?;
            let [start, took] = [start, took].map(|word| word.parse::<u32>().ok());
            Some((f64::from(start?) / 1e6, f64::from(took?) / 1e3))
        })
        .collect::<Option<Vec<_>>>()
        .filter(|cycles| !cycles.is_empty())
        .with_context(|| format!("churn says: {}", output.join("\n")))
}

/// What comes of the cycles, in ms.
#[derive(Debug, PartialEq)]
struct Times {
    mean: f64,
    p99: f64,
    standard_error: f64,
    /// The means of the cycles that began within each window.
    windows: Vec<f64>,
}

impl Times {
    fn of(cycles: &[(f64, f64)], window_s: f64) -> Result<Self> {
        let mut times: Vec<f64> = cycles.iter().map(|cycle| cycle.1).collect();
        let mean = mean(&times).context("there are no cycles")?;
        let n = times.len() as f64;
        let squares: f64 = times.iter().map(|time| (time - mean).powi(2)).sum();
        let end = cycles.iter().map(|cycle| cycle.0).fold(0.0, f64::max);
        let windows = (0..=(end / window_s) as usize).filter_map(|i| {
            let in_window = cycles
                .iter()
                .filter(|cycle| (cycle.0 / window_s) as usize == i);
            self::mean(&in_window.map(|cycle| cycle.1).collect::<Vec<_>>())
        });
        let windows = windows.collect();
        times.sort_by(f64::total_cmp);
        Ok(Times {
            mean,
            p99: percentile(&times, 0.99).context("there are no cycles")?,
            standard_error: (squares / (n - 1.0).max(1.0) / n).sqrt(),
            windows,
        })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn draw(results: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for (metric, label, file) in [
        (CYCLE, "mean time of a cycle (ms)", "churn-cycle.png"),
        (
            "host_faults",
            "page faults of QEMU on the host, a cycle",
            "churn-faults.png",
        ),
    ] {
        let title = format!("churn: 512 MiB, one task: {label}");
        let groups = Bars::groups_of(results, PART.name, metric, &long_cases());
        if groups.is_empty() {
            continue;
        }
        draw_bars(
            &dir.join(file),
            &Bars {
                title: title.clone(),
                caption: record.machine.caption(),
                y: Axis {
                    label: label.to_owned(),
                    is_log: false,
                },
                groups,
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
    fn cases_are_those_that_were_asked_for() {
        let boots = boots(false);
        let all: Vec<_> = boots.iter().flatten().collect();
        assert_eq!(all.len(), 16);
        for case in all {
            let long = (case.mib, case.tasks) == (512, 1);
            assert_eq!(case.seconds, if long { 60 } else { 8 });
        }
        assert_eq!(long_cases()[1], "512 MiB, 1 task, gap 20 ms");
    }

    #[test]
    fn cycles_are_read() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let cycles = parse(&lines("0 1500\n2000000 500")).unwrap();
        assert_eq!(cycles, [(0.0, 1.5), (2.0, 0.5)]);
        assert!(parse(&lines("churn: mmap: no")).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn a_slow_cycle_is_not_hidden() {
        let mut cycles: Vec<_> = (0..60).map(|i| (f64::from(i), 10.0)).collect();
        cycles[30].1 = 1000.0;
        let times = Times::of(&cycles, 10.0).unwrap();
        assert_eq!(times.windows, [10.0, 10.0, 10.0, 109.0, 10.0, 10.0]);
        assert_eq!((times.mean, times.p99), (26.5, 1000.0));
        assert!((times.standard_error - 16.5).abs() < 1e-9, "{times:?}");
    }
}
