// SPDX-License-Identifier: GPL-2.0

//! The manual page: the commands' help, the exit statuses and the metrics.

use crate::{exit, metrics};
use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// A subcommand's synopsis, description and options, as paragraphs of one subsection.
fn command(sub: &Command) -> Result<String> {
    let man = Man::new(sub.clone());
    let mut page = Vec::new();
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let name = sub.get_name();
    let lines = String::from_utf8(page)?
        .lines()
        .map(|line| {
            if line.starts_with(".SH ") {
                ".PP"
            } else {
                line
            }
        })
        .fold(String::new(), |text, line| text + line + "\n");
    Ok(format!(".SS {name}\n{lines}"))
}

/// A section of terms and their meanings.
fn section<T: ToString>(
    title: &str,
    rows: impl Iterator<Item = (T, &'static str)>,
) -> Result<String> {
    let mut roff = Roff::default();
    roff.control("SH", [title]);
    for (term, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(term.to_string())]);
        roff.text([roman(meaning)]);
    }
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    Ok(String::from_utf8(page)?)
}

/// The page, in roff.
pub fn page(mut cli: Command) -> Result<String> {
    cli.build();
    let man = Man::new(cli.clone());
    let mut head = Vec::new();
    man.render_title(&mut head)?;
    man.render_name_section(&mut head)?;
    man.render_synopsis_section(&mut head)?;
    man.render_description_section(&mut head)?;

    let mut page = String::from_utf8(head)? + ".SH COMMANDS\n";
    for sub in cli.get_subcommands().filter(|sub| sub.get_name() != "help") {
        page += &command(sub)?;
    }
    page += &section("EXIT STATUS", exit::EXITS.iter().copied())?;
    page += &section("METRICS", metrics::names().into_iter())?;
    Ok(page)
}
