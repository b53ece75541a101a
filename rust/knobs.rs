// SPDX-License-Identifier: GPL-2.0

//! The knobs, the status and the statistics in sysfs.

use kernel::{
    bindings::kobject,
    c_str,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};

use crate::{
    batch,
    pages_to_kb,
    policy::{
        self,
        Knob, //
    },
    sysfs::{
        self,
        What, //
    },
    zone,
    Shared, //
};

/// `/sys/kernel/mm/page_hinting/`
const FILES: &[(&CStr, What)] = &[
    (c_str!("enabled"), What::Knob(Knob::Enabled)),
    (c_str!("min_order"), What::Knob(Knob::MinOrder)),
    (
        c_str!("high_watermark_kb"),
        What::Knob(Knob::HighWatermarkKb),
    ),
    (c_str!("low_watermark_kb"), What::Knob(Knob::LowWatermarkKb)),
    (c_str!("batch_kb"), What::Knob(Knob::BatchKb)),
    (c_str!("hold_ms"), What::Knob(Knob::HoldMs)),
    (c_str!("host_granule_kb"), What::Knob(Knob::HostGranuleKb)),
    (c_str!("flush_timeout_ms"), What::Knob(Knob::FlushTimeoutMs)),
    (c_str!("rehint_on_vmfork"), What::Knob(Knob::RehintOnVmfork)),
    (c_str!("flush"), What::Action(Shared::flush)),
    (
        c_str!("rehint"),
        What::Action(|s| {
            s.rehint();
            Ok(())
        }),
    ),
    (c_str!("status"), What::Word(status)),
];

/// `stats/` there
const STATS: &[(&CStr, What)] = &[
    (
        c_str!("hinted_kb"),
        What::Number(|s| pages_to_kb(s.stats.hinted_pages.load(Relaxed))),
    ),
    (
        c_str!("rehinted_kb"),
        What::Number(|s| pages_to_kb(s.untagged())),
    ),
    (
        c_str!("offline_used_kb"),
        What::Number(|s| pages_to_kb(s.offline_used())),
    ),
    (
        c_str!("backlog_kb"),
        What::Number(|s| pages_to_kb(batch::backlog(s.knobs().min_order()))),
    ),
    (
        c_str!("kept_kb"),
        What::Number(|s| pages_to_kb(s.kept.load(Relaxed))),
    ),
    (
        c_str!("isolated_kb"),
        What::Number(|_| pages_to_kb(zone::isolated())),
    ),
    (
        c_str!("isolated_peak_kb"),
        What::Number(|s| pages_to_kb(s.engine.peak())),
    ),
    (
        c_str!("requests"),
        What::Number(|s| s.stats.requests.load(Relaxed)),
    ),
    (c_str!("acks"), What::Number(|s| s.stats.acks.load(Relaxed))),
    (
        c_str!("errors"),
        What::Number(|s| s.stats.errors.load(Relaxed)),
    ),
    (
        c_str!("stalls"),
        What::Number(|s| s.stats.stalls.load(Relaxed)),
    ),
    (
        c_str!("ack_us_max"),
        What::Number(|s| s.stats.ack_us_max.load(Relaxed)),
    ),
    (
        c_str!("wakeups"),
        What::Number(|s| s.stats.wakeups.load(Relaxed)),
    ),
    (
        c_str!("rehints"),
        What::Number(|s| s.stats.rehints.load(Relaxed)),
    ),
];

/// The directories that there are, for those who do not come through them.
pub(crate) struct Kobjects {
    files: *mut kobject,
    stats: *mut kobject,
}

// SAFETY: Kobjects belong to no task.
unsafe impl Send for Kobjects {}

/// The directory `/sys/kernel/mm/page_hinting`.
///
/// Dropping it removes the directory and waits for reads and writes under way.
pub(crate) struct Directory {
    /// Before the directory that it is in.
    _stats: sysfs::Directory,
    _files: sysfs::Directory,
    shared: Arc<Shared>,
}

impl Directory {
    /// Creates the directory.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        // SAFETY: It is set early at boot, and never changes again.
        let parent = unsafe { kernel::bindings::mm_kobj };
        // SAFETY: The parent lives for ever.
        let files = unsafe {
            sysfs::Directory::new(c_str!("page_hinting"), parent, FILES, shared.clone())
        }?;
        // SAFETY: The parent is dropped after it, by the order of the fields.
        let stats = unsafe {
            sysfs::Directory::new(c_str!("stats"), files.kobject(), STATS, shared.clone())
        }?;

        *shared.kobjects.lock() = Some(Kobjects {
            files: files.kobject(),
            stats: stats.kobject(),
        });
        Ok(Self {
            _stats: stats,
            _files: files,
            shared,
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A flush under way would be waited for below.
        self.shared.flushes.stop();
        *self.shared.kobjects.lock() = None;
    }
}

/// A file that can be polled.
#[derive(Clone, Copy)]
pub(crate) enum Polled {
    Status,
    Backlog,
}

/// Wakes those who poll a file, if it is there.
pub(crate) fn notify(shared: &Shared, file: Polled) {
    if let Some(kobjects) = &*shared.kobjects.lock() {
        let (kobject, name) = match file {
            Polled::Status => (kobjects.files, c_str!("status")),
            Polled::Backlog => (kobjects.stats, c_str!("backlog_kb")),
        };

        // SAFETY: The directory is there until the lock was taken to say that it goes.
        unsafe { sysfs::notify(kobject, name) };
    }
}

/// The status, and for how long it has been so if that is told.
fn status(shared: &Shared) -> (&'static CStr, Option<u64>) {
    let (status, oldest_ns) = Status::now(shared);
    let seconds = (status == Status::Stalled).then_some(oldest_ns / 1_000_000_000);

    (status.word(), seconds)
}

/// What the module is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// There is no device.
    NoQueue,
    /// The host does not answer.
    Stalled,
    /// The host has blocks.
    Hinting,
    /// The knob `enabled` is off.
    Off,
    /// Memory is kept, as it is likely to be needed again soon.
    Paced,
    /// None of the above.
    Idle,
}

impl Status {
    /// The status now, and the age of the oldest request in nanoseconds.
    pub(crate) fn now(shared: &Shared) -> (Self, u64) {
        let state = shared.engine.state();
        let status = if !state.has_device() {
            Self::NoQueue
        } else if policy::is_stalled(state.oldest_ns) {
            Self::Stalled
        } else if !shared.knobs().enabled() {
            Self::Off
        } else if state.is_busy() {
            Self::Hinting
        } else if shared.kept.load(Relaxed) != 0 {
            Self::Paced
        } else {
            Self::Idle
        };

        (status, state.oldest_ns)
    }

    /// The ABI's word for it. (`c""` is of another type than the kernel's in Linux 6.18.)
    fn word(self) -> &'static CStr {
        match self {
            Self::NoQueue => c_str!("no-queue"),
            Self::Stalled => c_str!("stalled"),
            Self::Hinting => c_str!("hinting"),
            Self::Off => c_str!("off"),
            Self::Paced => c_str!("paced"),
            Self::Idle => c_str!("idle"),
        }
    }
}
