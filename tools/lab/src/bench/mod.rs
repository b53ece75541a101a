// SPDX-License-Identifier: GPL-2.0

//! `lab bench`: page_hinting beside mm/page_reporting, measured in one run.
//!
//! A [`Part`] measures one thing in all configurations it is about, and gives rows
//! ([`row::Row`]). They go into result.json, where they replace the rows of the part's
//! last run, and the report is made of that file alone.

pub mod burst;
pub mod cgroup;
pub mod chart;
pub mod churn;
pub mod config;
pub mod counted;
pub mod footprint;
pub mod frontier;
pub mod guest;
pub mod instructions;
pub mod latency;
pub mod model;
pub mod orders;
pub mod overcommit;
pub mod progress;
pub mod report;
pub mod result;
pub mod row;
pub mod scale;
pub mod turns;

use crate::cli::BenchArgs;
use crate::interrupt::Interrupted;
use crate::qemu::{self, Accel};
use crate::versions;
use anyhow::{Context, Result};
use indicatif::HumanDuration;
use procfs::Current;
use progress::Progress;
use report::Picture;
use result::{Machine, Measured, Record, Results};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// A part of the bench.
pub struct Part {
    pub name: &'static str,
    pub title: &'static str,
    /// What is done, for the report; reStructuredText.
    pub about: &'static str,
    pub metrics: &'static [Metric],
    /// How long it takes on two CPUs, and how long a quick run.
    pub estimate: Duration,
    pub quick_estimate: Duration,
    /// Measures. What has been measured when it fails is kept.
    pub run: fn(&Ctx<'_>, &mut Measured) -> Result<()>,
    /// Draws its pictures from result.json into a directory.
    pub draw: fn(&Results, &Record, &Path) -> Result<Vec<Picture>>,
}

/// A kind of figure.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    /// What it means, for the report.
    pub what: &'static str,
    pub better: Better,
}

/// Which of two values of a metric is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
    /// It is told, and nobody is judged by it.
    Neither,
}

/// All of them, in the report's order. The last ones are not what the two are compared by,
/// and run only if they are named.
pub static PARTS: [&Part; 12] = [
    &burst::PART,
    &churn::PART,
    &frontier::PART,
    &instructions::PART,
    &latency::PART,
    &footprint::PART,
    &scale::PART,
    &overcommit::PART,
    &orders::PART,
    &model::PART,
    &counted::PART,
    &turns::PART,
];
const IN_ALL: usize = 8;

/// What a part is run with.
pub struct Ctx<'a> {
    pub args: &'a BenchArgs,
    pub quick: bool,
    pub progress: &'a Progress,
    /// What the other parts have measured, in this run or an earlier one.
    pub recorded: &'a Results,
    /// The last guest's kernel.
    pub guest_kernel: &'a Mutex<String>,
}

impl Ctx<'_> {
    /// So many, or fewer in a quick run.
    pub fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Longest time for each of a guest's steps.
    pub fn limit(&self) -> Duration {
        self.args.timeout()
    }
}

/// Memory that the host can spare, in MiB.
pub fn host_available_mib() -> Result<u64> {
    let meminfo = procfs::Meminfo::current()?;
    let available = meminfo.mem_available.context("/proc/meminfo is old")?;
    Ok(available >> 20)
}

/// Runs the parts asked for; false if one of them failed.
pub fn run(args: &BenchArgs) -> Result<bool> {
    let parts = chosen(&args.what);
    args.validate()?;
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the directory {}", args.out.display()))?;
    let json = args.out.join("result.json");
    let mut results = Results::read(&json)?;
    // Before hours have passed.
    results.write(&json)?;
    let machine = machine(args)?;
    println!(
        "bench     {} CPUs, {} MiB; guests under {} since {}",
        machine.host_cpus,
        machine.host_memory_mib,
        machine.accel.to_uppercase(),
        machine.accel_reason
    );
    let expected = |part: &&Part| {
        if args.quick {
            part.quick_estimate
        } else {
            part.estimate
        }
    };
    let whole: Duration = parts.iter().map(expected).sum();
    println!(
        "parts     {}; about {}",
        parts
            .iter()
            .map(|part| part.name)
            .collect::<Vec<_>>()
            .join(", "),
        HumanDuration(whole)
    );

    let progress = Progress::new();
    let guest_kernel = Mutex::new(String::new());
    let mut good = true;
    for (i, part) in parts.iter().enumerate() {
        let later = parts[i + 1..].iter().map(expected).sum();
        progress.begin(part.name, expected(part), later);
        let began = Instant::now();
        let mut record = Record {
            date: date()?,
            quick: args.quick,
            ..Record::default()
        };
        let mut measured = Measured::default();
        let ctx = Ctx {
            args,
            quick: args.quick,
            progress: &progress,
            recorded: &results,
            guest_kernel: &guest_kernel,
        };
        let outcome = (part.run)(&ctx, &mut measured);
        if let Err(error) = outcome {
            // What an interrupted part has is not what it was to have.
            if error.is::<Interrupted>() {
                return Err(error);
            }
            good = false;
            progress.say(&format!("FAILED: {}: {error:#}", part.name));
            record.failed = Some(format!("{error:#}"));
        }
        record.took_s = began.elapsed().as_secs_f64().round();
        record.machine = Machine {
            guest_kernel: guest_kernel.lock().expect("no holder panics").clone(),
            ..machine.clone()
        };
        record.notes = measured.notes;
        record.series = measured.series;
        for row in measured.rows.iter().filter(|row| row.is_failed()) {
            good = false;
            progress.say(&format!(
                "FAILED: {}: {}, {}: {} was not measured: {}",
                part.name,
                row.case,
                row.config,
                row.metric,
                row.note.as_deref().unwrap_or("")
            ));
        }
        results.replace(part.name, measured.rows, record);
        results.write(&json)?;
    }
    drop(progress);

    let text = report::write(&results, &PARTS, &args.out)?;
    print!("{}", report::summary(&results, &PARTS));
    println!("report    {}", text.display());
    println!("figures   {}", json.display());
    Ok(good)
}

/// What may be asked for.
pub fn names() -> impl Iterator<Item = &'static str> {
    ["all"]
        .into_iter()
        .chain(PARTS.iter().map(|part| part.name))
}

/// The parts with these names, in the report's order.
fn chosen(names: &[String]) -> Vec<&'static Part> {
    let is_named = |part: &Part| names.iter().any(|name| name == part.name);
    let all = names.iter().any(|name| name == "all");
    let mut parts = PARTS.iter().copied().enumerate().collect::<Vec<_>>();
    parts.retain(|(i, part)| (all && *i < IN_ALL) || is_named(part));
    parts.into_iter().map(|(_, part)| part).collect()
}

fn machine(args: &BenchArgs) -> Result<Machine> {
    let (accel, reason) = Accel::detect();
    Ok(Machine {
        lab: env!("CARGO_PKG_VERSION").to_owned(),
        git: versions::git(),
        host_kernel: versions::host_kernel(),
        host_cpus: available_parallelism()?.get(),
        host_memory_mib: procfs::Meminfo::current()?.mem_total >> 20,
        accel: accel.name().to_owned(),
        accel_reason: reason.to_owned(),
        qemu: qemu::version_of(&args.qemu)?,
        guest_kernel: String::new(),
    })
}

fn date() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M UTC"])
        .output()
        .context("date does not run")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name() {
        let names = |words: &[&str]| -> Vec<&str> {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            chosen(&words).iter().map(|part| part.name).collect()
        };
        assert_eq!(names(&["churn", "burst"]), ["burst", "churn"]);
        assert_eq!(names(&["all"]).len(), IN_ALL);
        assert_eq!(names(&["all"]).last(), Some(&"overcommit"));
        assert_eq!(names(&["model", "all"]).last(), Some(&"model"));
    }

    #[test]
    fn parts_and_metrics_have_names_of_their_own() {
        for (i, part) in PARTS.iter().enumerate() {
            assert!(PARTS[..i].iter().all(|other| other.name != part.name));
            for (j, metric) in part.metrics.iter().enumerate() {
                let others = &part.metrics[..j];
                assert!(others.iter().all(|other| other.name != metric.name));
            }
        }
    }

    #[test]
    fn all_of_it_fits_into_its_time() {
        let sum = |estimate: fn(&Part) -> Duration| -> Duration {
            PARTS[..IN_ALL].iter().map(|part| estimate(part)).sum()
        };
        assert!(sum(|part| part.estimate) <= Duration::from_secs(95 * 60));
        assert!(sum(|part| part.quick_estimate) <= Duration::from_secs(10 * 60));
    }
}
