// SPDX-License-Identifier: GPL-2.0

//! The host memory that a guest holds while it builds something, and afterwards.

use super::chart::{self, Axis, Chart, Curve};
use super::config::{Config, SYSFS, in_turn};
use super::guest::{Boot, Subject, initramfs};
use super::report::Picture;
use super::result::{Measured, Record, Results, Series};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use crate::qemu::{Hardware, HostPages};
use crate::returned::Sample;
use crate::rss::{Probe, Sampler};
use anyhow::{Context, Result, ensure};
use procfs::process::Process;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

pub static PART: Part = Part {
    name: "footprint",
    title: "host memory over time of a guest that builds",
    about: "\
A guest with two CPUs and 2 GiB unpacks a compiler and the source of Lua from
its disk to tmpfs, compiles twenty of its files (``make -j4``, ``-O0``), does
nothing for a while, runs ``make clean``, does nothing for a while, drops its
caches, and does nothing for a longer while.  What of the guest-RAM mapping is resident on the host is sampled
every 20 ms.  The pauses are as long for every configuration, the build is as
long as it takes.  ``order 9`` and ``order 0`` are the smallest blocks that are
hinted (``min_order``, ``page_reporting_order``); page_hinting and upstream are at
their defaults otherwise.  ``off`` knows no order and is the same run in both.
``no THP`` is a host that backs the guest's memory with pages of 4 KiB: QEMU
runs with PR_SET_THP_DISABLE.  A quick run compiles eight files, pauses
for less, and leaves out the host without huge pages.",
    metrics: &[
        Metric {
            name: "integral_gib_min",
            what: "resident memory of the guest, summed up over the time from the begin to \
                   the end",
            better: Better::Less,
        },
        Metric {
            name: "peak_mib",
            what: "the most that was resident",
            better: Better::Less,
        },
        Metric {
            name: "end_mib",
            what: "what stays resident at the end",
            better: Better::Less,
        },
        Metric {
            name: "end_free_mib",
            what: "of it, what is free in the guest: resident memory less what the guest says \
                   is not free",
            better: Better::Less,
        },
        Metric {
            name: "build_s",
            what: "how long make took",
            better: Better::Less,
        },
        Metric {
            name: "guest_cpu_s",
            what: "CPU time of the guest in its own accounting, from the begin to the end",
            better: Better::Less,
        },
        Metric {
            name: "host_cpu_s",
            what: "CPU time of the QEMU process, in which under TCG the guest's is contained",
            better: Better::Less,
        },
        Metric {
            name: "host_system_s",
            what: "of it, in the host's kernel: faults and discards",
            better: Better::Less,
        },
        Metric {
            name: "host_faults",
            what: "page faults of the QEMU process",
            better: Better::Less,
        },
    ],
    estimate: Duration::from_secs(12 * 60),
    quick_estimate: Duration::from_secs(100),
    run,
    draw,
};

const MEM_MIB: u64 = 2048;
const SAMPLES: usize = 600;

/// A run: who hints from which order on, on which host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    pub config: Config,
    pub order: u32,
    pub thp: bool,
    /// `host_granule_kb`, if the module is told one.
    pub granule_kb: Option<u32>,
}

impl Setting {
    fn case(&self) -> String {
        let host = if self.thp { "THP" } else { "no THP" };
        format!("order {}, {host}", self.order)
    }

    /// How it is booted: page_reporting's order is set before its device is there.
    fn kernel_args(&self) -> String {
        format!("page_reporting.page_reporting_order={}", self.order)
    }
}

/// Orders of the cases; what is off runs with the first one alone.
const ORDERS: [u32; 2] = [9, 0];

/// All runs of a round.
fn settings(quick: bool) -> Vec<Setting> {
    let hosts: &[bool] = if quick { &[true] } else { &[true, false] };
    let mut settings = Vec::new();
    for &thp in hosts {
        settings.push(Setting {
            config: Config::Off,
            order: ORDERS[0],
            thp,
            granule_kb: None,
        });
        for order in ORDERS {
            for config in [Config::Upstream2000, Config::PageHinting] {
                settings.push(Setting {
                    config,
                    order,
                    thp,
                    granule_kb: None,
                });
            }
        }
    }
    settings
}

/// What is compiled: the core of Lua. A quick run makes so many of them.
const OBJECTS: [&str; 20] = [
    "lvm.o",
    "lparser.o",
    "lcode.o",
    "lapi.o",
    "ldebug.o",
    "lgc.o",
    "ltable.o",
    "lstrlib.o",
    "llex.o",
    "ldo.o",
    "lobject.o",
    "ltm.o",
    "lstring.o",
    "lfunc.o",
    "lstate.o",
    "lundump.o",
    "ldump.o",
    "lmem.o",
    "lzio.o",
    "lauxlib.o",
];
const QUICK: usize = 8;

/// How the guest spends its time.
pub struct Plan {
    /// What make is to make.
    targets: String,
    /// Pauses after the build, after make clean, and after the caches were dropped.
    pauses: [Duration; 3],
    /// Whether all that is free is hinted before, and what the module counts is wanted.
    counts: bool,
}

impl Plan {
    pub fn new(quick: bool, counts: bool) -> Self {
        let (objects, pauses) = match quick {
            false => (&OBJECTS[..], [4, 4, 10]),
            true => (&OBJECTS[..QUICK], [2, 2, 4]),
        };
        Plan {
            targets: objects.join(" "),
            pauses: pauses.map(Duration::from_secs),
            counts,
        }
    }
}

/// What was seen of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    pub integral_gib_min: f64,
    peak_mib: f64,
    end_mib: f64,
    pub end_free_mib: f64,
    pub build_s: f64,
    guest_cpu_s: f64,
    host_cpu_s: f64,
    pub host_system_s: f64,
    pub host_faults: f64,
    /// CPU time of who hints, and what the module has counted.
    pub hinters_s: f64,
    pub requests: f64,
    pub hinted_mib: f64,
    pub reused_mib: f64,
    /// Seconds and MiB, for the picture.
    course: Vec<(f64, f64)>,
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let rounds = ctx.choose(2, 1);
    let plan = Plan::new(ctx.quick, false);
    let settings = settings(ctx.quick);
    let versions = ctx.args.tools.join("versions");
    let versions = fs::read_to_string(&versions).with_context(|| versions.display().to_string())?;
    measured.notes.push(format!(
        "Built: {} files of Lua, by {}.",
        plan.targets.split(' ').count(),
        versions.lines().collect::<Vec<_>>().join("; ")
    ));
    let initramfs = initramfs(ctx, &[])?;
    ctx.progress.steps(rounds as usize * settings.len());
    let mut seen: BTreeMap<Setting, Vec<Seen>> = BTreeMap::new();
    let outcome = (0..rounds).try_for_each(|round| {
        for setting in in_turn(&settings, round) {
            ctx.progress.step(&format!(
                "{}, {}, round {} of {rounds}",
                setting.config,
                setting.case(),
                round + 1
            ));
            let log = format!(
                "footprint-{}-{}{}-{round}",
                setting.config,
                setting.order,
                if setting.thp { "" } else { "-nothp" }
            );
            let one = boot_one(ctx, &plan, setting, &log, &initramfs)?;
            seen.entry(setting).or_default().push(one);
        }
        Ok(())
    });
    rows(&settings, &seen, measured);
    outcome
}

/// Boots a guest for it, with a log of that name.
pub fn boot_one(
    ctx: &Ctx<'_>,
    plan: &Plan,
    setting: Setting,
    name: &str,
    initramfs: &[u8],
) -> Result<Seen> {
    let archive = ctx.args.tools.join("build.tar");
    let disk = File::open(&archive).with_context(|| archive.display().to_string())?;
    let mut subject = Subject::boot(
        ctx,
        &Boot {
            hardware: Hardware::PLAIN,
            kernel_args: &setting.kernel_args(),
            host_pages: match setting.thp {
                true => HostPages::Transparent,
                false => HostPages::Small,
            },
            disk: Some(&disk),
            ..Boot::plain(name, initramfs, MEM_MIB)
        },
    )?;
    let seen = subject.with(|subject| measure(subject, plan, setting))?;
    subject.guest.quit()?;
    Ok(seen)
}

fn measure(subject: &mut Subject, plan: &Plan, setting: Setting) -> Result<Seen> {
    subject.enter(setting.config)?;
    if setting.config == Config::PageHinting {
        let order = setting.order;
        subject.call(&format!("echo {order} > {SYSFS}/min_order"))?;
        if let Some(kb) = setting.granule_kb {
            subject.call(&format!("echo {kb} > {SYSFS}/host_granule_kb"))?;
        }
    }
    if plan.counts && setting.config == Config::PageHinting {
        subject.call(&format!("echo 1 > {SYSFS}/flush"))?;
    }
    let counted = counts(subject, plan, setting)?;
    let busy = subject.busy()?;
    let hinters = subject.hinters()?;
    let host = subject.host()?;
    let sampler = Sampler::start(Probe::new(subject.guest.pid(), MEM_MIB * 1024)?)?;
    subject.call("mkdir /tmp/root && tar -C /tmp/root -xf /dev/vda")?;
    let began = Instant::now();
    subject.call(&format!(
        "chroot /tmp/root /bin/sh -c 'make -C /build/src -j4 \
         CFLAGS=\"-O0 -Wall -DLUA_COMPAT_5_3\" {}' > /tmp/make.log 2>&1 || \
         {{ cat /tmp/make.log; false; }}",
        plan.targets
    ))?;
    let build_s = began.elapsed().as_secs_f64();
    // That make has made something.
    subject.call(&format!(
        "(cd /tmp/root/build/src && ls {} > /dev/null)",
        plan.targets
    ))?;
    let [built, cleaned, dropped] = plan.pauses;
    subject.rest(built)?;
    subject.call("chroot /tmp/root /usr/bin/make -C /build/src clean > /tmp/make.log")?;
    subject.rest(cleaned)?;
    subject.call("sync; echo 3 > /proc/sys/vm/drop_caches")?;
    subject.rest(dropped)?;
    let last = sampler.fresh()?;
    check_huge_pages(subject.guest.pid(), setting.thp)?;
    let (samples, _) = sampler.stop(Duration::ZERO)?;
    let used = subject.host()?.since(&host);
    let busy = subject.busy()? - busy;
    let hinters = subject.hinters()?.checked_sub(hinters);
    let hinters = hinters.context("a kworker has gone with its CPU time")?;
    let counted_then = counts(subject, plan, setting)?;
    let counted = |i: usize| (counted_then[i] - counted[i]) as f64;
    let free_kb = free_kb(&subject.call("cat /proc/meminfo")?)?;
    let not_free_kb = MEM_MIB * 1024 - free_kb;
    let peak_kb = samples.iter().map(|sample| sample.ram_kb).max();
    Ok(Seen {
        integral_gib_min: integral_gib_min(&samples),
        peak_mib: mib(peak_kb.unwrap_or(0)),
        end_mib: mib(last.ram_kb),
        end_free_mib: mib(last.ram_kb) - mib(not_free_kb),
        build_s,
        guest_cpu_s: busy.as_secs_f64(),
        host_cpu_s: used.cpu_s(),
        host_system_s: used.system_s,
        host_faults: used.faults as f64,
        hinters_s: hinters.as_secs_f64(),
        requests: counted(0),
        hinted_mib: counted(1) / 1024.0,
        reused_mib: counted(2) / 1024.0,
        course: course(&samples),
    })
}

/// What the module has counted: requests, and what was hinted and used again, in KiB.
fn counts(subject: &mut Subject, plan: &Plan, setting: Setting) -> Result<[u64; 3]> {
    if !plan.counts || setting.config != Config::PageHinting {
        return Ok([0; 3]);
    }
    let state = subject.guest.port.state(subject.limit)?;
    let mut counts = [0; 3];
    for (count, name) in counts
        .iter_mut()
        .zip(["requests", "hinted_kb", "offline_used_kb"])
    {
        let value = state.stat(name);
        *count = value.with_context(|| format!("the module does not count {name}"))?;
    }
    Ok(counts)
}

fn mib(kb: u64) -> f64 {
    kb as f64 / 1024.0
}

/// MemFree of /proc/meminfo.
fn free_kb(output: &[String]) -> Result<u64> {
    let line = output.iter().find_map(|line| line.strip_prefix("MemFree:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB"));
    let number = number.and_then(|number| number.trim().parse().ok());
    number.with_context(|| format!("/proc/meminfo says: {output:?}"))
}

/// That the host did as it was told: it is no result otherwise.
fn check_huge_pages(pid: u32, wanted: bool) -> Result<()> {
    let rollup = Process::new(pid.try_into()?)?.smaps_rollup()?;
    let map = rollup.memory_map_rollup.0.first();
    let huge = map.and_then(|map| map.extension.map.get("AnonHugePages").copied());
    let huge = huge.context("smaps_rollup has no AnonHugePages")?;
    ensure!(
        (huge > 0) == wanted,
        "{} KiB of QEMU's memory are huge pages{}",
        huge / 1024,
        match wanted {
            true => ": is /sys/kernel/mm/transparent_hugepage/enabled \"never\"?",
            false => ", where none was to be",
        }
    );
    Ok(())
}

/// By the trapezoidal rule.
fn integral_gib_min(samples: &[Sample]) -> f64 {
    let kb_s: f64 = samples
        .windows(2)
        .map(|pair| {
            let mean = (pair[0].ram_kb + pair[1].ram_kb) as f64 / 2.0;
            mean * (pair[1].at - pair[0].at).as_secs_f64()
        })
        .sum();
    kb_s / f64::from(1 << 20) / 60.0
}

/// The samples thinned out: the last one of each of some hundred equal times.
fn course(samples: &[Sample]) -> Vec<(f64, f64)> {
    let end = samples.last().map_or(0.0, |sample| sample.at.as_secs_f64());
    let slot = |sample: &Sample| (sample.at.as_secs_f64() / end * SAMPLES as f64) as usize;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (i, sample) in samples.iter().enumerate() {
        let is_last = samples
            .get(i + 1)
            .is_none_or(|next| slot(next) != slot(sample));
        if is_last {
            let round = |value: f64| (value * 100.0).round() / 100.0;
            points.push((round(sample.at.as_secs_f64()), round(mib(sample.ram_kb))));
        }
    }
    points
}

type Figure = (&'static str, &'static str, fn(&Seen) -> f64);
const FIGURES: [Figure; 9] = [
    ("integral_gib_min", "GiB·min", |seen| seen.integral_gib_min),
    ("peak_mib", "MiB", |seen| seen.peak_mib),
    ("end_mib", "MiB", |seen| seen.end_mib),
    ("end_free_mib", "MiB", |seen| seen.end_free_mib),
    ("build_s", "s", |seen| seen.build_s),
    ("guest_cpu_s", "s", |seen| seen.guest_cpu_s),
    ("host_cpu_s", "s", |seen| seen.host_cpu_s),
    ("host_system_s", "s", |seen| seen.host_system_s),
    ("host_faults", "", |seen| seen.host_faults),
];

fn rows(settings: &[Setting], seen: &BTreeMap<Setting, Vec<Seen>>, measured: &mut Measured) {
    for setting in settings {
        let runs = seen.get(setting).map_or(&[][..], Vec::as_slice);
        // What is off stands in the case of each order.
        let orders = match setting.config {
            Config::Off => &ORDERS[..],
            _ => std::slice::from_ref(&setting.order),
        };
        for &order in orders {
            let case = Setting { order, ..*setting }.case();
            for (metric, unit, figure) in FIGURES {
                let of = Of {
                    part: PART.name,
                    case: &case,
                    config: setting.config,
                    metric,
                    unit,
                };
                let values: Vec<f64> = runs.iter().map(figure).collect();
                measured.rows.push(match values.is_empty() {
                    true => Row::failed(of, "no round came to it"),
                    false => Row::of_values(of, &values),
                });
            }
            if let Some(first) = runs.first() {
                measured.series.push(Series {
                    case,
                    config: setting.config,
                    metric: "resident".to_owned(),
                    x_unit: "s".to_owned(),
                    unit: "MiB".to_owned(),
                    points: first.course.clone(),
                });
            }
        }
    }
}

fn draw(_: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let mut cases: Vec<&str> = Vec::new();
    for series in &record.series {
        if !cases.contains(&&*series.case) {
            cases.push(&series.case);
        }
    }
    let mut pictures = Vec::new();
    for case in cases {
        let file = format!(
            "footprint-{}.png",
            case.replace(", ", "-").replace(' ', "-")
        );
        let title = format!("Resident memory of a guest that builds: {case}");
        let of_case = record.series.iter().filter(|series| series.case == case);
        let curves = of_case.map(|series| Curve::line(series.config, series.points.clone()));
        let chart = Chart {
            title: title.clone(),
            caption: record.machine.caption(),
            x: Axis {
                label: "seconds; unpack, make, pause, make clean, pause, drop caches, pause"
                    .to_owned(),
                is_log: false,
            },
            y: Axis {
                label: "resident of the guest's RAM (MiB)".to_owned(),
                is_log: false,
            },
            curves: curves.collect(),
        };
        chart::draw(&dir.join(&file), &chart)?;
        pictures.push(Picture {
            file,
            caption: format!("{title}; the first round.  Under TCG the build is slow."),
        });
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn samples() -> Vec<Sample> {
        (0..=6000)
            .map(|i| Sample {
                at: Duration::from_millis(i * 20),
                ram_kb: if i <= 3000 { 1 << 20 } else { 1 << 19 },
                process_kb: 0,
            })
            .collect()
    }

    #[test]
    fn the_integral_is_that_of_the_curve() {
        // A minute at 1 GiB and one at half of it.
        let integral = integral_gib_min(&samples());
        assert!((integral - 1.5).abs() < 0.001, "{integral}");
        assert_eq!(integral_gib_min(&[]), 0.0);
    }

    #[test]
    fn the_course_is_thinned_out_and_has_its_end() {
        let course = course(&samples());
        assert!(
            (SAMPLES..=SAMPLES + 1).contains(&course.len()),
            "{}",
            course.len()
        );
        assert_eq!(course.last(), Some(&(120.0, 512.0)));
        assert_eq!(super::course(&[]), []);
    }

    #[test]
    fn free_memory_is_read() {
        let lines = ["MemTotal: 2 kB", "MemFree:          123456 kB"].map(str::to_owned);
        assert_eq!(free_kb(&lines).unwrap(), 123_456);
        assert!(free_kb(&lines[..1]).is_err());
    }

    #[test]
    fn huge_pages_are_checked() {
        // This process has none or some: one of the two is refused.
        let pid = std::process::id();
        assert_ne!(
            check_huge_pages(pid, true).is_ok(),
            check_huge_pages(pid, false).is_ok()
        );
    }

    #[test]
    fn what_is_off_stands_in_the_cases_of_all_orders() {
        let settings = settings(false);
        let seen = settings
            .iter()
            .map(|setting| (*setting, vec![Seen::default()]));
        let mut measured = Measured::default();
        rows(&settings, &seen.collect(), &mut measured);
        let of = |config| -> BTreeSet<&str> {
            let rows = measured.rows.iter().filter(|row| row.config == config);
            rows.map(|row| &*row.case).collect()
        };
        assert_eq!(of(Config::Off), of(Config::PageHinting));
        assert_eq!(of(Config::Off), of(Config::Upstream2000));
        assert_eq!(of(Config::Off).len(), 4);
        assert!(measured.rows.iter().all(|row| !row.is_failed()));
    }
}
