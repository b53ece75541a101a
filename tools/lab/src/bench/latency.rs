// SPDX-License-Identifier: GPL-2.0

//! How late timers are, and how long page faults take, while memory is hinted.

use super::burst;
use super::chart::{self, Axis, Chart, Curve};
use super::config::{Config, in_turn};
use super::guest::{Boot, Subject, initramfs};
use super::report::Picture;
use super::result::{Measured, Record, Results, Series};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use crate::rss::{Probe, Sampler};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

pub static PART: Part = Part {
    name: "latency",
    title: "how late timers are, and how long faults take, while memory is hinted",
    about: "\
A guest with two CPUs and 4 GiB touches 2 GiB with huge pages; then for 6 s
the latency is measured, and 1 s after the begin all of the 2 GiB is freed.
``timer`` is Debian's cyclictest (``-m -S -p 80 -i 1000``: a thread for each CPU
that sleeps for a millisecond again and again at a real-time priority, and how
late it is).  ``page fault`` times single writes to fresh pages of 4 KiB, 64 MiB
of them mapped and unmapped again and again; what is freed and hinted is then
used, so a fault of the host may be in it.  Percentiles are over the whole
6 s for every configuration, however short or long it hints: who hints all at
once disturbs a short time, and who hints slowly a long one.  A quick run frees
512 MiB and measures for 3 s.

Under TCG, CPUs are threads of the host and compete with all that QEMU does, and
with the host's own work: compare the configurations, but take no latency for
that of a machine with KVM.",
    metrics: &[
        Metric {
            name: "p50_us",
            what: "half of the latencies are no longer than this",
            better: Better::Less,
        },
        Metric {
            name: "p99_us",
            what: "99 % are no longer",
            better: Better::Less,
        },
        Metric {
            name: "p999_us",
            what: "99.9 % are no longer",
            better: Better::Less,
        },
        Metric {
            name: "max_us",
            what: "the longest one",
            better: Better::Less,
        },
        Metric {
            name: "latencies",
            what: "how many were measured",
            better: Better::Neither,
        },
        Metric {
            name: "returned_mib",
            what: "by how much the guest-RAM mapping was less resident in the end than at \
                   its most: how much was hinted meanwhile",
            better: Better::Neither,
        },
    ],
    estimate: Duration::from_secs(7 * 60),
    quick_estimate: Duration::from_secs(70),
    run,
    draw,
};

const MEM_MIB: u64 = 4096;
/// From the begin of a measurement to the free.
const LEAD_S: u32 = 1;
/// What fault_latency maps, in MiB.
const FAULT_MIB: u32 = 64;
/// The longest latency that cyclictest counts on its own, in microseconds.
const LONGEST_US: u32 = 100_000;
/// Most points of a curve.
const MOST_POINTS: usize = 400;

/// Shares whose latency is a row.
const SHARES: [(&str, f64); 3] = [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)];

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Timer,
    Fault,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Timer, Kind::Fault];

    fn case(self) -> &'static str {
        match self {
            Kind::Timer => "timer",
            Kind::Fault => "page fault",
        }
    }

    /// The guest's command that measures for so long.
    fn command(self, seconds: u32) -> String {
        match self {
            // The loader of the libraries that came with it. Buckets without a count are
            // not sent.
            Kind::Timer => format!(
                "/selftests/ld-linux-x86-64.so.2 --library-path /selftests \
                 /selftests/cyclictest -q -m -S -p 80 -i 1000 -h {LONGEST_US} -D {seconds} | \
                 awk '/^[^0-9]/ || /^[0-9]+ [0-9\\t]*[1-9]/'"
            ),
            Kind::Fault => format!("/selftests/fault_latency {FAULT_MIB} {seconds}"),
        }
    }

    fn parse(self, output: &[String]) -> Result<Histogram> {
        match self {
            Kind::Timer => parse_cyclictest(output),
            Kind::Fault => parse_fault_latency(output),
        }
    }
}

/// Latencies in microseconds, and how often each was.
#[derive(Debug, Default, Clone, PartialEq)]
struct Histogram {
    buckets: Vec<(f64, u64)>,
    max: f64,
}

impl Histogram {
    fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The latency that this share does not exceed: that of its bucket's end.
    fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.count() as f64).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        bucket.map_or(self.max, |(latency, _)| latency.min(self.max))
    }

    fn add(&mut self, other: &Histogram) {
        self.buckets.extend(&other.buckets);
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.max = self.max.max(other.max);
    }

    /// Each latency, and the share of the latencies that are longer.
    fn longer(&self) -> Vec<(f64, f64)> {
        let all = self.count() as f64;
        let mut left = self.count();
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (latency, count) in &self.buckets {
            left -= count;
            points.push((latency.min(self.max), left as f64 / all));
        }
        // The longest of all is longer than all but itself.
        if let Some(last) = points.last_mut() {
            *last = (self.max, 1.0 / all);
        }
        let step = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let kept = points.into_iter().enumerate();
        kept.filter(|(i, _)| i % step == 0 || *i == last)
            .map(|(_, point)| point)
            .collect()
    }
}

/// cyclictest -h: lines of "MICROSECONDS COUNT COUNT ...", a count for each thread, and
/// a summary behind "#".
fn parse_cyclictest(output: &[String]) -> Result<Histogram> {
    let numbers = |text: &str| -> Result<Vec<u64>> {
        let words = text.split_whitespace();
        words
            .map(|word| {
                word.parse()
                    .with_context(|| format!("cyclictest says: {text}"))
            })
            .collect()
    };
    let summary = |what: &str| {
        let line = output.iter().find_map(|line| line.strip_prefix(what));
        numbers(line.with_context(|| format!("cyclictest says no \"{what}\": {output:?}"))?)
    };
    let mut buckets = Vec::new();
    for line in output {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            let numbers = numbers(line)?;
            ensure!(numbers.len() > 1, "cyclictest says: {line}");
            let count = numbers[1..].iter().sum();
            if count > 0 {
                buckets.push((numbers[0] as f64, count));
            }
        }
    }
    let max = summary("# Max Latencies:")?.into_iter().max();
    let max = max.context("cyclictest had no thread")? as f64;
    let over: u64 = summary("# Histogram Overflows:")?.iter().sum();
    if over > 0 {
        buckets.push((max, over));
    }
    let total: u64 = summary("# Total:")?.iter().sum();
    let histogram = Histogram { buckets, max };
    // What is over the histogram is in cyclictest's total or not, by its version.
    let count = histogram.count();
    ensure!(
        count > 0 && (count == total || count == total + over),
        "cyclictest counts {total} latencies, its histogram has {count}"
    );
    Ok(histogram)
}

/// Lines of "NANOSECONDS COUNT", and "max NANOSECONDS".
fn parse_fault_latency(output: &[String]) -> Result<Histogram> {
    let mut histogram = Histogram::default();
    let mut has_max = false;
    for line in output {
        let what = || format!("fault_latency says: {line}");
        match line.split_once(' ').with_context(what)? {
            ("max", ns) => {
                histogram.max = ns.parse::<f64>().with_context(what)? / 1e3;
                has_max = true;
            }
            (ns, count) => histogram.buckets.push((
                ns.parse::<f64>().with_context(what)? / 1e3,
                count.parse().with_context(what)?,
            )),
        }
    }
    ensure!(
        has_max && histogram.count() > 0,
        "fault_latency says: {output:?}"
    );
    Ok(histogram)
}

/// A measurement.
struct Round {
    histogram: Histogram,
    returned_mib: f64,
}

type Seen = BTreeMap<(Kind, Config), Vec<Round>>;

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let rounds = ctx.choose(3, 1);
    let configs = ctx.choose(
        &Config::PATCHED[..],
        &[
            Config::Off,
            Config::Upstream2000,
            Config::Upstream0,
            Config::PageHinting,
        ],
    );
    let dir = ctx.args.tools.join("cyclictest");
    let mut programs = vec!["memhog".to_owned(), "fault_latency".to_owned()];
    for dir in [dir.clone(), dir.join("lib")] {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = std::path::absolute(entry?.path())?;
            if path.is_file() {
                programs.push(path.to_str().context("a path is not UTF-8")?.to_owned());
            }
        }
    }
    let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
    let initramfs = initramfs(ctx, &programs)?;

    ctx.progress.steps(rounds as usize * configs.len());
    let mut seen = Seen::new();
    let outcome = measure_all(ctx, &initramfs, configs, rounds, &mut seen);
    report(ctx, configs, &seen, measured);
    outcome
}

fn measure_all(
    ctx: &Ctx<'_>,
    initramfs: &[u8],
    configs: &[Config],
    rounds: u32,
    seen: &mut Seen,
) -> Result<()> {
    for round in 0..rounds {
        let name = format!("latency-{round}");
        let mut subject = Subject::boot(ctx, &Boot::plain(&name, initramfs, MEM_MIB))?;
        for config in in_turn(configs, round) {
            ctx.progress
                .step(&format!("{config}, round {} of {rounds}", round + 1));
            subject.with(|subject| {
                // What the one before has left, or the boot, is none of this one's work.
                burst::reset(subject, MEM_MIB)?;
                subject.enter(config)?;
                for kind in Kind::ALL {
                    let of = seen.entry((kind, config)).or_default();
                    of.push(measure(ctx, subject, kind)?);
                }
                Ok(())
            })?;
        }
        subject.guest.quit()?;
    }
    Ok(())
}

/// Touches memory, and measures while it is freed.
fn measure(ctx: &Ctx<'_>, subject: &mut Subject, kind: Kind) -> Result<Round> {
    let mib = ctx.choose(2048, 512);
    let seconds = ctx.choose(6, 3);
    let sampler = Sampler::start(Probe::new(subject.guest.pid(), MEM_MIB * 1024)?)?;
    // memhog waits for a line, which it gets from the one that reads what it says.
    let command = format!(
        "rm -f /tmp/go && mkfifo /tmp/go && \
         {{ /selftests/memhog -t {mib} || echo failed; }} <> /tmp/go | {{ \
         read -r said && [ \"$said\" = touched ] || exit; \
         {{ {}; }} > /tmp/latency & \
         sleep {LEAD_S}; echo > /tmp/go; \
         read -r said && [ \"$said\" = freed ] || exit; \
         wait $! && cat /tmp/latency; }}",
        kind.command(seconds)
    );
    let output = subject.call(&command)?;
    let histogram = kind.parse(&output)?;
    let end = sampler.fresh()?;
    let (samples, _) = sampler.stop(Duration::ZERO)?;
    let peak = samples.iter().map(|sample| sample.ram_kb).max();
    let returned_kb = peak.unwrap_or(end.ram_kb) - end.ram_kb;
    Ok(Round {
        histogram,
        returned_mib: returned_kb as f64 / 1024.0,
    })
}

fn report(ctx: &Ctx<'_>, configs: &[Config], seen: &Seen, measured: &mut Measured) {
    for kind in Kind::ALL {
        for config in configs {
            let rounds = seen.get(&(kind, *config)).map_or(&[][..], Vec::as_slice);
            rows(kind, *config, rounds, measured);
        }
    }
    if ctx.quick {
        measured.notes.push(
            "A round frees 512 MiB and measures for 3 s, where a full run frees 2 GiB and \
             measures for 6 s."
                .to_owned(),
        );
    }
}

fn rows(kind: Kind, config: Config, rounds: &[Round], measured: &mut Measured) {
    let of = |metric, unit| Of {
        part: PART.name,
        case: kind.case(),
        config,
        metric,
        unit,
    };
    let mut add = |metric, unit, value: &dyn Fn(&Round) -> f64| {
        let values: Vec<f64> = rounds.iter().map(value).collect();
        measured.rows.push(match values.is_empty() {
            true => Row::failed(of(metric, unit), "no round came to it"),
            false => Row::of_values(of(metric, unit), &values),
        });
    };
    for (metric, share) in SHARES {
        add(metric, "µs", &|round| round.histogram.percentile(share));
    }
    add("max_us", "µs", &|round| round.histogram.max);
    add("latencies", "", &|round| round.histogram.count() as f64);
    add("returned_mib", "MiB", &|round| round.returned_mib);
    let mut all = Histogram::default();
    for round in rounds {
        all.add(&round.histogram);
    }
    if all.count() > 0 {
        measured.series.push(Series {
            case: kind.case().to_owned(),
            config,
            metric: "longer".to_owned(),
            x_unit: "µs".to_owned(),
            unit: "share of all".to_owned(),
            points: all.longer(),
        });
    }
}

fn draw(_: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for (kind, file, title) in [
        (
            Kind::Timer,
            "latency-timer.png",
            "How late timers are while memory is freed and hinted",
        ),
        (
            Kind::Fault,
            "latency-fault.png",
            "How long page faults take while memory is freed and hinted",
        ),
    ] {
        let series = record.series.iter();
        let series: Vec<_> = series
            .filter(|series| series.case == kind.case() && series.metric == "longer")
            .collect();
        if series.is_empty() {
            continue;
        }
        let chart = Chart {
            title: title.to_owned(),
            caption: record.machine.caption(),
            x: Axis {
                label: "latency (µs)".to_owned(),
                is_log: true,
            },
            y: Axis {
                label: "share of latencies that are longer".to_owned(),
                is_log: true,
            },
            curves: series
                .iter()
                .map(|series| {
                    let points = series.points.iter().copied();
                    let shown = points.filter(|(x, y)| *x > 0.0 && *y > 0.0);
                    Curve::line(series.config, shown.collect())
                })
                .collect(),
        };
        chart::draw(&dir.join(file), &chart)?;
        pictures.push(Picture {
            file: file.to_owned(),
            caption: format!(
                "{title}; all rounds together.  Under TCG: differences count, no more."
            ),
        });
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn percentiles_are_those_of_the_buckets() {
        let histogram = Histogram {
            buckets: vec![(1.0, 900), (2.0, 90), (4.0, 9), (8.0, 1)],
            max: 7.5,
        };
        let shares = [0.5, 0.9, 0.901, 0.99, 0.999, 1.0];
        let latencies = shares.map(|share| histogram.percentile(share));
        assert_eq!(latencies, [1.0, 1.0, 2.0, 2.0, 4.0, 7.5]);
        let points = histogram.longer();
        assert_eq!(points[0], (1.0, 0.1));
        assert_eq!(points[3], (7.5, 0.001));
    }

    #[test]
    fn histograms_are_put_together() {
        let mut all = Histogram::default();
        for (latency, max) in [(4.0, 4.0), (2.0, 3.0)] {
            all.add(&Histogram {
                buckets: vec![(1.0, 1), (latency, 1)],
                max,
            });
        }
        assert_eq!((all.count(), all.max), (4, 4.0));
        assert_eq!(all.percentile(0.5), 1.0);
        assert_eq!(all.percentile(0.75), 2.0);
    }

    #[test]
    fn curves_are_not_longer_than_they_need_to_be() {
        let histogram = Histogram {
            buckets: (0..5000).map(|i| (f64::from(i), 1)).collect(),
            max: 4999.0,
        };
        let points = histogram.longer();
        assert!(points.len() <= MOST_POINTS + 1, "{}", points.len());
        assert_eq!(points.last(), Some(&(4999.0, 1.0 / 5000.0)));
    }

    #[test]
    fn bad_output_is_no_result() {
        for bad in ["", "max 10", "1000 1", "1000 x\nmax 1", "x"] {
            assert!(parse_fault_latency(&lines(bad)).is_err(), "{bad:?}");
        }
        let tail = "# Total: 000000003 000000000\n# Max Latencies: 00009 00000\n\
                    # Histogram Overflows: 00001 00000";
        let good = parse_cyclictest(&lines(&format!("000003 000002\t000000\n{tail}"))).unwrap();
        assert_eq!(good.buckets, [(3.0, 2), (9.0, 1)]);
        for bad in [
            tail.to_owned(),
            "000003 000002\t000000".to_owned(),
            format!("000003 000007\t000000\n{tail}"),
            format!("000003\n{tail}"),
        ] {
            assert!(parse_cyclictest(&lines(&bad)).is_err(), "{bad:?}");
        }
    }
}
