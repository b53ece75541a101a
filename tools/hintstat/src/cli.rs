// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::{Args, Parser, Subcommand, value_parser};
use std::path::PathBuf;

/// Shows what page_hinting does in this guest, and why it does not do more.
///
/// Without a command, the status, the knobs and the counters as they are now.
#[derive(Debug, Parser)]
#[command(name = "hintstat", version, args_conflicts_with_subcommands = true)]
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
    #[command(flatten)]
    pub show: ShowArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// As one JSON object
    #[arg(long, conflicts_with = "openmetrics")]
    pub json: bool,
    /// As OpenMetrics text, which the textfile collector of node_exporter takes too
    #[arg(long)]
    pub openmetrics: bool,
    /// Into a file that is replaced at once, so that no reader sees half of it
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A live view of backlog, hints, reuse and what is with the host; q ends it
    Watch(WatchArgs),
    /// Have all that is free hinted now, and wait for it; needs root
    ///
    /// Ends with 0 when it is done, 2 if it took too long, 3 if there is no device or no module,
    /// and 1 if anything else is wrong.
    Flush(FlushArgs),
    /// Say in words what is hinted, and why the rest is not
    Explain,
    /// Print a completion script for a shell
    Completions {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Time between two looks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = value_parser!(u64).range(50..=60_000))]
    pub interval: u64,
}

#[derive(Debug, Args)]
pub struct FlushArgs {
    /// The longest it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Hint all free memory once more, whatever the host was told before
    #[arg(long)]
    pub rehint: bool,
}
