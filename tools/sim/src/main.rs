// SPDX-License-Identifier: GPL-2.0

//! Runs the policy of page_hinting, and models of mm/page_reporting, in virtual time.
//!
//! The model is when which amounts of a guest's memory are in use, unhinted, isolated and Offline,
//! and what providing Offline memory costs the host. The policy is the module's own code.

mod adversary;
mod cli;
mod fleet;
mod guest;
mod hinter;
mod load;
mod memory;
mod merit;
mod meter;
mod plot;
mod trace;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use cli::{Cli, Command, CommonArgs, FleetArgs, ReplayArgs, WorstArgs};
use guest::{Host, MS, SECOND};
use hinter::Kind;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Guest(args) => guest(&args.common),
        Command::Worst(args) => worst(&args),
        Command::Fleet(args) => fleet(&args),
        Command::Replay(args) => replay(&args),
    }
}

fn show(host: &Host) {
    println!(
        "host {}; for 2 MiB: touch {} us, refault {} us, free {} us, acknowledge {} us",
        host.name,
        host.touch_ns / 1000,
        host.refault_ns / 1000,
        host.free_ns / 1000,
        host.ack_ns / 1000
    );
}

fn save(out: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let path = out.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(value)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("figures   {}", path.display());
    Ok(())
}

fn guest(args: &CommonArgs) -> Result<()> {
    for host in [Host::KVM, Host::TCG] {
        let loads = load::all(&host, args.seed);
        let seconds = |name: &str| {
            let load = loads.iter().find(|load| load.name == name);
            load.map_or(1.0, |load| load.until as f64 / SECOND as f64)
        };

        for bypass in [0, 50] {
            show(&host);
            println!(
                "seed {}, {bypass} permille bypass unhinted memory",
                args.seed
            );
            let rows = merit::compare(&host, &loads, &Kind::ALL, bypass);
            if bypass == 0 {
                println!(
                    "cost / optimum where memory is worth 1 s; returned; CPU time of refaults"
                );
                print!("{}", merit::table(&rows, &host, &seconds));
            }
            let (n, ..) = merit::summary(&rows, &Kind::DEFAULT.name(), 1);
            println!("geometric mean (worst) of {n} workloads, by what memory is worth");
            print!("{}", merit::summary_table(&rows));

            let name = format!("guest-{}-{bypass}", host.name.to_lowercase());
            save(&args.out, &name, &rows)?;
            if bypass == 0 {
                let picture = args.out.join(format!("{name}.png"));
                let title = format!(
                    "simulated, {} prices (refault {} ms per 2 MiB), seed {}",
                    host.name,
                    host.refault_ns as f64 / MS as f64,
                    args.seed
                );
                plot::merit(&picture, &rows, &title)?;
                println!("picture   {}", picture.display());
            }
            println!();
        }
    }
    Ok(())
}

fn worst(args: &WorstArgs) -> Result<()> {
    println!(
        "{} patterns, seed {}; MiB in use, seconds",
        args.tries, args.seed
    );
    for kind in Kind::ALL {
        for (worth, name) in meter::WORTH_NAMES.iter().enumerate() {
            let tries = args.tries as usize;
            let (ratio, pattern) = adversary::search(&Host::KVM, kind, worth, args.seed, tries);
            let steps: Vec<String> = pattern
                .iter()
                .map(|(level, ns)| format!("{}, {:.2}", level * 2, *ns as f64 / SECOND as f64))
                .collect();
            println!(
                "{:<24} worth {name:>6}: {ratio:>7.2} ({})",
                kind.name(),
                steps.join("; ")
            );
        }
    }
    Ok(())
}

fn replay(args: &ReplayArgs) -> Result<()> {
    let mut rows = Vec::new();

    for path in &args.traces {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let trace = trace::Trace::parse(&text).with_context(|| path.display().to_string())?;
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let zones = args.mem.map_or_else(|| vec![trace.granules()], load::zones);
        let peak_mib = trace.granules() * memory::GRANULE_KB / 1024;

        ensure!(
            zones.iter().sum::<u64>() >= trace.granules(),
            "{name} needs {peak_mib} MiB, more than --mem leaves for it"
        );
        println!(
            "{name}: {:.1} s, {peak_mib} MiB in use at most; {} MiB were hinted in the recording",
            trace.end_ns() as f64 / SECOND as f64,
            trace.hinted.values().sum::<u64>() / 1024
        );
        let until = args
            .for_ms
            .map_or_else(|| trace.end_ns() + args.after_s * SECOND + 1, |ms| ms * MS);
        let load = trace.load(&name, zones, until);
        let refault_ns = args.refault_us * 1000;
        rows.extend(Kind::ALL.map(|kind| merit::play(&Host::TCG, &load, kind, 0, refault_ns)));
    }
    let late = rows.iter().filter(|row| !row.done).count();
    if late != 0 && args.for_ms.is_none() {
        println!(
            "In {late} of {} rows the workload was not done at the end: they have less of it",
            rows.len()
        );
    }
    let host = Host {
        refault_ns: args.refault_us * 1000,
        ..Host::TCG
    };
    print!("{}", merit::table(&rows, &host, &|_| 1.0));
    save(&args.common.out, "replay", &rows)
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
    let host = Host::KVM;
    let config = fleet::Config {
        guests: args.guests,
        hours: args.hours,
        seed: args.common.seed,
    };
    let start = Instant::now();
    let done = AtomicU64::new(0);
    let progress = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done % (args.guests / 100).max(1) == 0 {
            let seconds = start.elapsed().as_secs();
            eprint!("\r{} % ({seconds} s) ", done * 100 / args.guests);
        }
    };

    show(&host);
    println!(
        "{} guests of 4096 MiB, {} hours, seed {}",
        args.guests, args.hours, config.seed
    );
    let fleets = fleet::run(&host, &config, &Kind::ALL, &progress);
    eprint!("\r\x1b[K");

    let sold = fleets.first().map_or(0.0, |fleet| fleet.sold_gib);
    let capacity_gib = sold / args.overcommit;
    println!(
        "{:.1} TiB sold, the hosts have {:.1} TiB; {:.0} s",
        sold / 1024.0,
        capacity_gib / 1024.0,
        start.elapsed().as_secs_f64()
    );
    print!("{}", fleet::table(&fleets));
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
    let title = format!(
        "simulated: n = {} guests of 4 GiB, seed {}",
        config.guests, config.seed
    );
    plot::fleet(&picture, &fleets, &title, capacity_gib)?;
    println!("picture   {}", picture.display());
    Ok(())
}
