// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::exit;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Shows what page_hinting does in this guest, and why it does not do more
///
/// It reads /sys/kernel/mm/page_hinting, /proc/buddyinfo, /proc/meminfo and, as root, the module's
/// table in debugfs. Only flush and rehint change anything; they need root.
#[derive(Debug, Parser)]
#[command(name = "hintstat", version, after_help = exit::help())]
pub struct Cli {
    /// Where /sys and /proc are, for tests
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/",
        hide = true,
        global = true
    )]
    pub root: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the status, free memory, the counters and the knobs
    Status(StatusArgs),
    /// Show the backlog, hints and refaults over time; q quits
    Watch(WatchArgs),
    /// Say in words what is hinted, why the rest is not, and what to do about it
    Explain,
    /// Hint all free memory now, and wait for the host to acknowledge it; needs root
    ///
    /// Run it before a snapshot, a pause or a migration. It ignores hold_ms, the watermarks and
    /// enabled. Memory that was hinted before --timeout stays hinted.
    Flush(FlushArgs),
    /// Forget what was hinted, so that all free memory is hinted once more; needs root
    ///
    /// Run it after a rollback, after a migration, or after a VFIO device was removed. It returns
    /// at once; to wait for the end, run hintstat flush.
    Rehint,
    /// Print metrics for Prometheus, in bytes and seconds
    ///
    /// If the module is not loaded, the metric page_hinting_up is 0 and all but page_hinting_info
    /// are left out.
    Metrics(MetricsArgs),
    /// Print a completion script for a shell
    Completions {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, for man -l -
    Man,
}

impl Command {
    /// Whether the command ends with `Exit::NotLoaded` without the module.
    pub fn needs_module(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Flush(_) | Self::Rehint)
    }
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print it in this format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: StatusFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StatusFormat {
    /// Two columns, for people
    Text,
    /// One JSON object, with the names and units of the files in sysfs
    Json,
}

#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Print them in this format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "prometheus"
    )]
    pub output: MetricsFormat,
    /// Write to this file instead of the standard output, and replace it at once
    ///
    /// A reader sees the old file or the new one, never a part. If the metrics cannot be read, the
    /// file says so by page_hinting_up 0. Use the prometheus format for node_exporter.
    #[arg(long, value_name = "FILE")]
    pub output_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricsFormat {
    /// The text format 0.0.4, which node_exporter's textfile collector reads
    Prometheus,
    /// OpenMetrics 1.0
    Openmetrics,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Time between two looks, from 50ms to 1m
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = interval)]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub struct FlushArgs {
    /// Longest time that it takes, from 1ms to 1day, whatever flush_timeout_ms is
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
}

/// A duration such as 500ms or 2s, if it is in the range.
fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    Err(format!(
        "it is not from {} to {}",
        humantime::format_duration(least),
        humantime::format_duration(most)
    ))
}

fn interval(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(50), Duration::from_secs(60))
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1), Duration::from_secs(86_400))
}
