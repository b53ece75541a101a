// SPDX-License-Identifier: GPL-2.0

//! Part churn's loop in guests whose clock counts instructions, where a per cent can be told.

use super::config::Config;
use super::guest::{Boot, Subject, initramfs};
use super::instructions::Boots;
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part, churn, turns};
use crate::instructions::vary;
use crate::qemu::Hardware;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub static PART: Part = Part {
    name: "counted",
    title: "what churn executes in the guest",
    about: "\
The loops of part turns in guests with one CPU and 2 GiB whose clock
counts instructions (``-accel tcg,thread=single -icount shift=0,sleep=off``): a millisecond
is 10^6 instructions, and a gap has as many as are executed in it.  Each configuration is
booted several times, and touches and frees another amount of memory each time before the
loop begins, all configurations the same.  What the host does for it, to fault in what was
hinted, is not in the instructions; how often it had to is.  Not part of ``all``.",
    metrics: &[
        Metric {
            name: churn::CYCLE,
            what: "10^6 instructions from map to unmap, the gap left out, with those of who hints \
                   meanwhile: the mean of a boot's cycles; the median, least and most of the boots",
            better: Better::Less,
        },
        Metric {
            name: "busy_ms",
            what: "10^6 instructions of all of the guest, a cycle and its gap, in steps of 10 \
                   for all cycles of a boot",
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
    estimate: Duration::from_secs(20 * 60),
    quick_estimate: Duration::from_secs(120),
    run,
    draw,
};

const CONFIGS: [Config; 4] = [
    Config::Off,
    Config::Upstream2000,
    Config::Upstream0,
    Config::PageHinting,
];
const MEM_MIB: u64 = 2048;
/// How long each loop runs, in 10^9 instructions and the gaps.
const SECONDS: u32 = 8;

/// Metric and value, by case.
type Figures = BTreeMap<String, Vec<(&'static str, &'static str, f64)>>;

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let loops: &[(u32, u32)] = ctx.choose(&turns::LOOPS, &turns::QUICK_LOOPS);
    let initramfs = initramfs(ctx, &["churn", "memhog"])?;
    let boots = Boots::run(ctx, &CONFIGS, |config, boot| {
        boot_one(ctx, config, boot, loops, &initramfs)
    })?;
    rows(&boots.configs, loops, &boots.seen, measured);
    boots.outcome
}

fn boot_one(
    ctx: &Ctx<'_>,
    config: Config,
    boot: u32,
    loops: &[(u32, u32)],
    initramfs: &[u8],
) -> Result<Figures> {
    let name = format!("counted-{config}-{boot}");
    let mut subject = Subject::boot(
        ctx,
        &Boot {
            smp: 1,
            hardware: Hardware::COUNTING,
            ..Boot::plain(&name, initramfs, MEM_MIB)
        },
    )?;
    let figures = subject.with(|subject| {
        subject.enter(config)?;
        subject.call(&vary(boot))?;
        subject.call("/selftests/memhog -t 1100 < /dev/null; sleep 10")?;
        let seconds = ctx.choose(SECONDS, 3);
        let mut figures = Figures::new();
        for of in loops {
            figures.insert(
                turns::case_name(*of),
                measure(subject, config, *of, seconds)?,
            );
        }
        Ok(figures)
    })?;
    subject.guest.quit()?;
    Ok(figures)
}

fn measure(
    subject: &mut Subject,
    config: Config,
    (mib, gap_ms): (u32, u32),
    seconds: u32,
) -> Result<Vec<(&'static str, &'static str, f64)>> {
    let reused = |subject: &mut Subject| -> Result<u64> {
        let state = subject.guest.port.state(subject.limit)?;
        Ok(state.stat("offline_used_kb").unwrap_or(0))
    };
    let (busy, host, before) = (subject.busy()?, subject.host()?, reused(subject)?);
    let output = subject.call(&format!("/selftests/churn -t {mib} 1 {gap_ms} {seconds}"))?;
    let after = reused(subject)?;
    let host = subject.host()?.since(&host);
    let busy = subject.busy()? - busy;
    let cycles = churn::parse(&output)?;
    let count = cycles.len() as f64;
    let sum: f64 = cycles.iter().map(|cycle| cycle.1).sum();
    let mut figures = vec![
        (churn::CYCLE, "ms", sum / count),
        ("busy_ms", "ms", busy.as_secs_f64() * 1e3 / count),
        ("host_faults", "", host.faults as f64 / count),
    ];
    if config == Config::PageHinting {
        figures.push((
            "reused_mib",
            "MiB",
            (after - before) as f64 / 1024.0 / count,
        ));
    }
    Ok(figures)
}

fn rows(
    configs: &[Config],
    loops: &[(u32, u32)],
    seen: &BTreeMap<(Config, u32), Figures>,
    measured: &mut Measured,
) {
    for case in loops.iter().map(|of| turns::case_name(*of)) {
        for &config in configs {
            let boots: Vec<_> = seen
                .iter()
                .filter(|((of, _), _)| *of == config)
                .filter_map(|(_, figures)| figures.get(&case))
                .collect();
            let of = |metric, unit| Of {
                part: PART.name,
                case: &case,
                config,
                metric,
                unit,
            };
            let Some(first) = boots.first() else {
                let row = Row::failed(of(churn::CYCLE, "ms"), "no boot came to it");
                measured.rows.push(row);
                continue;
            };
            for (i, (metric, unit, _)) in first.iter().enumerate() {
                let values: Vec<f64> = boots.iter().map(|figures| figures[i].2).collect();
                measured
                    .rows
                    .push(Row::of_values(of(metric, unit), &values));
            }
        }
    }
}

/// The table says it all.
fn draw(_: &Results, _: &Record, _: &Path) -> Result<Vec<Picture>> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_of_all_boots_and_say_what_is_missing() {
        let boot = |value: f64| {
            Figures::from([(
                turns::case_name((512, 20)),
                vec![(churn::CYCLE, "ms", value)],
            )])
        };
        let seen = BTreeMap::from([
            ((Config::Off, 0), boot(200.0)),
            ((Config::Off, 1), boot(220.0)),
            ((Config::Off, 2), boot(201.0)),
        ]);
        let mut measured = Measured::default();
        rows(&CONFIGS, &[(512, 20)], &seen, &mut measured);
        let row = |config| measured.rows.iter().find(|row| row.config == config);
        let off = row(Config::Off).unwrap();
        assert_eq!((off.median, off.max, off.n), (Some(201.0), Some(220.0), 3));
        assert!(row(Config::PageHinting).unwrap().is_failed());
    }
}
