// SPDX-License-Identifier: GPL-2.0

//! The simulator beside guests: the same allocations in both.

use super::chart::{Axis, Chart, Curve, draw};
use super::config::Config;
use super::guest::{self, Boot, Subject};
use super::report::Picture;
use super::result::{Measured, Record, Results};
use super::row::{Of, Row};
use super::{Better, Ctx, Metric, Part};
use crate::returned::Sample;
use crate::rss::{FAST, Probe, Sampler};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub static PART: Part = Part {
    name: "model",
    title: "how near the simulator is",
    about: "\
A guest of 2 GiB with two CPUs runs a workload while nobody hints, and the allocations and
frees of huge pages are recorded (``kmem:mm_page_alloc`` and ``mm_page_free``).  The
simulator (tools/sim) replays the recording under the module's policy and its models of
page reporting, with a refault of 2 MiB at 742 us; the guest runs the same
workload under the real ones, one after the other, once.  Two figures are compared: the
memory that the host had on average, and how much the host had to bring back, both over
the time that the workload took, which for the simulator is that of the recording.
\"Error\" is simulated less measured, in percent of the scale: for the memory, of the most
that the workload uses; for what is brought back, of the most that any configuration
brought back.  Not part of ``all``.",
    metrics: &[
        Metric {
            name: RESIDENT,
            what: "resident part of the guest's RAM above what it was before the workload, \
                   with all that was free hinted; the mean over time",
            better: Better::Neither,
        },
        Metric {
            name: SIM_RESIDENT,
            what: "the same in the simulator",
            better: Better::Neither,
        },
        Metric {
            name: RESIDENT_ERROR,
            what: "the difference, in percent of the most that the workload uses",
            better: Better::Neither,
        },
        Metric {
            name: BACK,
            what: "memory that the host brought back: what the resident part has grown by \
                   from sample to sample, each 2 ms, added up; a second",
            better: Better::Neither,
        },
        Metric {
            name: SIM_BACK,
            what: "the same in the simulator",
            better: Better::Neither,
        },
        Metric {
            name: BACK_ERROR,
            what: "the difference, in percent of the most of any configuration",
            better: Better::Neither,
        },
    ],
    estimate: Duration::from_secs(15 * 60),
    quick_estimate: Duration::from_secs(3 * 60),
    run,
    draw: pictures,
};

const RESIDENT: &str = "resident_mib";
const SIM_RESIDENT: &str = "sim_resident_mib";
const RESIDENT_ERROR: &str = "resident_error_percent";
const BACK: &str = "back_mib_s";
const SIM_BACK: &str = "sim_back_mib_s";
const BACK_ERROR: &str = "back_error_percent";

const MEM_MIB: u64 = 2048;
/// What is touched and freed before each run, so that the guest has used and hinted it.
const BEFORE_MIB: u64 = 1100;
/// Until all of that is hinted, at the longest delay.
const SETTLE: Duration = Duration::from_secs(12);
/// What a refault of 2 MiB is taken to cost the guest, in microseconds: what was measured under TCG.
const REFAULT_US: u64 = 742;
const TRACING: &str = "/sys/kernel/tracing";
/// The configurations, and what the simulator calls them.
const CONFIGS: [(Config, &str); 5] = [
    (Config::Upstream2000, "page_reporting, 2000 ms"),
    (Config::Upstream250, "page_reporting, 250 ms"),
    (Config::Upstream100, "page_reporting, 100 ms"),
    (Config::Upstream0, "page_reporting, 0 ms"),
    (Config::PageHinting, "module, 1000 ms"),
];

/// Something to run in the guest.
struct Workload {
    name: &'static str,
    command: &'static str,
}

const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "512 MiB, gap 200 ms",
        command: "/selftests/churn -t 512 1 200 20 > /dev/null",
    },
    Workload {
        name: "512 MiB, gap 0 ms",
        command: "/selftests/churn -t 512 1 0 20 > /dev/null",
    },
    Workload {
        name: "512 MiB, gap 1000 ms",
        command: "/selftests/churn -t 512 1 1000 20 > /dev/null",
    },
    Workload {
        name: "512 MiB, gap 4000 ms",
        command: "/selftests/churn -t 512 1 4000 30 > /dev/null",
    },
    Workload {
        name: "1 GiB, once",
        command: "/selftests/memhog -t 1024 < /dev/null > /dev/null; sleep 12",
    },
];

/// One of the simulator's rows: what is read of it.
#[derive(Debug, Deserialize)]
struct Simulated {
    hinter: String,
    offline_used_gib: f64,
    peak_mib: f64,
    resident_mib: f64,
}

/// What the host had of a workload, and what it brought back, in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Host {
    resident_mib: f64,
    back_mib: f64,
    seconds: f64,
}

impl Host {
    /// From the samples between two moments.
    fn of(samples: &[Sample], from: Duration, to: Duration) -> Result<Self> {
        let within: Vec<_> = samples
            .iter()
            .filter(|sample| (from..=to).contains(&sample.at))
            .collect();
        let base = samples.iter().rfind(|sample| sample.at < from);
        let base_kb = base
            .or(samples.first())
            .context("there are no samples")?
            .ram_kb;
        let mut kb_s = 0.0;
        let mut back_kb = 0;
        for pair in within.windows(2) {
            let above = |sample: &Sample| sample.ram_kb as f64 - base_kb as f64;
            let time = (pair[1].at - pair[0].at).as_secs_f64();
            kb_s += (above(pair[0]) + above(pair[1])) / 2.0 * time;
            back_kb += pair[1].ram_kb.saturating_sub(pair[0].ram_kb);
        }
        let seconds = (to - from).as_secs_f64();
        ensure!(within.len() > 1 && seconds > 0.0, "there are no samples");
        Ok(Host {
            resident_mib: kb_s / seconds / 1024.0,
            back_mib: back_kb as f64 / 1024.0,
            seconds,
        })
    }
}

fn run(ctx: &Ctx<'_>, measured: &mut Measured) -> Result<()> {
    let workloads = ctx.choose(&WORKLOADS[..], &WORKLOADS[..1]);
    let initramfs = guest::initramfs(ctx, &["churn", "memhog"])?;
    ctx.progress.steps(workloads.len() * (CONFIGS.len() + 1));
    let mut subject = Subject::boot(ctx, &Boot::plain("model", &initramfs, MEM_MIB))?;
    subject.with(|subject| {
        for (i, workload) in workloads.iter().enumerate() {
            measured.rows.extend(compare(ctx, subject, workload, i)?);
        }
        Ok(())
    })?;
    subject.guest.quit()
}

fn compare(
    ctx: &Ctx<'_>,
    subject: &mut Subject,
    workload: &Workload,
    number: usize,
) -> Result<Vec<Row>> {
    let mut seen = Vec::new();
    for (config, hinter) in CONFIGS {
        ctx.progress.step(&format!("{}, {config}", workload.name));
        prepare(subject, config)?;
        let sampler = Sampler::start(Probe::new(subject.guest.pid(), MEM_MIB * 1024)?)?;
        sampler.set_period(FAST);
        subject.rest(Duration::from_millis(200))?;
        let began = sampler.since_start(Instant::now());
        subject.call(workload.command)?;
        let ended = sampler.since_start(Instant::now());
        let (samples, _) = sampler.stop(began)?;
        seen.push((config, hinter, Host::of(&samples, began, ended)?));
    }

    ctx.progress.step(&format!("{}, recorded", workload.name));
    prepare(subject, Config::Off)?;
    let (trace, took) = record(subject, workload)?;
    let file = ctx.args.out.join(format!("log/model-{number}.trace"));
    fs::write(&file, trace.join("\n") + "\n").with_context(|| file.display().to_string())?;
    let simulated = replay(ctx, &file, took)?;
    rows(workload.name, &seen, &simulated, took)
}

/// Puts a configuration in force in which all that is free was used and hinted.
fn prepare(subject: &mut Subject, config: Config) -> Result<()> {
    subject.enter(config)?;
    subject.call(&format!("/selftests/memhog -t {BEFORE_MIB} < /dev/null"))?;
    subject.rest(SETTLE)?;
    if config == Config::PageHinting {
        // To the simulator's module that was long ago, too.
        subject.enter(config)?;
    }
    Ok(())
}

/// Runs the workload, and returns the trace of its huge pages, and how long it took.
fn record(subject: &mut Subject, workload: &Workload) -> Result<(Vec<String>, Duration)> {
    subject.call(&format!(
        "(cd {TRACING} && {{ [ -e trace ] || {{ mount -t tracefs tracing . && cd {TRACING}; }}; }} && \
         echo 0 > tracing_on && echo > trace && echo 8192 > buffer_size_kb && \
         for event in mm_page_alloc mm_page_free; do \
         echo 'order >= 9' > events/kmem/$event/filter && \
         echo 1 > events/kmem/$event/enable || exit; done && echo 1 > tracing_on)"
    ))?;
    let began = Instant::now();
    subject.call(workload.command)?;
    let took = began.elapsed();
    let trace = subject.call(&format!(
        "(cd {TRACING} && echo 0 > tracing_on && cat trace && \
         for event in mm_page_alloc mm_page_free; do \
         echo 0 > events/kmem/$event/enable || exit; done)"
    ))?;
    Ok((trace, took))
}

fn replay(ctx: &Ctx<'_>, trace: &Path, time: Duration) -> Result<Vec<Simulated>> {
    let dir = tempfile::tempdir()?;
    let output = Command::new(&ctx.args.sim)
        .args(["replay".to_owned(), "--for-ms".to_owned()])
        .arg(time.as_millis().to_string())
        .args(["--mem".to_owned(), MEM_MIB.to_string()])
        .args(["--refault-us".to_owned(), REFAULT_US.to_string()])
        .arg("--out")
        .arg(dir.path())
        .arg(trace)
        .output()
        .with_context(|| format!("{}: make sim builds it", ctx.args.sim.display()))?;
    ensure!(
        output.status.success(),
        "the simulator says: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_str(&fs::read_to_string(
        dir.path().join("replay.json"),
    )?)?)
}

fn rows(
    case: &str,
    seen: &[(Config, &str, Host)],
    simulated: &[Simulated],
    time: Duration,
) -> Result<Vec<Row>> {
    let of_hinter = |hinter: &str| {
        let row = simulated.iter().find(|row| row.hinter == hinter);
        row.with_context(|| format!("the simulator has no {hinter}"))
    };
    let rate = |host: &Host| host.back_mib / host.seconds;
    let most_back = seen.iter().map(|(.., host)| rate(host)).fold(0.0, f64::max);
    let mut rows = Vec::new();
    for (config, hinter, host) in seen {
        let sim = of_hinter(hinter)?;
        ensure!(
            sim.peak_mib > 0.0 && most_back > 0.0,
            "{case}: nothing was recorded, or nothing brought back"
        );
        let sim_back = sim.offline_used_gib * 1024.0 / time.as_secs_f64();
        for (metric, unit, value) in [
            (RESIDENT, "MiB", host.resident_mib),
            (SIM_RESIDENT, "MiB", sim.resident_mib),
            (
                RESIDENT_ERROR,
                "%",
                (sim.resident_mib - host.resident_mib) / sim.peak_mib * 100.0,
            ),
            (BACK, "MiB/s", rate(host)),
            (SIM_BACK, "MiB/s", sim_back),
            (BACK_ERROR, "%", (sim_back - rate(host)) / most_back * 100.0),
        ] {
            let of = Of {
                part: PART.name,
                case,
                config: *config,
                metric,
                unit,
            };
            rows.push(Row::of_values(of, &[value]));
        }
    }
    if let Some(row) = rows.first_mut() {
        row.note = Some(format!(
            "the workload uses {:.0} MiB; a refault of 2 MiB is taken to cost {REFAULT_US} us",
            of_hinter(seen[0].1)?.peak_mib
        ));
    }
    Ok(rows)
}

fn pictures(results: &Results, record: &Record, dir: &Path) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for workload in &WORKLOADS {
        let point = |config, resident, back| {
            let value = |metric| {
                results
                    .row(PART.name, workload.name, config, metric)?
                    .median
            };
            Some((value(resident)?, value(back)?))
        };
        let curves: Vec<_> = CONFIGS
            .iter()
            .filter_map(|(config, _)| {
                let real = point(*config, RESIDENT, BACK)?;
                let simulated = point(*config, SIM_RESIDENT, SIM_BACK)?;
                let mut curve = Curve::dots(*config, vec![real]);
                curve.whiskers = vec![[real, simulated]];
                Some(curve)
            })
            .collect();
        if curves.is_empty() {
            continue;
        }
        let title = format!("the simulator beside a guest: {}", workload.name);
        let file = format!(
            "model-{}.png",
            workload.name.replace(", ", "-").replace(' ', "-")
        );
        draw(
            &dir.join(&file),
            &Chart {
                title: title.clone(),
                caption: record.machine.caption(),
                x: Axis {
                    label: "what the host had on average (MiB): a dot is measured, the other \
                            end of its line simulated"
                        .to_owned(),
                    is_log: false,
                },
                y: Axis {
                    label: "brought back (MiB/s)".to_owned(),
                    is_log: false,
                },
                curves,
            },
        )?;
        pictures.push(Picture {
            file,
            caption: title,
        });
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ms: u64, mib: u64) -> Sample {
        Sample {
            at: Duration::from_millis(ms),
            ram_kb: mib * 1024,
            process_kb: 0,
        }
    }

    #[test]
    fn what_the_host_had_is_above_what_was_before() {
        // 100 MiB come, 60 of them go, 20 come back.
        let samples = [
            (0, 500),
            (1000, 500),
            (1001, 600),
            (2000, 600),
            (2001, 540),
            (3000, 560),
        ]
        .map(|(ms, mib)| sample(ms, mib));
        let host = Host::of(
            &samples,
            Duration::from_millis(900),
            Duration::from_millis(3000),
        )
        .unwrap();
        assert_eq!(host.back_mib, 120.0);
        assert!((host.seconds - 2.1).abs() < 1e-9);
        let expected = (100.0 * 0.999 + 50.0 * 0.999) / 2.1;
        assert!((host.resident_mib - expected).abs() < 0.2, "{host:?}");
        assert!(Host::of(&[], Duration::ZERO, Duration::from_secs(1)).is_err());
    }

    #[test]
    fn errors_are_of_the_scale() {
        let host = |back_mib| Host {
            resident_mib: 100.0,
            back_mib,
            seconds: 10.0,
        };
        let seen = [
            (Config::Upstream0, "a", host(1000.0)),
            (Config::PageHinting, "b", host(0.0)),
        ];
        let simulated = |hinter: &str, offline_used_gib| Simulated {
            hinter: hinter.into(),
            offline_used_gib,
            peak_mib: 200.0,
            resident_mib: 110.0,
        };
        let sim = [
            simulated("a", 1000.0 / 1024.0),
            simulated("b", 100.0 / 1024.0),
        ];
        let rows = rows("c", &seen, &sim, Duration::from_secs(10)).unwrap();
        let value = |config, metric: &str| {
            let mut rows = rows.iter();
            let row = rows.find(|row| row.config == config && row.metric == metric);
            row.unwrap().median.unwrap()
        };
        assert!((value(Config::Upstream0, RESIDENT_ERROR) - 5.0).abs() < 1e-9);
        assert!(value(Config::Upstream0, BACK_ERROR).abs() < 1e-9);
        assert!((value(Config::PageHinting, BACK_ERROR) - 10.0).abs() < 1e-9);
        assert!(super::rows("c", &seen, &sim[..1], Duration::from_secs(10)).is_err());
    }
}
