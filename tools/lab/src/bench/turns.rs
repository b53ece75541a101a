// SPDX-License-Identifier: GPL-2.0

//! Part churn's loop, hinted and not hinted by turns while it runs, so that what drifts
//! from one boot to the next, or from one minute to the next, falls on both.

use super::config::{Config, SYSFS};
use super::guest::{Boot, HostCpu, Subject, initramfs};
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row, percentile};
use super::{Better, Ctx, Metric, Part, churn};
use crate::qemu::HostPages;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::Duration;

pub static PART: Part = Part {
    name: "turns",
    title: "what churn pays, hinted and not by turns",
    about: "\
The loop of part churn, 64 and 512 MiB in one task, in a guest of 2 GiB with two CPUs, while
the module hints (knob ``enabled``) and does not by turns of 12 s and 9 s.  The host
has huge pages of its pool (hugetlbfs) for the guest, so that it always has one at the same
price: on a host that is itself a guest a page that it has given back costs many times
as much as another.  A turn's cycles are those from 3 s after its beginning on, in a
turn without hints from 2 s; each turn that hints is compared with those before and after it.
What the beginning costs, when all that was free is hinted and used once more, is told
by itself.  Not part of ``all``.",
    metrics: &[
        Metric {
            name: churn::CYCLE,
            what: "time of a cycle, map to unmap, without the gap: means of the turns",
            better: Better::Less,
        },
        Metric {
            name: "over_percent",
            what: "how much longer a turn's cycles were, on average, than those of the turns \
                   without hints beside it",
            better: Better::Less,
        },
        Metric {
            name: "over_mean_percent",
            what: "mean of that; the least and the most are one standard error from it",
            better: Better::Less,
        },
        Metric {
            name: "fast_over_percent",
            what: "the same of the time that a tenth of the cycles did not take, which what else \
                   the host does moves less",
            better: Better::Less,
        },
        Metric {
            name: "begin_ms",
            what: "what the cycles of the first 3 s of a turn took more, all together",
            better: Better::Less,
        },
        Metric {
            name: "minute_percent",
            what: "what follows for a loop of a minute: begin_ms once and over_mean_percent \
                   for 57 s, of the time of its cycles",
            better: Better::Less,
        },
        Metric {
            name: "host_faults",
            what: "page faults of the QEMU process on the host, a cycle",
            better: Better::Less,
        },
        Metric {
            name: "reused_mib",
            what: "hinted memory that was allocated again, a cycle; of the module",
            better: Better::Less,
        },
    ],
    estimate: Duration::from_secs(16 * 60),
    quick_estimate: Duration::from_secs(3 * 60),
    run,
    draw,
};

const MEM_MIB: u64 = 2048;
/// The loops: MiB, and the gap in ms.
pub const LOOPS: [(u32, u32); 8] = [
    (64, 0),
    (64, 20),
    (64, 200),
    (64, 500),
    (512, 0),
    (512, 20),
    (512, 200),
    (512, 500),
];
pub const QUICK_LOOPS: [(u32, u32); 2] = [(512, 0), (512, 500)];
const HINTED: Times = Times {
    skip_s: 3.0,
    all_s: 12.0,
};
const NOT_HINTED: Times = Times {
    skip_s: 2.0,
    all_s: 9.0,
};

/// How long a turn is, and how long the beginning of it that does not count.
#[derive(Debug, Clone, Copy)]
struct Times {
    skip_s: f64,
    all_s: f64,
}

/// A time in which the loop was hinted, or was not.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Turn {
    hinted: bool,
    /// When it began, its cycles began to count, and it was over, in the loop's seconds.
    began: f64,
    from: f64,
    to: f64,
    /// The host's page faults, and memory that was used again, in MiB, of what counts.
    faults: u64,
    reused_mib: f64,
}

/// A cycle: when it began in seconds, and how long it took in ms.
type Cycle = (f64, f64);

pub fn case_name((mib, gap_ms): (u32, u32)) -> String {
    format!("{mib} MiB, 1 task, gap {gap_ms} ms")
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    check_pool()?;
    let (loops, hinted): (&[(u32, u32)], _) = ctx.choose((&LOOPS, 5), (&QUICK_LOOPS, 2));
    let initramfs = initramfs(ctx, &["churn", "memhog"])?;
    ctx.progress.steps(loops.len());
    let mut left = loops.iter();
    let outcome = Subject::boot(
        ctx,
        &Boot {
            host_pages: HostPages::Pool,
            ..Boot::plain("turns", &initramfs, MEM_MIB)
        },
    )
    .and_then(|mut subject| {
        subject.with(|subject| {
            subject.enter(Config::PageHinting)?;
            // All that the loop will use has been there once.
            subject.call("/selftests/memhog -t 1100 < /dev/null")?;
            while let Some(of) = left.as_slice().first() {
                ctx.progress.step(&case_name(*of));
                let (turns, output) = take_turns(subject, *of, hinted)?;
                let name = format!("log/turns-{}-{}.cycles", of.0, of.1);
                let file = ctx.args.out.join(name);
                let text: String = turns.iter().map(|turn| format!("# {turn:?}\n")).collect();
                fs::write(&file, text + &output.join("\n") + "\n")
                    .with_context(|| format!("cannot write {}", file.display()))?;
                measured
                    .rows
                    .extend(rows(*of, &turns, &churn::parse(&output)?)?);
                left.next();
            }
            Ok(())
        })?;
        subject.guest.quit()
    });
    let names: Vec<_> = left.map(|of| case_name(*of)).collect();
    measured.unless_failed(outcome, &names, |case| {
        of(case, Config::PageHinting, churn::CYCLE, "ms")
    })
}

/// That the host has the pages.
fn check_pool() -> Result<()> {
    const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

    let free = fs::read_to_string(FREE).with_context(|| FREE.to_owned())?;
    let free: u64 = free.trim().parse().context(FREE)?;
    ensure!(
        free * 2 >= MEM_MIB,
        "the host's pool has {free} free huge pages, and the guest takes {}: write that to \
         /proc/sys/vm/nr_hugepages, and 0 when the bench is over",
        MEM_MIB / 2
    );
    Ok(())
}

fn uptime(subject: &mut Subject, command: &str) -> Result<f64> {
    let output = subject.call(&format!(
        "{command} read -r up rest < /proc/uptime; echo $up"
    ))?;
    let up = output.last().and_then(|line| line.parse().ok());
    up.with_context(|| format!("/proc/uptime says: {output:?}"))
}

/// Runs the loop, and has it hinted so many times, and not hinted before, after and between.
fn take_turns(
    subject: &mut Subject,
    (mib, gap_ms): (u32, u32),
    hinted: usize,
) -> Result<(Vec<Turn>, Vec<String>)> {
    let all_s = hinted as f64 * (HINTED.all_s + NOT_HINTED.all_s) + NOT_HINTED.all_s;
    subject.call(&format!("echo 0 > {SYSFS}/enabled"))?;
    // Longer than the turns take with what is asked for meanwhile.
    let seconds = (all_s * 1.02 + 3.0).ceil();
    let began = uptime(
        subject,
        &format!("/selftests/churn -t {mib} 1 {gap_ms} {seconds} > /tmp/churn 2>&1 < /dev/null &"),
    )?;
    let mut turns = Vec::new();
    for i in 0..=2 * hinted {
        turns.push(take_turn(subject, i % 2 == 1, began)?);
    }
    let output =
        subject.call("while pidof churn > /dev/null; do sleep 0.2; done; cat /tmp/churn")?;
    Ok((turns, output))
}

fn take_turn(subject: &mut Subject, hinted: bool, loop_began: f64) -> Result<Turn> {
    let times = if hinted { HINTED } else { NOT_HINTED };
    let enable = format!("echo {} > {SYSFS}/enabled;", u8::from(hinted));
    let began = uptime(subject, &enable)? - loop_began;
    subject.rest(Duration::from_secs_f64(times.skip_s))?;
    let before = seen(subject)?;
    let from = uptime(subject, "")? - loop_began;
    subject.rest(Duration::from_secs_f64(times.all_s - times.skip_s))?;
    let to = uptime(subject, "")? - loop_began;
    let after = seen(subject)?;
    Ok(Turn {
        hinted,
        began,
        from,
        to,
        faults: after.0.since(&before.0).faults,
        reused_mib: (after.1 - before.1) as f64 / 1024.0,
    })
}

/// What the host has used, and how much hinted memory the guest has used again, in KiB.
fn seen(subject: &mut Subject) -> Result<(HostCpu, u64)> {
    let state = subject.guest.port.state(subject.limit)?;
    let reused = state
        .stat("offline_used_kb")
        .context("no stats/offline_used_kb")?;
    Ok((subject.host()?, reused))
}

fn of<'a>(case: &'a str, config: Config, metric: &'a str, unit: &'a str) -> Of<'a> {
    Of {
        part: PART.name,
        case,
        config,
        metric,
        unit,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Times of the cycles that were within a time.
fn within(cycles: &[Cycle], from: f64, to: f64) -> Vec<f64> {
    let inside = cycles
        .iter()
        .filter(|(start, took)| *start >= from && start + took / 1e3 <= to);
    inside.map(|cycle| cycle.1).collect()
}

/// The mean, and a standard error more and less.
fn with_error(of: Of<'_>, values: &[f64]) -> Row {
    let middle = mean(values);
    let n = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    let error = (squares / (n - 1.0).max(1.0) / n).sqrt();
    let mut row = Row::of_values(of, &[middle - error, middle, middle + error]);
    row.n = values.len();
    row.samples = Vec::new();
    row
}

/// What a tenth of them is below.
fn tenth(times: &[f64]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 0.1)
}

fn rows((mib, gap_ms): (u32, u32), turns: &[Turn], cycles: &[Cycle]) -> Result<Vec<Row>> {
    let name = case_name((mib, gap_ms));
    let counted: Vec<_> = turns
        .iter()
        .map(|turn| within(cycles, turn.from, turn.to))
        .collect();
    ensure!(
        counted.iter().all(|times| !times.is_empty()),
        "{name}: a turn has no cycle"
    );
    let means: Vec<f64> = counted.iter().map(|times| mean(times)).collect();
    let fast: Vec<f64> = counted.iter().filter_map(|times| tenth(times)).collect();
    let hinted = || (1..turns.len()).step_by(2);
    let beside = |values: &[f64], i: usize| mean(&[values[i - 1], values[i + 1]]);
    let over = |values: &[f64]| -> Vec<f64> {
        let ratios = hinted().map(|i| values[i] / beside(values, i));
        ratios.map(|ratio| (ratio - 1.0) * 1e2).collect()
    };
    let begin: Vec<f64> = hinted()
        .map(|i| {
            // With the cycle that went on when it began.
            let first = cycles
                .iter()
                .filter(|(start, took)| {
                    start + took / 1e3 >= turns[i].began && *start < turns[i].from
                })
                .map(|cycle| cycle.1 - beside(&means, i));
            first.sum()
        })
        .collect();

    let (over_means, over_fast) = (over(&means), over(&fast));
    let cycle_ms = mean(&hinted().map(|i| beside(&means, i)).collect::<Vec<_>>());
    let minute_ms = 60e3 / (cycle_ms + f64::from(gap_ms)) * cycle_ms;
    let minute = mean(&over_means) * 0.95 + mean(&begin) / minute_ms * 1e2;

    let mut rows = vec![
        Row::of_values(
            of(&name, Config::PageHinting, "over_percent", "%"),
            &over_means,
        ),
        with_error(
            of(&name, Config::PageHinting, "over_mean_percent", "%"),
            &over_means,
        ),
        with_error(
            of(&name, Config::PageHinting, "fast_over_percent", "%"),
            &over_fast,
        ),
        Row::of_values(of(&name, Config::PageHinting, "begin_ms", "ms"), &begin),
        Row::of_values(
            of(&name, Config::PageHinting, "minute_percent", "%"),
            &[minute],
        ),
    ];
    for (config, is_hinted) in [
        (Config::PageHintingIdle, false),
        (Config::PageHinting, true),
    ] {
        let values = |value: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let which = (0..turns.len()).filter(|i| turns[*i].hinted == is_hinted);
            which.map(value).collect()
        };
        let per_cycle = |i: usize, value: f64| value / counted[i].len() as f64;
        rows.push(Row::of_values(
            of(&name, config, churn::CYCLE, "ms"),
            &values(&|i| means[i]),
        ));
        rows.push(Row::of_values(
            of(&name, config, "host_faults", ""),
            &values(&|i| per_cycle(i, turns[i].faults as f64)),
        ));
        if is_hinted {
            rows.push(Row::of_values(
                of(&name, config, "reused_mib", "MiB"),
                &values(&|i| per_cycle(i, turns[i].reused_mib)),
            ));
        }
    }
    Ok(rows)
}

/// The table says it all.
fn draw(_: &Results, _: &Record, _: &Path) -> Result<Vec<Picture>> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(i: u32) -> Turn {
        let began = f64::from(i) * 20.0;
        Turn {
            hinted: i % 2 == 1,
            began,
            from: began + 6.0,
            to: began + 20.0,
            faults: 28,
            reused_mib: 14.0,
        }
    }

    /// A cycle each half second, of 100 ms, but of 101 in turns that hint, and the first of
    /// these of 161.
    fn cycles() -> Vec<Cycle> {
        let took = |i: u32| match (i / 40 % 2 == 1, i % 40) {
            (false, _) => 100.0,
            (true, 0) => 161.0,
            (true, _) => 101.0,
        };
        (0..200)
            .map(|i| (f64::from(i) / 2.0 + 0.01, took(i)))
            .collect()
    }

    #[test]
    fn turns_are_compared_with_those_beside_them() {
        let turns: Vec<_> = (0..5).map(turn).collect();
        let rows = rows((512, 400), &turns, &cycles()).unwrap();
        let median = |config, metric| {
            let row = rows
                .iter()
                .find(|row| (row.config, row.metric.as_str()) == (config, metric));
            row.unwrap().median.unwrap()
        };
        let near = |value: f64, wanted: f64| assert!((value - wanted).abs() < 1e-6, "{value}");
        near(median(Config::PageHinting, "over_mean_percent"), 1.0);
        near(median(Config::PageHinting, "fast_over_percent"), 1.0);
        near(median(Config::PageHinting, churn::CYCLE), 101.0);
        near(median(Config::PageHintingIdle, churn::CYCLE), 100.0);
        // 60 ms once, and 1 ms in each of 12 cycles.
        near(median(Config::PageHinting, "begin_ms"), 72.0);
        // A minute has 120 cycles, 12 s.
        near(median(Config::PageHinting, "minute_percent"), 0.95 + 0.6);
        near(median(Config::PageHinting, "host_faults"), 1.0);
        near(median(Config::PageHinting, "reused_mib"), 0.5);
    }

    #[test]
    fn a_turn_without_cycles_is_no_result() {
        let turns: Vec<_> = (0..7).map(turn).collect();
        assert!(rows((512, 400), &turns, &cycles()).is_err());
    }
}
