// SPDX-License-Identifier: GPL-2.0

//! What the kernel says, read from sysfs, procfs and debugfs.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MODULE: &str = "sys/kernel/mm/page_hinting";
const ZONES: &str = "sys/kernel/debug/page_hinting/zones";
const BALLOONS: &str = "sys/bus/virtio/drivers/virtio_balloon";
/// The virtio feature bit of free page reporting.
const REPORTING: usize = 5;

/// Numbers, each in a file of its own.
macro_rules! files {
    ($(#[$doc:meta])* $name:ident in $dir:literal { $($field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub struct $name { $(pub $field: u64),* }

        impl $name {
            fn read(module: &Path) -> Result<Self> {
                let dir = module.join($dir);
                Ok(Self { $($field: number(&dir.join(stringify!($field)))?),* })
            }

            /// Names and values, in the order of their documentation.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),*]
            }
        }
    };
}

files! {
    /// What can be set.
    Knobs in "" {
        enabled,
        min_order,
        high_watermark_kb,
        low_watermark_kb,
        batch_kb,
        hold_ms,
        host_granule_kb,
        flush_timeout_ms,
        rehint_on_vmfork,
    }
}

files! {
    /// What is counted.
    Stats in "stats" {
        hinted_kb,
        rehinted_kb,
        offline_used_kb,
        backlog_kb,
        kept_kb,
        isolated_kb,
        isolated_peak_kb,
        requests,
        acks,
        errors,
        stalls,
        ack_us_max,
        wakeups,
        rehints,
    }
}

/// Free memory, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// On the free lists.
    pub free_kb: u64,
    /// Of that, in blocks of at least `min_order`.
    pub eligible_kb: u64,
}

/// All of one moment, or nearly so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The first word of the status.
    pub status: String,
    /// How long the host has not answered, if the status is `stalled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_s: Option<u64>,
    pub knobs: Knobs,
    pub stats: Stats,
    pub memory: Memory,
}

/// A zone's free memory that may be hinted, in KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub node: u64,
    pub name: String,
    pub unhinted_kb: u64,
}

/// The guest that this runs in.
pub struct Guest {
    root: PathBuf,
}

impl Guest {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    fn module(&self) -> PathBuf {
        self.root.join(MODULE)
    }

    /// The file that a flush is written to.
    pub fn flush_file(&self) -> PathBuf {
        self.module().join("flush")
    }

    pub fn rehint_file(&self) -> PathBuf {
        self.module().join("rehint")
    }

    pub fn has_module(&self) -> bool {
        self.module().is_dir()
    }

    /// The release of the guest's kernel.
    pub fn kernel(&self) -> Option<String> {
        let release = fs::read_to_string(self.root.join("proc/sys/kernel/osrelease")).ok()?;
        Some(release.trim().into())
    }

    /// The page cache in KiB: the contents of files, and slab that can be reclaimed.
    pub fn page_cache_kb(&self) -> Result<u64> {
        let path = self.root.join("proc/meminfo");
        let table = text(&path)?;
        let field = |name: &str| {
            // Cached:    123 kB
            let mut lines = table.lines().filter_map(|line| line.strip_prefix(name));
            lines
                .find_map(|rest| {
                    rest.strip_prefix(':')?
                        .split_whitespace()
                        .next()?
                        .parse()
                        .ok()
                })
                .with_context(|| format!("{}: no {name}", path.display()))
        };
        let cached: u64 = field("Cached")? + field("Buffers")? + field("SReclaimable")?;
        // Cached includes tmpfs and shared memory, which cannot be dropped.
        Ok(cached.saturating_sub(field("Shmem")?))
    }

    /// Whether the kernel has what the module needs, if that can be told.
    pub fn has_series(&self) -> Option<bool> {
        let symbols = fs::read_to_string(self.root.join("proc/kallsyms")).ok()?;
        let mut names = symbols
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2));
        (!symbols.is_empty()).then(|| names.any(|name| name == "page_hinting_take"))
    }

    /// Whether free pages are shuffled, which the module does not go with.
    pub fn is_shuffled(&self) -> bool {
        let parameter = self.root.join("sys/module/page_alloc/parameters/shuffle");
        fs::read_to_string(parameter).is_ok_and(|value| value.trim() == "Y")
    }

    /// For each balloon device that has a driver, whether it offers free page reporting.
    pub fn balloons(&self) -> Vec<bool> {
        let Ok(entries) = fs::read_dir(self.root.join(BALLOONS)) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("virtio"))
            .filter_map(|entry| fs::read_to_string(entry.path().join("features")).ok())
            .map(|features| features.as_bytes().get(REPORTING) == Some(&b'1'))
            .collect()
    }

    pub fn snapshot(&self) -> Result<Snapshot> {
        let module = self.module();
        let status = text(&module.join("status"))?;
        let mut words = status.split_whitespace();
        let knobs = Knobs::read(&module)?;

        Ok(Snapshot {
            status: words.next().context("the status is empty")?.into(),
            stalled_s: words.next().and_then(|seconds| seconds.parse().ok()),
            knobs,
            stats: Stats::read(&module)?,
            memory: self.memory(knobs.min_order)?,
        })
    }

    fn memory(&self, min_order: u64) -> Result<Memory> {
        let path = self.root.join("proc/buddyinfo");
        let table = text(&path)?;
        let mut memory = Memory::default();
        for line in table.lines() {
            // Node 0, zone   Normal   12   3 ...
            for (order, blocks) in line.split_whitespace().skip(4).enumerate() {
                let blocks: u64 = blocks
                    .parse()
                    .with_context(|| format!("{}: '{line}'", path.display()))?;
                let kb = (blocks * page_kb()) << order;
                memory.free_kb += kb;
                if order as u64 >= min_order {
                    memory.eligible_kb += kb;
                }
            }
        }
        Ok(memory)
    }

    /// What of each zone is not hinted. Root alone may know.
    pub fn zones(&self, min_order: u64) -> io::Result<Vec<Zone>> {
        let table = fs::read_to_string(self.root.join(ZONES))?;
        let mut zones: Vec<Zone> = Vec::new();
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            // node zone order free_blocks unhinted_blocks ...
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok());
            let (Some(node), Some(name), Some(order), Some(unhinted)) =
                (number(0), fields.get(1), number(2), number(4))
            else {
                continue;
            };
            if zones
                .last()
                .is_none_or(|zone| zone.node != node || zone.name != *name)
            {
                zones.push(Zone {
                    node,
                    name: (*name).into(),
                    unhinted_kb: 0,
                });
            }
            if let (Some(zone), true) = (zones.last_mut(), (min_order..64).contains(&order)) {
                zone.unhinted_kb += (unhinted * page_kb()) << order;
            }
        }
        Ok(zones)
    }
}

/// The size of a page in KiB.
pub fn page_kb() -> u64 {
    let bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    bytes
        .ok()
        .flatten()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(4096)
        / 1024
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn number(path: &Path) -> Result<u64> {
    let text = text(path)?;
    text.trim()
        .parse()
        .with_context(|| format!("{}: '{}' is no number", path.display(), text.trim()))
}
