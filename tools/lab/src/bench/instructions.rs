// SPDX-License-Identifier: GPL-2.0

//! What a guest executes for an operation on memory, counted.
//!
//! The guests have one CPU whose clock counts instructions ([`Hardware::COUNTING`]).
//! Each configuration is booted several times, and before it measures a guest touches
//! and frees an amount of memory that differs from boot to boot: the loops have more
//! than one level, and the state of the free lists at the start decides which is seen.

use super::chart::{self, Axis, Bar, Bars};
use super::config::{Config, in_turn};
use super::guest::{Boot, Subject, initramfs};
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use crate::instructions::{Figures, Loop, Operation, parse_pairs, vary};
use crate::qemu::{BALLOON, Hardware};
use crate::test::side_by_side;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread::available_parallelism;
use std::time::Duration;

pub static PART: Part = Part {
    name: "instructions",
    title: "what a guest executes for an operation",
    about: "\
Guests with one CPU and 1 GiB, whose clock counts instructions (``-accel
tcg,thread=single -icount shift=0,sleep=off``): a second of such a guest is 10^9
instructions.  The loops are those of will-it-scale: ``page_fault1`` touches
anonymous memory, ``page_fault3`` a shared mapping of a file in tmpfs, which is
truncated after each cycle; ``malloc1`` is malloc() and free() of 128 MiB,
``fork1`` a fork and an exit.  Their figures are means over whole loops, and so
contain what hints meanwhile: the guest has no other CPU for it.  What the host
does, such as to fault in memory that was hinted, is not counted.  The pairs of
alloc_pages() and __free_pages() are counted with interrupts off and contain
the pair alone: ``hit`` is served by the per-CPU list, ``bulk`` fills and
empties it, ``whole`` takes a block of just this order from its list and puts
it back, ``split`` splits one of the largest order and merges it again.

The module that is idle (``page_hinting-idle``) is loaded with ``enabled`` 0.
A loop repeats to a per mille or so within a boot; from boot to boot it has
several levels, as the free lists at the start decide.  So each boot first
touches and frees another amount of memory, the same for all configurations,
and the samples of all boots are in result.json and in the picture.",
    metrics: &[
        Metric {
            name: "instructions",
            what: "guest instructions for an operation",
            better: Better::Less,
        },
        Metric {
            name: "ops_per_1e9",
            what: "operations in 10^9 guest instructions, which is the same figure \
                   the other way round",
            better: Better::Neither,
        },
    ],
    estimate: Duration::from_secs(10 * 60),
    quick_estimate: Duration::from_secs(60),
    run,
    draw,
};

const CONFIGS: [Config; 9] = [
    Config::UnpatchedOff,
    Config::Unpatched2000,
    Config::Off,
    Config::Upstream2000,
    Config::Upstream250,
    Config::Upstream100,
    Config::Upstream0,
    Config::PageHintingIdle,
    Config::PageHinting,
];
/// What the others are shown as a difference from.
const BASE: Config = Config::UnpatchedOff;

const MEM_MIB: u64 = 1024;

/// A loop of op_bench: its operation, MiB, and how many cycles it has, in a quick run
/// too. A loop takes more than 2 * 10^9 instructions, so that the longest delay falls
/// into it, and the quick one a tenth of that.
const LOOPS: [(&str, u32, u32, u32); 6] = [
    ("page_fault1", 64, 36, 4),
    ("page_fault1_thp", 256, 49, 6),
    ("page_fault3", 64, 21, 3),
    ("page_fault3_thp", 256, 47, 6),
    ("malloc1", 128, 80_000, 8_000),
    ("fork1", 2, 14_400, 1_500),
];

/// Pairs that are shown, of all that the test module measures.
const PAIRS: [(u8, &str); 8] = [
    (0, "hit"),
    (0, "bulk"),
    (3, "hit"),
    (3, "bulk"),
    (6, "whole"),
    (6, "split"),
    (9, "hit"),
    (9, "bulk"),
];

/// Names of the cases, in their order.
fn cases() -> (Vec<String>, Vec<String>) {
    (
        LOOPS.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        PAIRS
            .iter()
            .map(|(order, state)| Loop::pair(*order, state).name())
            .collect(),
    )
}

/// What boots that count have given.
pub struct Boots<T> {
    /// Those that were to be run.
    pub configs: Vec<Config>,
    /// By configuration and number of the boot.
    pub seen: BTreeMap<(Config, u32), T>,
    /// What kept the rest from being run, if anything did.
    pub outcome: Result<()>,
}

impl<T: Send> Boots<T> {
    /// Boots each configuration that is wanted several times, two guests at a time.
    pub fn run(
        ctx: &Ctx<'_>,
        configs: &[Config],
        boot_one: impl Fn(Config, u32) -> Result<T> + Sync,
    ) -> Result<Self> {
        let boots = ctx.args.boots.unwrap_or(ctx.choose(3, 1));
        let wanted = &ctx.args.configs;
        let mut configs = configs.to_vec();
        configs.retain(|config| wanted.is_empty() || wanted.contains(config));
        ensure!(
            !configs.is_empty(),
            "none of its configurations is to be run"
        );
        let jobs: Vec<(u32, Config)> = (0..boots)
            .flat_map(|boot| in_turn(&configs, boot).into_iter().map(move |c| (boot, c)))
            .collect();
        ctx.progress.steps(jobs.len());
        let seen = Mutex::new(BTreeMap::new());
        // What is counted does not depend on how fast it goes.
        let at_a_time = available_parallelism()?.get().min(2);
        let outcome = side_by_side(at_a_time, &jobs, |(boot, config)| {
            ctx.progress
                .step(&format!("{config}, boot {} of {boots}", boot + 1));
            let figures = boot_one(*config, *boot)?;
            let mut seen = seen.lock().expect("no holder panics");
            seen.insert((*config, *boot), figures);
            Ok(())
        });
        Ok(Boots {
            configs,
            seen: seen.into_inner().expect("no holder panics"),
            outcome,
        })
    }
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let programs = |bench: &Path| {
        let bench = std::path::absolute(bench)?;
        let bench = bench.to_str().context("a path is not UTF-8")?;
        initramfs(ctx, &["op_bench", "memhog", bench])
    };
    let images = [programs(&ctx.args.base_bench)?, programs(&ctx.args.bench)?];
    let boots = Boots::run(ctx, &CONFIGS, |config, boot| {
        let image = &images[usize::from(config.is_patched())];
        boot_one(ctx, config, boot, image)
    })?;
    rows(&boots.configs, &boots.seen, measured);
    if ctx.quick {
        measured.notes.push(
            "A loop of this quick run is shorter than the longest delay, 2 s or 2 * 10^9 \
             instructions, and may be over before that."
                .to_owned(),
        );
    }
    boots.outcome
}

fn boot_one(
    ctx: &Ctx<'_>,
    config: Config,
    boot: u32,
    initramfs: &[u8],
) -> Result<BTreeMap<String, f64>> {
    let name = format!("instructions-{config}-{boot}");
    let mut subject = Subject::boot(
        ctx,
        &Boot {
            patched: config.is_patched(),
            smp: 1,
            hardware: Hardware::COUNTING,
            balloon: config.balloon(),
            ..Boot::plain(&name, initramfs, MEM_MIB)
        },
    )?;
    let figures = subject.with(|subject| measure(ctx, subject, config, boot))?;
    subject.guest.quit()?;
    Ok(figures)
}

fn measure(
    ctx: &Ctx<'_>,
    subject: &mut Subject,
    config: Config,
    boot: u32,
) -> Result<BTreeMap<String, f64>> {
    // What has another balloon is off from the boot on.
    if config.balloon() == BALLOON {
        subject.enter(config)?;
    }
    subject.call(
        "[ ! -d /sys/kernel/mm/transparent_hugepage ] || \
         echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
    )?;
    subject.call(&vary(boot))?;
    let mut figures = BTreeMap::new();
    for (name, mib, cycles, quick) in LOOPS {
        let cycles = ctx.choose(cycles, quick);
        let output = subject.call(&format!("/selftests/op_bench {name} {mib} {cycles}"))?;
        figures.insert(name.to_owned(), Operation::parse(&output)?.mean);
    }
    subject.call("insmod /lib/modules/page_hinting_alloc_bench.ko")?;
    let command = "cat /sys/kernel/debug/page_hinting_alloc_bench";
    // The first reading leaves the lists in the state that the second one finds.
    subject.call(command)?;
    let mut pairs = Figures::new();
    parse_pairs(&subject.call(command)?, &mut pairs)?;
    for (order, state) in PAIRS {
        let pair = Loop::pair(order, state);
        let figure = pairs.get(&pair);
        let figure = figure.with_context(|| format!("{} was not measured", pair.name()))?;
        figures.insert(pair.name(), *figure);
    }
    Ok(figures)
}

/// Both metrics of each case, of the boots that there were.
fn rows(
    configs: &[Config],
    seen: &BTreeMap<(Config, u32), BTreeMap<String, f64>>,
    measured: &mut Measured,
) {
    let (loops, pairs) = cases();
    for case in loops.iter().chain(&pairs) {
        for &config in configs {
            let boots = seen.iter().filter(|((of, _), _)| *of == config);
            let values: Vec<f64> = boots
                .filter_map(|(_, figures)| figures.get(case).copied())
                .collect();
            let of = |metric, unit| Of {
                part: PART.name,
                case,
                config,
                metric,
                unit,
            };
            let instructions = of("instructions", "instructions");
            if values.is_empty() {
                let row = Row::failed(instructions, "no boot came to it");
                measured.rows.push(row);
                continue;
            }
            let per_1e9: Vec<f64> = values.iter().map(|value| 1e9 / value).collect();
            measured.rows.push(Row::of_values(instructions, &values));
            let row = Row::of_values(of("ops_per_1e9", "operations"), &per_1e9);
            measured.rows.push(row);
        }
    }
}

fn draw(results: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let (loops, pairs) = cases();
    let mut pictures = Vec::new();
    for (file, cases, title) in [
        (
            "instructions-loops.png",
            loops,
            "Guest instructions for an operation",
        ),
        (
            "instructions-pairs.png",
            pairs,
            "Guest instructions for alloc_pages() and __free_pages()",
        ),
    ] {
        let bars = Bars {
            title: title.to_owned(),
            caption: record.machine.caption(),
            y: Axis {
                label: format!("more than {BASE} (%)"),
                is_log: false,
            },
            groups: differences(results, &cases),
        };
        chart::draw_bars(&dir.join(file), &bars)?;
        pictures.push(Picture {
            file: file.to_owned(),
            caption: format!(
                "{title}, as the difference from the median of {BASE}; medians of the boots, \
                 and a dot for each boot.  Counted under TCG."
            ),
        });
    }
    Ok(pictures)
}

/// Each configuration's difference from [`BASE`] in percent.
fn differences(results: &Results, cases: &[String]) -> Vec<(String, Vec<Bar>)> {
    let group = |case: &String| {
        let row = |config| results.row(PART.name, case, config, "instructions");
        let base = row(BASE)?.median?;
        let percent = |value: f64| (value / base - 1.0) * 100.0;
        let bars: Vec<_> = CONFIGS
            .into_iter()
            .filter(|config| *config != BASE)
            .filter_map(|config| {
                let row = row(config)?;
                Some(Bar {
                    config,
                    median: row.median.map(percent),
                    min: row.min.map(percent),
                    max: row.max.map(percent),
                    dots: row.samples.iter().flatten().copied().map(percent).collect(),
                })
            })
            .collect();
        Some((case.clone(), bars))
    };
    cases.iter().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_all_boots_and_say_what_is_missing() {
        let boot = |value: f64| BTreeMap::from([("fork1".to_owned(), value)]);
        let seen = BTreeMap::from([
            ((Config::Off, 0), boot(200_000.0)),
            ((Config::Off, 1), boot(250_000.0)),
            ((Config::Off, 2), boot(200_000.0)),
        ]);
        let mut measured = Measured::default();
        rows(&CONFIGS, &seen, &mut measured);
        let row = |config, metric: &str| {
            let mut rows = measured.rows.iter();
            rows.find(|row| row.case == "fork1" && row.config == config && row.metric == metric)
        };
        let off = row(Config::Off, "instructions").unwrap();
        assert_eq!((off.median, off.n), (Some(200_000.0), 3));
        assert_eq!(off.samples.len(), 3);
        let off = row(Config::Off, "ops_per_1e9").unwrap();
        assert_eq!((off.median, off.min), (Some(5000.0), Some(4000.0)));
        assert!(
            row(Config::PageHinting, "instructions")
                .unwrap()
                .is_failed()
        );
        assert!(row(Config::PageHinting, "ops_per_1e9").is_none());
    }

    #[test]
    fn differences_are_from_the_unpatched_kernel() {
        let boot = |value: f64| BTreeMap::from([("malloc1".to_owned(), value)]);
        let seen = BTreeMap::from([
            ((BASE, 0), boot(100.0)),
            ((Config::PageHinting, 0), boot(103.0)),
            ((Config::PageHinting, 1), boot(99.0)),
        ]);
        let mut measured = Measured::default();
        rows(&CONFIGS, &seen, &mut measured);
        let mut results = Results::default();
        results.replace(PART.name, measured.rows, Record::default());
        let groups = differences(&results, &["malloc1".to_owned(), "fork1".to_owned()]);
        assert_eq!(groups.len(), 1);
        let bar = groups[0]
            .1
            .iter()
            .find(|bar| bar.config == Config::PageHinting);
        let bar = bar.unwrap();
        assert_eq!(bar.dots.len(), 2);
        assert!((bar.median.unwrap() - 1.0).abs() < 1e-9);
        assert!((bar.min.unwrap() + 1.0).abs() < 1e-9);
    }
}
