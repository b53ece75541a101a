// SPDX-License-Identifier: GPL-2.0

//! `lab instructions`: what the series costs a guest that is not hinted, counted.
//!
//! The guests have one CPU whose clock counts instructions ([`Hardware::COUNTING`]).
//! Each kind of guest is booted several times, the kinds by turns, and before it
//! measures a guest touches and frees an amount of memory that differs from boot to
//! boot: loops over the page allocator have more than one level, and the state of
//! its free lists at the start decides which is seen.

use crate::cli::InstructionsArgs;
use crate::initramfs::{self, Content};
use crate::qemu::{BALLOON, Config, Console, Guest, Hardware, HostPages};
use crate::versions;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most that a loop of page faults, or of allocations that the per-CPU lists
/// serve, may cost more with the series: a part in thousand.
const MOST_SHARE: f64 = 0.001;
/// The same for a pair of allocation and free past the per-CPU lists, in instructions.
const MOST_INSTRUCTIONS: f64 = 6.0;

/// A kind of guest.
struct Kind {
    name: &'static str,
    what: &'static str,
    /// Whether its kernel has the series.
    patched: bool,
    /// Shell commands that make it what it is.
    setup: &'static str,
}

/// The first is what the others are compared with.
const KINDS: [Kind; 4] = [
    Kind {
        name: "unpatched",
        what: "the kernel without the series",
        patched: false,
        setup: ":",
    },
    Kind {
        name: "patched",
        what: "with the series, no module",
        patched: true,
        setup: ":",
    },
    Kind {
        name: "idle",
        what: "with the module loaded, enabled = 0",
        patched: true,
        setup: "insmod /lib/modules/page_hinting.ko && \
                echo 0 > /sys/kernel/mm/page_hinting/enabled && sleep 1",
    },
    Kind {
        name: "hinted",
        what: "as idle, after all free memory was hinted",
        patched: true,
        setup: "insmod /lib/modules/page_hinting.ko && sleep 10 && \
                echo 0 > /sys/kernel/mm/page_hinting/enabled && sleep 1",
    },
];

/// What a loop may cost more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Limit {
    Share,
    Instructions,
    /// It is shown alone.
    None,
}

/// A loop, in the order of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loop {
    section: u8,
    order: u8,
    state: String,
}

impl Loop {
    fn faults(section: u8, state: &str) -> Self {
        Loop {
            section,
            order: 0,
            state: state.to_owned(),
        }
    }

    pub fn pair(order: u8, state: &str) -> Self {
        Loop {
            section: 2,
            order,
            state: state.to_owned(),
        }
    }

    pub fn name(&self) -> String {
        match self.section {
            2 => format!("order {} {}", self.order, self.state),
            _ => format!("fault {}", self.state),
        }
    }

    fn limit(&self) -> Limit {
        match (self.section, self.state.as_str()) {
            (2, "whole" | "split") => Limit::Instructions,
            (2, "bulk") => Limit::None,
            _ => Limit::Share,
        }
    }
}

/// Instructions of each loop, of one boot.
pub type Figures = BTreeMap<Loop, f64>;

/// The boots of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Spread {
            min: *values.first()?,
            median: values[values.len() / 2],
            max: *values.last()?,
        })
    }
}

/// out/instructions/result.json.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    boots: u32,
    mem_mib: u64,
    qemu: String,
    guest_kernel: String,
    lab: &'a str,
    git: Option<String>,
    kinds: BTreeMap<&'a str, &'a str>,
    /// Instructions by loop and kind.
    instructions: BTreeMap<String, BTreeMap<&'a str, Spread>>,
}

/// Runs the guests; true if no limit was exceeded.
pub fn run(args: &InstructionsArgs) -> Result<bool> {
    args.validate()?;
    let initramfs = [
        build_initramfs(args, &args.base_bench)?,
        build_initramfs(args, &args.bench)?,
    ];
    let mut seen: [Vec<Figures>; KINDS.len()] = Default::default();
    let mut versions = (String::new(), String::new());
    for boot in 0..args.boots {
        for (kind, seen) in KINDS.iter().zip(&mut seen) {
            let began = Instant::now();
            let mut guest = start(args, kind, boot, &initramfs[usize::from(kind.patched)])?;
            let (kernel, figures) = measure(&mut guest, kind, boot, args.timeout())
                .map_err(|error| guest.explain(error))?;
            versions = (guest.qemu_version.clone(), kernel);
            guest.quit()?;
            println!(
                "# boot {} of {}, {}: {:.0} s",
                boot + 1,
                args.boots,
                kind.name,
                began.elapsed().as_secs_f64()
            );
            seen.push(figures);
        }
    }

    let rows = rows(&seen)?;
    let outcome = Outcome {
        boots: args.boots,
        mem_mib: args.mem,
        qemu: versions.0,
        guest_kernel: versions.1,
        lab: env!("CARGO_PKG_VERSION"),
        git: versions::git(),
        kinds: KINDS.iter().map(|kind| (kind.name, kind.what)).collect(),
        instructions: rows
            .iter()
            .map(|(row, spreads)| {
                let kinds = KINDS.iter().map(|kind| kind.name);
                (row.name(), kinds.zip(spreads.iter().copied()).collect())
            })
            .collect(),
    };
    let json = args.out.join("result.json");
    let mut text = serde_json::to_string_pretty(&outcome)?;
    text.push('\n');
    fs::write(&json, text).with_context(|| format!("cannot write {}", json.display()))?;
    let (table, is_good) = table(&rows);
    print!("{table}");
    println!("figures   {}", json.display());
    Ok(is_good)
}

/// What goes into a guest: the programs, and the bench for its kernel beside them.
fn build_initramfs(args: &InstructionsArgs, bench: &Path) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    for (name, from) in [
        ("op_bench", &*args.selftests.join("op_bench")),
        ("memhog", &*args.selftests.join("memhog")),
        ("alloc_bench.ko", bench),
    ] {
        fs::copy(from, dir.path().join(name)).with_context(|| from.display().to_string())?;
    }
    initramfs::build(&Content {
        busybox: &args.busybox,
        module: Some(&args.module),
        selftests: Some(dir.path()),
    })
}

fn start(args: &InstructionsArgs, kind: &Kind, boot: u32, initramfs: &[u8]) -> Result<Guest> {
    let kernel = if kind.patched {
        &args.kernel
    } else {
        &args.base
    };
    Guest::start(&Config {
        args: &args.guest(kernel),
        mem_mib: args.mem,
        hardware: Hardware::COUNTING,
        job: "agent",
        devices: &[BALLOON],
        kernel_args: "",
        console: Console::Log,
        host_pages: HostPages::Transparent,
        patches_code: false,
        initramfs,
        cgroup: None,
        disk: None,
        snapshots: None,
        plugin: None,
        log: args.out.join(format!("{}-{boot}.log", kind.name)),
    })
}

/// The guest's kernel, and what it counted.
fn measure(
    guest: &mut Guest,
    kind: &Kind,
    boot: u32,
    limit: Duration,
) -> Result<(String, Figures)> {
    let (kernel, _) = guest.port.wait_ready(limit)?;
    let port = &mut guest.port;
    // Free page reporting would hint what the loops free.
    port.run(
        "echo 100000000 > /sys/module/page_reporting/parameters/page_reporting_delay_ms",
        limit,
    )?;
    port.run(kind.setup, limit)?;
    port.run(&vary(boot), limit)?;

    let mut figures = Figures::new();
    for (section, state, command) in [
        (0, "4 KiB", "/selftests/op_bench page_fault1 16 49"),
        (1, "THP", "/selftests/op_bench page_fault1_thp 64 99"),
    ] {
        let output = port.run(command, limit)?;
        figures.insert(
            Loop::faults(section, state),
            Operation::parse(&output)?.median,
        );
    }
    port.run("insmod /lib/modules/alloc_bench.ko", limit)?;
    let command = "cat /sys/kernel/debug/page_hinting_alloc_bench";
    // The first reading leaves the lists in the state that the second one finds.
    port.run(command, limit)?;
    parse_pairs(&port.run(command, limit)?, &mut figures)?;
    Ok((kernel, figures))
}

/// Touches and frees an amount of memory that is another one in each boot.
pub fn vary(boot: u32) -> String {
    let mib = 40 + 31 * (boot % 8);
    format!("/selftests/memhog -T {mib} < /dev/null")
}

/// Instructions of an operation, as op_bench counts them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operation {
    /// Of the cycles.
    pub median: f64,
    /// Of all of them together.
    pub mean: f64,
}

impl Operation {
    /// "OPERATIONS MIN MEDIAN MAX MEAN", in thousandths.
    pub fn parse(output: &[String]) -> Result<Self> {
        let parse = || {
            let [line] = output else { return None };
            let words: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
            let [_, _, median, _, mean] = words.ok()?[..] else {
                return None;
            };
            Some(Operation {
                median: median / 1e3,
                mean: mean / 1e3,
            })
        };
        parse().with_context(|| format!("op_bench says: {output:?}"))
    }
}

/// Lines of "ORDER STATE PAIRS MIN MEDIAN MEAN_MILLI".
pub fn parse_pairs(output: &[String], figures: &mut Figures) -> Result<()> {
    for line in output {
        let words: Vec<_> = line.split_whitespace().collect();
        let [order, state, _, _, median, mean_milli] = words[..] else {
            bail!("page_hinting_alloc_bench says: {line}");
        };
        let value = match state {
            "bulk" => mean_milli.parse::<f64>()? / 1e3,
            _ => median.parse()?,
        };
        figures.insert(Loop::pair(order.parse()?, state), value);
    }
    ensure!(!output.is_empty(), "page_hinting_alloc_bench says nothing");
    Ok(())
}

/// Each loop, and its spread for each kind.
fn rows(seen: &[Vec<Figures>; KINDS.len()]) -> Result<Vec<(Loop, Vec<Spread>)>> {
    let first = seen[0].first().context("nothing was booted")?;
    first
        .keys()
        .map(|row| {
            let spreads = seen.iter().map(|boots| {
                let values = boots.iter().map(|figures| figures.get(row).copied());
                Spread::of(values.collect::<Option<_>>()?)
            });
            let spreads: Option<Vec<_>> = spreads.collect();
            let spreads =
                spreads.with_context(|| format!("{}: not all measured it", row.name()))?;
            Ok((row.clone(), spreads))
        })
        .collect()
}

/// Whether a median is within its limit.
fn is_within(limit: Limit, median: f64, base: f64) -> bool {
    match limit {
        Limit::Share => median - base <= base * MOST_SHARE,
        Limit::Instructions => median - base <= MOST_INSTRUCTIONS,
        Limit::None => true,
    }
}

/// Medians, with the boots' spread for the first kind and differences from it for
/// the others; and whether all are within their limits.
fn table(rows: &[(Loop, Vec<Spread>)]) -> (String, bool) {
    let mut is_good = true;
    let mut text = format!("{:<14}", "instructions");
    for kind in &KINDS {
        text += &format!(" {:>25}", kind.name);
    }
    text.push('\n');
    for (row, spreads) in rows {
        let base = spreads[0];
        text += &format!("{:<14}", row.name());
        text += &format!(
            " {:>12.1} {:>12}",
            base.median,
            format!("±{:.1}", (base.max - base.min) / 2.0)
        );
        for (kind, spread) in KINDS.iter().zip(spreads).skip(1) {
            let within = is_within(row.limit(), spread.median, base.median);
            // How dear it is to use hinted blocks is shown, and has no limit.
            let over = !within && kind.name != "hinted";
            is_good &= !over;
            let more = spread.median - base.median;
            text += &format!(
                " {:>25}",
                format!(
                    "{more:+.1} {:+.3}% ±{:.1}{}",
                    100.0 * more / base.median,
                    (spread.max - spread.min) / 2.0,
                    if over { " !" } else { "" }
                )
            );
        }
        text.push('\n');
    }
    text += "±: half of what the boots differ by; !: more than is wanted\n";
    for kind in &KINDS {
        text += &format!("{:<10}{}\n", kind.name, kind.what);
    }
    (text, is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn output_is_read() {
        let operation = Operation::parse(&lines("32 1 2500 3000 2600")).unwrap();
        assert_eq!((operation.median, operation.mean), (2.5, 2.6));
        assert!(Operation::parse(&lines("32 1 2500 3000")).is_err());
        assert!(Operation::parse(&lines("no")).is_err());
        let mut figures = Figures::new();
        let output = lines("0 bulk 512 827 879 879701\n4 whole 1024 1 1177 9");
        parse_pairs(&output, &mut figures).unwrap();
        assert_eq!(figures[&Loop::pair(0, "bulk")], 879.701);
        assert_eq!(figures[&Loop::pair(4, "whole")], 1177.0);
        assert!(parse_pairs(&lines("4 split: order 9 is not empty"), &mut figures).is_err());
        assert!(parse_pairs(&[], &mut figures).is_err());
    }

    #[test]
    fn what_costs_too_much_is_marked() {
        let row = |name: Loop, idle: f64| {
            let spread = |value| Spread::of(vec![value]).unwrap();
            let kinds = [1000.0, 1000.0, idle, 9999.0];
            (name, kinds.into_iter().map(spread).collect::<Vec<_>>())
        };
        for (name, idle, good) in [
            (Loop::pair(0, "hit"), 1001.0, true),
            (Loop::pair(0, "hit"), 1001.1, false),
            (Loop::pair(4, "split"), 1006.0, true),
            (Loop::pair(4, "whole"), 1007.0, false),
            (Loop::pair(0, "bulk"), 1100.0, true),
            (Loop::faults(0, "4 KiB"), 1002.0, false),
        ] {
            let (text, is_good) = table(&[row(name, idle)]);
            assert_eq!(is_good, good, "{text}");
            assert_eq!(
                text.contains(" !\n") || text.contains(" ! "),
                !good,
                "{text}"
            );
        }
    }

    #[test]
    fn the_median_is_that_of_the_boots() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of(vec![]), None);
    }
}
