// SPDX-License-Identifier: GPL-2.0

use clap::Parser;
use lab::cli::{Cli, Command};
use lab::interrupt::{self, Interrupted};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = interrupt::install().and_then(|()| match cli.command {
        Command::Bench(args) => lab::bench::run(&args),
        Command::Demo(args) => lab::demo::run(&args),
        Command::Test(args) => lab::test::run(&args),
        Command::Hinting(args) => lab::hinting::run(&args),
        Command::Instructions(args) => lab::instructions::run(&args),
        Command::Shell(args) => lab::shell::run(&args),
        Command::Watch(args) => lab::watch::run(&args),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("lab: {error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
