// SPDX-License-Identifier: GPL-2.0

//! Two guests whose peaks alternate, on a host too small for both at a time.

use super::cgroup::Cgroup;
use super::config::{Config, SYSFS, in_turn};
use super::guest::{self, Boot, Subject};
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use crate::interrupt::{self, Interrupted};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

pub static PART: Part = Part {
    name: "overcommit",
    title: "two guests on a host too small for both",
    about: "\
Two guests of 2 GiB each run in a control group of the host that is limited to
1.9 GiB.  By turns, one touches 1 GiB (huge pages), holds it for a second or less and frees
it, and the other does the same as soon as the first has freed: the group has room for one
such peak and what the guests need beside it, but not for two.  What the first has freed
must be returned to the host before the second has touched its own, or the host swaps, or kills
one of the guests where it has no swap.  A run ends after all peaks, or with the first
guest that is killed.

A guest's peak is idle for as long as the other's lasts.  Where that is less than ``hold_ms``,
page_hinting keeps the memory, as it cannot know that the host is short.  Nudged, it is told:
before the first peak the host lowers each balloon's target by 1 MiB.",
    metrics: &[
        Metric {
            name: COMPLETION,
            what: "seconds for all peaks; never, if a guest was killed",
            better: Better::Less,
        },
        Metric {
            name: "peaks_done",
            what: "peaks until the end",
            better: Better::More,
        },
        Metric {
            name: "kills",
            what: "guests that the host killed for want of memory",
            better: Better::Less,
        },
        Metric {
            name: "swapped_mib",
            what: "the most that was seen on swap, at the ends of the peaks",
            better: Better::Less,
        },
        Metric {
            name: "group_peak_mib",
            what: "the most memory that the group used",
            better: Better::Neither,
        },
    ],
    estimate: Duration::from_secs(560),
    quick_estimate: Duration::from_secs(60),
    run,
    draw: |_: &Results, _: &Record, _: &Path| Ok(Vec::new()),
};

const COMPLETION: &str = "completion_s";
/// Memory of a guest, of a peak, and of the host, in MiB.
const MEM_MIB: u64 = 2048;
const PEAK_MIB: u64 = 1024;
const LIMIT_MIB: u64 = 1946;

/// How long a guest holds its peak, and what it is told of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    held_ms: u64,
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    /// By the host, before the first peak.
    Nudged,
    /// By who set the guest up: ``hold_ms`` 0.
    Unpaced,
}

impl Case {
    const fn new(held_ms: u64, told: Told) -> Self {
        Self { held_ms, told }
    }

    fn name(self) -> String {
        let told = match self.told {
            Told::Nothing => "",
            Told::Nudged => ", nudged",
            Told::Unpaced => ", hold_ms 0",
        };
        format!("peaks held {} ms{told}", self.held_ms)
    }
}

/// Page reporting can be told nothing.
const CASES: [Case; 5] = [
    Case::new(1000, Told::Nothing),
    Case::new(300, Told::Nothing),
    Case::new(100, Told::Nothing),
    Case::new(100, Told::Nudged),
    Case::new(100, Told::Unpaced),
];
/// How long the guests are let be before the first peak.
const SETTLE: Duration = Duration::from_secs(3);

/// How a run went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Figures {
    /// None if a guest was killed.
    completion_s: Option<f64>,
    peaks: u32,
    kills: u64,
    swapped_mib: Option<u64>,
    group_peak_mib: Option<u64>,
}

/// A figure that the kernel may not tell.
type Get = fn(&Figures) -> Option<u64>;

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let initramfs = guest::initramfs(ctx, &["memhog"])?;
    let (rounds, peaks) = ctx.choose((2, 4), (1, 2));
    let runs: Vec<Run> = ctx
        .choose(&CASES[..], &CASES[..1])
        .iter()
        .flat_map(|case| Config::PATCHED.map(|config| (*case, config)))
        .filter(|(case, config)| case.told == Told::Nothing || *config == Config::PageHinting)
        .collect();
    ctx.progress.steps(rounds as usize * runs.len());
    let swap = procfs::Current::current().map(|info: procfs::Meminfo| info.swap_total)?;
    measured.notes.push(match swap {
        0 => "The host has no swap: it kills what it has no memory for.".to_owned(),
        bytes => format!("The host has {} MiB of swap.", bytes >> 20),
    });
    let mut seen: BTreeMap<Run, Vec<Figures>> = BTreeMap::new();
    for round in 0..rounds {
        for (case, config) in in_turn(&runs, round) {
            ctx.progress
                .step(&format!("round {}, {config}; {}", round + 1, case.name()));
            match alternate(ctx, &initramfs, (case, config), round, peaks) {
                Ok(figures) => seen.entry((case, config)).or_default().push(figures),
                Err(error) => {
                    let name = case.name();
                    let of = row(&name, config, COMPLETION, "s");
                    measured.unless_failed(Err(error), &[&name], |_| of)?;
                }
            }
        }
    }
    for (run, figures) in &seen {
        measured.rows.extend(rows(*run, figures));
    }
    Ok(())
}

/// What is run: a case, and a configuration.
type Run = (Case, Config);

fn row<'a>(case: &'a str, config: Config, metric: &'static str, unit: &'static str) -> Of<'a> {
    Of {
        part: PART.name,
        case,
        config,
        metric,
        unit,
    }
}

fn rows((case, config): Run, runs: &[Figures]) -> Vec<Row> {
    let name = case.name();
    let row = |metric, unit| row(&name, config, metric, unit);
    let times: Vec<_> = runs.iter().map(|run| run.completion_s).collect();
    let mut completion = Row::of(row(COMPLETION, "s"), &times);
    if times.iter().any(Option::is_none) {
        completion.note = Some("the host killed a guest".to_owned());
    }
    let peaks: Vec<_> = runs.iter().map(|run| f64::from(run.peaks)).collect();
    let kills: Vec<_> = runs.iter().map(|run| run.kills as f64).collect();
    let mut rows = vec![
        completion,
        Row::of_values(row("peaks_done", ""), &peaks),
        Row::of_values(row("kills", ""), &kills),
    ];
    let told: [(_, Get); 2] = [
        ("swapped_mib", |run| run.swapped_mib),
        ("group_peak_mib", |run| run.group_peak_mib),
    ];
    // What the kernel does not tell is no row.
    for (metric, get) in told {
        let values: Option<Vec<_>> = runs
            .iter()
            .map(|figures| get(figures).map(|v| v as f64))
            .collect();
        rows.extend(values.map(|values| Row::of_values(row(metric, "MiB"), &values)));
    }
    rows
}

fn alternate(
    ctx: &Ctx<'_>,
    initramfs: &[u8],
    (case, config): Run,
    round: u32,
    peaks: u32,
) -> Result<Figures> {
    // The guests go before the group does.
    let group = Cgroup::new("page_hinting-bench", LIMIT_MIB)?;
    let procs = group.procs()?;
    let mut guests = Vec::new();
    for i in 0..2 {
        let log = format!(
            "overcommit-{round}-{config}-{}-{:?}-{i}",
            case.held_ms, case.told
        );
        let boot = Boot {
            cgroup: Some(&procs),
            ..Boot::plain(&log, initramfs, MEM_MIB)
        };
        let mut subject = Subject::boot(ctx, &boot)?;
        subject.with(|subject| subject.enter(config))?;
        if case.told == Told::Unpaced {
            subject.call(&format!("echo 0 > {SYSFS}/hold_ms"))?;
        }
        guests.push(subject);
    }
    guests[0].rest(SETTLE)?;
    if case.told == Told::Nudged {
        for subject in &mut guests {
            subject.guest.monitor(&format!("balloon {}", MEM_MIB - 1))?;
        }
    }

    let mut figures = Figures::default();
    let began = Instant::now();
    for peak in 0..peaks {
        let outcome = one_peak(
            &mut guests[peak as usize % 2],
            Duration::from_millis(case.held_ms),
        );
        figures.kills = group.kills()?;
        figures.swapped_mib = figures.swapped_mib.max(group.swap_mib());
        match outcome {
            Ok(()) if figures.kills == 0 => figures.peaks += 1,
            // Either guest may be the one that the host chooses.
            Err(error) if error.is::<Interrupted>() => return Err(error),
            _ if figures.kills > 0 => break,
            Ok(()) => (),
            Err(error) => return Err(guests[peak as usize % 2].guest.explain(error)),
        }
    }
    figures.completion_s = (figures.kills == 0).then(|| began.elapsed().as_secs_f64());
    figures.group_peak_mib = group.peak_mib();
    for subject in guests {
        // One that was killed is gone.
        let quit = subject.guest.quit();
        if figures.kills == 0 {
            quit?;
        }
    }
    drop(group);
    Ok(figures)
}

/// Touches, holds and frees.
fn one_peak(subject: &mut Subject, held: Duration) -> Result<()> {
    let port = &mut subject.guest.port;
    port.send(&format!("/selftests/memhog -t {PEAK_MIB}"))?;
    port.wait_for("touched", subject.limit)?;
    interrupt::sleep_until(Instant::now() + held)?;
    let port = &mut subject.guest.port;
    port.send("")?;
    port.wait_for("freed", subject.limit)?;
    let status = port.finish(subject.limit, drop)?;
    ensure!(status == 0, "memhog ended with status {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_worse_than_any_time() {
        let done = Figures {
            completion_s: Some(10.0),
            peaks: 4,
            group_peak_mib: Some(1700),
            ..Figures::default()
        };
        let killed = Figures {
            completion_s: None,
            peaks: 1,
            kills: 1,
            group_peak_mib: Some(1946),
            ..Figures::default()
        };
        let rows = rows((CASES[0], Config::Upstream2000), &[done, killed]);
        let row = |metric: &str| rows.iter().find(|row| row.metric == metric);
        let completion = row(COMPLETION).unwrap();
        assert_eq!((completion.min, completion.median), (Some(10.0), None));
        assert!(completion.note.is_some());
        assert_eq!(row("kills").unwrap().median, Some(0.5));
        assert_eq!(row("swapped_mib"), None);
    }
}
