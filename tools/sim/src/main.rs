// SPDX-License-Identifier: GPL-2.0

//! Runs the policy of page_hinting, and models of mm/page_reporting, in virtual time.
//!
//! What is modelled is when which amounts of a guest's memory are in use, unhinted, with the host
//! and Offline, and what bringing Offline memory back costs. The policy is the module's own code.

mod cli;
mod fleet;
mod guest;
mod hinter;
mod memory;
mod plot;
mod report;
mod trace;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use cli::{Cli, Command, CommonArgs, FleetArgs, GuestArgs, ReplayArgs};
use guest::{Host, MS, SECOND, Workload};
use hinter::Kind;
use report::{Case, Row};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Guest(args) => guest(&args),
        Command::Fleet(args) => fleet(&args),
        Command::Replay(args) => replay(&args),
    }
}

fn host(args: &CommonArgs, base: &Host) -> Host {
    let host = Host {
        reuse_ns: args.reuse_us * 1000,
        stated_price_ns: args.price_us * 1000,
        ..*base
    };

    println!(
        "seed {}; for 2 MiB: touch {} us, reuse {} us (stated {} us), free {} us, acknowledge {} us",
        args.seed,
        host.touch_ns / 1000,
        host.reuse_ns / 1000,
        host.stated_price_ns / 1000,
        host.free_ns / 1000,
        host.ack_ns / 1000
    );
    host
}

fn save(out: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let path = out.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(value)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("figures   {}", path.display());
    Ok(())
}

fn show(args: &CommonArgs, name: &str, rows: &[Row]) -> Result<()> {
    print!("{}", report::table(rows));
    save(&args.out, name, &rows)?;
    let picture = args.out.join(format!("{name}.png"));
    plot::trade(&picture, rows)?;
    println!("picture   {}", picture.display());
    Ok(())
}

fn guest(args: &GuestArgs) -> Result<()> {
    type Make = Box<dyn Fn() -> Box<dyn Workload>>;
    let host = host(&args.common, &Host::TCG);
    let seed = args.common.seed;
    let mut cases: Vec<(String, u64, u64, Make)> = vec![
        (
            "burst 2048 MiB".into(),
            4096,
            40,
            Box::new(|| workload::burst(2048)),
        ),
        (
            "burst in churn".into(),
            4096,
            60,
            Box::new(move || workload::burst_in_churn(seed, 2048, 50 * SECOND)),
        ),
    ];
    for (size, seconds, gaps) in [
        (64, 60, &[0, 20, 200, 1000][..]),
        (512, 60, &[0, 20, 200, 1000]),
        (512, 600, &[3000, 7000, 20_000, 60_000]),
        (1500, 600, &[20_000]),
    ] {
        for gap in gaps.iter().copied() {
            let churn = move || workload::churn(seed, size, gap, seconds * SECOND);
            cases.push((
                format!("churn {size} MiB, {gap} ms"),
                2048,
                seconds,
                Box::new(churn),
            ));
        }
    }
    let minute = 60 * SECOND;
    cases.push((
        "ramp 1500 MiB".into(),
        2048,
        180,
        Box::new(move || workload::ramp(1500, minute, minute)),
    ));
    cases.push((
        "builds".into(),
        4096,
        3600,
        Box::new(move || workload::build(seed, 3600 * SECOND)),
    ));

    let rows: Vec<Row> = cases
        .iter()
        .flat_map(|(name, size, seconds, workload)| {
            let case = Case {
                name: name.clone(),
                zones: report::zones(*size),
                until: seconds * SECOND,
                workload,
            };
            report::compare(&host, &case, &Kind::ALL)
        })
        .collect();
    show(&args.common, "guest", &rows)
}

fn replay(args: &ReplayArgs) -> Result<()> {
    // What touching and freeing takes is in the recording.
    let recorded = Host {
        touch_ns: 0,
        free_ns: 0,
        ..Host::TCG
    };
    let host = host(&args.common, &recorded);
    let mut rows = Vec::new();

    for path in &args.traces {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let trace = trace::Trace::parse(&text).with_context(|| path.display().to_string())?;
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let recorded: u64 = trace.hinted.values().sum();
        let zones = args
            .mem
            .map_or_else(|| vec![trace.granules()], report::zones);

        ensure!(
            zones.iter().sum::<u64>() >= trace.granules(),
            "{name} needs {} MiB, more than --mem leaves for it",
            trace.granules() * memory::GRANULE_KB / 1024
        );

        println!(
            "{name}: {:.1} s, {} MiB in use at most; {} MiB were hinted in the recording",
            trace.end_ns() as f64 / SECOND as f64,
            trace.granules() * memory::GRANULE_KB / 1024,
            recorded / 1024
        );
        let case = Case {
            name: name.into_owned(),
            zones,
            until: args
                .for_ms
                .map_or_else(|| trace.end_ns() + args.after_s * SECOND + 1, |ms| ms * MS),
            workload: &|| trace.workload(),
        };
        rows.extend(report::compare(&host, &case, &Kind::ALL));
    }
    let late = rows.iter().filter(|row| !row.done).count();
    if late != 0 && args.for_ms.is_none() {
        println!(
            "In {late} of {} rows the workload was not done at the end: they have less of it",
            rows.len()
        );
    }
    show(&args.common, "replay", &rows)
}

/// What is kept of a fleet.
#[derive(Serialize)]
struct Fleets<'a> {
    guests: u64,
    hours: u64,
    seed: u64,
    capacity_gib: f64,
    fleets: &'a [fleet::Fleet],
}

fn fleet(args: &FleetArgs) -> Result<()> {
    let host = host(&args.common, &Host::TCG);
    let config = fleet::Config {
        guests: args.guests,
        hours: args.hours,
        seed: args.common.seed,
    };
    let start = Instant::now();
    let mut fleets = Vec::new();

    println!("{} guests of 4096 MiB, {} hours", args.guests, args.hours);
    for kind in Kind::ALL {
        let done = AtomicU64::new(0);
        let step = (args.guests / 10).max(1);
        let progress = || {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done % step == 0 {
                let percent = done * 100 / args.guests;
                eprint!(
                    "\r{}: {percent} % ({} s) ",
                    kind.name(),
                    start.elapsed().as_secs()
                );
            }
        };
        fleets.push(fleet::run(&host, &config, kind, &progress)?);
        eprint!("\r\x1b[K");
    }

    let sold = fleets.first().map_or(0.0, |fleet| fleet.sold_gib);
    let capacity_gib = sold / args.overcommit;
    println!(
        "{:.1} TiB sold, the hosts have {:.1} TiB; {:.0} s",
        sold / 1024.0,
        capacity_gib / 1024.0,
        start.elapsed().as_secs_f64()
    );
    println!(
        "{:<24} {:>10} {:>10} {:>12} {:>14} {:>12} {:>10}",
        "hinter", "mean", "peak", "sold / peak", "over capacity", "reuse", "hinted"
    );
    for fleet in &fleets {
        let bins = fleet.resident_gib.len().max(1) as f64;
        let over = fleet
            .resident_gib
            .iter()
            .filter(|gib| **gib > capacity_gib)
            .count() as f64;
        println!(
            "{:<24} {:>6.2} TiB {:>6.2} TiB {:>12.2} {:>12.1} % {:>7.1} CPUs {:>6.0} TiB",
            fleet.hinter,
            fleet.mean_gib() / 1024.0,
            fleet.peak_gib() / 1024.0,
            fleet.sold_gib / fleet.peak_gib(),
            over / bins * 100.0,
            fleet.reuse_cpus,
            fleet.hinted_gib / 1024.0
        );
    }
    save(
        &args.common.out,
        "fleet",
        &Fleets {
            guests: config.guests,
            hours: config.hours,
            seed: config.seed,
            capacity_gib,
            fleets: &fleets,
        },
    )?;
    let picture = args.common.out.join("fleet.png");
    let title = format!("{} guests, seed {}", config.guests, config.seed);
    plot::fleet(&picture, &fleets, &title, capacity_gib)?;
    println!("picture   {}", picture.display());
    Ok(())
}
