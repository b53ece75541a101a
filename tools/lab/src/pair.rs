// SPDX-License-Identifier: GPL-2.0

//! Two guests beside that of a test, on a host too small for the peaks of both.
//!
//! The test's own guest is not among them: the host may kill either.

use crate::bench::cgroup::Cgroup;
use crate::qemu::{BALLOON, Config, Guest, Hardware, NOT_HERE};
use anyhow::{Context, Result, anyhow, ensure};
use procfs::Current;
use std::time::Duration;

/// Memory of a guest, and of the host, in MiB.
const MEM_MIB: u64 = 2048;
const LIMIT_MIB: u64 = 1946;

/// The two guests, and the group they are in. They go before it does.
pub struct Pair {
    guests: Vec<Guest>,
    group: Cgroup,
}

/// Does what a test asks for: "pair start", "pair NUMBER COMMAND" for what one of them is to
/// do, or "pair killed" for how many of them the host has killed, and the MiB it has swapped.
pub fn serve<'a>(
    pair: &mut Option<Pair>,
    request: &str,
    config: &dyn Fn() -> Config<'a>,
    limit: Duration,
) -> Result<String> {
    let words = request.strip_prefix("pair ").unwrap_or(request);
    if words == "start" {
        // One that is there goes first.
        *pair = None;
        *pair = Some(Pair::start(config, limit)?);
        return Ok(String::new());
    }
    let pair = pair.as_mut().context("the pair has not been started")?;
    if words == "killed" {
        let swapped = pair.group.swap_mib().unwrap_or(0);
        return Ok(format!("{} {swapped}", pair.group.kills()?));
    }
    let (number, command) = words.split_once(' ').context("no command")?;
    let number: usize = number.parse()?;
    let guest = pair.guests.get_mut(number).context("no such guest")?;
    let (status, output) = guest.port.call(command, limit)?;
    let output = output.join(" ");
    ensure!(
        status == 0,
        "guest {number}: {command}: status {status}: {output}"
    );
    Ok(output)
}

impl Pair {
    fn start<'a>(config: &dyn Fn() -> Config<'a>, limit: Duration) -> Result<Self> {
        let group = Cgroup::new("page_hinting-test", LIMIT_MIB)
            .map_err(|error| anyhow!("{NOT_HERE}: {error:#}"))?;
        if procfs::Meminfo::current()?.swap_total > 0 {
            group
                .forbid_swap()
                .map_err(|error| anyhow!("{NOT_HERE}: {error:#}"))?;
        }
        let procs = group.procs()?;
        let mut guests = Vec::new();
        for number in 0..2 {
            let mut config = config();
            config.mem_mib = MEM_MIB;
            config.hardware = Hardware::PLAIN;
            config.devices = &[BALLOON];
            config.disk = None;
            config.snapshots = None;
            config.log.set_extension(format!("pair{number}.log"));
            guests.push(Guest::start(&Config {
                cgroup: Some(&procs),
                ..config
            })?);
        }
        for guest in &mut guests {
            let ready = guest.port.wait_ready(limit);
            ready.map_err(|error| guest.explain(error))?;
        }
        Ok(Pair { guests, group })
    }
}
