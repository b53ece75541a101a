// SPDX-License-Identifier: GPL-2.0

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use hintstat::cli::{Cli, Command, MetricsArgs, StatusFormat};
use hintstat::exit::Exit;
use hintstat::source::Guest;
use hintstat::{explain, flush, live, manual, metrics, show};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("stdout")
}

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

/// Replaces the file even if the module cannot be read, so that no old values stay in it.
fn write_metrics(guest: &Guest, args: &MetricsArgs) -> Result<()> {
    let snapshot = guest.snapshot();
    let text = metrics::text(
        guest.kernel().as_deref(),
        snapshot.as_ref().ok(),
        args.output,
    );
    match &args.output_file {
        Some(path) => write_file(path, &text)?,
        None => print(&text)?,
    }
    match snapshot {
        Err(error) if guest.has_module() => Err(error),
        _ => Ok(()),
    }
}

fn rehint(guest: &Guest) -> Result<()> {
    let path = guest.rehint_file();
    // Not fs::write(), which would make the file.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    file.write_all(b"1")
        .with_context(|| path.display().to_string())
}

fn run(guest: &Guest, command: &Command) -> Result<Exit> {
    match command {
        Command::Status(args) => {
            let snapshot = guest.snapshot()?;
            print(&match args.output {
                StatusFormat::Text => show::text(&snapshot),
                StatusFormat::Json => show::json(&snapshot)?,
            })?;
        }
        Command::Watch(args) => live::run(guest, args.interval)?,
        Command::Explain => print(&(explain::explain(guest)?.join("\n") + "\n"))?,
        Command::Flush(args) => return flush::run(guest, args.timeout),
        Command::Rehint => rehint(guest)?,
        Command::Metrics(args) => write_metrics(guest, args)?,
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "hintstat", &mut io::stdout());
        }
        Command::Man => print(&manual::page(Cli::command())?)?,
    }
    Ok(Exit::Done)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let guest = Guest::new(&cli.root);
    let exit = match run(&guest, &cli.command) {
        Ok(exit) => exit,
        Err(_) if cli.command.needs_module() && !guest.has_module() => {
            eprintln!("hintstat: the module page_hinting is not loaded; see hintstat explain");
            Exit::NotLoaded
        }
        Err(error) => {
            eprintln!("hintstat: {error:#}");
            Exit::Failed
        }
    };
    exit.into()
}
