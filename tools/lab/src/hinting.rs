// SPDX-License-Identifier: GPL-2.0

//! `lab hinting`: what hinting itself costs a guest, counted, beside what the kernel's
//! own mm/page_reporting costs for the same blocks.
//!
//! The guests have one CPU whose clock counts instructions ([`Hardware::COUNTING`]),
//! and a plugin of QEMU, plugin/count.c, that counts them as well: all there are from
//! one mark to the next, and those from where zone->lock has been taken to where it is
//! released in the functions that hint. A mark is the system call sync. In each round
//! a guest touches and frees memory while nothing is hinted; then, from one mark to the
//! next, it is hinted; and then the same time passes once more with nothing to hint,
//! which is what the guest costs without. Blocks of order 10 alone are hinted, on both
//! sides: of them the module's counter of KiB, and the calls of __isolate_free_page(),
//! tell exactly how many there were.

use crate::cli::HintingArgs;
use crate::initramfs::{self, Content};
use crate::port::Port;
use crate::qemu::{BALLOON, Config, Console, Guest, Hardware, HostPages, Plugin};
use crate::versions;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Order of the blocks, and their size in KiB.
const ORDER: u32 = 10;
const BLOCK_KB: u64 = 4 << ORDER;
/// Memory that is touched, freed and hinted in a round, in MiB.
const MIB: u64 = 512;
/// Fewer of its blocks than this, or more, are hinted only if something is wrong: parts
/// of what was freed.
const HINTED: std::ops::RangeInclusive<f64> = 0.8..=1.3;
/// What may be hinted, of the blocks of a round, in the time when nothing should be.
const MOST_LEFT: f64 = 0.05;
/// How long hinting may take, in seconds of the guest's time; when it is idle they pass
/// at once. page_reporting takes a sixteenth of a list at a time.
const WINDOW_S: u32 = 40;
/// page_reporting's delay while nothing is to be reported: longer than it takes to
/// touch the memory, and over within the window.
const LONG_DELAY_MS: u32 = 20_000;

/// The system call that a guest makes where the plugin is to say what it counted.
const MARK: &str = "__x64_sys_sync";
/// Where page_reporting takes a block.
const TAKE: &str = "__isolate_free_page";
/// Where a block is taken off a free list to be hinted, by one or the other, and where
/// any is put on one.
const LISTS: [&str; 3] = [TAKE, "isolate_unhinted_block", "__free_one_page"];

/// Who hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hinter {
    Module,
    PageReporting,
}

impl Hinter {
    /// The functions in which it holds zone->lock: some of these may be inlined into
    /// others, but in `must` it is taken.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Hinter::Module => &["page_hinting_take", "page_hinting_return"],
            Hinter::PageReporting => &[
                "page_reporting_process",
                "page_reporting_process_zone",
                "page_reporting_cycle",
                "page_reporting_drain",
            ],
        }
    }

    /// Of them, those that must be there.
    fn must(self) -> &'static [&'static str] {
        match self {
            Hinter::Module => self.functions(),
            Hinter::PageReporting => &["page_reporting_process"],
        }
    }
}

/// A kind of guest.
struct Kind {
    name: &'static str,
    what: &'static str,
    /// Whether its kernel has the series.
    patched: bool,
    hinter: Hinter,
}

/// The first is compared with the others.
const KINDS: [Kind; 3] = [
    Kind {
        name: "module",
        what: "the kernel with the series, the module hints",
        patched: true,
        hinter: Hinter::Module,
    },
    Kind {
        name: "reporting",
        what: "the same kernel, mm/page_reporting reports",
        patched: true,
        hinter: Hinter::PageReporting,
    },
    Kind {
        name: "unpatched",
        what: "the kernel without the series, mm/page_reporting reports",
        patched: false,
        hinter: Hinter::PageReporting,
    },
];

/// Where the plugin is to look.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Places {
    mark: Vec<u64>,
    from: Vec<u64>,
    to: Vec<u64>,
    call: Vec<u64>,
    list: Vec<u64>,
}

impl Places {
    fn arguments(&self) -> String {
        [
            ("mark", &self.mark),
            ("from", &self.from),
            ("to", &self.to),
            ("call", &self.call),
            ("list", &self.list),
        ]
        .iter()
        .flat_map(|(name, addresses)| addresses.iter().map(move |a| format!(",{name}={a:x}")))
        .collect()
    }
}

/// Finds them in what objdump -d says of a kernel.
fn places(disassembly: &str, hinter: Hinter) -> Result<Places> {
    let mut places = Places::default();
    let mut function = "";
    let mut seen = Vec::new();
    let mut locked = false;
    for line in disassembly.lines() {
        let Some((address, rest)) = line.trim().split_once([' ', ':']) else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else {
            continue;
        };
        if let Some(name) = rest
            .trim()
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix(">:"))
        {
            function = name;
            locked = false;
            if LISTS.contains(&function) {
                places.list.push(address);
            }
            match function {
                MARK => places.mark.push(address),
                TAKE => places.call.push(address),
                _ => (),
            }
            continue;
        }
        if !hinter.functions().contains(&function) {
            continue;
        }
        if locked {
            places.from.push(address);
        }
        let called = |prefix: &str| {
            let is_call = rest.contains("call") || rest.contains("jmp");
            is_call && rest.contains(&format!("<_raw_spin_{prefix}"))
        };
        locked = called("lock");
        if locked || called("unlock") {
            seen.push(function);
        }
        if called("unlock") {
            places.to.push(address);
        }
    }
    ensure!(!places.mark.is_empty(), "there is no {MARK} in the kernel");
    ensure!(!places.call.is_empty(), "there is no {TAKE} in the kernel");
    for name in hinter.must() {
        ensure!(
            seen.contains(name),
            "no call of _raw_spin_lock or _raw_spin_unlock is found in {name}: \
             does the kernel inline them (CONFIG_PREEMPT=n)?"
        );
    }
    ensure!(
        !places.from.is_empty() && !places.to.is_empty(),
        "zone->lock is taken at {} places and released at {}",
        places.from.len(),
        places.to.len()
    );
    Ok(places)
}

fn disassemble(objdump: &Path, vmlinux: &Path, hinter: Hinter) -> Result<String> {
    let symbols = [MARK]
        .iter()
        .chain(&LISTS)
        .chain(hinter.functions())
        .copied()
        .collect::<Vec<_>>()
        .join(",");
    let output = Command::new(objdump)
        .args(["--disassemble", "--no-show-raw-insn"])
        .arg(format!("--disassemble-symbols={symbols}"))
        .arg(vmlinux)
        .output()
        .with_context(|| {
            format!(
                "{} does not run; apt-get install llvm-19, or choose another with --objdump",
                objdump.display()
            )
        })?;
    ensure!(
        output.status.success(),
        "{} {}: {}",
        objdump.display(),
        vmlinux.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the plugin counted from one mark to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    instructions: u64,
    holds: u64,
    held: u64,
    longest: u64,
    calls: u64,
    lists: u64,
}

/// Lines of "mark INSTRUCTIONS SPANS SUM MAX CALLS LISTS".
fn parse_counts(text: &str) -> Result<Vec<Count>> {
    let number = |word: &str| word.parse::<u64>().context("not a number");
    text.lines()
        .filter_map(|line| line.strip_prefix("mark "))
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [instructions, holds, held, longest, calls, lists] = words[..] else {
                bail!("the plugin says: mark {line}");
            };
            Ok(Count {
                instructions: number(instructions)?,
                holds: number(holds)?,
                held: number(held)?,
                longest: number(longest)?,
                calls: number(calls)?,
                lists: number(lists)?,
            })
        })
        .collect()
}

/// A round: with memory to hint, and with none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    pub blocks: u64,
    /// Instructions.
    pub per_block: f64,
    /// Holds of zone->lock, and the instructions in them.
    pub holds: u64,
    pub mean_hold: f64,
    pub longest_hold: u64,
    /// Calls of what takes blocks off the free lists to be hinted, and puts any on
    /// them, for a block.
    pub lists_per_block: f64,
}

impl Round {
    /// From the counts of the two times, and how many blocks were hinted in each.
    fn new(busy: Count, idle: Count, blocks: [u64; 2]) -> Result<Self> {
        let [busy_blocks, idle_blocks] = blocks;
        let freed = (MIB << 10) / BLOCK_KB;
        let share = busy_blocks as f64 / freed as f64;
        ensure!(
            HINTED.contains(&share),
            "{busy_blocks} blocks were hinted after {freed} had been freed"
        );
        ensure!(
            idle_blocks as f64 <= busy_blocks as f64 * MOST_LEFT,
            "{idle_blocks} blocks were hinted when all had been, after {busy_blocks}: \
             hinting was not over within {WINDOW_S} s of the guest's time"
        );
        ensure!(
            busy.instructions > idle.instructions,
            "the guest executed {} instructions with {busy_blocks} blocks to hint, and {} with none",
            busy.instructions,
            idle.instructions
        );
        ensure!(
            busy.holds > 0 && busy.longest > 0 && busy.held < busy.instructions,
            "zone->lock was held {} times for {} of {} instructions",
            busy.holds,
            busy.held,
            busy.instructions
        );
        Ok(Round {
            blocks: busy_blocks,
            per_block: (busy.instructions - idle.instructions) as f64
                / (busy_blocks - idle_blocks) as f64,
            holds: busy.holds,
            mean_hold: busy.held as f64 / busy.holds as f64,
            longest_hold: busy.longest,
            lists_per_block: busy.lists.saturating_sub(idle.lists) as f64
                / (busy_blocks - idle_blocks) as f64,
        })
    }
}

/// A figure of a round.
pub type Figure = fn(&Round) -> f64;

/// What is measured, in the order of the table.
const FIGURES: [(&str, Figure); 6] = [
    ("blocks hinted", |round| round.blocks as f64),
    ("instructions per block", |round| round.per_block),
    ("holds of zone->lock", |round| round.holds as f64),
    ("their mean", |round| round.mean_hold),
    ("the longest", |round| round.longest_hold as f64),
    ("list operations per block", |round| round.lists_per_block),
];
/// Of these, those that have to be less with the module than with page_reporting.
const LESS: [usize; 3] = [1, 3, 4];

/// The rounds of a kind's boots.
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

/// out/hinting/result.json.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    boots: u32,
    rounds: u32,
    mem_mib: u64,
    qemu: String,
    guest_kernel: String,
    lab: &'a str,
    git: Option<String>,
    kinds: BTreeMap<&'a str, &'a str>,
    figures: BTreeMap<&'a str, BTreeMap<&'a str, Spread>>,
}

/// Runs the guests; true if the module is cheaper than page_reporting.
pub fn run(args: &HintingArgs) -> Result<bool> {
    args.validate()?;
    has_plugins(&args.qemu)?;
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the directory {}", args.out.display()))?;
    let places = KINDS
        .iter()
        .map(|kind| places_of(args, kind))
        .collect::<Result<Vec<_>>>()?;
    let initramfs = build_initramfs(args)?;

    let mut seen: [Vec<Round>; KINDS.len()] = Default::default();
    let mut versions = (String::new(), String::new());
    for boot in 0..args.boots {
        for ((kind, seen), places) in KINDS.iter().zip(&mut seen).zip(&places) {
            let began = Instant::now();
            let rounds;
            (versions, rounds) = one_boot(args, kind, boot, places, &initramfs)?;
            println!(
                "# boot {} of {}, {}: {:.0} s",
                boot + 1,
                args.boots,
                kind.name,
                began.elapsed().as_secs_f64()
            );
            seen.extend(rounds);
        }
    }

    let rows = rows(&seen)?;
    let outcome = Outcome {
        boots: args.boots,
        rounds: args.rounds,
        mem_mib: args.mem,
        qemu: versions.0,
        guest_kernel: versions.1,
        lab: env!("CARGO_PKG_VERSION"),
        git: versions::git(),
        kinds: KINDS.iter().map(|kind| (kind.name, kind.what)).collect(),
        figures: rows
            .iter()
            .map(|(name, spreads)| {
                let kinds = KINDS.iter().map(|kind| kind.name);
                (*name, kinds.zip(spreads.iter().copied()).collect())
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

/// A boot of a guest with the series, for the bench: the module hints, or else
/// page_reporting does.
pub fn count(args: &HintingArgs, is_module: bool, boot: u32) -> Result<(String, Vec<Round>)> {
    has_plugins(&args.qemu)?;
    let kind = &KINDS[usize::from(!is_module)];
    let places = places_of(args, kind)?;
    let ((_, kernel), rounds) = one_boot(args, kind, boot, &places, &build_initramfs(args)?)?;
    Ok((kernel, rounds))
}

fn places_of(args: &HintingArgs, kind: &Kind) -> Result<Places> {
    let vmlinux = if kind.patched {
        &args.vmlinux
    } else {
        &args.base_vmlinux
    };
    let text = disassemble(&args.objdump, vmlinux, kind.hinter)?;
    places(&text, kind.hinter).with_context(|| vmlinux.display().to_string())
}

/// The versions of QEMU and of the guest's kernel, and the rounds of a boot.
fn one_boot(
    args: &HintingArgs,
    kind: &Kind,
    boot: u32,
    places: &Places,
    initramfs: &[u8],
) -> Result<((String, String), Vec<Round>)> {
    let counts = args.out.join(format!("{}-{boot}.count", kind.name));
    let mut guest = start(args, kind, boot, places, &counts, initramfs)?;
    let (kernel, blocks) = measure(&mut guest, kind, args.rounds, args.timeout())
        .map_err(|error| guest.explain(error))?;
    let qemu = guest.qemu_version.clone();
    guest.quit()?;
    let text = fs::read_to_string(&counts).with_context(|| counts.display().to_string())?;
    let rounds = rounds(&parse_counts(&text)?, kind.hinter, &blocks)
        .with_context(|| format!("boot {}, {}", boot + 1, kind.name))?;
    Ok(((qemu, kernel), rounds))
}

/// Before a guest is booted, which would not tell so clearly.
fn has_plugins(qemu: &Path) -> Result<()> {
    let output = Command::new(qemu)
        .arg("-help")
        .output()
        .with_context(|| format!("{} does not run", qemu.display()))?;
    ensure!(
        String::from_utf8_lossy(&output.stdout).contains("-plugin "),
        "{} takes no plugins, it was built without them; Debian's qemu-system-x86 does",
        qemu.display()
    );
    Ok(())
}

fn build_initramfs(args: &HintingArgs) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let memhog = args.selftests.join("memhog");
    fs::copy(&memhog, dir.path().join("memhog")).with_context(|| memhog.display().to_string())?;
    initramfs::build(&Content {
        busybox: &args.busybox,
        module: Some(&args.module),
        selftests: Some(dir.path()),
    })
}

fn start(
    args: &HintingArgs,
    kind: &Kind,
    boot: u32,
    places: &Places,
    counts: &Path,
    initramfs: &[u8],
) -> Result<Guest> {
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
        kernel_args: &format!("nokaslr page_reporting.page_reporting_order={ORDER}"),
        console: Console::Log,
        host_pages: HostPages::Transparent,
        patches_code: false,
        initramfs,
        cgroup: None,
        disk: None,
        snapshots: None,
        plugin: Some(Plugin {
            program: &args.plugin,
            arguments: &places.arguments(),
            output: counts,
        }),
        log: args.out.join(format!("{}-{boot}.log", kind.name)),
    })
}

const REPORTING_DELAY: &str = "/sys/module/page_reporting/parameters/page_reporting_delay_ms";
const SYSFS: &str = "/sys/kernel/mm/page_hinting";

/// The guest's kernel, and for the module how many blocks were hinted in each round,
/// with memory to hint and with none.
fn measure(
    guest: &mut Guest,
    kind: &Kind,
    rounds: u32,
    limit: Duration,
) -> Result<(String, Vec<[u64; 2]>)> {
    let (kernel, _) = guest.port.wait_ready(limit)?;
    let port = &mut guest.port;
    let (setup, on, off) = match kind.hinter {
        Hinter::Module => (
            format!(
                "insmod {} && echo {ORDER} > {SYSFS}/min_order",
                initramfs::MODULE
            ),
            format!("echo 1 > {SYSFS}/enabled"),
            format!("echo 0 > {SYSFS}/enabled"),
        ),
        Hinter::PageReporting => (
            ":".to_owned(),
            format!("echo 0 > {REPORTING_DELAY}"),
            format!("echo {LONG_DELAY_MS} > {REPORTING_DELAY}"),
        ),
    };
    // Freed pages are to be free, not in the per-CPU lists.
    port.run(
        "echo 100000 > /proc/sys/vm/percpu_pagelist_high_fraction",
        limit,
    )?;
    // All that is free after the boot is hinted first.
    port.run(&format!("{setup} && {on} && sleep 60"), limit)?;

    let window = format!("sync; {on}; sleep {WINDOW_S}; sync");
    let mut blocks = Vec::new();
    for _ in 0..rounds {
        let mut counted = [0; 2];
        for (i, before) in [
            format!("/selftests/memhog -t {MIB} < /dev/null"),
            ":".to_owned(),
        ]
        .into_iter()
        .enumerate()
        {
            port.run(&format!("{off} && {before}"), limit)?;
            let start = hinted_kb(port, kind.hinter, limit)?;
            port.run(&window, limit)?;
            let kb = hinted_kb(port, kind.hinter, limit)? - start;
            ensure!(
                kb % BLOCK_KB == 0,
                "the module hinted {kb} KiB in blocks of {BLOCK_KB} KiB"
            );
            counted[i] = kb / BLOCK_KB;
        }
        blocks.push(counted);
    }
    Ok((kernel, blocks))
}

/// What the module has hinted; page_reporting does not say it.
fn hinted_kb(port: &mut Port, hinter: Hinter, limit: Duration) -> Result<u64> {
    if hinter == Hinter::PageReporting {
        return Ok(0);
    }
    let state = port.state(limit)?;
    ensure!(
        state.stat("isolated_kb") == Some(0),
        "{:?} KiB are with the host when all should be hinted",
        state.stat("isolated_kb")
    );
    state
        .stat("hinted_kb")
        .context("the module does not say what it hinted")
}

/// Of what the plugin counted, every second is between two marks of a window.
fn rounds(counts: &[Count], hinter: Hinter, blocks: &[[u64; 2]]) -> Result<Vec<Round>> {
    ensure!(
        counts.len() == 4 * blocks.len(),
        "the plugin saw {} marks, expected {}",
        counts.len(),
        4 * blocks.len()
    );
    counts
        .chunks_exact(4)
        .zip(blocks)
        .map(|(counts, &hinted)| {
            let [_, busy, _, idle] = *counts else {
                bail!("not four counts");
            };
            let blocks = match hinter {
                Hinter::Module => hinted,
                Hinter::PageReporting => [busy.calls, idle.calls],
            };
            Round::new(busy, idle, blocks)
        })
        .collect()
}

/// Each figure, and its spread for each kind.
fn rows(seen: &[Vec<Round>; KINDS.len()]) -> Result<Vec<(&'static str, Vec<Spread>)>> {
    FIGURES
        .iter()
        .map(|(name, figure)| {
            let spreads: Option<Vec<_>> = seen
                .iter()
                .map(|rounds| Spread::of(rounds.iter().map(figure).collect()))
                .collect();
            Ok((*name, spreads.context("nothing was booted")?))
        })
        .collect()
}

/// Medians, with the least and the most; and whether the module is cheaper.
fn table(rows: &[(&str, Vec<Spread>)]) -> (String, bool) {
    let mut is_good = true;
    let mut text = format!("{:<24}", "");
    for kind in &KINDS {
        text += &format!(" {:>27}", kind.name);
    }
    text.push('\n');
    for (i, (name, spreads)) in rows.iter().enumerate() {
        text += &format!("{name:<24}");
        let others = spreads.iter().skip(1).map(|spread| spread.median);
        let least = others.fold(f64::INFINITY, f64::min);
        for (k, spread) in spreads.iter().enumerate() {
            let over = k == 0 && LESS.contains(&i) && spread.median >= least;
            is_good &= !over;
            text += &format!(
                " {:>27}",
                format!(
                    "{:.0} ({:.0} to {:.0}){}",
                    spread.median,
                    spread.min,
                    spread.max,
                    if over { " !" } else { "" }
                )
            );
        }
        text.push('\n');
    }
    text += "median (least to most) of all rounds; !: not less than page_reporting's\n";
    for kind in &KINDS {
        text += &format!("{:<10}{}\n", kind.name, kind.what);
    }
    (text, is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISASSEMBLY: &str = "
/vmlinux:\tfile format elf64-x86-64

Disassembly of section .text:

ffffffff81001000 <__x64_sys_sync>:
ffffffff81001000:      \tcallq\t0xffffffff81009000 <_raw_spin_lock_irq>
ffffffff81001005:      \tretq
ffffffff81002000 <__isolate_free_page>:
ffffffff81002000:      \tretq
ffffffff81003000 <page_hinting_take>:
ffffffff81003000:      \tcallq\t0xffffffff81009000 <_raw_spin_lock_irqsave>
ffffffff81003005:      \tmovq\t%rax, %rbx
ffffffff81003008:      \tcallq\t0xffffffff81009010 <_raw_spin_unlock_irqrestore>
ffffffff8100300d:      \tretq
ffffffff81004000 <page_hinting_return>:
ffffffff81004000:      \tcall   ffffffff81009000 <_raw_spin_lock_irqsave>
ffffffff81004005:      \tjmp    ffffffff81009010 <_raw_spin_unlock_irqrestore>
";

    #[test]
    fn places_are_found() {
        let found = places(DISASSEMBLY, Hinter::Module).unwrap();
        assert_eq!(found.mark, [0xffffffff81001000]);
        assert_eq!(found.call, [0xffffffff81002000]);
        assert_eq!(found.list, [0xffffffff81002000]);
        assert_eq!(found.from, [0xffffffff81003005, 0xffffffff81004005]);
        assert_eq!(found.to, [0xffffffff81003008, 0xffffffff81004005]);
        assert_eq!(
            found.arguments().split(',').nth(2),
            Some("from=ffffffff81003005")
        );
    }

    #[test]
    fn a_place_that_is_missing_is_named() {
        let error = |text: &str, hinter| places(text, hinter).unwrap_err().to_string();
        assert!(error(DISASSEMBLY, Hinter::PageReporting).contains("page_reporting_process"));
        for gone in [
            "__x64_sys_sync",
            "__isolate_free_page",
            "page_hinting_return",
        ] {
            let text = DISASSEMBLY.replace(gone, "x");
            assert!(error(&text, Hinter::Module).contains(gone), "{gone}");
        }
    }

    const BUSY: Count = Count {
        instructions: 1_500_000,
        holds: 100,
        held: 50_000,
        longest: 1800,
        calls: 125,
        lists: 500,
    };
    const IDLE: Count = Count {
        instructions: 1_000_000,
        holds: 0,
        held: 0,
        longest: 0,
        calls: 0,
        lists: 0,
    };

    #[test]
    fn counts_are_read() {
        let text = "mark 1500000 100 50000 1800 125 500\nmark 1000000 0 0 0 0 0\n";
        assert_eq!(parse_counts(text).unwrap(), [BUSY, IDLE]);
        assert!(parse_counts("mark 1 2 3 4 5").is_err());
        assert!(parse_counts("mark 1 2 3 4 5 x").is_err());
    }

    #[test]
    fn a_round_is_the_difference() {
        let round = Round::new(BUSY, IDLE, [125, 0]).unwrap();
        assert_eq!((round.per_block, round.mean_hold), (4000.0, 500.0));
        assert_eq!(round.lists_per_block, 4.0);
        let counts = [IDLE, BUSY, IDLE, IDLE];
        let ours = rounds(&counts, Hinter::Module, &[[120, 0]]).unwrap();
        assert_eq!(ours[0].blocks, 120);
        let upstream = rounds(&counts, Hinter::PageReporting, &[[0, 0]]).unwrap();
        assert_eq!(upstream[0].blocks, 125);
        assert!(rounds(&counts[1..], Hinter::Module, &[[120, 0]]).is_err());
    }

    #[test]
    fn absurd_figures_are_no_result() {
        for (busy, idle, blocks) in [
            (BUSY, IDLE, [0, 0]),
            (BUSY, IDLE, [300, 0]),
            (BUSY, IDLE, [125, 20]),
            (IDLE, BUSY, [125, 0]),
            (Count { holds: 0, ..BUSY }, IDLE, [125, 0]),
            (Count { longest: 0, ..BUSY }, IDLE, [125, 0]),
        ] {
            assert!(
                Round::new(busy, idle, blocks).is_err(),
                "{busy:?} {blocks:?}"
            );
        }
    }

    #[test]
    fn what_is_not_cheaper_is_marked() {
        let round = |per_block: f64, longest_hold| Round {
            blocks: 125,
            per_block,
            holds: 1,
            mean_hold: 1.0 + per_block / 10.0,
            longest_hold,
            lists_per_block: 4.0,
        };
        for (ours, good) in [
            (round(10.0, 10), true),
            (round(100.0, 10), false),
            (round(10.0, 100), false),
        ] {
            let seen = [vec![ours], vec![round(100.0, 200)], vec![round(200.0, 100)]];
            let (text, is_good) = table(&rows(&seen).unwrap());
            assert_eq!(is_good, good, "{text}");
            assert_eq!(text.contains(") !"), !good, "{text}");
        }
    }
}
