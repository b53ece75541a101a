// SPDX-License-Identifier: GPL-2.0

//! `lab demo`: a guest program touches and frees memory, and the host watches it
//! come back.

use crate::cli::DemoArgs;
use crate::initramfs::{self, Content};
use crate::interrupt;
use crate::plot;
use crate::port::State;
use crate::qemu::{Accel, BALLOON, Config, Console, Guest, Hardware, HostPages};
use crate::returned::{Burst, Sample};
use crate::rss::{FAST, Probe, Quality, Sampler};
use crate::versions::{self, Module};
use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use procfs::Current;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

/// Shares of the memory, in percent, whose return is timed.
pub const SHARES: [u32; 4] = [50, 90, 95, 99];
/// The share that has to be back within the window for the demo to succeed.
const ENOUGH: u32 = 95;
/// Longest wait for the module to have hinted what was free after the boot.
const SETTLE: Duration = Duration::from_secs(20);

/// KiB resident at three moments.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rss {
    /// Before the memory was touched.
    pub before: u64,
    /// The most until it was freed.
    pub peak: u64,
    /// At the end of the window.
    pub after: u64,
}

/// Moments in seconds, of which that of the free is 0.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Moments {
    /// The guest's program started.
    pub started: f64,
    /// It said that it had touched all.
    pub touched: f64,
    /// It was told to free all.
    pub asked: f64,
    /// It said that it had: 0.
    pub freed: f64,
    /// The window ended.
    pub ended: f64,
}

/// out/demo/result.json.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    arguments: Arguments<'a>,
    versions: Versions<'a>,
    /// Commit of the checkout.
    git: Option<String>,
    accel: &'a str,
    accel_reason: &'a str,
    /// Seconds from the free until this many percent were back for good, or null.
    returned_s: BTreeMap<String, Option<f64>>,
    /// The same from the moment the guest's program was told to free: an upper bound.
    returned_since_asked_s: BTreeMap<String, Option<f64>>,
    /// The module's counter and knob, null without the module.
    isolated_peak_kb: Option<u64>,
    batch_kb: Option<u64>,
    touched_kb: u64,
    /// The guest-RAM mapping.
    rss_kb: Rss,
    /// The QEMU process.
    process_rss_kb: Rss,
    moments_s: Moments,
    /// Median time from a command to the guest's answer; its "freed" was under way
    /// for less.
    round_trip_s: f64,
    sampling: Quality,
    guest: State,
    samples: Samples,
}

#[derive(Debug, Serialize)]
struct Arguments<'a> {
    kernel: &'a Path,
    module: Option<&'a Path>,
    upstream: bool,
    mem_mib: u64,
    touch_mib: u64,
    smp: u32,
    window_s: u64,
}

#[derive(Debug, Serialize)]
struct Versions<'a> {
    lab: &'a str,
    qemu: &'a str,
    guest_kernel: &'a str,
    host_kernel: Option<String>,
    module: Option<Module>,
}

/// Rows that are each [seconds after the free, KiB, KiB].
#[derive(Debug, Serialize)]
struct Samples {
    columns: [&'static str; 3],
    rows: Box<RawValue>,
}

/// Runs the demo; true if the memory came back and the bound was kept.
pub fn run(args: &DemoArgs) -> Result<bool> {
    args.validate()?;
    check_host_memory(args)?;
    let module = args
        .module
        .as_deref()
        .filter(|_| !args.upstream)
        .map(|path| Module::read(path).map(|module| (path, module)))
        .transpose()?;
    let initramfs = initramfs::build(&Content {
        busybox: &args.guest.busybox,
        module: module.as_ref().map(|(path, _)| *path),
        selftests: Some(&args.selftests),
    })?;

    let (accel, reason) = Accel::detect();
    println!(
        "guest     {} MiB, {} CPUs, {} since {reason}",
        args.mem,
        args.guest.smp,
        accel.name().to_uppercase()
    );
    if accel == Accel::Tcg {
        println!("          (CPUs are emulated: the guest's own share of the times is larger)");
    }
    let began = Instant::now();
    let mut guest = Guest::start(&Config {
        args: &args.guest,
        mem_mib: args.mem,
        hardware: Hardware::PLAIN,
        job: "agent",
        devices: &[BALLOON],
        kernel_args: "",
        console: Console::Log,
        host_pages: HostPages::Transparent,
        patches_code: false,
        initramfs: &initramfs,
        cgroup: None,
        disk: None,
        snapshots: None,
        plugin: None,
        log: args.out.join("guest.log"),
    })?;
    let run = measure(args, &mut guest, began).map_err(|error| guest.explain(error))?;
    let qemu = guest.qemu_version.clone();
    guest.quit()?;

    let burst = run.burst;
    let freed = burst.freed.as_secs_f64();
    let asked = Burst {
        freed: run.asked,
        ..burst
    };
    let table = |burst: &Burst| {
        SHARES
            .map(|percent| {
                let time = burst.returned_s(&run.samples, percent).map(round_us);
                (percent.to_string(), time)
            })
            .into()
    };
    let after = run.samples.last().context("there are no samples")?;
    let outcome = Outcome {
        arguments: Arguments {
            kernel: &args.guest.kernel,
            module: module.as_ref().map(|(path, _)| *path),
            upstream: args.upstream,
            mem_mib: args.mem,
            touch_mib: args.touch,
            smp: args.guest.smp,
            window_s: args.window().as_secs(),
        },
        versions: Versions {
            lab: env!("CARGO_PKG_VERSION"),
            qemu: &qemu,
            guest_kernel: &run.kernel,
            host_kernel: versions::host_kernel(),
            module: module.map(|(_, module)| module),
        },
        git: versions::git(),
        accel: accel.name(),
        accel_reason: reason,
        returned_s: table(&burst),
        returned_since_asked_s: table(&asked),
        isolated_peak_kb: run.state.stat("isolated_peak_kb"),
        batch_kb: run.state.knob("batch_kb"),
        touched_kb: burst.touched_kb,
        rss_kb: Rss {
            before: burst.before_kb,
            peak: burst.peak_kb,
            after: after.ram_kb,
        },
        process_rss_kb: Rss {
            before: run.process_before_kb,
            peak: run.process_peak_kb,
            after: after.process_kb,
        },
        moments_s: Moments {
            started: round_us(run.started.as_secs_f64() - freed),
            touched: round_us(run.touched.as_secs_f64() - freed),
            asked: round_us(run.asked.as_secs_f64() - freed),
            freed: 0.0,
            ended: round_us(after.at.as_secs_f64() - freed),
        },
        round_trip_s: round_us(run.round_trip.as_secs_f64()),
        sampling: run.quality,
        guest: run.state,
        samples: Samples {
            columns: ["t_s", "ram_kb", "process_kb"],
            rows: rows(&run.samples, freed)?,
        },
    };

    let json = args.out.join("result.json");
    let mut text = serde_json::to_string_pretty(&outcome)?;
    text.push('\n');
    fs::write(&json, text).with_context(|| format!("cannot write {}", json.display()))?;
    let png = args.out.join("demo.png");
    plot::draw(&png, &picture(args, accel, &outcome, &run.samples, freed))
        .with_context(|| format!("cannot draw {}", png.display()))?;

    print_table(&outcome);
    println!("picture   {}", png.display());
    println!("figures   {}", json.display());
    Ok(verdict(&outcome))
}

/// What was seen.
struct Run {
    kernel: String,
    started: Duration,
    touched: Duration,
    asked: Duration,
    burst: Burst,
    process_before_kb: u64,
    process_peak_kb: u64,
    round_trip: Duration,
    samples: Vec<Sample>,
    quality: Quality,
    state: State,
}

fn measure(args: &DemoArgs, guest: &mut Guest, began: Instant) -> Result<Run> {
    let limit = args.timeout();
    let (kernel, _) = guest.port.wait_ready(limit)?;
    println!(
        "boot      Linux {kernel} in QEMU {}, {:.1} s",
        guest.qemu_version,
        began.elapsed().as_secs_f64()
    );
    if args.upstream {
        let state = guest.port.state(limit)?;
        println!(
            "module    not loaded; mm/page_reporting {}",
            list(&state.page_reporting)
        );
    } else {
        load_module(guest, limit)?;
    }
    let round_trip = guest.port.round_trip(limit)?;

    let sampler = Sampler::start(Probe::new(guest.pid(), args.mem * 1024)?)?;
    let before = sampler.fresh()?;
    println!(
        "before    {} MiB of the guest's RAM resident",
        mib(before.ram_kb)
    );

    let command = format!("{}/memhog -t {}", initramfs::SELFTESTS, args.touch);
    let started = guest.port.send(&command)?;
    let touched = guest.port.wait_for("touched", limit)?;
    let at_touched = sampler.fresh()?;
    println!(
        "touch     {} MiB in {:.1} s, {} MiB resident",
        args.touch,
        (touched - started).as_secs_f64(),
        mib(at_touched.ram_kb)
    );

    sampler.set_period(FAST);
    // Until there are samples at this period.
    interrupt::sleep_until(Instant::now() + FAST * 10)?;
    let at_asked = sampler.fresh()?;
    let asked = guest.port.send("")?;
    let freed = guest.port.wait_for("freed", limit)?;
    println!(
        "free      took {:.0} ms; watching for {} s",
        (freed - asked).as_secs_f64() * 1e3,
        args.window().as_secs()
    );
    let burst = Burst {
        freed: sampler.since_start(freed),
        before_kb: before.ram_kb,
        peak_kb: at_touched.ram_kb.max(at_asked.ram_kb),
        touched_kb: args.touch * 1024,
    };
    watch(&sampler, &burst, freed + args.window())?;
    guest.port.finish(limit, drop)?;
    let state = guest.port.state(limit)?;
    let [started, touched, asked] = [started, touched, asked].map(|at| sampler.since_start(at));
    let (samples, quality) = sampler.stop(burst.freed)?;
    Ok(Run {
        kernel,
        started,
        touched,
        asked,
        burst,
        process_before_kb: before.process_kb,
        process_peak_kb: at_touched.process_kb.max(at_asked.process_kb),
        round_trip,
        samples,
        quality,
        state,
    })
}

/// Loads the module and waits until it has hinted what is free.
fn load_module(guest: &mut Guest, limit: Duration) -> Result<()> {
    let command = format!("insmod {}", initramfs::MODULE);
    let (status, output) = guest.port.call(&command, limit)?;
    ensure!(
        status == 0,
        "the guest refuses the module: {}",
        output.join("\n")
    );
    let began = Instant::now();
    loop {
        let state = guest.port.state(limit)?;
        let status = state.status().context("the module shows no status")?;
        let is_settled = status == "idle" && state.stat("isolated_kb") == Some(0);
        if is_settled || began.elapsed() > SETTLE {
            println!(
                "module    loaded; status {status}, {} MiB hinted after {:.1} s",
                mib(state.stat("hinted_kb").unwrap_or(0)),
                began.elapsed().as_secs_f64()
            );
            ensure!(
                status == "idle" || status == "hinting",
                "the module cannot hint: its status is {status}"
            );
            return Ok(());
        }
        interrupt::sleep_until(Instant::now() + Duration::from_millis(200))?;
    }
}

/// Shows how the memory comes back, until `end`.
fn watch(sampler: &Sampler, burst: &Burst, end: Instant) -> Result<()> {
    let bar = stdout().is_terminal().then(|| {
        let bar = ProgressBar::with_draw_target(
            Some(burst.peak_kb),
            ProgressDrawTarget::stdout_with_hz(20),
        );
        let style = ProgressStyle::with_template("          {bar:50} {msg}");
        bar.with_style(style.expect("the template is right"))
    });
    let mut shares = SHARES.into_iter().peekable();
    while Instant::now() < end && !sampler.has_ended() {
        interrupt::sleep_until(end.min(Instant::now() + interrupt::NOTICE))?;
        let Some(sample) = sampler.latest() else {
            continue;
        };
        let back = burst.back_percent(&sample);
        let after = sample.at.saturating_sub(burst.freed).as_secs_f64();
        let text = format!(
            "{after:6.2} s  {} MiB resident, {:.0} % back",
            mib(sample.ram_kb),
            back.floor()
        );
        match &bar {
            Some(bar) => {
                bar.set_position(sample.ram_kb);
                bar.set_message(text);
            }
            None => {
                let mut crossed = false;
                while shares.next_if(|share| f64::from(*share) <= back).is_some() {
                    crossed = true;
                }
                if crossed {
                    println!("          {text}");
                }
            }
        }
    }
    if let Some(bar) = bar {
        bar.abandon();
    }
    Ok(())
}

fn check_host_memory(args: &DemoArgs) -> Result<()> {
    let Some(available) = procfs::Meminfo::current()?.mem_available else {
        return Ok(());
    };
    let available = available >> 20;
    let needed = args.touch + crate::cli::GUEST_OWN_MIB;
    ensure!(
        available >= needed,
        "the host has {available} MiB of memory available, the demo needs {needed}; \
         close something, or touch less (--touch)"
    );
    Ok(())
}

fn verdict(outcome: &Outcome<'_>) -> bool {
    let mut good = true;
    if outcome.returned_s[&ENOUGH.to_string()].is_none() {
        println!("FAILED: {ENOUGH} % of the memory did not come back within the window");
        good = false;
    }
    match (outcome.isolated_peak_kb, outcome.batch_kb) {
        (Some(peak), Some(batch)) if peak > batch => {
            println!("FAILED: {peak} KiB were isolated at a time, over batch_kb, {batch}");
            good = false;
        }
        (Some(_), Some(_)) => (),
        _ if outcome.arguments.upstream => (),
        _ => {
            println!("FAILED: the module shows no isolated_peak_kb or batch_kb");
            good = false;
        }
    }
    good
}

fn print_table(outcome: &Outcome<'_>) {
    let window = outcome.arguments.window_s;
    println!();
    println!("memory back on the host    after it was free    after the order to free it");
    for percent in SHARES {
        let [free, asked] = [&outcome.returned_s, &outcome.returned_since_asked_s].map(|times| {
            match times[&percent.to_string()] {
                Some(time) => format!("{time:.3} s"),
                None => format!("not within {window} s"),
            }
        });
        println!("{percent:>20} %{free:>22}{asked:>30}");
    }
    println!();
    println!("resident MiB              before     peak    after");
    for (name, rss) in [
        ("guest RAM", outcome.rss_kb),
        ("QEMU process", outcome.process_rss_kb),
    ] {
        println!(
            "{name:<22}{:>10}{:>9}{:>9}",
            mib(rss.before),
            mib(rss.peak),
            mib(rss.after)
        );
    }
    println!();
    if let (Some(peak), Some(batch)) = (outcome.isolated_peak_kb, outcome.batch_kb) {
        println!("isolated  {peak} KiB at most, of batch_kb {batch}");
    }
    if !outcome.guest.stats.is_empty() {
        println!("counters  {}", list(&outcome.guest.stats));
        println!("knobs     {}", list(&outcome.guest.knobs));
    }
    println!(
        "sampled   every {:.1} ms, longest gap {:.1} ms; guest and back in {:.2} ms",
        outcome.sampling.median_period_s * 1e3,
        outcome.sampling.max_period_s * 1e3,
        outcome.round_trip_s * 1e3
    );
}

fn picture<'a>(
    args: &DemoArgs,
    accel: Accel,
    outcome: &Outcome<'_>,
    samples: &'a [Sample],
    freed_s: f64,
) -> plot::Picture<'a> {
    let who = if args.upstream {
        "mm/page_reporting (upstream)"
    } else {
        "page_hinting"
    };
    let accel = match accel {
        Accel::Kvm => "KVM",
        Accel::Tcg => "TCG: emulated CPUs",
    };
    let asked = outcome.moments_s.asked;
    let mut marks = vec![(0.0, "freed".to_owned())];
    let mut end = outcome.moments_s.ended;
    for percent in [ENOUGH, 50] {
        if let Some(time) = outcome.returned_since_asked_s[&percent.to_string()] {
            marks.push((asked + time, format!("{percent} % back")));
            if percent == ENOUGH {
                end = (asked + time).max(0.0) + (-asked).max(time);
            }
        }
    }
    marks.push((outcome.moments_s.touched, "touched".to_owned()));
    marks.push((asked, "told to free".to_owned()));
    let end = end.min(outcome.moments_s.ended);
    plot::Picture {
        title: format!("{who}: {} MiB freed in the guest", args.touch),
        caption: format!(
            "Linux {}, QEMU {}, {accel}; {} CPUs, {} MiB; sampled every {:.1} ms",
            outcome.versions.guest_kernel,
            outcome.versions.qemu,
            args.guest.smp,
            args.mem,
            outcome.sampling.median_period_s * 1e3
        ),
        samples,
        freed_s,
        marks,
        detail: asked - (end - asked) / 8.0..end,
    }
}

fn rows(samples: &[Sample], freed_s: f64) -> Result<Box<RawValue>> {
    let rows: Vec<_> = samples
        .iter()
        .map(|sample| {
            let t_s = round_us(sample.at.as_secs_f64() - freed_s);
            (t_s, sample.ram_kb, sample.process_kb)
        })
        .collect();
    Ok(to_raw_value(&rows)?)
}

fn round_us(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn mib(kb: u64) -> u64 {
    (kb + 512) / 1024
}

fn list(values: &BTreeMap<String, String>) -> String {
    let words: Vec<_> = values
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    words.join(", ")
}
