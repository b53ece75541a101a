// SPDX-License-Identifier: GPL-2.0

//! Recorded traces of a guest.
//!
//! Two formats are read, told apart by the first line:
//!
//! - CSV with the header `seconds,allocated_mib,freed_mib`, a line for each change.
//! - The text of ftrace (`/sys/kernel/tracing/trace`, or `trace-cmd report`). The workload is
//!   what `kmem:mm_page_alloc` and `kmem:mm_page_free` say. What the guest hinted while it was
//!   recorded, the events `page_hinting:*`, is kept apart: to compare with what is simulated.
//!
//! Allocations and frees are netted over [`STEP_NS`], and come in whole granules; what is left over
//! counts in the next step.

use crate::guest::MS;
use crate::load::{Load, Step};
use crate::memory::GRANULE_KB;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;

const STEP_NS: u64 = 10 * MS;
const PAGE_KB: i64 = 4;

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// By the time since its start: how much more memory was in use then, in KiB.
    changes: BTreeMap<u64, i64>,
    /// When how much was hinted in the recorded guest, in KiB.
    pub hinted: BTreeMap<u64, u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    seconds: f64,
    allocated_mib: f64,
    freed_mib: f64,
}

/// An event of ftrace: when, what, and the rest of the line.
fn event(line: &str) -> Option<(u64, &str, &str)> {
    let mut rest = line;

    // The name of a task may have blanks and colons in it. The time is the first word after its
    // CPU in brackets that is a number and a colon.
    rest = &rest[rest.find('[')?..];
    loop {
        let (word, after) = rest.trim_start().split_once(char::is_whitespace)?;

        rest = after.trim_start();
        if let Some(seconds) = word.strip_suffix(':').and_then(|s| s.parse::<f64>().ok()) {
            let (name, fields) = rest.split_once(':')?;
            return Some(((seconds * 1e9) as u64, name.trim(), fields));
        }
    }
}

/// The value of a field.
fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    fields
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number(fields: &str, name: &str) -> Result<u64> {
    let value = field(fields, name).with_context(|| format!("no {name} in `{fields}`"))?;

    value
        .parse()
        .with_context(|| format!("{name}={value} is no number"))
}

impl Trace {
    /// Reads a trace in either format.
    pub fn parse(text: &str) -> Result<Self> {
        let trace = if text.starts_with("seconds,") {
            Self::parse_csv(text)?
        } else {
            Self::parse_ftrace(text)?
        };

        ensure!(
            !trace.changes.is_empty(),
            "nothing is allocated or freed: were the events kmem:mm_page_alloc and kmem:mm_page_free on?"
        );
        Ok(trace)
    }

    fn parse_csv(text: &str) -> Result<Self> {
        let mut trace = Self::default();

        for row in csv::Reader::from_reader(text.as_bytes()).deserialize() {
            let row: Row = row?;
            ensure!(
                row.seconds.is_finite() && row.seconds >= 0.0,
                "{} is no time",
                row.seconds
            );
            let kb = (row.allocated_mib - row.freed_mib) * 1024.0;
            *trace.changes.entry((row.seconds * 1e9) as u64).or_default() += kb.round() as i64;
        }
        Ok(trace)
    }

    fn parse_ftrace(text: &str) -> Result<Self> {
        let mut trace = Self::default();
        let mut first = None;

        for (i, line) in text.lines().enumerate() {
            // What was in a buffer first was overwritten.
            if let Some(entries) = line.strip_prefix("# entries-in-buffer/entries-written:") {
                let word = entries.split_whitespace().next().unwrap_or("");
                let (kept, written) = word.split_once('/').unwrap_or_default();
                ensure!(
                    kept == written,
                    "line {}: {kept} of {written} events are left: the buffer was too small",
                    i + 1
                );
            }
            if line.starts_with('#') || line.starts_with("cpus=") || line.trim().is_empty() {
                continue;
            }
            if line.contains("LOST") && line.contains("EVENTS") {
                bail!("line {}: events were lost, the trace cannot be used", i + 1);
            }
            let Some((at, name, fields)) = event(line) else {
                bail!("line {}: no event: `{line}`", i + 1);
            };
            let at = at.saturating_sub(*first.get_or_insert(at));
            let context = || format!("line {}", i + 1);

            match name {
                "mm_page_alloc" | "mm_page_free" => {
                    let order = number(fields, "order").with_context(context)?;
                    ensure!(order < 32, "line {}: order={order}", i + 1);
                    let kb = PAGE_KB << order;
                    let kb = if name == "mm_page_free" { -kb } else { kb };
                    *trace.changes.entry(at).or_default() += kb;
                }
                "page_hinting_return" if field(fields, "offline") == Some("1") => {
                    let pages = number(fields, "nr_pages").with_context(context)?;
                    *trace.hinted.entry(at).or_default() += pages * PAGE_KB as u64;
                }
                _ => (),
            }
        }
        Ok(trace)
    }

    /// When it ends.
    pub fn end_ns(&self) -> u64 {
        let last = |end: Option<u64>| end.unwrap_or(0);

        last(self.changes.keys().next_back().copied())
            .max(last(self.hinted.keys().next_back().copied()))
    }

    /// What happens, and the most granules that are in use at a time beyond those at the start.
    ///
    /// What is freed that was allocated before the recording began is in use at its start.
    fn steps(&self) -> (Vec<(u64, i64)>, u64, u64) {
        let granule = GRANULE_KB as i64;
        let mut steps: Vec<(u64, i64)> = Vec::new();
        let (mut kb, mut used, mut least, mut most) = (0, 0, 0, 0);
        let mut step = BTreeMap::new();

        for (at, change) in &self.changes {
            *step.entry(at / STEP_NS * STEP_NS).or_insert(0) += change;
        }
        for (at, change) in step {
            kb += change;
            let granules = kb / granule;
            if granules != 0 {
                kb -= granules * granule;
                used += granules;
                least = least.min(used);
                most = most.max(used);
                steps.push((at, granules));
            }
        }
        (steps, (-least) as u64, (most - least) as u64)
    }

    /// The granules that the guest needs.
    pub fn granules(&self) -> u64 {
        self.steps().2
    }

    /// A load that does what was recorded, at the times of the recording, in a guest with these
    /// zones.
    pub fn load(&self, name: &str, zones: Vec<u64>, until: u64) -> Load {
        let (steps, before, _) = self.steps();
        let first = (before != 0).then_some((0, before as i64));

        Load {
            name: name.into(),
            zones,
            until,
            steps: first
                .into_iter()
                .chain(steps)
                .map(|(at, granules)| Step {
                    at,
                    object: 0,
                    granules,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::SECOND;

    const FTRACE: &str = "\
# tracer: nop
#
# entries-in-buffer/entries-written: 7/7   #P:2
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
          memhog-81      [001] .....    12.500000: mm_page_alloc: page=00000000c1 pfn=0x1200 order=9 migratetype=1 gfp_flags=GFP_TRANSHUGE
  kworker/0:1: x-9       [000] d..1.    12.501000: mm_page_alloc: page=00000000c2 pfn=0x1400 order=9 migratetype=1 gfp_flags=GFP_TRANSHUGE
          memhog-81      [001] .....    12.530000: mm_page_free: page=00000000c1 pfn=0x1200 order=9
          memhog-81      [001] .....    12.530000: mm_page_free_batched: page=00000000c1 pfn=0x1200 order=0
          <idle>-0       [001] d.s..    12.540000: page_hinting_wake: node=0 zone=DMA32 order=9 unhinted_blocks=8
    page_hinting-70      [001] .....    12.560000: page_hinting_return: request=0 nr_pages=512 offline=1
    page_hinting-70      [001] .....    12.570000: page_hinting_return: request=1 nr_pages=512 offline=0
";

    #[test]
    fn ftrace_is_read() {
        let trace = Trace::parse(FTRACE).unwrap();

        assert_eq!(trace.end_ns(), 60 * MS);
        assert_eq!(trace.hinted, BTreeMap::from([(60 * MS, 2048)]));
        assert_eq!(trace.steps(), (vec![(0, 2), (30 * MS, -1)], 0, 2));
    }

    #[test]
    fn what_was_in_use_before_may_be_freed() {
        let trace = Trace::parse("seconds,allocated_mib,freed_mib\n1,0,512\n2,64.5,0\n2.5,3,0\n");
        let trace = trace.unwrap();

        assert_eq!(trace.granules(), 256);
        let load = trace.load("trace", vec![256], 3 * SECOND);
        let steps: Vec<_> = load
            .steps
            .iter()
            .map(|step| (step.at, step.granules))
            .collect();
        assert_eq!(
            steps,
            [(0, 256), (SECOND, -256), (2 * SECOND, 32), (2500 * MS, 1)]
        );
    }

    #[test]
    fn what_cannot_be_a_trace_is_refused() {
        for (text, why) in [
            ("", "nothing is allocated"),
            ("hello\n", "line 1: no event"),
            ("seconds,mib\n1,2\n", "unknown field"),
            ("seconds,allocated_mib,freed_mib\n-1,2,0\n", "is no time"),
            ("seconds,allocated_mib,freed_mib\nx,2,0\n", "invalid float"),
            (" a-1 [000] ..... 1.0: mm_page_free: pfn=0x1\n", "no order"),
            (" a-1 [000] ..... 1.0: mm_page_free: order=64\n", "order=64"),
            ("CPU:0 [LOST 17 EVENTS]\n", "events were lost"),
            (
                "# entries-in-buffer/entries-written: 100/250   #P:2\n",
                "100 of 250 events are left",
            ),
        ] {
            let error = format!("{:#}", Trace::parse(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
