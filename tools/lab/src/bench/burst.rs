// SPDX-License-Identifier: GPL-2.0

//! How fast memory is back that a guest has freed, and what that costs.

use super::chart::{Axis, Bars, Chart, Curve, draw, draw_bars};
use super::config::{Config, in_turn};
use super::guest::{self, Boot, HostCpu, Subject};
use super::report::Picture;
use super::result::{Measured, Record, Results, Series};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part, host_available_mib};
use crate::interrupt;
use crate::returned::{Burst, Sample};
use crate::rss::{FAST, Probe, Sampler};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

pub static PART: Part = Part {
    name: "burst",
    title: "how fast freed memory is back on the host",
    about: "\
A guest with two CPUs touches memory and frees it at one blow, and the resident part
of its RAM is sampled on the host every 2 ms.  \"THP\": huge pages.  \"4 KiB pages,
fragmented\": before that, memory was taken page by page, and every second block of
2 MiB given back; no block of the free memory has a free neighbour to merge with, and
the touch takes it page by page.  Where the burst before has left anything on the
host, page_hinting is loaded and hints it, and goes: since the state of a block that
was reported outlives that, each configuration has the touched memory alone to give
back.  One boot serves all configurations in a round.

The watch ends when 99 % was back and nothing has moved for a second, or after 12 s
(delay 2000), 1 s (off) or 5 s.  CPU time is what
was used in it, less what the same guest uses idle in that time; the free itself is in
it.  Beside it stands what the host alone takes to
discard such memory (``madvise(MADV_DONTNEED)``), in pieces of 2 and of 64 MiB.",
    metrics: &[
        Metric {
            name: "returned_50_s",
            what: "seconds from the guest's \"freed\" until half of what its RAM's mapping \
                   had grown by in the touch had left it for good; less than the period of 2 ms \
                   counts as 2 ms",
            better: Better::Less,
        },
        Metric {
            name: "returned_90_s",
            what: "the same for 90 %",
            better: Better::Less,
        },
        Metric {
            name: RETURNED_95,
            what: "the same for 95 %",
            better: Better::Less,
        },
        Metric {
            name: "returned_99_s",
            what: "the same for 99 %",
            better: Better::Less,
        },
        Metric {
            name: "stays_mib",
            what: "what was resident at the end, more than before the touch",
            better: Better::Less,
        },
        Metric {
            name: "guest_cpu_ms",
            what: "CPU time of all of the guest, in its own accounting of steps of 10 ms, \
                   a GiB returned",
            better: Better::Less,
        },
        Metric {
            name: "guest_hinter_ms",
            what: "of that, the module's thread and the kworkers, which page_reporting is one of, a GiB returned",
            better: Better::Less,
        },
        Metric {
            name: "qemu_cpu_ms",
            what: "CPU time of the QEMU process, a GiB returned; under TCG the guest's own \
                   work is in it",
            better: Better::Less,
        },
        Metric {
            name: "qemu_main_ms",
            what: "of that, its main thread, which discards the memory, a GiB returned",
            better: Better::Less,
        },
        Metric {
            name: "discard_2_mib_gib_s",
            what: "GiB a second that the host discards in pieces of 2 MiB: the limit",
            better: Better::More,
        },
        Metric {
            name: "discard_64_mib_gib_s",
            what: "the same in pieces of 64 MiB",
            better: Better::More,
        },
    ],
    estimate: Duration::from_secs(14 * 60),
    quick_estimate: Duration::from_secs(80),
    run,
    draw: pictures,
};

/// The frontier is drawn with it.
pub const RETURNED_95: &str = "returned_95_s";
/// Shares whose return is timed.
const SHARES: [(u32, &str); 4] = [
    (50, "returned_50_s"),
    (90, "returned_90_s"),
    (95, RETURNED_95),
    (99, "returned_99_s"),
];
/// Memory that a guest has beside what is touched and kept, in MiB.
const OWN_MIB: u64 = 640;
/// How long the guest is let be after a configuration was put in force.
const SETTLE: Duration = Duration::from_millis(500);
/// How long nothing moves before a watch is over.
const STILL: Duration = Duration::from_secs(1);
/// How long it is seen what the guest uses when idle.
const IDLE: Duration = Duration::from_secs(2);
/// Longest wait until all that is free is given back.
const RESET: Duration = Duration::from_secs(20);
/// What may be left on the host before a burst, in MiB.
const LEFT_MIB: u64 = 8;
/// Most points of a course that are kept for the picture.
const MOST_POINTS: usize = 300;
/// The case whose course is drawn.
const DRAWN: (u64, Pages) = (1024, Pages::Huge);

/// How memory is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    Huge,
    Fragmented,
}

impl Pages {
    fn name(self) -> &'static str {
        match self {
            Pages::Huge => "THP",
            Pages::Fragmented => "4 KiB pages, fragmented",
        }
    }

    /// What is taken page by page before, half of which is kept, in MiB.
    fn taken_mib(self, touch_mib: u64) -> u64 {
        match self {
            Pages::Huge => 0,
            Pages::Fragmented => 2 * (touch_mib + touch_mib / 16 + 128),
        }
    }

    /// Memory of a guest that touches so much, in MiB.
    fn guest_mib(self, touch_mib: u64) -> u64 {
        OWN_MIB + touch_mib.max(self.taken_mib(touch_mib))
    }

    fn memhog(self) -> &'static str {
        match self {
            Pages::Huge => "memhog -t",
            Pages::Fragmented => "memhog -T",
        }
    }
}

/// What a case is called.
pub fn case_name(mib: u64, pages: Pages) -> String {
    match mib {
        ..1024 => format!("{mib} MiB, {}", pages.name()),
        _ => format!("{} GiB, {}", mib / 1024, pages.name()),
    }
}

/// How long a configuration is watched at most.
pub fn window(config: Config) -> Duration {
    Duration::from_secs(match config {
        Config::Upstream2000 | Config::Unpatched2000 => 12,
        Config::Upstream250 | Config::Upstream100 | Config::Upstream0 | Config::PageHinting => 5,
        Config::Host | Config::Off | Config::PageHintingIdle | Config::UnpatchedOff => 1,
    })
}

/// Sizes in MiB, and how often they are measured.
fn sizes(quick: bool, pages: Pages) -> &'static [(u64, u32)] {
    match (quick, pages) {
        (true, Pages::Huge) => &[(1024, 1)],
        (true, Pages::Fragmented) => &[(256, 1)],
        (false, Pages::Huge) => &[(256, 2), (1024, 2), (2048, 2), (4096, 1)],
        (false, Pages::Fragmented) => &[(256, 1), (1024, 1), (2048, 1), (4096, 1)],
    }
}

/// What a round gives.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    returned_s: [Option<f64>; SHARES.len()],
    stays_mib: f64,
    returned_gib: f64,
    used: Used,
}

/// CPU time in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    guest: f64,
    hinters: f64,
    qemu: f64,
    qemu_main: f64,
}

/// One of them.
type Get = fn(&Used) -> f64;

impl Used {
    /// What was used beyond what an idle guest uses; not less than nothing.
    fn beyond(self, idle: Used, seconds: f64) -> Used {
        let less = |used: f64, rate: f64| (used - rate * seconds).max(0.0);
        Used {
            guest: less(self.guest, idle.guest),
            hinters: less(self.hinters, idle.hinters),
            qemu: less(self.qemu, idle.qemu),
            qemu_main: less(self.qemu_main, idle.qemu_main),
        }
    }
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let initramfs = guest::initramfs(ctx, &["memhog", "fragment"])?;
    let all = [Pages::Huge, Pages::Fragmented];
    let bursts = all.iter().flat_map(|pages| sizes(ctx.quick, *pages));
    let steps: usize = bursts.map(|(_, rounds)| *rounds as usize).sum();
    ctx.progress.steps(steps * Config::PATCHED.len());
    let mut discards = BTreeMap::new();
    for pages in all {
        let available = host_available_mib()?;
        let (fit, large): (Vec<_>, Vec<_>) = sizes(ctx.quick, pages)
            .iter()
            .partition(|(mib, _)| pages.guest_mib(*mib) <= available);
        for (mib, _) in large {
            let case = case_name(mib, pages);
            let why = format!(
                "it needs {} MiB, and the host has {available} MiB available",
                pages.guest_mib(mib)
            );
            let failed = |config| Row::failed(row(&case, config, RETURNED_95, "s"), &why);
            measured.rows.extend(Config::PATCHED.map(failed));
        }
        let mut seen: BTreeMap<(u64, Config), Vec<Figures>> = BTreeMap::new();
        for round in 0..fit.iter().map(|(_, rounds)| *rounds).max().unwrap_or(0) {
            let mut at = (Config::PageHinting, String::new());
            let mut rounds = Round {
                ctx,
                pages,
                round,
                sizes: fit
                    .iter()
                    .filter(|size| round < size.1)
                    .map(|size| size.0)
                    .collect(),
            };
            let outcome = rounds.run(&initramfs, &mut at, &mut seen, measured);
            measured.unless_failed(outcome, &[&*at.1], |case| row(case, at.0, RETURNED_95, "s"))?;
            for (metric, piece) in [("discard_2_mib_gib_s", 2), ("discard_64_mib_gib_s", 64)] {
                let rates: &mut Vec<f64> = discards.entry((pages.name(), metric)).or_default();
                rates.push(discard_rate(pages, piece)?);
            }
        }
        for ((mib, config), rounds) in &seen {
            measured
                .rows
                .extend(rows(&case_name(*mib, pages), *config, rounds));
        }
    }
    for ((pages, metric), rates) in &discards {
        let case = format!("the host alone, {pages}");
        let of = row(&case, Config::Host, metric, "GiB/s");
        measured.rows.push(Row::of_values(of, rates));
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

fn rows(case: &str, config: Config, rounds: &[Figures]) -> Vec<Row> {
    let of = |metric, unit| row(case, config, metric, unit);
    let mut rows = Vec::new();
    for (i, (_, metric)) in SHARES.iter().enumerate() {
        let times: Vec<_> = rounds.iter().map(|round| round.returned_s[i]).collect();
        let mut row = Row::of(of(metric, "s"), &times);
        if times.iter().any(Option::is_none) && config != Config::Off {
            row.note = Some(format!("not within {} s", window(config).as_secs()));
        }
        rows.push(row);
    }
    let stays: Vec<_> = rounds.iter().map(|round| round.stays_mib).collect();
    rows.push(Row::of_values(of("stays_mib", "MiB"), &stays));
    let cpu: [(&str, Get); 4] = [
        ("guest_cpu_ms", |used| used.guest),
        ("guest_hinter_ms", |used| used.hinters),
        ("qemu_cpu_ms", |used| used.qemu),
        ("qemu_main_ms", |used| used.qemu_main),
    ];
    for (metric, get) in cpu {
        // Where next to nothing came back, there is no GiB to pay for.
        let per_gib: Vec<_> = rounds
            .iter()
            .filter(|round| round.returned_gib > 0.1)
            .map(|round| get(&round.used) * 1e3 / round.returned_gib)
            .collect();
        if !per_gib.is_empty() {
            rows.push(Row::of_values(of(metric, "ms"), &per_gib));
        }
    }
    rows
}

/// A boot, in which each configuration has a burst of each size.
struct Round<'a> {
    ctx: &'a Ctx<'a>,
    pages: Pages,
    round: u32,
    sizes: Vec<u64>,
}

impl Round<'_> {
    fn run(
        &mut self,
        initramfs: &[u8],
        at: &mut (Config, String),
        seen: &mut BTreeMap<(u64, Config), Vec<Figures>>,
        measured: &mut Measured,
    ) -> Result<()> {
        let largest = self.sizes.iter().copied().max().context("no size")?;
        let mem_mib = self.pages.guest_mib(largest);
        let log = format!("burst-{:?}-{}", self.pages, self.round).to_lowercase();
        at.1 = case_name(largest, self.pages);
        let mut subject = Subject::boot(self.ctx, &Boot::plain(&log, initramfs, mem_mib))?;
        subject.with(|subject| {
            // Where memhog waits for the word to free.
            subject.call("mkfifo /tmp/go && exec 4<>/tmp/go")?;
            if self.pages == Pages::Fragmented {
                fragment(subject, self.pages.taken_mib(largest))?;
            }
            let mut clean_mib = reset(subject, mem_mib)?;
            let idle = idle(subject)?;
            for config in in_turn(&Config::PATCHED, self.round) {
                for mib in &self.sizes {
                    *at = (config, case_name(*mib, self.pages));
                    self.ctx.progress.step(&format!(
                        "round {}, {config}, {}",
                        self.round + 1,
                        at.1
                    ));
                    let left_mib = resident_mib(subject, mem_mib)?;
                    if left_mib > clean_mib + LEFT_MIB {
                        clean_mib = reset(subject, mem_mib)?;
                    }
                    subject.enter(config)?;
                    subject.rest(SETTLE)?;
                    let (figures, points) = self.burst(subject, mem_mib, *mib, config, idle)?;
                    if self.round == 0 && DRAWN == (*mib, self.pages) {
                        measured.series.push(Series {
                            case: at.1.clone(),
                            config,
                            metric: "resident".into(),
                            x_unit: "s".into(),
                            unit: "MiB".into(),
                            points,
                        });
                    }
                    seen.entry((*mib, config)).or_default().push(figures);
                }
            }
            Ok(())
        })?;
        subject.guest.quit()
    }

    fn burst(
        &self,
        subject: &mut Subject,
        mem_mib: u64,
        mib: u64,
        config: Config,
        idle: Used,
    ) -> Result<(Figures, Vec<(f64, f64)>)> {
        let limit = subject.limit;
        let sampler = Sampler::start(Probe::new(subject.guest.pid(), mem_mib * 1024)?)?;
        let before = sampler.fresh()?;
        let hog = self.pages.memhog();
        // Its words go to the port while other commands run.
        subject.call(&format!("/selftests/{hog} {mib} <&4 >&3 2>&3 & hog=$!"))?;
        subject.guest.port.wait_for("touched", limit)?;
        let start = Usage::at_start(subject)?;
        let touched = sampler.fresh()?;
        sampler.set_period(FAST);
        // Until there are samples at this period.
        interrupt::sleep_until(Instant::now() + FAST * 10)?;
        let asked = sampler.fresh()?;
        let began = Instant::now();
        let sent = sampler.since_start(subject.guest.port.send("echo >&4; wait $hog")?);
        let freed = subject.guest.port.wait_for("freed", limit)?;
        let burst = Burst {
            freed: sampler.since_start(freed),
            before_kb: before.ram_kb,
            peak_kb: touched.ram_kb.max(asked.ram_kb),
            // All that is free and resident was given back, or nearly: what the touch
            // found there still is not owed.
            touched_kb: 0,
        };
        let grown_mib = burst.owed_kb() / 1024;
        ensure!(
            grown_mib * 10 >= mib * 8,
            "the touch of {mib} MiB made {grown_mib} MiB more resident: what was free had not \
             been given back"
        );
        watch(&sampler, &burst, freed + window(config))?;
        let status = subject.guest.port.finish(limit, drop)?;
        ensure!(status == 0, "memhog ended with status {status}");
        let used = Usage::at_end(subject)?
            .since(&start)
            .beyond(idle, began.elapsed().as_secs_f64());
        let (samples, _) = sampler.stop(burst.freed)?;
        let last = samples.last().context("there are no samples")?;
        let figures = Figures {
            returned_s: SHARES.map(|(percent, _)| {
                let seconds = burst.returned_s(&samples, percent)?;
                // A shorter time than a period is not known.
                Some(seconds.max(FAST.as_secs_f64()))
            }),
            stays_mib: last.ram_kb.saturating_sub(before.ram_kb) as f64 / 1024.0,
            returned_gib: burst.peak_kb.saturating_sub(last.ram_kb) as f64 / f64::from(1 << 20),
            used,
        };
        // Memory may be back before the guest has said that all is freed.
        let course = course(&burst, sent, &samples);
        Ok((figures, course))
    }
}

/// Until the memory is back and nothing moves, or the time is over.
fn watch(sampler: &Sampler, burst: &Burst, end: Instant) -> Result<()> {
    let mut lowest = u64::MAX;
    let mut moved = Instant::now();
    while Instant::now() < end {
        interrupt::sleep_until(end.min(Instant::now() + interrupt::NOTICE))?;
        let Some(sample) = sampler.latest() else {
            continue;
        };
        // A page or two come and go.
        if sample.ram_kb + 1024 < lowest {
            lowest = sample.ram_kb;
            moved = Instant::now();
        }
        if burst.back_percent(&sample) >= 99.0 && moved.elapsed() > STILL {
            break;
        }
    }
    Ok(())
}

/// What guest and host have used so far.
struct Usage {
    guest: Duration,
    hinters: Duration,
    host: HostCpu,
}

impl Usage {
    /// Looking at the threads costs more than all the rest, and is left out: it comes
    /// first here, and last at the end.
    fn at_start(subject: &mut Subject) -> Result<Self> {
        let hinters = subject.hinters()?;
        Ok(Usage {
            hinters,
            guest: subject.busy()?,
            host: subject.host()?,
        })
    }

    fn at_end(subject: &mut Subject) -> Result<Self> {
        let host = subject.host()?;
        let guest = subject.busy()?;
        Ok(Usage {
            host,
            guest,
            hinters: subject.hinters()?,
        })
    }

    fn since(&self, earlier: &Self) -> Used {
        let host = self.host.since(&earlier.host);
        Used {
            guest: self.guest.saturating_sub(earlier.guest).as_secs_f64(),
            hinters: self.hinters.saturating_sub(earlier.hinters).as_secs_f64(),
            qemu: host.cpu_s(),
            qemu_main: host.main_s,
        }
    }
}

/// What an idle guest uses in a second.
fn idle(subject: &mut Subject) -> Result<Used> {
    subject.enter(Config::Off)?;
    subject.rest(SETTLE)?;
    let start = Usage::at_start(subject)?;
    let began = Instant::now();
    subject.rest(IDLE)?;
    let used = Usage::at_end(subject)?.since(&start);
    let seconds = began.elapsed().as_secs_f64();
    Ok(Used {
        guest: used.guest / seconds,
        hinters: used.hinters / seconds,
        qemu: used.qemu / seconds,
        qemu_main: used.qemu_main / seconds,
    })
}

/// Leaves every second block of 2 MiB, of so much memory, to itself.
fn fragment(subject: &mut Subject, mib: u64) -> Result<()> {
    subject.call(&format!(
        "sleep 100000 | /selftests/fragment 9 {mib} > /tmp/fragment 2>&1 & \
         while [ ! -s /tmp/fragment ]; do sleep 0.2; done"
    ))?;
    let said = subject.call("cat /tmp/fragment")?;
    let kb = said.first().and_then(|line| line.parse::<u64>().ok());
    let kb = kb.with_context(|| format!("fragment says: {}", said.join("\n")))?;
    // Blocks at the edges of what it was given are not whole.
    if kb < mib * 1024 * 45 / 100 {
        bail!("fragment leaves {kb} KiB free of {mib} MiB, not half of it");
    }
    Ok(())
}

/// Gives back all that is free: what is resident then, in MiB.
pub fn reset(subject: &mut Subject, mem_mib: u64) -> Result<u64> {
    subject.enter(Config::PageHinting)?;
    // If that takes too long, it is seen below.
    subject.call("echo 1 > /sys/kernel/mm/page_hinting/flush || :")?;
    let end = Instant::now() + RESET;
    let mut last = u64::MAX;
    let mut still = 0;
    while still < 2 {
        if Instant::now() > end {
            bail!(
                "free memory is still being given back after {} s",
                RESET.as_secs()
            );
        }
        subject.rest(Duration::from_millis(500))?;
        let now = resident_mib(subject, mem_mib)?;
        still = if now + 2 >= last { still + 1 } else { 0 };
        last = last.min(now);
    }
    Ok(last)
}

fn resident_mib(subject: &Subject, mem_mib: u64) -> Result<u64> {
    let (ram_kb, _) = Probe::new(subject.guest.pid(), mem_mib * 1024)?.look()?;
    Ok(ram_kb / 1024)
}

/// GiB a second in which the host discards memory of its own in pieces of so many MiB.
fn discard_rate(pages: Pages, piece_mib: usize) -> Result<f64> {
    const MIB: usize = 1 << 20;
    const SIZE: usize = 1024 * MIB;
    let advice = match pages {
        Pages::Huge => MmapAdvise::MADV_HUGEPAGE,
        Pages::Fragmented => MmapAdvise::MADV_NOHUGEPAGE,
    };
    // Room to begin where a huge page does.
    let len = NonZeroUsize::new(SIZE + 2 * MIB).context("no size")?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping of its own; all that is written and discarded lies in it, and
    // it is taken away at the end.
    unsafe {
        let map = mmap_anonymous(None, len, access, MapFlags::MAP_PRIVATE)?;
        let start = map.cast::<u8>();
        let start = start.add(start.align_offset(2 * MIB));
        madvise(start.cast(), SIZE, advice)?;
        for offset in (0..SIZE).step_by(4096) {
            start.add(offset).write_volatile(1);
        }
        let began = Instant::now();
        for offset in (0..SIZE).step_by(piece_mib * MIB) {
            let piece = start.add(offset).cast();
            madvise(piece, piece_mib * MIB, MmapAdvise::MADV_DONTNEED)?;
        }
        let took = began.elapsed();
        munmap(map, len.get())?;
        Ok((SIZE >> 30) as f64 / took.as_secs_f64())
    }
}

/// How much more was resident than before, in MiB, by seconds after the order to free.
fn course(burst: &Burst, asked: Duration, samples: &[Sample]) -> Vec<(f64, f64)> {
    // Time goes by in ratios, so that the first milliseconds are seen as well.
    let step = 10f64.powf(5.0 / MOST_POINTS as f64);
    let mut points: Vec<(f64, f64)> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.at > asked) {
        let seconds = (sample.at - asked).as_secs_f64();
        if points.last().is_none_or(|last| seconds >= last.0 * step) {
            let more = sample.ram_kb.saturating_sub(burst.before_kb) as f64 / 1024.0;
            points.push(((seconds * 1e6).round() / 1e6, more.round()));
        }
    }
    points
}

fn pictures(results: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    let cases: Vec<_> = [Pages::Huge, Pages::Fragmented]
        .iter()
        .flat_map(|pages| {
            sizes(false, *pages)
                .iter()
                .map(|size| case_name(size.0, *pages))
        })
        .collect();
    let groups = Bars::groups_of(results, PART.name, RETURNED_95, &cases);
    // What is never back has no place among those that come back.
    let groups: Vec<_> = groups
        .into_iter()
        .map(|(case, bars)| {
            let hints = bars.into_iter().filter(|bar| bar.config != Config::Off);
            (case, hints.collect())
        })
        .collect();
    if !groups.is_empty() {
        let title = "burst: time until 95 % of the freed memory is back on the host";
        draw_bars(
            &dir.join("burst-95.png"),
            &Bars {
                title: title.to_owned(),
                caption: record.machine.caption(),
                y: Axis {
                    label: "seconds; a frame for \"not while it was watched\"".to_owned(),
                    is_log: true,
                },
                groups,
            },
        )?;
        pictures.push(Picture {
            file: "burst-95.png".to_owned(),
            caption: title.to_owned(),
        });
    }
    if !record.series.is_empty() {
        let title = format!("burst: {}, freed", record.series[0].case);
        let curves = record.series.iter();
        draw(
            &dir.join("burst-course.png"),
            &Chart {
                title: title.clone(),
                caption: record.machine.caption(),
                x: Axis {
                    label: "seconds after the guest's program was told to free the memory".into(),
                    is_log: true,
                },
                y: Axis {
                    label: "more resident on the host than before (MiB)".into(),
                    is_log: false,
                },
                curves: curves
                    .map(|series| Curve::line(series.config, series.points.clone()))
                    .collect(),
            },
        )?;
        pictures.push(Picture {
            file: "burst-course.png".to_owned(),
            caption: title,
        });
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_names() {
        assert_eq!(case_name(256, Pages::Huge), "256 MiB, THP");
        let name = case_name(4096, Pages::Fragmented);
        assert_eq!(name, "4 GiB, 4 KiB pages, fragmented");
    }

    #[test]
    fn rounds_become_rows() {
        let round = |time: Option<f64>, returned_gib| Figures {
            returned_s: [Some(0.1), Some(0.2), time, None],
            stays_mib: 10.0,
            returned_gib,
            used: Used {
                guest: 0.5,
                ..Used::default()
            },
        };
        let rounds = [
            round(Some(1.0), 0.5),
            round(None, 1.0),
            round(Some(2.0), 0.0),
        ];
        let rows = rows("1 GiB, THP", Config::Upstream250, &rounds);
        let row = |metric: &str| rows.iter().find(|row| row.metric == metric).unwrap();
        let back = row(RETURNED_95);
        assert_eq!((back.median, back.max, back.n), (Some(2.0), None, 3));
        assert_eq!(back.note.as_deref(), Some("not within 5 s"));
        assert_eq!(row("returned_99_s").median, None);
        // The round that brought nothing back has no cost per GiB.
        let cpu = row("guest_cpu_ms");
        assert_eq!((cpu.min, cpu.max, cpu.n), (Some(500.0), Some(1000.0), 2));
    }

    #[test]
    fn idle_time_is_no_cost() {
        let used = Used {
            guest: 1.0,
            qemu: 0.1,
            ..Used::default()
        };
        let idle = Used {
            guest: 0.05,
            qemu: 0.02,
            ..Used::default()
        };
        let used = used.beyond(idle, 10.0);
        assert_eq!((used.guest, used.qemu), (0.5, 0.0));
    }

    #[test]
    fn the_host_discards() {
        assert!(discard_rate(Pages::Huge, 64).unwrap() > 0.0);
        assert!(discard_rate(Pages::Fragmented, 2).unwrap() > 0.0);
    }
}
