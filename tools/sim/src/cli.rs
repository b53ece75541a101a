// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::{Args, Parser, Subcommand, value_parser};
use std::path::PathBuf;

/// Runs the policy of page_hinting, and models of mm/page_reporting, in virtual time.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Workloads of one guest: the cost over that of an optimum that knows the future
    Guest(GuestArgs),
    /// The patterns of use that cost the module most
    Worst(WorstArgs),
    /// A day of a fleet of guests on hosts with less memory than was sold
    Fleet(FleetArgs),
    /// Recorded traces of guests
    Replay(ReplayArgs),
}

/// What every run takes.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Directory for figures and pictures
    #[arg(long, value_name = "DIR", default_value = "out/sim")]
    pub out: PathBuf,
    /// Seed of all that is left to chance
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct GuestArgs {
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct WorstArgs {
    /// Seed of the search
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Patterns to try
    #[arg(long, default_value_t = 600, value_parser = value_parser!(u64).range(6..=1_000_000))]
    pub tries: u64,
}

#[derive(Debug, Args)]
pub struct FleetArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Number of guests
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub guests: u64,
    /// How long, in hours
    #[arg(long, default_value_t = 24, value_parser = value_parser!(u64).range(1..=240))]
    pub hours: u64,
    /// Memory sold, as a multiple of what the hosts have
    #[arg(long, default_value_t = 2.0, value_parser = overcommit)]
    pub overcommit: f64,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Traces, as text of ftrace or CSV
    #[arg(required = true, value_name = "TRACE")]
    pub traces: Vec<PathBuf>,
    /// How much a refault of 2 MiB delays the guest, in microseconds
    #[arg(long, value_name = "US", default_value_t = 742, value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub refault_us: u64,
    /// The guest's memory in MiB [default: as much as a trace needs]
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u64).range(256..=1 << 24))]
    pub mem: Option<u64>,
    /// How long to run, in milliseconds, and no longer [default: --after-s past a trace's end]
    #[arg(long, value_name = "MS", value_parser = value_parser!(u64).range(1..))]
    pub for_ms: Option<u64>,
    /// How long to go on after the end of a trace, in seconds
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(0..=86400))]
    pub after_s: u64,
}

fn overcommit(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (1.0..=100.0).contains(&value) => Ok(value),
        _ => Err("a number from 1 to 100".into()),
    }
}
