// SPDX-License-Identifier: GPL-2.0

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use hintstat::cli::{Cli, Command, ShowArgs};
use hintstat::source::Guest;
use hintstat::{explain, flush, live, show};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Replaces a file as a whole.
fn write_file(path: &Path, text: &str) -> Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".hintstat")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| path.display().to_string())
}

fn show(guest: &Guest, args: &ShowArgs) -> Result<()> {
    anyhow::ensure!(
        guest.has_module(),
        "the module page_hinting is not loaded; hintstat explain says why"
    );
    let snapshot = guest.snapshot()?;
    let text = if args.json {
        show::json(&snapshot)?
    } else if args.openmetrics {
        show::openmetrics(&snapshot)
    } else {
        show::text(&snapshot)
    };
    match &args.output {
        Some(path) => write_file(path, &text),
        None => io::stdout().write_all(text.as_bytes()).context("stdout"),
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let guest = Guest::new(&cli.root);
    match &cli.command {
        None => show(&guest, &cli.show)?,
        Some(Command::Watch(args)) => live::run(&guest, Duration::from_millis(args.interval))?,
        Some(Command::Flush(args)) => {
            return flush::run(&guest, Duration::from_secs(args.timeout), args.rehint);
        }
        Some(Command::Explain) => {
            for line in explain::explain(&guest)? {
                println!("{line}");
            }
        }
        Some(Command::Completions { shell }) => {
            clap_complete::generate(*shell, &mut Cli::command(), "hintstat", &mut io::stdout());
        }
        Some(Command::Man) => clap_mangen::Man::new(Cli::command()).render(&mut io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    run(&Cli::parse()).unwrap_or_else(|error| {
        eprintln!("hintstat: {error:#}");
        ExitCode::FAILURE
    })
}
