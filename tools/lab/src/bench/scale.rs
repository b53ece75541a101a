// SPDX-License-Identifier: GPL-2.0

//! What hinting costs guests of other sizes, and with more CPUs.

use super::chart::{Axis, Bars, draw_bars};
use super::config::{Config, in_turn};
use super::guest::{self, Boot, Subject};
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part, host_available_mib};
use crate::cli::HintingArgs;
use crate::hinting;
use crate::interrupt;
use crate::returned::Burst;
use crate::rss::{FAST, Probe, Sampler};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

pub static PART: Part = Part {
    name: "scale",
    title: "what hinting costs guests of other sizes, and with more CPUs",
    about: "\
**Sizes.**  Guests of 1 to 16 GiB, with one and two CPUs, have touched half of their
memory (huge pages) and freed it while nothing hinted; then the module is enabled, or
the balloon bound, and all that is free is given back.

**CPUs.**  More CPUs than the host has would measure the host's scheduler, so guests
with 4 and 8 CPUs are counted: their CPUs take turns in one thread of TCG, whose clock
counts instructions, while 512 MiB in blocks of 4 MiB are hinted (``lab hinting``
describes it).  An operation on the lists is a call of what takes a block off a free
list to be hinted, or puts one on a list; a hold of zone->lock is counted where the
blocks are taken and returned.",
    metrics: &[
        Metric {
            name: "gib_per_s",
            what: "GiB a second that came back, from that moment until 95 % was back",
            better: Better::More,
        },
        Metric {
            name: "hinter_ms",
            what: "CPU time of the module's thread and of the kworkers, which \
                   page_reporting is one of, a GiB returned",
            better: Better::Less,
        },
        Metric {
            name: "qemu_main_ms",
            what: "CPU time of QEMU's main thread, which discards the memory, a GiB returned",
            better: Better::Less,
        },
        Metric {
            name: "instructions_per_block",
            what: "instructions of the guest for a block hinted",
            better: Better::Less,
        },
        Metric {
            name: "list_ops_per_block",
            what: "operations on the free lists for a block hinted",
            better: Better::Less,
        },
        Metric {
            name: "lock_holds_per_block",
            what: "holds of zone->lock for a block hinted",
            better: Better::Neither,
        },
        Metric {
            name: "lock_hold_mean",
            what: "instructions in a hold, the mean",
            better: Better::Less,
        },
        Metric {
            name: "lock_hold_longest",
            what: "instructions in the longest hold",
            better: Better::Less,
        },
    ],
    estimate: Duration::from_secs(6 * 60),
    quick_estimate: Duration::from_secs(40),
    run,
    draw,
};

const CONFIGS: [Config; 3] = [Config::Upstream2000, Config::Upstream0, Config::PageHinting];
/// How long a configuration is watched: the default delay needs most of it.
const WINDOW: Duration = Duration::from_secs(24);

/// Guests by their memory in GiB and their CPUs.
fn guests(quick: bool) -> &'static [(u64, u32)] {
    match quick {
        true => &[(1, 2)],
        false => &[(1, 1), (4, 1), (1, 2), (2, 2), (4, 2), (8, 2), (16, 2)],
    }
}

fn case_name(gib: u64, smp: u32) -> String {
    match smp {
        1 => format!("{gib} GiB, 1 CPU"),
        _ => format!("{gib} GiB, {smp} CPUs"),
    }
}

fn counted_name(smp: u32) -> String {
    format!("counted, {smp} CPUs")
}

/// Memory that is touched, in MiB.
fn touched_mib(gib: u64) -> u64 {
    gib * 512
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let initramfs = guest::initramfs(ctx, &["memhog"])?;
    let guests = guests(ctx.quick);
    let cpus = ctx.choose(&[4, 8][..], &[4][..]);
    ctx.progress
        .steps(guests.len() * CONFIGS.len() + cpus.len() * 2);
    for (i, (gib, smp)) in guests.iter().enumerate() {
        let case = case_name(*gib, *smp);
        for config in in_turn(&CONFIGS, i as u32) {
            ctx.progress.step(&format!("{case}, {config}"));
            let outcome = sized(ctx, &initramfs, (*gib, *smp), config)
                .map(|figures| measured.rows.extend(figures.rows(&case, config)));
            measured.unless_failed(outcome, &[&*case], |case| {
                row(case, config, "gib_per_s", "GiB/s")
            })?;
        }
    }
    for (i, smp) in cpus.iter().enumerate() {
        for config in in_turn(&[Config::Upstream0, Config::PageHinting], i as u32) {
            let case = counted_name(*smp);
            ctx.progress.step(&format!("{case}, {config}"));
            let outcome = counted(ctx, *smp, config, measured);
            measured.unless_failed(outcome, &[&*case], |case| {
                row(case, config, "list_ops_per_block", "")
            })?;
        }
    }
    Ok(())
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

/// What a guest of some size gives.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// None if it was not back while it was watched.
    gib_per_s: Option<f64>,
    returned_gib: f64,
    hinters_s: f64,
    qemu_main_s: f64,
}

impl Figures {
    fn rows(&self, case: &str, config: Config) -> Vec<Row> {
        let mut rate = Row::of(row(case, config, "gib_per_s", "GiB/s"), &[self.gib_per_s]);
        if self.gib_per_s.is_none() {
            rate.note = Some(format!("95 % was not back within {} s", WINDOW.as_secs()));
        }
        let mut rows = vec![rate];
        if self.returned_gib > 0.1 {
            for (metric, seconds) in [
                ("hinter_ms", self.hinters_s),
                ("qemu_main_ms", self.qemu_main_s),
            ] {
                let per_gib = seconds * 1e3 / self.returned_gib;
                rows.push(Row::of_values(row(case, config, metric, "ms"), &[per_gib]));
            }
        }
        rows
    }
}

/// Boots a guest that has freed half of its memory, and has it hinted.
fn sized(
    ctx: &Ctx<'_>,
    initramfs: &[u8],
    (gib, smp): (u64, u32),
    config: Config,
) -> Result<Figures> {
    let available = host_available_mib()?;
    let needed = touched_mib(gib) + crate::cli::GUEST_OWN_MIB;
    ensure!(
        available >= needed,
        "it needs {needed} MiB, and the host has {available} MiB available"
    );
    let log = format!("scale-{gib}-{smp}-{config}");
    let boot = Boot {
        smp,
        ..Boot::plain(&log, initramfs, gib * 1024)
    };
    let mut subject = Subject::boot(ctx, &boot)?;
    let figures = subject.with(|subject| {
        // The module is not loaded within the time, but told to begin.
        let is_module = config == Config::PageHinting;
        subject.enter(match is_module {
            true => Config::PageHintingIdle,
            false => Config::Off,
        })?;
        let sampler = Sampler::start(Probe::new(subject.guest.pid(), gib << 20)?)?;
        let before = sampler.fresh()?;
        let touch = format!("/selftests/memhog -t {} < /dev/null", touched_mib(gib));
        subject.call(&touch)?;
        let hinters = subject.hinters()?;
        let host = subject.host()?;
        let peak = sampler.fresh()?;
        sampler.set_period(FAST);
        let began = Instant::now();
        let burst = Burst {
            freed: sampler.since_start(began),
            before_kb: before.ram_kb,
            peak_kb: peak.ram_kb,
            touched_kb: touched_mib(gib) << 10,
        };
        match is_module {
            true => drop(subject.call("echo 1 > /sys/kernel/mm/page_hinting/enabled")?),
            false => subject.enter(config)?,
        }
        watch(&sampler, &burst, began + WINDOW)?;
        let host = subject.host()?.since(&host);
        let hinters = subject.hinters()?.saturating_sub(hinters);
        let (samples, _) = sampler.stop(burst.freed)?;
        let last = samples.last().context("there are no samples")?;
        let returned_gib = burst.peak_kb.saturating_sub(last.ram_kb) as f64 / f64::from(1 << 20);
        let seconds = burst.returned_s(&samples, 95);
        Ok(Figures {
            gib_per_s: seconds.map(|seconds| gib as f64 / 2.0 * 0.95 / seconds.max(1e-3)),
            returned_gib,
            hinters_s: hinters.as_secs_f64(),
            qemu_main_s: host.main_s,
        })
    })?;
    subject.guest.quit()?;
    Ok(figures)
}

/// Until 95 % is back, and a moment more.
fn watch(sampler: &Sampler, burst: &Burst, end: Instant) -> Result<()> {
    while Instant::now() < end {
        interrupt::sleep_until(end.min(Instant::now() + interrupt::NOTICE))?;
        let back = sampler.latest().map(|sample| burst.back_percent(&sample));
        if back.is_some_and(|back| back >= 95.0) {
            break;
        }
    }
    Ok(interrupt::sleep_until(Instant::now() + interrupt::NOTICE)?)
}

fn counted(ctx: &Ctx<'_>, smp: u32, config: Config, measured: &mut Measured) -> Result<()> {
    let args = HintingArgs {
        kernel: ctx.args.kernel.clone(),
        vmlinux: ctx.args.vmlinux.clone(),
        base: ctx.args.base.clone(),
        base_vmlinux: ctx.args.base_vmlinux.clone(),
        module: ctx.args.module.clone(),
        plugin: ctx.args.plugin.clone(),
        objdump: ctx.args.objdump.clone(),
        selftests: ctx.args.selftests.clone(),
        qemu: ctx.args.qemu.clone(),
        busybox: ctx.args.busybox.clone(),
        smp,
        boots: 1,
        rounds: ctx.choose(3, 1),
        mem: 1024,
        timeout: ctx.args.timeout,
        out: ctx.args.out.join("log"),
    };
    let (kernel, rounds) = hinting::count(&args, config == Config::PageHinting, smp)?;
    *ctx.guest_kernel.lock().expect("no holder panics") = kernel;
    let figures: [(_, hinting::Figure); 5] = [
        ("instructions_per_block", |round| round.per_block),
        ("list_ops_per_block", |round| round.lists_per_block),
        ("lock_holds_per_block", |round| {
            round.holds as f64 / round.blocks as f64
        }),
        ("lock_hold_mean", |round| round.mean_hold),
        ("lock_hold_longest", |round| round.longest_hold as f64),
    ];
    let case = counted_name(smp);
    for (metric, figure) in figures {
        let values: Vec<_> = rounds.iter().map(figure).collect();
        let of = row(&case, config, metric, "");
        measured.rows.push(Row::of_values(of, &values));
    }
    Ok(())
}

fn draw(results: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let cases: Vec<_> = guests(false)
        .iter()
        .map(|(gib, smp)| case_name(*gib, *smp))
        .collect();
    let mut pictures = Vec::new();
    for (metric, label, file, is_log) in [
        (
            "gib_per_s",
            "GiB a second that came back",
            "scale-rate.png",
            true,
        ),
        (
            "hinter_ms",
            "CPU time of the guest's hinting thread, a GiB (ms)",
            "scale-hinter.png",
            false,
        ),
    ] {
        let groups = Bars::groups_of(results, PART.name, metric, &cases);
        if groups.is_empty() {
            continue;
        }
        let title = format!("scale: {label}");
        draw_bars(
            &dir.join(file),
            &Bars {
                title: title.clone(),
                caption: record.machine.caption(),
                y: Axis {
                    label: label.to_owned(),
                    is_log,
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
    fn what_was_not_back_has_no_rate() {
        let figures = Figures {
            gib_per_s: None,
            returned_gib: 2.0,
            hinters_s: 0.01,
            qemu_main_s: 0.02,
        };
        let rows = figures.rows("4 GiB, 2 CPUs", Config::Upstream2000);
        assert_eq!((rows[0].median, rows[0].n), (None, 1));
        assert!(rows[0].note.as_ref().unwrap().contains("24 s"));
        assert_eq!(rows[1].median, Some(5.0));
        assert_eq!(rows[2].median, Some(10.0));
    }
}
