// SPDX-License-Identifier: GPL-2.0

//! The knobs, the status and the statistics in sysfs.

use core::ffi::c_void;

use kernel::{
    c_str,
    error::to_result,
    ffi::{
        c_char,
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};

use crate::{
    batch,
    ffi::{
        self,
        ph_attr, //
    },
    pages_to_kb,
    policy::{
        self,
        Knob, //
    },
    zone,
    Shared, //
};

/// The directory `/sys/kernel/mm/page_hinting`.
///
/// Dropping it removes the directory and waits for reads and writes under way.
pub(crate) struct Directory {
    /// What reads and writes use; dropped after the directory was removed.
    shared: Arc<Shared>,
}

impl Directory {
    /// Creates the directory.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        let data = Arc::as_ptr(&shared).cast_mut().cast::<c_void>();

        // SAFETY: `OPS` is static, and `data` is valid until the directory is removed, as the
        // value returned here holds a reference until then.
        to_result(unsafe { ffi::ph_sysfs_create(&OPS, data) })?;
        Ok(Self { shared })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A flush under way would be waited for below.
        self.shared.flushes.stop();
        // SAFETY: The value exists, so the directory was created and not removed yet.
        unsafe { ffi::ph_sysfs_remove() };
    }
}

static OPS: ffi::ph_sysfs_ops = ffi::ph_sysfs_ops {
    show: Some(show_raw),
    status: Some(status_raw),
    store: Some(store_raw),
};

/// # Safety
///
/// For [`OPS`] alone, with the `data` that [`Directory::new`] gave.
unsafe extern "C" fn show_raw(data: *mut c_void, attr: c_uint) -> u64 {
    // SAFETY: By the safety requirement `data` is a `Shared` that outlives the directory.
    show(unsafe { &*data.cast::<Shared>() }, attr)
}

/// # Safety
///
/// As [`show_raw`].
/// Besides, `seconds` must be valid for writes.
unsafe extern "C" fn status_raw(data: *mut c_void, seconds: *mut i64) -> *const c_char {
    // SAFETY: As for `show_raw`.
    let (status, oldest_ns) = Status::now(unsafe { &*data.cast::<Shared>() });

    if status == Status::Stalled {
        // CAST: Nanoseconds have room for 584 years.
        // SAFETY: By the safety requirement.
        unsafe { seconds.write((oldest_ns / 1_000_000_000) as i64) };
    }
    status.word().as_char_ptr()
}

/// # Safety
///
/// As [`show_raw`].
unsafe extern "C" fn store_raw(data: *mut c_void, attr: c_uint, value: u64) -> c_int {
    // SAFETY: As for `show_raw`.
    match store(unsafe { &*data.cast::<Shared>() }, attr, value) {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// The knob of a file, if it is one.
fn knob(attr: ph_attr::Type) -> Option<Knob> {
    match attr {
        ph_attr::PH_ENABLED => Some(Knob::Enabled),
        ph_attr::PH_MIN_ORDER => Some(Knob::MinOrder),
        ph_attr::PH_HIGH_WATERMARK_KB => Some(Knob::HighWatermarkKb),
        ph_attr::PH_LOW_WATERMARK_KB => Some(Knob::LowWatermarkKb),
        ph_attr::PH_BATCH_KB => Some(Knob::BatchKb),
        ph_attr::PH_HOLD_MS => Some(Knob::HoldMs),
        ph_attr::PH_HOST_GRANULE_KB => Some(Knob::HostGranuleKb),
        ph_attr::PH_FLUSH_TIMEOUT_MS => Some(Knob::FlushTimeoutMs),
        ph_attr::PH_REHINT_ON_VMFORK => Some(Knob::RehintOnVmfork),
        _ => None,
    }
}

fn show(shared: &Shared, attr: ph_attr::Type) -> u64 {
    let stats = &shared.stats;

    if let Some(knob) = knob(attr) {
        return shared.knobs().get(knob);
    }
    match attr {
        ph_attr::PH_HINTED_KB => pages_to_kb(stats.hinted_pages.load(Relaxed)),
        ph_attr::PH_REHINTED_KB => pages_to_kb(shared.untagged()),
        ph_attr::PH_OFFLINE_USED_KB => pages_to_kb(shared.offline_used()),
        ph_attr::PH_BACKLOG_KB => pages_to_kb(batch::backlog(shared.knobs().min_order())),
        ph_attr::PH_KEPT_KB => pages_to_kb(shared.kept.load(Relaxed)),
        ph_attr::PH_ISOLATED_KB => pages_to_kb(zone::isolated()),
        ph_attr::PH_ISOLATED_PEAK_KB => pages_to_kb(shared.engine.peak()),
        ph_attr::PH_REQUESTS => stats.requests.load(Relaxed),
        ph_attr::PH_ACKS => stats.acks.load(Relaxed),
        ph_attr::PH_ERRORS => stats.errors.load(Relaxed),
        ph_attr::PH_STALLS => stats.stalls.load(Relaxed),
        ph_attr::PH_ACK_US_MAX => stats.ack_us_max.load(Relaxed),
        ph_attr::PH_WAKEUPS => stats.wakeups.load(Relaxed),
        ph_attr::PH_REHINTS => stats.rehints.load(Relaxed),
        // The helpers have no other files.
        _ => 0,
    }
}

fn store(shared: &Shared, attr: ph_attr::Type, value: u64) -> Result {
    match (attr, value) {
        (ph_attr::PH_FLUSH, 1) => return shared.flush(),
        (ph_attr::PH_REHINT, 1) => {
            shared.rehint();
            return Ok(());
        }
        _ => (),
    }
    shared.set(knob(attr).ok_or(EINVAL)?, value)
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

/// Wakes those who poll a file: `PH_STATUS` or `PH_BACKLOG_KB`.
pub(crate) fn notify(attr: ph_attr::Type) {
    // SAFETY: No requirements but process context.
    unsafe { ffi::ph_sysfs_notify(attr) };
}
